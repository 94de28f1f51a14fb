"""What is held, for as long as a block runs."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import List, Optional, Type

from ._messages import Granted
from ._owner import Owner
from ._paths import Seen
from ._session import Session
from .errors import GateError
from .terms import Token


class Hold:
    """Paths that were taken, all at once; leaving its block lets go.

    A hold belongs to the process: what runs below the process works under it, and so do all its
    threads, which need a lock of their own against each other.
    """

    def __init__(
        self, session: Session, owner: Owner, granted: Granted, seen: List[Seen]
    ) -> None:
        self._session = session
        self._owner = owner
        self._granted = granted
        #: What was at the paths when they were taken.
        self.seen = seen
        #: Set once the hold was taken away.
        self.lost: threading.Event = owner.lost

    @property
    def token(self) -> Token:
        """The fencing token, for whatever is changed beyond the view: it should refuse smaller ones."""
        # Who comes back after an outage may be given a larger one.
        if isinstance(self._owner.outcome, Granted):
            self._granted = self._owner.outcome
        return self._granted.token

    @property
    def ticket(self) -> int:
        """The place in the broker's global order, for people."""
        return self._granted.ticket

    @property
    def by_kin(self) -> bool:
        """Whether it was let in only beside what its process, or one above it, has already."""
        return self._granted.by_kin

    @property
    def why(self) -> Optional[GateError]:
        """Why the hold was taken away; None while it stands."""
        outcome = self._owner.outcome
        return outcome if isinstance(outcome, GateError) else None

    def check(self) -> None:
        """Raises what took the hold away, if something did; ask before what cannot be undone."""
        if self.why is None:
            self._session.review()
        if self.why is not None:
            raise self.why

    def release(self) -> None:
        """Lets go; again is nothing."""
        self._session.release(self._owner)
        for seen in self.seen:
            seen.unpin()

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Lets go. If the hold was lost meanwhile and nothing else is wrong, that is raised."""
        self.release()
        if kind is None and self.why is not None:
            raise self.why
