"""Fingerprints that cost little, or are not made: of the inputs of every call of a flow run."""

from __future__ import annotations

import datetime
import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

import orjson

from raflow.define import BoundTask, Definition, Hole
from raflow.results._digest import Encode, RefusedError, Writer
from raflow.results._fingerprint import encoder_of
from raflow.results._print_plain import as_text

_MODULUS: Final = (1 << 61) - 55
"""A prime. The remainder of a short text, taken as a number, costs a tenth of a hash of it."""
_SHORT: Final = 256
_MOST_BYTES: Final = 1 << 20
_MOST_VALUES: Final = 4096
_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_UNAMBIGUOUS: Final = frozenset({type(None), bool, int, str})
"""What JSON has a form for that nothing else has; a float may be NaN, which it writes as null."""
_CODE: Final = (
    type,
    types.FunctionType,
    types.MethodType,
    functools.partial,
    Definition,
    BoundTask,
)


def inputs_fingerprint(
    arguments: Mapping[str, Any], order: Sequence[int] = (), items: Iterable[Mapping[str, Any]] = ()
) -> int | None:
    """Return a number that is equal for equal arguments, in every process and on every machine.

    It costs less than a microsecond for plain arguments, and never raises. Unlike in `fingerprint`,
    paths stand for themselves, not for what is in the file; lists and tuples are alike.

    Args:
        arguments: By name, with a `Hole` where a future was.
        order: What else counts, such as which future is which.
        items: Columns of the items of a map, piece by piece.

    Returns:
        None if something among them is large, or code, or of a kind that has no fingerprint.
    """
    text = b"null"
    if not (order or items):
        try:
            text = orjson.dumps(arguments, None, _OPTIONS)
        except TypeError:  # not all of them are plain
            text = b"null"
    if b"null" in text:
        try:
            text = _written(arguments, order, items)
        except Exception:  # what a class of the user's does is its own affair
            return None
    if len(text) > _SHORT:
        text = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(text, "little") % _MODULUS


def _written(
    arguments: Mapping[str, Any], order: Sequence[int], items: Iterable[Mapping[str, Any]]
) -> bytes:
    others = _Others()
    text = _json(arguments, others)
    if order:
        text += orjson.dumps(order)
    for piece in items:
        text = hashlib.blake2b(text + _json(piece, others), digest_size=16).digest()
    return text


def _json(arguments: Mapping[str, Any], others: _Others) -> bytes:
    given = dict(arguments)
    try:
        text = orjson.dumps(given, others, _OPTIONS)
    except orjson.JSONEncodeError:  # keys that are no texts, numbers of more than 64 bits, ...
        if others.refused:
            raise
        return _digest(given)
    if b"null" in text and not _UNAMBIGUOUS.issuperset(map(type, given.values())):
        return _digest(given)
    return text


class _Others:
    """Gives JSON forms to what has none of its own, up to a number of values."""

    __slots__ = ("_count", "refused")

    def __init__(self) -> None:
        self._count = 0
        self.refused = False
        """Whether one of them has none."""

    def __call__(self, value: Any) -> object:
        cls = type(value)
        if cls is Hole:
            return {"\0edge": value.edge}
        self._count += 1
        if self._count > _MOST_VALUES:
            self.refused = True
            raise RefusedError("has too many parts")
        if cls in _TEXTS:
            return {f"\0{cls.__name__}": str(value)}
        if cls is range:
            return {"\0range": [value.start, value.stop, value.step]}
        self.refused = True
        digest = _digest(value)
        self.refused = False
        return {"\0": digest.hex()}


def _digest(value: object) -> bytes:
    writer = _SparingWriter(_encoder)
    writer.value(value)
    return writer.digest()


class _SparingWriter(Writer):
    """Refuses what is large before it is read."""

    __slots__ = ("_left",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._left = _MOST_BYTES

    def value(self, value: Any) -> None:
        self._spend(_size(value))
        super().value(value)

    def data(self, data: bytes | memoryview) -> None:
        self._spend(len(data))
        super().data(data)

    def unsized(self, data: bytes | memoryview) -> None:
        self._spend(len(data))
        super().unsized(data)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise RefusedError("is large")


def _size(value: Any) -> int:
    cls = type(value)
    if cls in _SIZED:
        return len(value)
    size = getattr(value, "nbytes", 0)
    return size if type(size) is int else _OBJECT


@functools.lru_cache(maxsize=4096)
def _encoder(cls: type) -> Encode:
    if issubclass(cls, PurePath):
        return as_text("path", str)
    return _refuse if issubclass(cls, _CODE) else _usual(cls)


def _refuse(_: Writer, __: object) -> None:
    raise RefusedError("is code")


_usual: Final[Callable[[type], Encode]] = encoder_of
_OBJECT: Final = 64
_SIZED: Final = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset})
_TEXTS: Final = frozenset({datetime.date, datetime.datetime, datetime.time})
