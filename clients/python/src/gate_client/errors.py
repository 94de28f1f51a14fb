"""What can go wrong: one class for each thing that a caller can do about it."""

from __future__ import annotations


class GateError(Exception):
    """Anything Gate says no by."""


class NoBroker(GateError):
    """Nobody listens where a broker should: start one, or look elsewhere."""


class WrongVersion(GateError):
    """The broker, or the view, is of another version: use the release that fits."""


class ProtocolError(GateError):
    """What came over the connection makes no sense."""


class BrokerGone(GateError):
    """The broker is away for longer than a lease, or the client was closed."""


class SourceRefused(GateError):
    """The broker does not serve these files; the text says why, and what to do."""


class NotGated(GateError):
    """The path is in no view and in no source that the broker serves."""


class Unknown(GateError):
    """The broker knows no such path, space or ticket."""


class Forbidden(GateError):
    """This client may not ask that."""


class TimedOut(GateError, TimeoutError):
    """The turn did not come within the timeout."""


class WouldBlock(GateError):
    """Somebody else holds it, and the timeout was 0."""


class Interrupted(GateError):
    """The wait was ended from outside."""


class Deadlock(GateError):
    """Those in the way wait for this process: take all paths by one hold."""


class LimitReached(GateError):
    """A bound of the broker is reached; ``limit`` is its name in ``gate status --limits``."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the bound {limit!r} is reached")
        self.limit = limit


class CannotGrant(GateError):
    """The broker grants nothing: its disk is full, or its journal cannot be written."""


class AlreadyHeld(GateError):
    """This process, or one above it, has some of these paths already.

    What runs below a hold works there without one of its own; a second one would only be in the
    way of this process's children.
    """


class Lost(GateError):
    """A hold was taken away; ``reason`` is what somebody said of it, or empty."""

    text = "the hold was taken away"

    def __init__(self, reason: str = "") -> None:
        super().__init__(f"{self.text}: {reason}" if reason else self.text)
        self.reason = reason


class LeaseLost(Lost):
    """The client was not heard for a lease."""

    text = "the client was away for longer than its lease"


class HeldTooLong(Lost):
    """It was held for longer than ``max_hold`` while somebody waited."""

    text = "it was held for longer than max_hold while somebody waited"


class NotReturned(Lost):
    """It was asked to let go, and did not."""

    text = "it was asked to let go, and did not"


class Broken(Lost):
    """Somebody ended the hold, or the wait for it."""

    text = "somebody broke it"
