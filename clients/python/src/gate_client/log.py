"""What happened, as the broker's log tells it.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Optional, Tuple

from ._postcard import U32, U64, PathText, Sum
from .terms import Duration, Op, Process, Recall, Refusal, Revocation, Token


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in the log: a run of the broker, and the number of a record in it, from 1."""

    epoch: U64
    number: U64

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"


class Former(Sum):
    """How the log of a former run ends."""


class NoFormer(Former):
    """There is none."""


class Whole(Former):
    """With its end."""


@dataclass(frozen=True)
class Cut(Former):
    """With this record, 0.0 if there is none: what came after it, if anything did, is lost."""

    last: Cursor


class Unreadable(Former):
    """It cannot be read."""


class Presence(Enum):
    """What became of a client."""

    CAME = auto()
    LOST = auto()
    #: Its lease ran out; it is kept until somebody wants what it has.
    OVERDUE = auto()
    BACK = auto()
    GONE = auto()


class Pass(Enum):
    """By which right a claim was let in beside a holder."""

    #: By none: it was its turn.
    NONE = auto()
    #: It works below a hold, or its process has the same already.
    OWN = auto()
    AWAITED_BY_HOLDER = auto()


class Fate(Sum):
    """What became of a claim."""


class Waits(Fate):
    """It stands in line."""


@dataclass(frozen=True)
class Granted(Fate):
    """It was let in."""

    token: Token
    #: How long it stood in line.
    waited: Duration
    pass_: Pass


@dataclass(frozen=True)
class Counted(Fate):
    """It now stands for so many acquires of its owner."""

    count: U32


@dataclass(frozen=True)
class Released(Fate):
    """It was let go of, or its client is gone."""

    #: How long it was held; None if it only waited.
    held: Optional[Duration]


@dataclass(frozen=True)
class Refused(Fate):
    """It was told no."""

    why: Refusal
    reason: str


@dataclass(frozen=True)
class Recalled(Fate):
    """Its holder is asked to let go."""

    recall: Recall


@dataclass(frozen=True)
class Revoked(Fate):
    """It was taken away."""

    why: Revocation
    reason: str
    #: How long it was held.
    held: Optional[Duration]


class Ungated(Fate):
    """A reader went on without a grant."""


class Deed(Sum):
    """What the guard of a view did about bytes that an agent was to overwrite unseen."""


@dataclass(frozen=True)
class DeedKept(Deed):
    """They are kept under this number."""

    number: U64


class DeedTooLarge(Deed):
    """They are gone: there were more than may be kept."""


class DeedFailed(Deed):
    """They are gone: they could not be kept."""


class DeedRefused(Deed):
    """They are as they were: that was refused."""


@dataclass(frozen=True)
class Guarded(Fate):
    """By an agent that had not seen what it overwrites: the guard of its view stepped in."""

    became: Deed


@dataclass(frozen=True)
class Named:
    """A name of a claim, as far as it has one."""

    space: str
    path: Optional[PathText]
    directory: bool


@dataclass(frozen=True)
class Subject:
    """A claim, as far as people ask."""

    #: Its place in the global order; None if it was refused at the door.
    ticket: Optional[U64]
    op: Op
    #: Its names, or the first of very many.
    places: Tuple[Named, ...]
    #: Whose it is, as people know it.
    owner: str
    #: The name that its party goes by, if that is no process.
    party: str
    #: Why it was asked for, if somebody said so.
    reason: str
    process: Optional[Process]
    session: U64
    #: Its client, as it calls itself.
    client: str


class Happening(Sum):
    """What happened."""


@dataclass(frozen=True)
class Started(Happening):
    """A broker began its run."""

    version: str
    former: Former


class Stopped(Happening):
    """A broker ended its run, in order."""


@dataclass(frozen=True)
class Missing(Happening):
    """So many records could not be kept."""

    count: U64


@dataclass(frozen=True)
class Client(Happening):
    """Something became of a client."""

    session: U64
    client: str
    process: Optional[Process]
    became: Presence


@dataclass(frozen=True)
class Claim(Happening):
    """Something became of a claim."""

    became: Fate
    claim: Subject


@dataclass(frozen=True)
class Record:
    """One thing that happened."""

    at_ms: U64
    what: Happening


@dataclass(frozen=True)
class Entry:
    """A record and its place."""

    cursor: Cursor
    record: Record
