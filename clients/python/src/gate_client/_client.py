"""A client of Gate's broker: hold paths, look at who holds and who waits."""

from __future__ import annotations

import math
import os
import time
from types import TracebackType
from typing import Callable, Iterator, List, Optional, Tuple, Type, TypeVar

from . import _messages as m
from . import _paths, _process, report
from ._hold import Hold
from ._link import Link
from ._owner import Owner
from ._paths import AnyPath, Seen, View
from ._session import QUERY_PATIENCE, Disconnected, Session
from .errors import AlreadyHeld, BrokerGone, Forbidden, Lost, NoBroker, SourceRefused, Unknown
from .log import Cursor
from .terms import Access, Duration, Recall
from .terms import Hold as HoldOp

_SOCKET_NAME = "gate.sock"
_STATE_DIR_SYSTEM = "/var/lib/gate"
#: Bytes of a reason or a name.
_TEXT_BYTES_MAX = 256
#: Seconds of a lease.
_LEASE_MIN = 0.1
_LEASE_MAX = 86400
#: Seconds that one question for news stays open before it is asked again.
_NEWS_PATIENCE = 60.0

#: Records in a page of the log, and seconds that a question for news of it stays open.
_LOG_RECORDS = 256
_LOG_PATIENCE = 20.0

A = TypeVar("A", bound=report.Answer)


class Client:
    """A session at one broker; it ends, with all that is its, when its block does.

    Any thread may use it. It does not outlive a fork: connect anew in the child.
    """

    def __init__(self, session: Session, socket: str) -> None:
        self._session = session
        self._socket = socket

    @classmethod
    def connect(
        cls,
        *,
        state_dir: Optional[AnyPath] = None,
        socket: Optional[AnyPath] = None,
        name: str = "gate-client",
        lease: Optional[float] = None,
        max_hold: Optional[float] = None,
    ) -> Client:
        """Connects to the broker of this machine and begins a session.

        It is looked for at `socket`, in `state_dir`, or in the directory that the variable
        GATE_STATE_DIR names, whichever is given first; otherwise the system's broker answers, or
        else the user's own.

        name: what the client calls itself, for people; 256 bytes at most.
        lease: seconds it may be away, from 0.1 to a day; the broker's default is 10.
        max_hold: seconds it may hold while others wait; `math.inf` for ever; the broker's default
            is an hour.
        """
        hello = m.Hello(
            client=_bounded(name, "name"),
            process=_process.own(),
            machine=_process.machine(),
            lease=_lease(lease),
            max_hold=_max_hold(max_hold),
            resume=None,
            private=None,
        )
        candidates = _candidates(state_dir, socket)
        reasons = []
        for path in candidates:
            try:
                return cls(Session(lambda: Link.to(path), hello), path)
            except NoBroker as error:
                reasons.append(str(error))
        raise NoBroker("; ".join(reasons))

    def hold(
        self,
        *paths: AnyPath,
        write: bool = True,
        reason: str = "",
        timeout: Optional[float] = None,
        on_recall: Optional[Callable[[Recall], object]] = None,
        on_lost: Optional[Callable[[Lost], object]] = None,
    ) -> Hold:
        """Takes files and directories, all or none, as one place in the line.

        A directory is taken with all beneath it; a path need not exist, but its directory must.

        write: alone, rather than with other readers.
        reason: for those who wait; 256 bytes at most.
        timeout: seconds to wait; 0 does not wait, None or `math.inf` waits for ever.
        on_recall, on_lost: called, on a thread for callbacks, when the hold is asked to let go, or
            was taken away.
        """
        if not paths:
            raise ValueError("a hold needs a path")
        _bounded(reason, "reason")
        deadline = _deadline(timeout)
        seen = self._look(paths)
        try:
            while True:
                patience = _patience(timeout, deadline)
                owner = Owner(self._request(seen, write, reason, patience))
                owner.on_recall, owner.on_lost = on_recall, on_lost
                hold = Hold(self._session, owner, self._session.acquire(owner), seen)
                try:
                    seen = self._look_again(paths, hold)
                except BaseException:
                    hold.release()
                    raise
                if seen is hold.seen:
                    return hold
                hold.release()
        except BaseException:
            _unpin(seen)
            raise

    def locks(self, path: Optional[AnyPath] = None) -> report.Locks:
        """Returns who holds and who waits, at and beneath a path, or everywhere."""
        locks = self._locks(self._scope(path), None, QUERY_PATIENCE)
        if locks is None:
            raise BrokerGone("the broker does not answer")
        return locks

    def watch(self, path: Optional[AnyPath] = None) -> Iterator[report.Locks]:
        """Yields who holds and who waits, now and whenever that changes, without end."""
        scope = self._scope(path)
        known: Tuple[int, Optional[int]] = (0, None)
        lines: Optional[Tuple[report.Line, ...]] = None
        while True:
            # Each run of the broker counts anew.
            epoch = self._session.welcome.broker.epoch
            version = known[1] if known[0] == epoch else None
            try:
                locks = self._locks(scope, version, _NEWS_PATIENCE)
            except Disconnected:
                continue
            if locks is not None:
                known = (epoch, locks.version)
                if locks.lines != lines:
                    lines = locks.lines
                    yield locks

    def why(self, path: AnyPath) -> report.Why:
        """Returns all about one path: who uses it, who waits, what went wrong there."""
        return self._ask(m.QueryWhy(self._scope(path)), report.Why)

    def log(
        self,
        path: Optional[AnyPath] = None,
        *,
        after: Optional[Cursor] = None,
        limit: int = _LOG_RECORDS,
    ) -> report.Log:
        """Returns a page of what happened: the oldest records after that one, or the newest."""
        stretch = m.UpTo(None) if after is None else m.AfterRecord(after)
        return self._ask(_log_query(self._scope(path), stretch, limit, 0), report.Log)

    def follow(
        self, path: Optional[AnyPath] = None, *, after: Optional[Cursor] = None
    ) -> Iterator[report.Log]:
        """Yields pages of what happens after a record, or from now on, without end.

        A page with `gap` says that records before its `begin` are not known any more.
        """
        scope = self._scope(path)
        if after is None:
            after = self._ask(_log_query(scope, m.UpTo(None), 1, 0), report.Log).end
        while True:
            query = _log_query(scope, m.AfterRecord(after), _LOG_RECORDS, _LOG_PATIENCE)
            try:
                answer = self._session.query(query, _LOG_PATIENCE + QUERY_PATIENCE)
            except Disconnected:
                continue
            if answer is None:
                continue
            page = _expect(answer, report.Log)
            after = page.end
            if page.entries or page.gap:
                yield page

    def status(self) -> report.Status:
        """Returns how the broker is."""
        return self._ask(m.QueryStatus(), report.Status)

    def sessions(self) -> Tuple[report.SessionLine, ...]:
        """Returns all clients of the broker."""
        lines: List[report.SessionLine] = []
        while True:
            after = lines[-1].session if lines else 0
            page = self._ask(m.QuerySessions(after), report.Sessions)
            lines.extend(page.lines)
            if not (page.more and page.lines):
                return tuple(lines)

    def recall(self, ticket: int, reason: str = "", within: float = 30.0) -> None:
        """Asks a holder to let go within so many seconds; then it loses its hold if somebody waits."""
        query = m.QueryRecall(ticket, _bounded(reason, "reason"), Duration.of(within))
        self._ask(query, report.Done)

    def break_lock(self, ticket: int, reason: str) -> None:
        """Ends a claim, whoever's it is; a holder is fenced and told why: there must be a reason."""
        if not reason.strip():
            raise ValueError("to break a lock takes a reason")
        self._ask(m.QueryBreak(ticket, _bounded(reason, "reason")), report.Done)

    def close(self) -> None:
        """Ends the session, with all that it holds."""
        self._session.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _request(
        self, seen: List[Seen], write: bool, reason: str, patience: m.Patience
    ) -> m.Acquire:
        places = tuple(
            m.Place(self._session.attach(one.source), one.path, one.node) for one in seen
        )
        process = _process.own()
        label = m.Label(os.environ.get("GATE_AGENT", ""), reason, int(time.time() * 1000))
        return m.Acquire(
            owner=self._session.number(),
            party=m.PartyProcess(process),
            caller=m.Caller(process, 0, False),
            patience=patience,
            read_wait=None,
            label=label,
            want=m.Want(HoldOp(Access.WRITE if write else Access.READ), places),
        )

    def _look(self, paths: Tuple[AnyPath, ...]) -> List[Seen]:
        seen: List[Seen] = []
        try:
            for path in paths:
                seen.append(self._see(path))
        except BaseException:
            _unpin(seen)
            raise
        return seen

    def _look_again(self, paths: Tuple[AnyPath, ...], hold: Hold) -> List[Seen]:
        """Returns what is held if that is what is there, and what is there if it is not.

        Those who were first may have replaced a file: then this turn is on the one that is gone,
        and others may be in line for the new one.
        """
        if hold.by_kin:
            raise AlreadyHeld("this process, or one above it, has some of that already")
        now = self._look(paths)
        if now != hold.seen:
            return now
        _unpin(now)
        return hold.seen

    def _see(self, path: AnyPath) -> Seen:
        absolute = _paths.resolve(path)
        view = self._view_of(absolute)
        if view is None:
            known = self._ask_why(m.Absolute(absolute))
            if known is None:
                raise _paths.not_gated(path)
            return _paths.see(absolute, None, known.space, known.path)
        inner = view.inner(absolute)
        if inner is None:
            raise _paths.not_gated(path)
        return _paths.see(absolute, view, view.space, inner)

    def _view_of(self, absolute: str) -> Optional[View]:
        """Returns the view that shows a path; one of another broker is refused."""
        view = View.of(absolute)
        if view and not self._decides(view):
            text = f"{view.mountpoint} is decided by {view.broker}, not {self._socket}"
            raise SourceRefused(f"{text}: connect to that one")
        return view

    def _decides(self, view: View) -> bool:
        if view.broker.startswith("/"):
            return _is_same(view.broker, self._socket)
        # A broker has several doors: that it serves the view's source tells that it is this one.
        return any(
            space.name == view.space and _paths.below(view.source, space.source) is not None
            for space in self.status().spaces
        )

    def _scope(self, path: Optional[AnyPath]) -> m.Scope:
        if path is None:
            return m.Everything()
        absolute = _paths.resolve(path)
        view = self._view_of(absolute)
        inner = view.inner(absolute) if view else None
        if view is None or inner is None:
            return m.Absolute(absolute)
        return _paths.scope_of(view, inner)

    def _locks(
        self, scope: m.Scope, newer_than: Optional[int], patience: float
    ) -> Optional[report.Locks]:
        answer = self._session.query(m.QueryLocks(scope, newer_than, 0), patience)
        if answer is None:
            return None
        locks = _expect(answer, report.Locks)
        lines, more = locks.lines, locks.more
        while more and lines:
            page = self._ask(m.QueryLocks(scope, None, lines[-1].ticket), report.Locks)
            lines, more = lines + page.lines, page.more
        return report.Locks(locks.version, lines, False)

    def _ask_why(self, scope: m.Scope) -> Optional[report.Why]:
        try:
            return self._ask(m.QueryWhy(scope), report.Why)
        except Unknown:
            return None

    def _ask(self, query: m.Query, kind: Type[A]) -> A:
        answer = self._session.query(query)
        if answer is None:
            raise BrokerGone("the broker does not answer")
        return _expect(answer, kind)


def _expect(answer: report.Answer, kind: Type[A]) -> A:
    if isinstance(answer, kind):
        return answer
    if isinstance(answer, report.Forbidden):
        raise Forbidden("this client may not ask that")
    if isinstance(answer, report.Nonsense):
        raise ValueError("to the broker that makes no sense")
    raise Unknown("the broker knows no such path, space or ticket")


def _log_query(scope: m.Scope, stretch: m.Stretch, limit: int, patience: float) -> m.Query:
    return m.QueryLog(scope, stretch, limit, Duration.of(patience))


def _candidates(state_dir: Optional[AnyPath], socket: Optional[AnyPath]) -> List[str]:
    if socket is not None:
        return [os.path.abspath(os.fsdecode(socket))]
    named = state_dir or os.environ.get("GATE_STATE_DIR")
    if named:
        folders = [os.path.abspath(os.fsdecode(named))]
    else:
        folders = [_STATE_DIR_SYSTEM]
        user = _state_dir_user()
        if user:
            folders.append(user)
    return [os.path.join(folder, _SOCKET_NAME) for folder in folders]


def _state_dir_user() -> Optional[str]:
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".local/state")
    return os.path.join(base, "gate")


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _deadline(timeout: Optional[float]) -> Optional[float]:
    if timeout is None or timeout == math.inf:
        return None
    if math.isnan(timeout):
        raise ValueError("a timeout is a number of seconds")
    return time.monotonic() + timeout


def _patience(timeout: Optional[float], deadline: Optional[float]) -> m.Patience:
    if timeout is None or deadline is None:
        return m.Endless()
    if timeout <= 0:
        return m.Try()
    return m.Limited(Duration.of(deadline - time.monotonic()))


def _lease(seconds: Optional[float]) -> Optional[Duration]:
    if seconds is None:
        return None
    if not _LEASE_MIN <= seconds <= _LEASE_MAX:
        raise ValueError(f"a lease has from {_LEASE_MIN} to {_LEASE_MAX} seconds")
    return Duration.of(seconds)


def _max_hold(seconds: Optional[float]) -> Optional[m.MaxHold]:
    if seconds is None:
        return None
    return m.Never() if seconds == math.inf else m.After(Duration.of(seconds))


def _bounded(text: str, what: str) -> str:
    if len(text.encode()) > _TEXT_BYTES_MAX:
        raise ValueError(f"a {what} has at most {_TEXT_BYTES_MAX} bytes")
    return text


def _unpin(seen: List[Seen]) -> None:
    for one in seen:
        one.unpin()
