"""Who holds, who waits, why, and how the broker is: what its answers say.

Times are milliseconds since 1970, UTC. Paths are relative to the root of their space; the root is
the empty text. Bytes of a path that are no UTF-8 are escaped as `os.fsdecode` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from ._postcard import U32, U64, PathText, Sum
from .log import Cursor, Entry
from .terms import Access, BrokerInfo, Duration, Op, PrivateView, Process, Standstill, Token


class LineState(Sum):
    """Whether a claim holds or waits."""


@dataclass(frozen=True)
class Held(LineState):
    """It was let in."""

    token: Token
    #: Whether only kin let it pass.
    by_kin: bool
    #: When its lease ends, if it lives by one.
    lease_expires_at_ms: Optional[U64]
    #: Until when it was asked to let go, if it was.
    recalled_until_ms: Optional[U64]


@dataclass(frozen=True)
class Waiting(LineState):
    """It stands in line."""

    #: Its place there, from 1.
    place: U64
    #: The tickets of some of those in its way, holders first.
    behind: Tuple[U64, ...]


@dataclass(frozen=True)
class LinePlace:
    """A name of a claim, as far as it has one."""

    path: Optional[PathText]
    directory: bool


@dataclass(frozen=True)
class Line:
    """One claim."""

    #: Its place in the global order.
    ticket: U64
    #: The space of its first place.
    space: str
    #: Its names there.
    places: Tuple[LinePlace, ...]
    op: Op
    access: Access
    state: LineState
    #: How many acquires stand behind it.
    count: U32
    since_ms: U64
    #: Whose it is, as people know it.
    owner: str
    #: Why, if somebody said so.
    reason: str
    #: The process it belongs to, if one does.
    process: Optional[Process]
    #: The client that asked, as it calls itself.
    client: str


@dataclass(frozen=True)
class SpaceLine:
    """A space."""

    name: str
    #: Its source; empty while it has none.
    source: str
    #: How many have attached it: views, and those who hold something in it.
    clients: U64
    #: Where another broker for its source would not be met, and why.
    gap: Optional[str]


@dataclass(frozen=True)
class PrivateLine:
    """A view that is not for everybody to see, and the process that serves it."""

    view: PrivateView
    pid: U32


class Answer(Sum):
    """What the broker says to a question."""


@dataclass(frozen=True)
class Locks(Answer):
    """Who holds and who waits, oldest first."""

    #: The state of the broker's table this is of.
    version: U64
    lines: Tuple[Line, ...]
    #: Whether there are more, with later tickets.
    more: bool


@dataclass(frozen=True)
class Why(Answer):
    """All about one path."""

    space: str
    path: PathText
    #: Who uses it, what is beneath it, or holds a directory above it.
    lines: Tuple[Line, ...]
    #: What happened there lately, oldest first.
    past: Tuple[Entry, ...]


@dataclass(frozen=True)
class Halt:
    """The broker's journal cannot be written, and so nothing is granted."""

    kind: Standstill
    since_ms: U64
    #: What the disk says.
    why: str


@dataclass(frozen=True)
class Status(Answer):
    """How the broker is."""

    broker: BrokerInfo
    started_at_ms: U64
    #: Whether former sessions may still come back.
    in_grace: bool
    #: Why nothing is granted now, if that is so.
    halt: Optional[Halt]
    sessions: U64
    #: Those of them whose connection is gone; what they have is kept for them.
    away: U64
    held: U64
    waiting: U64
    spaces: Tuple[SpaceLine, ...]
    #: Views that are not for everybody to see.
    private: Tuple[PrivateLine, ...]
    #: Bounds, by name.
    limits: Tuple[Tuple[str, U64], ...]
    #: What was counted since the start, by name.
    counts: Tuple[Tuple[str, U64], ...]


class Done(Answer):
    """It is done."""


@dataclass(frozen=True)
class Log(Answer):
    """A page of what happened, oldest first."""

    entries: Tuple[Entry, ...]
    #: The page is about what comes after this record.
    begin: Cursor
    #: And goes up to this one.
    end: Cursor
    #: Whether records before `begin` that were asked for are not known any more.
    gap: bool
    #: Whether there may be more of what was asked for, beyond the page.
    more: bool


class Unknown(Answer):
    """There is no such path, space or ticket."""


class Forbidden(Answer):
    """This client may not ask that."""


class Nonsense(Answer):
    """To ask that makes no sense, whoever does."""


@dataclass(frozen=True)
class SessionLine:
    """A client."""

    #: Its number, which no other client of this journal ever has.
    session: U64
    #: What it calls itself.
    name: str
    #: Its process, as it says.
    process: Optional[Process]
    #: Whether it may be on another machine.
    elsewhere: bool
    #: Whether its connection is gone, and what it has is kept for its lease.
    away: bool
    #: How long it may be away.
    lease: Duration
    #: The names of the spaces that it attached.
    spaces: Tuple[str, ...]
    #: The agent whose private view it serves, if it serves one.
    agent: Optional[str]


@dataclass(frozen=True)
class Sessions(Answer):
    """Clients, by the order in which they came."""

    lines: Tuple[SessionLine, ...]
    #: Whether there are more, with greater numbers.
    more: bool
