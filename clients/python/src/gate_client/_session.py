"""A client's life at a broker.

One thread hears the broker; whoever asks waits on a condition for what that thread notes. When the
connection breaks the thread comes back with all the session has, and the broker says what still
stands.

A broker that hears nothing of a client for a lease may let others in. So a client is sure of what
it holds only within a lease of something that proves that the broker could not have: the sending
of a ping that was answered, or the sight that no broker runs. After that the broker must say so
first; if it cannot be reached, what was held counts as lost, and is not listed any more.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import queue
import threading
import time
from typing import Any, Callable, Dict, Optional, Tuple, Union

from . import _messages as m
from . import terms
from ._link import Link
from ._owner import Owner, lost, refused
from .errors import (
    BrokerGone, GateError, Interrupted, LeaseLost, Lost, ProtocolError, SourceRefused,
)
from .report import Answer

#: Seconds that a broker may take to answer a question.
QUERY_PATIENCE = 10.0

#: Seconds that a broker may take to greet, at most; and at least, where a lease is short.
_GREETING_PATIENCE = 5.0
_GREETING_PATIENCE_MIN = 1.0
#: Seconds that it may take to hang up.
_FAREWELL_PATIENCE = 1.0
#: Seconds between two attempts to come back, at first and at most.
_PAUSE_MIN = 0.002
_PAUSE_MAX = 0.25
#: Seconds: connections that break sooner, one after the other, are not made anew before such a pause,
#: either.
_STEADY_MIN = 1.0
#: Seconds between two pings, at least.
_PING_PAUSE_MIN = 0.01

#: The clock since boot: it goes on while the machine sleeps, and nobody can set it.
_now = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
_log = logging.getLogger("gate_client")


class Disconnected(BrokerGone):
    """The connection broke under a question: it may be asked again."""


class Session:
    """A client's life at the broker that `connect` leads to."""

    def __init__(self, connect: Callable[[], Link], hello: m.Hello) -> None:
        self._connect = connect
        self._hello = hello
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._owners: Dict[int, Owner] = {}
        self._sources: Dict[int, m.Source] = {}
        #: What was asked, each with its answer once there is one.
        self._attached: Dict[int, Union[None, m.Attachment, m.AttachRefusal]] = {}
        self._answers: Dict[int, Optional[Answer]] = {}
        self._next_number = 1
        self._closed = False
        #: None while the broker is there.
        self._away_since: Optional[float] = None
        self._connections = 1
        self._pinged_at: Optional[float] = None
        self._calls: queue.SimpleQueue[Optional[Callable[[], object]]] = queue.SimpleQueue()
        #: The broker heard of the session after that.
        self._link, self.welcome, self._heard_at = greet(connect, hello, _GREETING_PATIENCE)
        self._sure_until = self._heard_at + self.lease
        self._reader = threading.Thread(target=self._serve, name="gate-session", daemon=True)
        self._reader.start()
        threading.Thread(target=self._call_back, name="gate-callbacks", daemon=True).start()

    @property
    def lease(self) -> float:
        """How many seconds the client may be away."""
        return self.welcome.lease.seconds

    def number(self) -> int:
        """Returns a number that the session has not used."""
        self._must_be_open()
        with self._changed:
            self._next_number += 1
            return self._next_number

    def attach(self, source: m.Source) -> int:
        """Has the broker serve a source; returns the number by which to speak of it."""
        space = self.number()
        with self._changed:
            for known, other in self._sources.items():
                if other == source:
                    return known
            self._await_link()
            self._say(m.Attach(space, source))
            answer = self._await(self._attached, space, QUERY_PATIENCE)
            if isinstance(answer, m.Attachment):
                self._sources[space] = source
                return space
            if isinstance(answer, m.AttachRefusal):
                raise SourceRefused(f"{answer.reason}: {answer.fix}")
            raise BrokerGone("the broker does not answer")

    def query(self, query: m.Query, patience: float = QUERY_PATIENCE) -> Optional[Answer]:
        """Asks, and waits for the answer; None if it does not come in so many seconds."""
        number = self.number()
        with self._changed:
            self._await_link()
            self._say(m.Ask(number, query))
            answer: Optional[Answer] = self._await(self._answers, number, patience)
            return answer

    def acquire(self, owner: Owner) -> m.Granted:
        """Asks, and waits to be let in; otherwise raises what the broker said."""
        with self._changed:
            self._must_be_open()
            self._owners[owner.number] = owner
            try:
                self._say(owner.acquire)
                while owner.outcome is None:
                    self._wait_for_outcome(owner)
            except BaseException:
                # An interrupt, or a want that fits no frame: the place in line is given up.
                self._give_up(owner)
                raise
            if isinstance(owner.outcome, m.Granted):
                return owner.outcome
            self._owners.pop(owner.number, None)
            raise owner.outcome

    def release(self, owner: Owner) -> None:
        """Lets go; what was lost needs no letting go."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            # While the broker is away nothing is said: what is not listed on return is freed.
            if self._owners.pop(owner.number, None):
                self._say(m.Release(owner.number, None))

    def review(self) -> None:
        """Makes sure of what is held; what cannot be made sure of in a while is lost."""
        if os.getpid() != self._pid:
            raise BrokerGone("this hold belongs to the process that forked this one")
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_sure() or self._closed, QUERY_PATIENCE):
                self._lose_all()

    def close(self) -> None:
        """Ends the session, with all that is its."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            if self._closed:
                return
            self._say(m.Goodbye())
            self._closed = True
            self._link.end()
            for owner in list(self._owners.values()):
                self._end(owner, BrokerGone("the client was closed"))
            self._calls.put(None)
            self._changed.notify_all()
        # The broker hangs up once it has heard the last word.
        self._reader.join(_FAREWELL_PATIENCE)

    def _is_sure(self) -> bool:
        return _now() <= self._sure_until

    def _must_be_open(self) -> None:
        if self._closed or os.getpid() != self._pid:
            raise BrokerGone("the client was closed, or belongs to the process that forked this one")

    def _say(self, message: m.ClientMessage) -> None:
        if self._away_since is None and not self._closed:
            self._link.send(message)

    def _await_link(self) -> None:
        """Waits for the broker if it is away, at most a lease."""
        self._must_be_open()
        if self._away_since is not None:
            self._changed.wait_for(lambda: self._away_since is None or self._closed, self.lease)
        self._must_be_open()
        if self._away_since is not None:
            raise BrokerGone("the broker is away for longer than a lease")

    def _await(self, told: Dict[int, Any], number: int, patience: float) -> Any:
        """Waits until that was told; it never is once the connection broke."""
        connection = self._connections

        def is_over() -> bool:
            is_here = self._away_since is None and self._connections == connection
            return told[number] is not None or not is_here

        told[number] = None
        try:
            in_time = self._changed.wait_for(is_over, patience)
            if in_time and told[number] is None:
                raise Disconnected("the connection to the broker broke")
            return told[number]
        finally:
            del told[number]

    def _wait_for_outcome(self, owner: Owner) -> None:
        if self._away_since is None:
            self._changed.wait()
            return
        now = time.monotonic()
        look_at = owner.look_while_away(now, self._away_since, self.lease)
        if owner.outcome is None:
            self._changed.wait(None if look_at is None else look_at - now)

    def _give_up(self, owner: Owner) -> None:
        if self._owners.pop(owner.number, None):
            # Should a grant be under way to here, this lets go of it.
            self._say(m.Withdraw(owner.number, terms.Interrupted()))

    def _end(self, owner: Owner, error: GateError) -> None:
        """Notes that an owner has, or gets, nothing."""
        self._owners.pop(owner.number, None)
        held, owner.outcome = owner.holds, error
        if held:
            owner.lost.set()
        if held and isinstance(error, Lost) and owner.on_lost:
            told = owner.on_lost
            self._calls.put(lambda: told(error))

    def _lose_all(self) -> None:
        for owner in [owner for owner in self._owners.values() if owner.holds]:
            self._end(owner, LeaseLost())
            self._say(m.Release(owner.number, None))

    # What follows runs on the session's threads.

    def _call_back(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            try:
                call()
            except Exception:
                _log.exception("a callback failed")

    def _done_with(self, owner: Owner) -> None:
        with self._changed:
            self._say(m.Release(owner.number, None))

    def _serve(self) -> None:
        pause = 0.0
        while True:
            connected_at = _now()
            self._listen()
            if _now() - connected_at >= _STEADY_MIN:
                pause = 0.0
            if not self._return(pause):
                return
            pause = min(max(pause * 2, _PAUSE_MIN), _PAUSE_MAX)

    def _listen(self) -> None:
        """Hears the broker until the connection breaks."""
        try:
            ping_at = self._heard_at + self._ping_pause()
            while True:
                ping_at = self._ping(ping_at)
                message = self._link.receive(ping_at - _now())
                # What was said to a session whose lease may be over, such as a grant, may no
                # longer be so.
                if _now() - self._heard_at > self.lease:
                    raise ConnectionAbortedError("the broker was not heard of for a lease")
                if message is not None:
                    with self._changed:
                        self._note(message)
                        self._changed.notify_all()
        except (OSError, GateError) as error:
            if not self._closed:
                _log.info("the connection to the broker broke: %s", error)
        with self._changed:
            self._away_since = time.monotonic()
            self._pinged_at = None
            self._link.close()
            self._changed.notify_all()

    def _ping_pause(self) -> float:
        return max(self.lease / 3, _PING_PAUSE_MIN)

    def _ping(self, ping_at: float) -> float:
        """Lets the broker hear of the client if it is time; returns when it is next."""
        now = _now()
        if now < ping_at:
            return ping_at
        with self._changed:
            if self._pinged_at is None:
                self._pinged_at = now
                self._say(m.Ping())
        return now + self._ping_pause()

    def _return(self, first_pause: float) -> bool:
        """Tries until the broker is back, after a pause; False once the session was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, first_pause)
        pause = _PAUSE_MIN
        # What is held counts as lost once the broker was not heard of for a lease, and did not
        # answer an attempt after that.
        patience = min(max(self.lease / 3, _GREETING_PATIENCE_MIN), _GREETING_PATIENCE)
        while not self._closed:
            hello = dataclasses.replace(self._hello, resume=self.welcome.session)
            tried_at = _now()
            try:
                found = greet(self._connect, hello, patience)
            except GateError as error:
                _log.debug("the broker is still away: %s", error)
                # The kernel says that nobody listens.
                nobody = isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError))
                self._stay_away(nobody, tried_at, pause)
                pause = min(pause * 2, _PAUSE_MAX)
                continue
            with self._changed:
                if self._closed:
                    found[0].close()
                    return False
                self._come_back(*found)
                self._changed.notify_all()
            return True
        return False

    def _stay_away(self, nobody_there: bool, tried_at: float, pause: float) -> None:
        with self._changed:
            if not self._is_sure():
                self._lose_all()
            elif nobody_there:
                # A broker that starts after this gives former sessions a lease to come back.
                self._sure_until = tried_at + self.lease
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, pause)

    def _come_back(self, link: Link, welcome: m.Welcome, greeted_at: float) -> None:
        known = welcome.known
        if known is m.Known.PART and self._is_sure():
            # Who could act all the time was not ended.
            known = m.Known.ALL
        if known is not m.Known.ALL:
            self._lose_all()
        if known is m.Known.NOTHING:
            self._sure_until = greeted_at + welcome.lease.seconds
        self._link, self.welcome, self._heard_at = link, welcome, greeted_at
        self._away_since = None
        self._connections += 1
        waiting = [owner for owner in self._owners.values() if not owner.holds]
        # A broker that comes back may have forgotten what was attached last.
        for space, source in self._sources.items():
            self._say(m.Attach(space, source))
        if known is m.Known.ALL:
            self._list_all()
            waiting = [owner for owner in waiting if isinstance(owner.acquire.patience, m.Try)]
        elif known is m.Known.PART:
            self._say(m.Listed())
        for owner in waiting:
            self._say(self._as_it_waits(owner))

    def _list_all(self) -> None:
        for owner in self._owners.values():
            if isinstance(owner.outcome, m.Granted):
                self._say(m.Held(owner.acquire, owner.outcome.token))
        for owner in self._owners.values():
            if not owner.holds and not isinstance(owner.acquire.patience, m.Try):
                self._say(m.Waits(self._as_it_waits(owner)))
        self._say(m.Listed())

    def _as_it_waits(self, owner: Owner) -> m.Acquire:
        left = owner.patience_left(time.monotonic())
        return dataclasses.replace(owner.acquire, patience=left)

    def _note(self, message: m.ServerMessage) -> None:
        """Notes what the broker says; what is about nobody any more is passed over."""
        if isinstance(message, m.Pong):
            if self._pinged_at is not None:
                self._heard_at, self._pinged_at = self._pinged_at, None
                self._sure_until = self._heard_at + self.lease
        elif isinstance(message, m.Restored):
            self._sure_until = self._heard_at + self.lease
        elif isinstance(message, m.Reply):
            if message.id in self._answers:
                self._answers[message.id] = message.reply
        elif isinstance(message, m.Attached):
            if message.space in self._attached:
                self._attached[message.space] = message.attached
        elif isinstance(message, m.AttachRefused):
            self._sources.pop(message.space, None)
            if message.space in self._attached:
                self._attached[message.space] = message.refusal
        elif isinstance(message, (m.Granted, m.Refused, m.Revoked, m.Recalled, m.Ungated)):
            owner = self._owners.get(message.owner)
            if owner:
                self._note_of(owner, message)

    def _note_of(self, owner: Owner, message: m.ServerMessage) -> None:
        if isinstance(message, m.Granted):
            owner.outcome = message
        elif isinstance(message, m.Refused):
            self._end(owner, refused(message.why))
        elif isinstance(message, m.Revoked):
            error = lost(message.why, message.reason)
            is_told = owner.on_lost is not None and owner.holds
            self._end(owner, error if owner.holds else Interrupted(str(error)))
            # The next is let in once this one says that it is done, which it is once it was told.
            if is_told:
                self._calls.put(lambda: self._done_with(owner))
            else:
                self._say(m.Release(owner.number, None))
        elif isinstance(message, m.Recalled):
            told, recall = owner.on_recall, message.recall
            if owner.holds and told:
                self._calls.put(lambda: told(recall))
        else:
            self._end(owner, ProtocolError("only readers of a view go on without a turn"))


def greet(
    connect: Callable[[], Link], hello: m.Hello, patience: float
) -> Tuple[Link, m.Welcome, float]:
    """Connects and exchanges greetings; returns also when the broker was spoken to."""
    at = _now()
    link = connect()
    try:
        link.send(hello)
        answer = link.receive(patience)
        if isinstance(answer, m.Unwelcome):
            raise BrokerGone(f"the broker refused: {answer.why}")
        if isinstance(answer, m.Welcome):
            return link, answer, at
        raise BrokerGone("the broker does not answer")
    except OSError as error:
        link.close()
        raise BrokerGone(f"the broker does not answer: {error}") from error
    except GateError:
        link.close()
        raise
