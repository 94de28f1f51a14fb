"""Who calls: this process, its pid namespace, the boot of its machine."""

from __future__ import annotations

import os

from .terms import Process

_FNV_OFFSET = 0xCBF2_9CE4_8422_2325
_FNV_PRIME = 0x0100_0000_01B3
_U64 = (1 << 64) - 1


def machine() -> int:
    """Returns a number of this boot of this machine, unlike that of any other."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as boot:
            return _spread(boot.read(), _FNV_OFFSET)
    except OSError:
        return _spread(b"", _FNV_OFFSET)


def own() -> Process:
    """Returns this process."""
    namespace = os.stat("/proc/self/ns/pid").st_ino ^ machine()
    with open("/proc/self/stat", "rb") as stat:
        # The command's name comes second and may hold anything.
        fields = stat.read().rpartition(b")")[2].split()
    return Process(namespace, os.getpid(), int(fields[19]))


def volume(device: int) -> int:
    """Returns the number of a file system of this machine, as keys of files have it."""
    number = os.major(device) << 32 | os.minor(device)
    return _spread(number.to_bytes(8, "little"), machine() ^ _FNV_OFFSET)


def _spread(data: bytes, start: int) -> int:
    """FNV-1a: spreads a few bytes over a number."""
    for byte in data:
        start = (start ^ byte) * _FNV_PRIME & _U64
    return start
