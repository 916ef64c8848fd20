"""Fingerprints of the types that come with Python."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import ipaddress
import os
import re
import stat
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from raflow.results._describe import type_name
from raflow.results._digest import Encode, RefusedError, Writer


def write_class(writer: Writer, cls: type) -> None:
    """Write which class it is, without its code."""
    writer.value(type_name(cls))


def encoder(cls: type) -> Encode | None:
    """Return what writes enums, exceptions and paths; None for other classes."""
    return next((encode for base, encode in _FAMILIES if issubclass(cls, base)), None)


def derived_encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class derived from one of Python's; None for others."""
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple
    for base in (*EXACT, *_BASES):
        if issubclass(cls, base):
            return functools.partial(_derived, base)
    return None


def as_text(kind: str, text: Callable[[Any], str]) -> Encode:
    """Return what writes objects that a text tells from each other."""

    def write(writer: Writer, value: Any) -> None:
        writer.tag(kind)
        writer.value(text(value))

    return write


def as_parts(kind: str, *names: str) -> Encode:
    """Return what writes objects that some of their attributes tell from each other."""

    def write(writer: Writer, value: Any) -> None:
        writer.tag(kind)
        writer.enter(value)
        for name in names:
            writer.part(f".{name}", getattr(value, name))
        writer.leave(value)

    return write


def _set(writer: Writer, value: Any) -> None:
    writer.tag(type(value).__name__)
    writer.enter(value)
    writer.unordered(value)
    writer.leave(value)


def _dict(writer: Writer, value: Mapping[Any, Any]) -> None:
    writer.tag("dict")
    _write_pairs(writer, value)


def _named_dict(writer: Writer, value: Mapping[Any, Any]) -> None:
    writer.tag("mapping")
    write_class(writer, type(value))
    _write_pairs(writer, value)


def _ordered_dict(writer: Writer, value: Mapping[Any, Any]) -> None:
    writer.tag("ordered dict")
    _write_pairs(writer, value, ordered=True)


def _write_pairs(writer: Writer, value: Mapping[Any, Any], *, ordered: bool = False) -> None:
    writer.enter(value)
    writer.pairs(value.items(), ordered=ordered)
    writer.leave(value)


def _deque(writer: Writer, value: collections.deque[Any]) -> None:
    writer.tag("deque")
    writer.value(value.maxlen)
    writer.enter(value)
    writer.items(list(value))
    writer.leave(value)


def _bytearray(writer: Writer, value: bytearray) -> None:
    writer.tag("bytearray")
    with memoryview(value) as view:
        writer.data(view)


def _memoryview(writer: Writer, value: memoryview) -> None:
    writer.tag("memoryview")
    writer.value(value.format)
    writer.value(value.shape)
    writer.data(value.cast("B") if value.c_contiguous and value.ndim else value.tobytes())


def _array(writer: Writer, value: array.array[Any]) -> None:
    writer.tag("array")
    writer.value(value.typecode)
    writer.value(value.itemsize)
    if value.typecode == "u":
        writer.value(value.tounicode())
        return
    if sys.byteorder == "big":
        value = value[:]
        value.byteswap()
    with memoryview(value) as view:
        writer.data(view.cast("B"))


def _range(writer: Writer, value: range) -> None:
    # Two ranges are equal if they give the same numbers.
    writer.tag("range")
    writer.value((len(value), value.start if value else 0, value.step if len(value) > 1 else 1))


def _datetime(writer: Writer, value: datetime.datetime | datetime.time) -> None:
    writer.tag(type(value).__name__)
    writer.value((value.replace(tzinfo=None).isoformat(), value.fold))
    zone = value.tzinfo
    if zone is None or isinstance(zone, datetime.timezone | zoneinfo.ZoneInfo):
        writer.part(".tzinfo", zone)
    else:
        write_class(writer, type(zone))
        writer.value((str(value.utcoffset()), value.tzname()))


def _zone(writer: Writer, value: zoneinfo.ZoneInfo) -> None:
    if value.key is None:
        raise RefusedError("is a time zone without a name. Use `zoneinfo.ZoneInfo('Area/Place')`.")
    writer.tag("zone")
    writer.value(value.key)


def _enum(writer: Writer, value: enum.Enum) -> None:
    writer.tag("enum")
    write_class(writer, type(value))
    writer.value(value.name)
    writer.part(".value", value.value)


def _exception(writer: Writer, value: BaseException) -> None:
    writer.tag("exception")
    write_class(writer, type(value))
    writer.enter(value)
    writer.part(".args", value.args)
    writer.part(".__dict__", {k: v for k, v in vars(value).items() if not k.startswith("__")})
    writer.leave(value)


def _named_tuple(writer: Writer, value: Any) -> None:
    writer.tag("named tuple")
    write_class(writer, type(value))
    writer.enter(value)
    for name, item in zip(value._fields, value, strict=True):
        writer.part(f".{name}", item)
    writer.leave(value)


def _derived(base: type, writer: Writer, value: Any) -> None:
    """Write an object of a class derived from one of Python's: the base's content and its own."""
    writer.tag("derived")
    write_class(writer, type(value))
    if base in _BASES:
        writer.enter(value)
        writer.value(_BASES[base](value))
        writer.leave(value)
    else:
        EXACT[base](writer, value)
    own = getattr(value, "__dict__", None)
    if own:
        writer.part(".__dict__", own)


def _path(writer: Writer, value: Path) -> None:
    try:
        mode = value.stat().st_mode
        if stat.S_ISDIR(mode):
            writer.tag("directory")
            _write_directory(writer, value)
        elif stat.S_ISREG(mode):
            writer.tag("file")
            _write_file(writer, value)
        else:
            raise RefusedError(
                f"is the path {str(value)!r}, which is neither a file nor a directory. Pass it as "
                "a text if only its name counts."
            )
    except OSError as error:
        raise RefusedError(
            f"is the path {str(value)!r}, whose content counts, but it cannot be read: "
            f"{error.strerror}: {error.filename!r}. Make it before, or pass it as a text if only "
            "its name counts."
        ) from error


def _write_directory(writer: Writer, folder: Path) -> None:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    writer.number(len(entries))
    for entry in entries:
        writer.value(entry.name)
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            writer.tag("directory")
            _write_directory(writer, path)
        elif entry.is_symlink() and not entry.is_file():
            # It may lead around in a circle, or nowhere.
            writer.tag("link")
            writer.value(os.readlink(path))
        else:
            writer.tag("file")
            _write_file(writer, path)


def _write_file(writer: Writer, path: Path) -> None:
    with path.open("rb") as file:
        writer.unsized(hashlib.file_digest(file, "blake2b").digest())


EXACT: Final[dict[type, Encode]] = {
    set: _set,
    frozenset: _set,
    dict: _dict,
    collections.OrderedDict: _ordered_dict,
    collections.defaultdict: _named_dict,
    collections.Counter: _named_dict,
    collections.deque: _deque,
    types.MappingProxyType: _named_dict,
    bytearray: _bytearray,
    memoryview: _memoryview,
    array.array: _array,
    range: _range,
    slice: as_parts("slice", "start", "stop", "step"),
    types.SimpleNamespace: as_parts("namespace", "__dict__"),
    decimal.Decimal: as_text("decimal", str),
    fractions.Fraction: as_parts("fraction", "numerator", "denominator"),
    datetime.datetime: _datetime,
    datetime.time: _datetime,
    datetime.date: as_text("date", datetime.date.isoformat),
    datetime.timedelta: as_parts("timedelta", "days", "seconds", "microseconds"),
    datetime.timezone: as_text("timezone", repr),
    zoneinfo.ZoneInfo: _zone,
    uuid.UUID: as_text("uuid", str),
    re.Pattern: as_parts("pattern", "pattern", "flags"),
    types.ModuleType: as_text("module", lambda module: module.__name__),
    type(NotImplemented): as_text("singleton", repr),
    ipaddress.IPv4Address: as_text("ipv4", str),
    ipaddress.IPv6Address: as_text("ipv6", str),
    ipaddress.IPv4Network: as_text("ipv4 network", str),
    ipaddress.IPv6Network: as_text("ipv6 network", str),
}
"""What writes the objects of exactly these classes."""

_FAMILIES: Final[tuple[tuple[type, Encode], ...]] = (
    (enum.Enum, _enum),
    (BaseException, _exception),
    (Path, _path),
    (PurePath, as_text("pure path", str)),
)

_BASES: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    bytes: lambda value: bytes(memoryview(value)),
    list: list,
    tuple: tuple,
}
"""What makes a plain value of an object of a derived class."""
