"""The messages between a client and its broker, as the broker's `wire.rs` has them.

The order of variants and fields is the format: see `clients/python/tests/frames.json`, which the
broker's own tests write.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Optional, Tuple

from ._postcard import U32, U64, U128, PathText, Sum
from .log import Cursor, Deed
from .report import Answer
from .terms import (
    BrokerInfo, Duration, FileKey, Op, PrivateView, Process, Recall, Refusal,
    Revocation, Token,
)


class MaxHold(Sum):
    """How long an owner may hold while others wait."""


@dataclass(frozen=True)
class After(MaxHold):
    limit: Duration


class Never(MaxHold):
    pass


@dataclass(frozen=True)
class Resume:
    """Proof that a session is the client's own."""

    session: U64
    key: U128


class Node(Sum):
    """What is at a path."""


class NodeNone(Node):
    pass


@dataclass(frozen=True)
class NodeFile(Node):
    key: FileKey


class NodeDirectory(Node):
    pass


@dataclass(frozen=True)
class Place:
    space: U32
    path: Optional[PathText]
    node: Node


@dataclass(frozen=True)
class Want:
    op: Op
    places: Tuple[Place, ...]


@dataclass(frozen=True)
class Caller:
    process: Process
    thread: U32
    single_threaded: bool


class Patience(Sum):
    """How long an owner waits."""


class Try(Patience):
    pass


@dataclass(frozen=True)
class Limited(Patience):
    limit: Duration


class Endless(Patience):
    pass


@dataclass(frozen=True)
class Label:
    owner: str
    reason: str
    asked_at_ms: U64


class Party(Sum):
    """Who an owner belongs to."""


@dataclass(frozen=True)
class PartyProcess(Party):
    process: Process


@dataclass(frozen=True)
class PartyNamed(Party):
    name: str


class PartySession(Party):
    pass


class PartyOwner(Party):
    pass


class Change(Sum):
    """What an operation did to names."""


@dataclass(frozen=True)
class Removed(Change):
    space: U32
    path: PathText


@dataclass(frozen=True)
class Renamed(Change):
    space: U32
    # `from` is a word of Python.
    from_: PathText
    to: PathText


@dataclass(frozen=True)
class Exchanged(Change):
    space: U32
    one: PathText
    other: PathText


@dataclass(frozen=True)
class Inode:
    device: U64
    number: U64


class Origin(Sum):
    """What a source is."""


@dataclass(frozen=True)
class Directory(Origin):
    machine: U64
    path: PathText
    root: Inode
    #: Nearest first, each with the name that leads down from it.
    above: Tuple[Tuple[Inode, PathText], ...]


@dataclass(frozen=True)
class Bucket(Origin):
    id: str


@dataclass(frozen=True)
class Rules:
    read_wait: Optional[Duration]
    policies: str


@dataclass(frozen=True)
class Source:
    origin: Origin
    space: Optional[str]
    by_host_and_port: bool
    rules: Optional[Rules]


class Scope(Sum):
    """The paths a question is about."""


class Everything(Scope):
    pass


@dataclass(frozen=True)
class Within(Scope):
    space: str
    path: PathText


@dataclass(frozen=True)
class Absolute(Scope):
    path: PathText


class Query(Sum):
    """A question."""


@dataclass(frozen=True)
class QueryLocks(Query):
    scope: Scope
    newer_than: Optional[U64]
    after: U64


@dataclass(frozen=True)
class QueryWhy(Query):
    scope: Scope


class QueryStatus(Query):
    pass


@dataclass(frozen=True)
class QueryBreak(Query):
    ticket: U64
    reason: str


@dataclass(frozen=True)
class QueryRecall(Query):
    ticket: U64
    reason: str
    within: Duration


class Stretch(Sum):
    """A part of the log."""


@dataclass(frozen=True)
class AfterRecord(Stretch):
    """The oldest after this record."""

    cursor: Cursor


@dataclass(frozen=True)
class Since(Stretch):
    """The oldest of that time or later: milliseconds since 1970, UTC."""

    at_ms: U64


@dataclass(frozen=True)
class UpTo(Stretch):
    """The newest up to this record, or of all."""

    cursor: Optional[Cursor]


@dataclass(frozen=True)
class QueryLog(Query):
    scope: Scope
    stretch: Stretch
    #: At most so many records.
    limit: U32
    #: Answer once there is something, or after so long.
    patience: Duration


@dataclass(frozen=True)
class QuerySessions(Query):
    #: Those with greater numbers.
    after: U64


class ClientMessage(Sum):
    """What a client says."""


@dataclass(frozen=True)
class Hello(ClientMessage):
    client: str
    process: Process
    machine: U64
    lease: Optional[Duration]
    max_hold: Optional[MaxHold]
    resume: Optional[Resume]
    private: Optional[PrivateView]


@dataclass(frozen=True)
class Held(ClientMessage):
    acquire: Acquire
    token: Token


@dataclass(frozen=True)
class Waits(ClientMessage):
    acquire: Acquire


class Listed(ClientMessage):
    pass


@dataclass(frozen=True)
class Attach(ClientMessage):
    space: U32
    source: Source


@dataclass(frozen=True)
class Acquire(ClientMessage):
    owner: U64
    party: Party
    caller: Optional[Caller]
    patience: Patience
    read_wait: Optional[Duration]
    label: Label
    want: Want


@dataclass(frozen=True)
class Release(ClientMessage):
    owner: U64
    change: Optional[Change]


@dataclass(frozen=True)
class Withdraw(ClientMessage):
    owner: U64
    why: Refusal


@dataclass(frozen=True)
class Created(ClientMessage):
    owner: U64
    file: FileKey


@dataclass(frozen=True)
class Active(ClientMessage):
    owner: U64


@dataclass(frozen=True)
class Ask(ClientMessage):
    id: U64
    query: Query


class Ping(ClientMessage):
    pass


class Goodbye(ClientMessage):
    pass


@dataclass(frozen=True)
class Guarded(ClientMessage):
    space: U32
    path: PathText
    op: Op
    agent: str
    became: Deed


@dataclass(frozen=True)
class Attachment:
    """Where a source lies at the broker."""

    space: str
    prefix: PathText
    notice: Optional[str]


@dataclass(frozen=True)
class AttachRefusal:
    """Why a source is not served, and what can be done."""

    reason: str
    fix: str


class Known(Enum):
    """What a broker knows of the session that a client comes back to."""

    NOTHING = auto()
    ALL = auto()
    #: It may have forgotten that it ended what could not act for a while.
    PART = auto()


class ServerMessage(Sum):
    """What a broker says."""


@dataclass(frozen=True)
class Welcome(ServerMessage):
    session: Resume
    known: Known
    lease: Duration
    broker: BrokerInfo


@dataclass(frozen=True)
class Unwelcome(ServerMessage):
    why: str


class Restored(ServerMessage):
    pass


@dataclass(frozen=True)
class Attached(ServerMessage):
    space: U32
    attached: Attachment


@dataclass(frozen=True)
class AttachRefused(ServerMessage):
    space: U32
    refusal: AttachRefusal


@dataclass(frozen=True)
class Waiting(ServerMessage):
    owner: U64
    ticket: U64


@dataclass(frozen=True)
class Granted(ServerMessage):
    owner: U64
    ticket: U64
    token: Token
    count: U32
    by_kin: bool


@dataclass(frozen=True)
class Refused(ServerMessage):
    owner: U64
    why: Refusal


@dataclass(frozen=True)
class Ungated(ServerMessage):
    owner: U64


@dataclass(frozen=True)
class Revoked(ServerMessage):
    owner: U64
    why: Revocation
    reason: str


@dataclass(frozen=True)
class Contended(ServerMessage):
    owner: U64


@dataclass(frozen=True)
class Reply(ServerMessage):
    id: U64
    reply: Answer


class Pong(ServerMessage):
    pass


@dataclass(frozen=True)
class Recalled(ServerMessage):
    owner: U64
    recall: Recall
