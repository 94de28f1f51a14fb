"""The words that messages and reports share: tokens, processes, what is done to what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ._postcard import U32, U64, PathText, Sum

_NANOS = 1_000_000_000


@dataclass(frozen=True, order=True)
class Token:
    """A fencing token: of two for the same file, the later is the larger."""

    epoch: U64
    counter: U64

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True)
class Duration:
    """A span of time, as the wire has it."""

    secs: U64
    nanos: U32

    @classmethod
    def of(cls, seconds: float) -> Duration:
        return cls(*divmod(round(max(seconds, 0) * _NANOS), _NANOS))

    @property
    def seconds(self) -> float:
        return self.secs + self.nanos / _NANOS


@dataclass(frozen=True)
class Process:
    """A process: its pid namespace, its id there, and when it started, in ticks since boot."""

    namespace: U64
    pid: U32
    start: U64


class Access(Enum):
    """Whether a claim shares."""

    READ = auto()
    WRITE = auto()


@dataclass(frozen=True)
class FileKey:
    volume: U64
    inode: U64
    generation: U64


class Op(Sum):
    """What is done."""

    def __str__(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Open(Op):
    access: Access


class Create(Op):
    pass


class Truncate(Op):
    pass


class Unlink(Op):
    pass


class Link(Op):
    pass


class Rename(Op):
    pass


class Chmod(Op):
    pass


class Chown(Op):
    pass


class Utimens(Op):
    pass


class Setxattr(Op):
    pass


class Mkdir(Op):
    pass


class Mknod(Op):
    pass


class Symlink(Op):
    pass


class Rmdir(Op):
    pass


@dataclass(frozen=True)
class Hold(Op):
    access: Access


@dataclass(frozen=True)
class Lock(Op):
    access: Access


class Limit(Enum):
    """A bound of the broker, by the name that `gate status --limits` gives it."""

    SESSIONS = "sessions"
    WAITERS = "waiters"
    WAITERS_PER_SESSION = "waiters-per-session"
    KEYS_PER_REQUEST = "keys-per-request"
    GRANTS = "grants"
    PATH_BYTES = "path-bytes"
    TEXT_BYTES = "text-bytes"
    GRANTS_PER_SESSION = "grants-per-session"


class Refusal(Sum):
    """Why a claim is told no."""


class TimedOut(Refusal):
    pass


class WouldBlock(Refusal):
    pass


class Interrupted(Refusal):
    pass


class Deadlock(Refusal):
    pass


@dataclass(frozen=True)
class LimitReached(Refusal):
    limit: Limit


class UnknownOwner(Refusal):
    pass


class OwnerBusy(Refusal):
    pass


class BrokenWait(Refusal):
    pass


class Standstill(Enum):
    """Why a broker grants nothing."""

    #: Its disk has no room to write a grant down.
    NO_ROOM = auto()
    #: It cannot write for another reason, which its log tells.
    FAULT = auto()


@dataclass(frozen=True)
class StandingStill(Refusal):
    why: Standstill


class Revocation(Enum):
    """Why a grant is taken away."""

    MAX_HOLD = auto()
    LEASE_LOST = auto()
    BROKEN = auto()
    RECALLED = auto()


class RecallCause(Enum):
    """Why a holder is asked to let go."""

    MAX_HOLD = auto()
    REQUEST = auto()


class RecallStage(Enum):
    """How seriously it is asked."""

    WARNED = auto()
    ASKED = auto()


@dataclass(frozen=True)
class Recall:
    """A holder is asked to let go; if somebody waits after `within`, it loses its grant."""

    why: RecallCause
    stage: RecallStage
    within: Duration
    reason: str


@dataclass(frozen=True)
class PrivateView:
    """A view that only one agent sees, where, and of what."""

    agent: str
    mountpoint: PathText
    source: PathText


@dataclass(frozen=True)
class BrokerInfo:
    """A broker: its run, its release, its process, and where it keeps its journal."""

    epoch: U64
    version: str
    pid: U32
    state_dir: PathText
