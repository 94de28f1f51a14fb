"""The bytes on the wire: the same as the broker's, and nothing breaks the decoder."""

import enum
import json
import pathlib
import random
import unittest
from typing import Any, Dict, List, Set, Type

from gate_client import _link, _messages, _postcard, log, report, terms
from gate_client._messages import ClientMessage, ServerMessage
from gate_client.errors import GateError, ProtocolError, WrongVersion

FRAMES: Dict[str, Any] = json.loads((pathlib.Path(__file__).parent / "frames.json").read_text())

#: What the broker calls the variants whose name is taken here.
OTHER_NAMES = {
    "AfterRecord": "After",
    "Ask": "Query",
    "BrokenWait": "Broken",
    "LimitReached": "Limit",
    "NoFormer": "None",
    "StandingStill": "Standstill",
    "UnknownOwner": "Unknown",
}

SUMS: List[Type[_postcard.Sum]] = _postcard.Sum.__subclasses__()
ENUMS = [
    _messages.Known, log.Pass, log.Presence, terms.Access, terms.Limit, terms.RecallCause, terms.RecallStage,
    terms.Revocation, terms.Standstill,
]


def name_of(value: _postcard.Sum) -> str:
    name, base = type(value).__name__, type(value).__bases__[0].__name__
    rest = name[len(base) :] if name.startswith(base) else ""
    return OTHER_NAMES.get(name, rest if rest[:1].isupper() else name)


def seen_in(value: Any, seen: Set[Any]) -> None:
    """Notes all variants in a value."""
    if isinstance(value, tuple):
        for item in value:
            seen_in(item, seen)
    elif isinstance(value, enum.Enum):
        seen.add(value)
    elif hasattr(value, "__dataclass_fields__") or isinstance(value, _postcard.Sum):
        seen.add(type(value))
        for field in _postcard.field_names(value):
            seen_in(getattr(value, field), seen)


class Golden(unittest.TestCase):
    """Frames that the broker's own tests wrote, each beside its value."""

    def assert_same(self, value: Any, known: Any) -> None:
        """Compares a value with the broker's: a variant is a name, or a name and what is in it."""
        if isinstance(value, enum.Enum):
            self.assertEqual(value.name.replace("_", "").lower(), known.lower())
        elif isinstance(value, _postcard.Sum) and isinstance(known, str):
            self.assertEqual((name_of(value), _postcard.field_names(value)), (known, []))
        elif isinstance(value, _postcard.Sum) and list(known) == [name_of(value)]:
            (inside,) = known.values()
            fields = _postcard.field_names(value)
            if len(fields) == 1 and not (isinstance(inside, dict) and list(inside) == fields):
                self.assert_same(getattr(value, fields[0]), inside)
            else:
                self.assert_fields(value, inside)
        elif hasattr(value, "__dataclass_fields__"):
            self.assert_fields(value, known)
        elif isinstance(value, tuple):
            self.assertEqual(len(value), len(known))
            for one, other in zip(value, known):
                self.assert_same(one, other)
        elif isinstance(value, str) and isinstance(known, list):
            self.assertEqual(list(value.encode("utf-8", "surrogateescape")), known)
        else:
            self.assertEqual((type(value), value), (type(known), known))

    def assert_fields(self, value: Any, known: Dict[str, Any]) -> None:
        fields = _postcard.field_names(value)
        self.assertEqual([field.rstrip("_") for field in fields], list(known))
        for field in fields:
            self.assert_same(getattr(value, field), known[field.rstrip("_")])

    def test_every_frame_says_here_what_it_says_there(self) -> None:
        self.assertEqual(FRAMES["version"], _link.PROTOCOL_VERSION)
        seen: Set[Any] = set()
        kinds: Dict[str, Any] = {"client": ClientMessage, "server": ServerMessage}
        for side, kind in kinds.items():
            for frame in FRAMES[side]:
                with self.subTest(frame=frame["frame"]):
                    data = bytes.fromhex(frame["frame"])
                    value = _postcard.decode(kind, data[4:])
                    self.assert_same(value, frame["value"])
                    self.assertEqual(_postcard.encode(kind, value), data[4:])
                    seen_in(value, seen)
        missing = [variant for kind in SUMS for variant in kind.variants if variant not in seen]
        self.assertEqual(missing, [], "each variant is in a frame")

    def test_there_are_as_many_variants_here_as_there(self) -> None:
        here = {kind.__name__: len(kind.variants) for kind in SUMS}
        here.update({kind.__name__: len(kind) for kind in ENUMS})
        self.assertEqual(here, FRAMES["variants"])


class Frames(unittest.TestCase):
    def stream(self) -> bytes:
        frames = b"".join(bytes.fromhex(frame["frame"]) for frame in FRAMES["server"])
        return b"GATE\x01\0\0\0" + frames

    def test_messages_come_out_however_they_are_cut(self) -> None:
        stream = self.stream()
        for cut in (1, 3, 7, len(stream)):
            decoder, count = _link.Decoder(), 0
            for at in range(0, len(stream), cut):
                decoder.push(stream[at : at + cut])
                while decoder.next() is not None:
                    count += 1
            self.assertEqual(count, len(FRAMES["server"]))

    def test_an_unknown_version_is_named_not_guessed_at(self) -> None:
        decoder = _link.Decoder()
        decoder.push(b"GATE\x09\0\0\0")
        with self.assertRaisesRegex(WrongVersion, "speaks version 9, this is version 1"):
            decoder.next()
        decoder = _link.Decoder()
        decoder.push(b"HTTP/1.1")
        with self.assertRaises(ProtocolError):
            decoder.next()

    def test_a_frame_beyond_the_bound_is_refused_on_both_sides(self) -> None:
        decoder = _link.Decoder()
        decoder.push(b"GATE\x01\0\0\0\xff\xff\xff\xff")
        with self.assertRaises(ProtocolError):
            decoder.next()
        with self.assertRaises(ValueError):
            _link.encode(_messages.Ask(1, _messages.QueryBreak(1, "x" * _link.FRAME_BYTES_MAX)))

    def test_nothing_but_its_own_error_comes_out_of_the_decoder(self) -> None:
        dice = random.Random(7)
        known = [bytes.fromhex(frame["frame"])[4:] for frame in FRAMES["server"]]
        for _ in range(20_000):
            data = bytearray(dice.choice(known))
            for _ in range(dice.randrange(4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            del data[dice.randrange(len(data) + 1) + dice.randrange(9) :]
            try:
                value = _postcard.decode(ServerMessage, bytes(data))
            except ProtocolError:
                continue
            # What was understood is a value like any other.
            again = _postcard.encode(ServerMessage, value)
            self.assertEqual(_postcard.decode(ServerMessage, again), value)


class Errors(unittest.TestCase):
    def test_numbers_have_bounds(self) -> None:
        token = _messages.Granted(1, 2, terms.Token(1, 1 << 64), 1, False)
        with self.assertRaises(ValueError):
            _postcard.encode(ServerMessage, token)
        for data in (b"\xff" * 9 + b"\x02", b"\xff" * 11):
            with self.assertRaises(ProtocolError):
                _postcard.Reader(data).varint(64)

    def test_all_errors_are_gate_errors(self) -> None:
        self.assertTrue(issubclass(ProtocolError, GateError))
        self.assertIs(report.Locks.__bases__[0], report.Answer)


if __name__ == "__main__":
    unittest.main()
