"""A session against a broker that says what a test wants it to say."""

import math
import os
import socket
import tempfile
import threading
import time
import unittest
from typing import Callable, List, Type, TypeVar

from gate_client import Client
from gate_client import _messages as m
from gate_client import _postcard, terms
from gate_client._link import Link
from gate_client._owner import Owner
from gate_client._session import Session
from gate_client.errors import (
    Broken, BrokerGone, GateError, Interrupted, LeaseLost, ProtocolError, SourceRefused, TimedOut,
    WouldBlock, WrongVersion,
)

SOON = 10.0
M = TypeVar("M", bound=m.ClientMessage)
SESSION = m.Resume(7, 1 << 100)
TOKEN = terms.Token(1, 5)


class Peer:
    """The broker's end of one connection."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(SOON)
        self._stream = stream
        self.raw(b"GATE\x01\0\0\0")
        self._take(8)

    def raw(self, data: bytes) -> None:
        self._stream.sendall(data)

    def say(self, message: m.ServerMessage) -> None:
        body = _postcard.encode(m.ServerMessage, message)
        self.raw(len(body).to_bytes(4, "little") + body)

    def hear(self, kind: Type[M]) -> M:
        """Returns the next message, which is of that kind; pings are answered."""
        while True:
            length = int.from_bytes(self._take(4), "little")
            message = _postcard.decode(m.ClientMessage, self._take(length))
            if isinstance(message, kind):
                return message
            assert isinstance(message, m.Ping), message
            self.say(m.Pong())

    def welcome(self, known: m.Known, lease: float = 60.0) -> m.Hello:
        hello = self.hear(m.Hello)
        broker = terms.BrokerInfo(1, "0.1.0", 1, "/state")
        self.say(m.Welcome(SESSION, known, terms.Duration.of(lease), broker))
        return hello

    def hang_up(self) -> None:
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # It is broken or closed already.
        self._stream.close()

    def _take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._stream.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def hello() -> m.Hello:
    return m.Hello("test", terms.Process(1, 2, 3), 4, None, None, None, None)


def request(number: int, patience: m.Patience = m.Endless()) -> Owner:
    place = m.Place(1, "f", m.NodeNone())
    want = m.Want(terms.Hold(terms.Access.WRITE), (place,))
    label = m.Label("", "", 0)
    return Owner(m.Acquire(number, m.PartyOwner(), None, patience, None, label, want))


def granted(number: int) -> m.Granted:
    return m.Granted(number, 9, TOKEN, 1, False)


class Thread(threading.Thread):
    """Does something beside the test, and keeps what came of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._work()
        except GateError as error:
            self.outcome = error

    def ended(self) -> object:
        self.join(SOON)
        assert not self.is_alive()
        return self.outcome


class SessionTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # Longer than the address of a socket may be.
        self.path = os.path.join(folder.name, *["x" * 60] * 2, "gate.sock")
        os.makedirs(os.path.dirname(self.path))
        self.door = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.door.close)
        here = os.getcwd()
        os.chdir(os.path.dirname(self.path))
        self.door.bind("gate.sock")
        os.chdir(here)
        self.door.listen()
        self.door.settimeout(SOON)
        self.peers: List[Peer] = []
        self.addCleanup(self.hang_up)

    def accept(self) -> Peer:
        self.peers.append(Peer(self.door.accept()[0]))
        return self.peers[-1]

    def hang_up(self) -> None:
        """Nobody answers any more, so nobody waits for an answer."""
        self.door.close()
        for peer in self.peers:
            peer.hang_up()

    def begin(self, lease: float = 60.0) -> "tuple[Session, Peer]":
        session = Thread(lambda: Session(lambda: Link.to(self.path), hello()))
        peer = self.accept()
        self.assertIsNone(peer.welcome(m.Known.NOTHING, lease).resume)
        begun = session.ended()
        assert isinstance(begun, Session)
        self.addCleanup(begun.close)
        self.addCleanup(self.hang_up)
        return begun, peer

    def hold(self, session: Session, peer: Peer, number: int) -> Owner:
        owner = request(number)
        asked = Thread(lambda: session.acquire(owner))
        peer.hear(m.Acquire)
        peer.say(granted(number))
        self.assertEqual(asked.ended(), granted(number))
        return owner

    def test_all_is_listed_on_return(self) -> None:
        session, peer = self.begin()
        held = self.hold(session, peer, 100)
        gone = self.hold(session, peer, 101)
        waits = Thread(lambda: session.acquire(request(102)))
        peer.hear(m.Acquire)
        peer.hang_up()
        peer = self.accept()
        session.release(gone)
        self.assertEqual(peer.welcome(m.Known.ALL).resume, SESSION)
        self.assertEqual(peer.hear(m.Held), m.Held(held.acquire, TOKEN))
        self.assertEqual(peer.hear(m.Waits).acquire.owner, 102)
        peer.hear(m.Listed)
        peer.say(granted(102))
        self.assertEqual(waits.ended(), granted(102))

    def test_what_was_taken_away_is_let_go_of_once_its_holder_was_told(self) -> None:
        session, peer = self.begin()
        first, second = self.hold(session, peer, 100), self.hold(session, peer, 101)
        told: List[GateError] = []
        first.on_lost = told.append
        peer.say(m.Revoked(100, terms.Revocation.BROKEN, "stuck"))
        self.assertEqual(peer.hear(m.Release).owner, 100)
        self.assertIsInstance(told[0], Broken)
        peer.say(m.Revoked(101, terms.Revocation.BROKEN, ""))
        self.assertEqual(peer.hear(m.Release).owner, 101)
        self.assertTrue(second.lost.is_set())

    def test_a_grant_that_was_taken_away_before_it_was_heard_of_is_let_go_of(self) -> None:
        session, peer = self.begin()
        asked = Thread(lambda: session.acquire(request(100)))
        peer.hear(m.Acquire)
        peer.say(m.Revoked(100, terms.Revocation.BROKEN, ""))
        self.assertEqual(peer.hear(m.Release).owner, 100)
        self.assertIsInstance(asked.ended(), Interrupted)

    def test_who_may_not_resume_lost_all_and_waits_anew(self) -> None:
        session, peer = self.begin()
        held = self.hold(session, peer, 100)
        told: List[GateError] = []
        held.on_lost = told.append
        waits = Thread(lambda: session.acquire(request(102)))
        peer.hear(m.Acquire)
        peer.hang_up()
        peer = self.accept()
        peer.welcome(m.Known.NOTHING)
        self.assertEqual(peer.hear(m.Acquire).owner, 102)
        self.assertTrue(held.lost.wait(SOON))
        self.assertIsInstance(held.outcome, LeaseLost)
        peer.say(m.Refused(102, terms.TimedOut()))
        self.assertIsInstance(waits.ended(), TimedOut)

    def test_n1_to_a_broker_that_may_have_ended_it_who_could_not_act_lists_nothing(self) -> None:
        session, peer = self.begin()
        held = self.hold(session, peer, 100)
        waits = Thread(lambda: session.acquire(request(102)))
        peer.hear(m.Acquire)
        peer.hang_up()
        peer = self.accept()
        # It could act all the time: it was not ended.
        peer.welcome(m.Known.PART)
        self.assertEqual(peer.hear(m.Held), m.Held(held.acquire, TOKEN))
        self.assertEqual(peer.hear(m.Waits).acquire.owner, 102)
        peer.hear(m.Listed)
        with session._changed:
            # As after a long stop of the process.
            session._sure_until -= 3600
            peer.hang_up()
        peer = self.accept()
        peer.welcome(m.Known.PART)
        peer.hear(m.Listed)
        self.assertTrue(held.lost.wait(SOON))
        # It may have been let in, too, and does not know.
        self.assertEqual(peer.hear(m.Acquire).owner, 102)
        peer.say(granted(102))
        self.assertEqual(waits.ended(), granted(102))

    def test_what_was_held_counts_as_lost_after_a_lease_without_an_answer(self) -> None:
        session, peer = self.begin(lease=0.3)
        held = self.hold(session, peer, 100)
        # From here on the broker is silent.
        self.assertTrue(held.lost.wait(SOON))
        self.assertIsInstance(held.outcome, LeaseLost)

    def test_the_lease_does_not_run_while_no_broker_does(self) -> None:
        session, peer = self.begin(lease=0.3)
        held = self.hold(session, peer, 100)
        os.unlink(self.path)
        peer.hang_up()
        until = session._sure_until
        with session._changed:
            longer = session._changed.wait_for(lambda: session._sure_until > until + 0.6, SOON)
        self.assertTrue(longer)
        session.review()
        self.assertFalse(held.lost.is_set())

    def test_that_no_broker_runs_by_now_proves_nothing_of_the_time_before(self) -> None:
        session, peer = self.begin()
        held = self.hold(session, peer, 100)
        with session._changed:
            # As after a long stop of the process, in which others may have been let in.
            session._sure_until -= 3600
            os.unlink(self.path)
            peer.hang_up()
        self.assertTrue(held.lost.wait(SOON))

    def test_a_stale_grant_is_not_believed(self) -> None:
        session, peer = self.begin(lease=0.3)
        asked = Thread(lambda: session.acquire(request(100)))
        peer.hear(m.Acquire)
        with session._changed:
            # As after a long stop of the process.
            session._heard_at -= 1.0
            peer.say(granted(100))
        peer = self.accept()
        peer.welcome(m.Known.ALL, lease=60.0)
        self.assertEqual(peer.hear(m.Waits).acquire.owner, 100)
        peer.hear(m.Listed)
        self.assertIsNone(asked.outcome)
        peer.say(granted(100))
        peer.say(m.Restored())
        self.assertEqual(asked.ended(), granted(100))
        session.review()

    def test_a_client_with_nothing_to_say_is_heard(self) -> None:
        session, peer = self.begin(lease=3.0)
        held = self.hold(session, peer, 100)
        heard_at = session._heard_at
        for _ in range(2):
            peer.hear(m.Ping)
            peer.say(m.Pong())
        self.assertFalse(held.lost.is_set())
        self.assertGreater(session._heard_at, heard_at)

    def test_while_the_broker_is_away_who_waits_is_told_in_time(self) -> None:
        session, peer = self.begin()
        limited = Thread(lambda: session.acquire(request(100, m.Limited(terms.Duration.of(0.05)))))
        peer.hear(m.Acquire)
        self.door.close()
        peer.hang_up()
        self.assertIsInstance(limited.ended(), TimedOut)
        with self.assertRaises(WouldBlock):
            session.acquire(request(101, m.Try()))
        session.close()
        with self.assertRaises(BrokerGone):
            session.acquire(request(102))

    def test_who_gives_up_leaves_no_place_behind(self) -> None:
        session, peer = self.begin()
        owner = request(100)
        asked = Thread(lambda: session.acquire(owner))
        peer.hear(m.Acquire)
        with session._changed:
            owner.outcome = TimedOut("as a signal would")
            session._give_up(owner)
            session._changed.notify_all()
        self.assertEqual(peer.hear(m.Withdraw).owner, 100)
        # A grant that was under way is about nobody any more.
        peer.say(granted(100))
        self.assertIsInstance(asked.ended(), TimedOut)
        self.hold(session, peer, 101)

    def test_a_refused_source_says_why_and_what_to_do(self) -> None:
        session, peer = self.begin()
        source = m.Source(m.Bucket("b"), None, False, None)
        attached = Thread(lambda: session.attach(source))
        space = peer.hear(m.Attach).space
        peer.say(m.AttachRefused(space, m.AttachRefusal("it is taken", "use another")))
        outcome = attached.ended()
        self.assertIsInstance(outcome, SourceRefused)
        self.assertEqual(str(outcome), "it is taken: use another")

    def test_a_source_is_attached_once(self) -> None:
        session, peer = self.begin()
        source = m.Source(m.Bucket("b"), None, False, None)
        attached = Thread(lambda: session.attach(source))
        space = peer.hear(m.Attach).space
        peer.say(m.Attached(space, m.Attachment("b", "", None)))
        self.assertEqual(attached.ended(), space)
        self.assertEqual(session.attach(source), space)

    def test_greetings_that_fail_say_why(self) -> None:
        def greeted(answer: Callable[[Peer], None]) -> object:
            session = Thread(lambda: Session(lambda: Link.to(self.path), hello()))
            peer = self.accept()
            peer.hear(m.Hello)
            answer(peer)
            return session.ended()

        no = greeted(lambda peer: peer.say(m.Unwelcome("limit: sessions")))
        self.assertRegex(str(no), "limit: sessions")
        self.assertIsInstance(greeted(Peer.hang_up), BrokerGone)
        nonsense = greeted(lambda peer: peer.raw(b"\x01\0\0\0\x63"))
        self.assertIsInstance(nonsense, ProtocolError)

    def test_n16_a_broker_of_another_version_is_named(self) -> None:
        session = Thread(lambda: Session(lambda: Link.to(self.path), hello()))
        stream = self.door.accept()[0]
        self.addCleanup(stream.close)
        stream.sendall(b"GATE\x02\0\0\0")
        self.assertIsInstance(session.ended(), WrongVersion)

    def test_who_is_greeted_and_hung_up_on_comes_back_after_pauses_that_grow(self) -> None:
        _, peer = self.begin()
        for pause in (0.0, 0.002, 0.004, 0.008, 0.016, 0.032):
            hung_up_at = time.monotonic()
            peer.hang_up()
            peer = self.accept()
            self.assertGreaterEqual(time.monotonic() - hung_up_at, pause)
            peer.welcome(m.Known.NOTHING)

    def test_closing_says_good_bye(self) -> None:
        session, peer = self.begin()
        closing = Thread(session.close)
        peer.hear(m.Goodbye)
        peer.hang_up()
        closing.ended()


class ClientTest(unittest.TestCase):
    def test_a_lease_is_long_enough_to_be_kept_and_has_an_end(self) -> None:
        for lease in (0, 0.05, 86401, math.inf, math.nan):
            with self.assertRaises(ValueError):
                Client.connect(socket="/nowhere", lease=lease)


if __name__ == "__main__":
    unittest.main()
