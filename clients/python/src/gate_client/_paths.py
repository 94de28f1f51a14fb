"""What a path is to the broker: which source, which path in it, what is there.

A gated view answers for any of its nodes by an attribute; a path behind a view is known to the
broker itself.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from . import _messages as m
from . import _process
from .errors import NotGated, WrongVersion
from .terms import FileKey

AnyPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

#: The attribute by which a view tells of itself, and the version of it that is known here.
_ATTRIBUTE = "user.gate.view"
_VERSION = 1

_NO_ATTRIBUTE = (errno.ENODATA, errno.EOPNOTSUPP)
#: The caller may not be allowed to read the node itself, or it does not exist.
_LOOK_ABOVE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True)
class View:
    """What a view tells of itself."""

    source: str
    mountpoint: str
    #: Where its broker listens.
    broker: str
    space: str
    #: Where the source's root lies in the space.
    prefix: str
    #: The file system of the node that was asked, as keys of files have it.
    volume: int
    #: The source's root: by its path it may not be seen, for the view may lie over it.
    root: m.Inode

    @classmethod
    def of(cls, path: str) -> Optional[View]:
        """Asks the view that shows a path, or a directory above it; None if there is none."""
        for node in (path, *map(str, Path(path).parents)):
            try:
                return cls._parse(os.getxattr(node, _ATTRIBUTE))
            except OSError as error:
                if error.errno in _NO_ATTRIBUTE:
                    return None
                if error.errno not in _LOOK_ABOVE:
                    raise
        return None

    def inner(self, path: str) -> Optional[str]:
        """Returns an absolute path as seen from the view's root."""
        return below(path, self.mountpoint)

    @classmethod
    def _parse(cls, text: bytes) -> View:
        about = json.loads(text)
        if about["version"] != _VERSION:
            raise WrongVersion(f"the view speaks version {about['version']}, not {_VERSION}")
        source, mountpoint = _written(about["source"]), _written(about["mountpoint"])
        prefix, broker, space = _written(about["prefix"]), _written(about["broker"]), about["space"]
        root = m.Inode(about["root"]["device"], about["root"]["number"])
        return cls(source, mountpoint, broker, space, prefix, about["volume"], root)


@dataclass
class Seen:
    """A path as the broker is told of it."""

    source: m.Source
    path: str
    node: m.Node
    #: Keeps the file's number from becoming another file's after the file is gone.
    pin: Optional[int] = field(compare=False)

    def unpin(self) -> None:
        if self.pin is not None:
            os.close(self.pin)
            self.pin = None


def resolve(path: AnyPath) -> str:
    """Makes a path absolute and free of links; its last name need not exist."""
    text = os.fsdecode(path)
    if not text:
        raise ValueError("a path is empty")
    given = Path(text)
    try:
        return str(given.resolve(strict=True))
    except FileNotFoundError:
        if given.name in ("", ".."):
            raise
    return str(given.parent.resolve(strict=True) / given.name)


def see(absolute: str, view: Optional[View], space: str, inner: str) -> Seen:
    """Finds out what is at a path, which need not exist."""
    root = absolute[: len(absolute) - len(inner)] if inner else absolute
    origin = directory(view.source, view.root) if view else directory(root)
    # Only a reference: that takes no turn.
    try:
        pin = os.open(absolute, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        pin = None
    node = m.NodeNone() if pin is None else _node(os.fstat(pin), view)
    return Seen(m.Source(origin, space, False, None), inner, node, pin)


def directory(path: str, root: Optional[m.Inode] = None) -> m.Directory:
    """Describes a directory of this machine and all that lies above it."""
    here = Path(path).resolve(strict=True)
    above = tuple((_inode(below.parent), below.name) for below in (here, *here.parents[:-1]))
    return m.Directory(_process.machine(), str(here), root or _inode(here), above)


def scope_of(view: View, inner: str) -> m.Scope:
    """Returns what the broker calls a path of a view."""
    names = [name for name in (view.prefix, inner) if name not in ("", ".")]
    return m.Within(view.space, "/".join(names))


def not_gated(path: AnyPath) -> NotGated:
    return NotGated(f"{os.fsdecode(path)} is neither in a gated view nor behind one")


def _inode(path: Path) -> m.Inode:
    found = path.stat()
    return m.Inode(found.st_dev, found.st_ino)


def _node(found: os.stat_result, view: Optional[View]) -> m.Node:
    if stat.S_ISDIR(found.st_mode):
        return m.NodeDirectory()
    if not stat.S_ISREG(found.st_mode):
        return m.NodeNone()
    volume = view.volume if view else _process.volume(found.st_dev)
    return m.NodeFile(FileKey(volume, found.st_ino, 0))


def below(path: str, top: str) -> Optional[str]:
    """Returns what leads from one absolute path down to another; None if that lies elsewhere."""
    if path == top:
        return ""
    top = top.rstrip("/") + "/"
    return path[len(top) :] if path.startswith(top) else None


def _written(path: Any) -> str:
    """Reads a path as views write them: text, or bytes where it is none."""
    return path if isinstance(path, str) else os.fsdecode(bytes(path))
