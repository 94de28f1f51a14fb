"""One request of a session, and what became of it."""

from __future__ import annotations

import threading
import time
from typing import Callable, Dict, Optional, Union

from . import _messages as m
from . import terms
from .errors import (
    Broken, BrokerGone, CannotGrant, Deadlock, GateError, HeldTooLong, Interrupted, LeaseLost,
    LimitReached, Lost, NotReturned, TimedOut, WouldBlock,
)

#: Seconds that who asks after a lease without a broker still waits for it.
_LATE_PATIENCE = 1.0

_REVOCATIONS: Dict[terms.Revocation, Callable[[str], Lost]] = {
    terms.Revocation.MAX_HOLD: HeldTooLong,
    terms.Revocation.LEASE_LOST: LeaseLost,
    terms.Revocation.BROKEN: Broken,
    terms.Revocation.RECALLED: NotReturned,
}

_STANDSTILLS = {
    terms.Standstill.NO_ROOM: "the broker's disk is full: make room for its state directory",
    terms.Standstill.FAULT: "the broker's journal cannot be written: its log says why",
}


class Owner:
    """A request. Its session's lock guards it."""

    def __init__(self, acquire: m.Acquire) -> None:
        self.acquire = acquire
        self.asked_at = time.monotonic()
        #: None while it waits; then what it holds, or why it does not.
        self.outcome: Union[None, m.Granted, GateError] = None
        #: Set once what it held was taken away.
        self.lost = threading.Event()
        self.on_recall: Optional[Callable[[terms.Recall], object]] = None
        self.on_lost: Optional[Callable[[Lost], object]] = None

    @property
    def number(self) -> int:
        return self.acquire.owner

    @property
    def holds(self) -> bool:
        return isinstance(self.outcome, m.Granted)

    def patience_left(self, now: float) -> m.Patience:
        """Returns how long it may still wait."""
        end = self._patience_ends_at()
        return self.acquire.patience if end is None else m.Limited(terms.Duration.of(end - now))

    def look_while_away(self, now: float, away_since: float, lease: float) -> Optional[float]:
        """Notes how its wait ends if it ends now, without the broker; returns when to look again."""
        if isinstance(self.acquire.patience, m.Try):
            self.outcome = WouldBlock("the broker is away")
            return None
        gone_at = max(away_since + lease, self.asked_at + _LATE_PATIENCE)
        end = self._patience_ends_at()
        if now >= gone_at:
            self.outcome = BrokerGone("the broker is away for longer than a lease")
        elif end is not None and now >= end:
            self.outcome = TimedOut("the turn did not come in time")
        return gone_at if end is None else min(gone_at, end)

    def _patience_ends_at(self) -> Optional[float]:
        patience = self.acquire.patience
        return self.asked_at + patience.limit.seconds if isinstance(patience, m.Limited) else None


def lost(why: terms.Revocation, reason: str) -> Lost:
    """Returns what a hold that was taken away ends with."""
    return _REVOCATIONS[why](reason)


def refused(why: terms.Refusal) -> GateError:
    """Returns what a wait ends with that was told no."""
    if isinstance(why, terms.TimedOut):
        return TimedOut("the turn did not come in time")
    if isinstance(why, terms.WouldBlock):
        return WouldBlock("somebody else holds it")
    if isinstance(why, terms.Deadlock):
        return Deadlock("those in the way wait for this process: take all paths by one hold")
    if isinstance(why, terms.LimitReached):
        return LimitReached(why.limit.value)
    if isinstance(why, terms.StandingStill):
        return CannotGrant(_STANDSTILLS[why.why])
    if isinstance(why, terms.BrokenWait):
        return Broken()
    if isinstance(why, terms.Interrupted):
        return Interrupted("the wait was ended from outside")
    return BrokerGone("the broker does not know this session")
