"""Take turns on files: the client of Gate's broker.

    from gate_client import Client

    with Client.connect(name="nightly build") as client:
        with client.hold("src/", "Cargo.toml", reason="release", timeout=30) as hold:
            build()
            hold.check()
            publish(fencing_token=hold.token)
"""

from . import log, report
from ._client import Client
from ._hold import Hold
from .errors import (
    AlreadyHeld, Broken, BrokerGone, CannotGrant, Deadlock, Forbidden, GateError, HeldTooLong, Interrupted,
    LeaseLost, LimitReached, Lost, NoBroker, NotGated, NotReturned, ProtocolError, SourceRefused,
    TimedOut, Unknown, WouldBlock, WrongVersion,
)
from .terms import Access, Duration, Process, Recall, RecallCause, RecallStage, Token

__all__ = [
    "Access", "AlreadyHeld", "Broken", "BrokerGone", "CannotGrant", "Client", "Deadlock", "Duration", "Forbidden",
    "GateError", "HeldTooLong", "Hold", "Interrupted", "LeaseLost", "LimitReached", "Lost",
    "NoBroker", "NotGated", "NotReturned", "Process", "ProtocolError", "Recall", "RecallCause",
    "RecallStage", "SourceRefused", "TimedOut", "Token", "Unknown", "WouldBlock", "WrongVersion",
    "log", "report",
]
