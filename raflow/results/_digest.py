"""Values as one stream of bytes that is the same in every process, and its hash.

Each value is written so that the bytes tell where it ends and what it is: plain values as version 2
of `marshal` writes them, which has not changed since Python 2.5, everything else behind a tag.
"""

from __future__ import annotations

import hashlib
import marshal
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

Encode: TypeAlias = Callable[["Writer", Any], None]
"""Writes a value of one class."""

DIGEST_BYTES: Final = 16

_FORM: Final = b"raflow.value.1"
"""Of what is written. A change of it makes all fingerprints new, and so all caches empty."""

_MARSHAL: Final = 2
"""The last version without references, which depend on who else holds a value."""
_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
"""What `marshal` writes by type and content alone."""
_LARGE: Final = 1 << 20
_LONGEST: Final = (1 << 31) - 1
"""Bytes that `marshal` can say the number of."""
_FULL: Final = 1 << 16


class RefusedError(Exception):
    """A value from which no fingerprint can be made, and the way to it from the outermost one."""

    def __init__(self, why: str) -> None:
        """Say why, as a sentence that begins with the value: `is of type 'socket'. Do ...`."""
        super().__init__(why)
        self.why = why
        self._way: list[str] = []

    def inside(self, where: str) -> None:
        """Note what the value is part of: called from the inside to the outside."""
        self._way.append(where)

    @property
    def path(self) -> str:
        """The way to the value: `['rows'][3].name`."""
        return "".join(reversed(self._way))


class Writer:
    """Takes values and hashes what they are written as."""

    __slots__ = ("_around", "_bytes", "_find", "_hash")

    def __init__(
        self, find: Callable[[type], Encode], around: dict[int, int] | None = None
    ) -> None:
        """Begin a fingerprint.

        Args:
            find: Returns what writes the values of a class.
            around: The values that this one is inside of, by `id`. Default: none.
        """
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES, person=_FORM)
        self._bytes = bytearray()
        self._find = find
        self._around: dict[int, int] = {} if around is None else around

    def digest(self) -> bytes:
        """Return the hash of everything so far."""
        self._flush()
        return self._hash.digest()

    def value(self, value: Any) -> None:
        """Write a value of any class.

        Raises:
            RefusedError: It has no fingerprint.
        """
        cls = type(value)
        if cls in _PLAIN:
            self._plain(value)
        elif cls is list or cls is tuple:
            self.items(value)
        else:
            self._find(cls)(self, value)

    def part(self, where: str, value: Any) -> None:
        """Write a part of a value.

        Args:
            where: What the part is called in errors: `.name`.
            value: The part.
        """
        try:
            self.value(value)
        except RefusedError as refused:
            refused.inside(where)
            raise

    def tag(self, kind: str) -> None:
        """Say what follows; no value begins like a tag."""
        self._bytes += b"@%s\0" % kind.encode()

    def number(self, number: int) -> None:
        """Write a count of up to 64 bits."""
        self._bytes += number.to_bytes(8, "little")

    def data(self, data: bytes | memoryview) -> None:
        """Write bytes, without copying many of them."""
        self.number(len(data))
        if len(data) < _FULL:
            self._bytes += data
        else:
            self._flush()
            self._hash.update(data)
        if len(self._bytes) >= _FULL:
            self._flush()

    def unsized(self, data: bytes | memoryview) -> None:
        """Write bytes whose number follows from what was written before."""
        self._flush()
        self._hash.update(data)

    def items(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Write a list or a tuple."""
        if _PLAIN.issuperset(map(type, items)):
            try:
                self._bytes += marshal.dumps(items, _MARSHAL)
            except ValueError:  # gigabytes in one text
                pass
            else:
                self._flush_full()
                return
        self._bytes += b"[" if type(items) is list else b"("
        self._bytes += struct.pack("<i", len(items))
        self.enter(items)
        for place, item in enumerate(items):
            try:
                self.value(item)
            except RefusedError as refused:
                refused.inside(f"[{place}]")
                raise
        self.leave(items)

    def unordered(self, items: Iterable[Any]) -> None:
        """Write values whose order does not matter."""
        try:
            entries = sorted(map(self._entry, items))
        except RefusedError as refused:
            refused.inside("{…}")
            raise
        self.number(len(entries))
        for entry in entries:
            self._bytes += entry
        self._flush_full()

    def pairs(self, pairs: Iterable[tuple[Any, Any]], *, ordered: bool = False) -> None:
        """Write the keys and values of a dict, whose order matters only if that is said."""
        entries = []
        for key, value in pairs:
            try:
                entries.append((self._entry(key), key, value))
            except RefusedError as refused:
                refused.inside(f" key {key!r}"[:60])
                raise
        if not ordered:
            entries.sort(key=_first)
        self.number(len(entries))
        for entry, key, value in entries:
            self._bytes += entry
            try:
                self.value(value)
            except RefusedError as refused:
                refused.inside(f"[{key!r}]"[:60])
                raise

    def enter(self, value: object) -> None:
        """Begin a value that has others inside.

        Raises:
            RefusedError: It is inside itself.
        """
        if id(value) in self._around:
            raise RefusedError("contains itself, so there is no end to it. Pass it without that.")
        self._around[id(value)] = len(self._around)

    def leave(self, value: object) -> None:
        """End a value that has others inside."""
        del self._around[id(value)]

    def depth_of(self, value: object) -> int | None:
        """Return how deep the value is that is being written just now; None if it is not."""
        return self._around.get(id(value))

    def _plain(self, value: Any) -> None:
        if type(value) is bytes and len(value) >= _LARGE:
            if len(value) <= _LONGEST:
                self._bytes += b"s" + struct.pack("<i", len(value))
                self.unsized(value)
            else:
                self.tag("bytes")
                self.data(value)
            return
        try:
            self._bytes += marshal.dumps(value, _MARSHAL)
        except ValueError:
            self.tag("text")
            self.data(value.encode("utf-8", "surrogatepass"))
        self._flush_full()

    def _entry(self, value: Any) -> bytes:
        """Return a value as bytes that can be sorted."""
        if type(value) in _PLAIN:
            return marshal.dumps(value, _MARSHAL)
        writer = Writer(self._find, self._around)
        writer.value(value)
        return b"@" + writer.digest()

    def _flush_full(self) -> None:
        if len(self._bytes) >= _FULL:
            self._flush()

    def _flush(self) -> None:
        self._hash.update(self._bytes)
        self._bytes.clear()


def _first(entry: tuple[bytes, Any, Any]) -> bytes:
    return entry[0]
