"""Postcard, the encoding of the broker's messages, derived from annotations.

A dataclass is its fields in their order. A direct subclass of `Sum` in an annotation is one of its
variants: the variant's number in the order of their definition, then its fields; a variant in an
annotation is just its fields. So the definitions are the format, as they are in the broker.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import (
    Annotated, Any, Callable, ClassVar, List, NamedTuple, Type, TypeVar, Union, get_args,
    get_origin, get_type_hints,
)

from .errors import ProtocolError

T = TypeVar("T")


class Bits(NamedTuple):
    """Marks an unsigned integer by its width."""

    width: int


class Raw(NamedTuple):
    """Marks a text that is a path: any bytes, those that are no UTF-8 escaped by surrogates."""

    errors: str = "surrogateescape"


U32 = Annotated[int, Bits(32)]
U64 = Annotated[int, Bits(64)]
U128 = Annotated[int, Bits(128)]
PathText = Annotated[str, Raw()]


class Sum:
    """One of several: its subclasses, in the order of their definition.

    A variant with fields is a dataclass; one without is a bare class.
    """

    variants: ClassVar[List[Type[Any]]]

    def __init_subclass__(cls) -> None:
        if Sum in cls.__bases__:
            cls.variants = []
        else:
            cls.variants.append(cls)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Reader:
    """Bytes, and how far they were read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left():
            raise ProtocolError("a message ends too early")
        self._at += length
        return self._data[self._at - length : self._at]

    def varint(self, bits: int) -> int:
        value = 0
        for shift in range(0, bits, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> bits:
                    break
                return value
        raise ProtocolError("a number is too large")


Encode = Callable[[Any, bytearray], None]
Decode = Callable[[Reader], Any]


class Codec(NamedTuple):
    """How values of one type are written and read."""

    encode: Encode
    decode: Decode


def encode(kind: Type[T], value: T) -> bytes:
    """Returns a value as bytes."""
    out = bytearray()
    codec(kind).encode(value, out)
    return bytes(out)


def decode(kind: Type[T], data: bytes) -> T:
    """Reads a value of which `data` holds exactly one."""
    reader = Reader(data)
    value: T = codec(kind).decode(reader)
    if reader.left():
        raise ProtocolError("bytes follow a message")
    return value


def codec(kind: Any) -> Codec:
    """Returns how a type is written and read."""
    return _derive(kind)


@functools.lru_cache(maxsize=None)
def _derive(kind: Any) -> Codec:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        mark = args[1]
        return _number(mark.width) if isinstance(mark, Bits) else _text(mark.errors)
    if origin is Union:
        return _option(codec(args[0]))
    if origin is tuple:
        return _sequence(codec(args[0])) if args[1:] == (...,) else _pair(args)
    if kind is bool:
        return _choice([False, True])
    if kind is str:
        return _text("strict")
    if kind is bytes:
        return Codec(_write_bytes, _read_bytes)
    if issubclass(kind, enum.Enum):
        return _choice(list(kind))
    return _sum(kind) if Sum in kind.__bases__ else _struct(kind)


def _write_varint(value: int, out: bytearray) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_bytes(value: bytes, out: bytearray) -> None:
    _write_varint(len(value), out)
    out += value


def _read_bytes(reader: Reader) -> bytes:
    return reader.take(reader.varint(64))


def _number(bits: int) -> Codec:
    def write(value: int, out: bytearray) -> None:
        if value < 0 or value >> bits:
            raise ValueError(f"{value} is no unsigned number of {bits} bits")
        _write_varint(value, out)

    return Codec(write, lambda reader: reader.varint(bits))


def _text(errors: str) -> Codec:
    def read(reader: Reader) -> str:
        try:
            return _read_bytes(reader).decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise ProtocolError("a text is no UTF-8") from error

    return Codec(lambda value, out: _write_bytes(value.encode("utf-8", errors), out), read)


def _choice(values: List[Any]) -> Codec:
    numbers = {value: number for number, value in enumerate(values)}
    return Codec(
        lambda value, out: _write_varint(numbers[value], out),
        lambda reader: values[_tag(reader, len(values))],
    )


def _option(some: Codec) -> Codec:
    def write(value: Any, out: bytearray) -> None:
        out.append(value is not None)
        if value is not None:
            some.encode(value, out)

    return Codec(write, lambda reader: some.decode(reader) if _tag(reader, 2) else None)


def _sequence(item: Codec) -> Codec:
    def write(values: Any, out: bytearray) -> None:
        _write_varint(len(values), out)
        for value in values:
            item.encode(value, out)

    def read(reader: Reader) -> Any:
        length = reader.varint(64)
        # Each item has a byte at least, so what is announced beyond that is a lie.
        if length > reader.left():
            raise ProtocolError("a message ends too early")
        return tuple(item.decode(reader) for _ in range(length))

    return Codec(write, read)


def _fields(codecs: List[Codec]) -> Codec:
    def write(values: Any, out: bytearray) -> None:
        for field, value in zip(codecs, values):
            field.encode(value, out)

    return Codec(write, lambda reader: tuple(field.decode(reader) for field in codecs))


def _pair(kinds: Any) -> Codec:
    return _fields([codec(kind) for kind in kinds])


def field_names(kind: Any) -> List[str]:
    """Names the fields of a dataclass or variant."""
    is_bare = not dataclasses.is_dataclass(kind)
    return [] if is_bare else [field.name for field in dataclasses.fields(kind)]


def _struct(kind: Any) -> Codec:
    hints = get_type_hints(kind, include_extras=True)
    names = field_names(kind)
    fields = _fields([codec(hints[name]) for name in names])
    return Codec(
        lambda value, out: fields.encode([getattr(value, name) for name in names], out),
        lambda reader: kind(*fields.decode(reader)),
    )


def _sum(kind: Any) -> Codec:
    variants = [_struct(variant) for variant in kind.variants]
    numbers = {variant: number for number, variant in enumerate(kind.variants)}

    def write(value: Any, out: bytearray) -> None:
        number = numbers[type(value)]
        _write_varint(number, out)
        variants[number].encode(value, out)

    def read(reader: Reader) -> Any:
        return variants[_tag(reader, len(variants))].decode(reader)

    return Codec(write, read)


def _tag(reader: Reader, count: int) -> int:
    number = reader.varint(32)
    if number >= count:
        raise ProtocolError("a message of another version of the protocol")
    return number
