"""Fingerprints of values: equal for equal values, in every process and on every machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from raflow import errors
from raflow.results._describe import type_name
from raflow.results._digest import Encode, RefusedError, Writer

_OWN: Final = "__raflow_fingerprint__"


class Fingerprinter:
    """Takes values one after the other; the fingerprint is of all of them, in that order."""

    def __init__(self) -> None:
        """Begin a fingerprint."""
        self._writer = Writer(encoder_of)

    def add(self, value: object, name: str = "value") -> None:
        """Take a value.

        After an error the fingerprinter is of no more use.

        Args:
            value: The next one.
            name: What errors call it.

        Raises:
            CacheKeyError: It, or something inside, has no fingerprint. The message names the way to
                that, such as `rows['x'][3]`, and a remedy.
        """
        try:
            self._writer.value(value)
        except RefusedError as refused:
            raise errors.CacheKeyError(f"{name}{refused.path} {refused.why}") from refused.__cause__
        except RecursionError:
            raise errors.CacheKeyError(
                f"{name} is nested too deeply for a fingerprint. Pass it as a flatter structure, "
                "or as a file."
            ) from None

    def hexdigest(self) -> str:
        """Return the fingerprint of all that was added so far: 32 hexadecimal digits."""
        return self._writer.digest().hex()


def fingerprint(value: object, name: str = "value") -> str:
    """Return a text that is equal for equal values, in every process and on every machine.

    It depends on the type and the content: `1`, `1.0`, `True` and `"1"` differ, and so do `0.0` and
    `-0.0`. The order of sets and dicts does not count, nor does how an array lies in memory or a
    table in chunks. A `Path` stands for the content of the file, or of the files below. Functions
    and classes stand for their code. Objects may say what they stand for with a method
    `__raflow_fingerprint__`, which returns any value that has a fingerprint.

    Args:
        value: Anything made of plain data, collections, dataclasses, pydantic models, arrays and
            tables.
        name: What errors call it.

    Raises:
        CacheKeyError: It, or something inside, has no fingerprint. The message names the way to
            that, such as `rows['x'][3]`, and a remedy.

    Returns:
        32 hexadecimal digits: BLAKE2b of 128 bits.
    """
    fingerprinter = Fingerprinter()
    fingerprinter.add(value, name)
    return fingerprinter.hexdigest()


@functools.lru_cache(maxsize=4096)
def encoder_of(cls: type) -> Encode:
    """Return what writes the objects of a class."""
    if hasattr(cls, _OWN):
        return _say_themselves
    return next(filter(None, (find(cls) for find in _kinds())), _refuse)


@functools.cache
def _kinds() -> tuple[Callable[[type], Encode | None], ...]:
    # Most processes make fingerprints of plain values only, or none, and should not wait for these.
    from raflow.results import _print_libraries, _print_objects, _print_plain  # noqa: PLC0415

    return (
        _print_plain.EXACT.get,
        _print_libraries.encoder,
        _print_plain.encoder,
        _print_objects.encoder,
        _print_plain.derived_encoder,
    )


def _say_themselves(writer: Writer, value: object) -> None:
    try:
        said = getattr(value, _OWN)()
    except Exception as error:
        raise RefusedError(
            f"could not say its fingerprint: its method {_OWN} raised {type(error).__name__}: "
            f"{error}"
        ) from error
    writer.tag("own")
    writer.value(type_name(type(value)))
    writer.enter(value)
    writer.part(f".{_OWN}()", said)
    writer.leave(value)


def _refuse(_: Writer, value: object) -> None:
    name = type_name(type(value))
    raise RefusedError(
        f"is of type {name!r}, of which raflow does not know what makes two equal. Give the class "
        f"a method {_OWN} that returns plain data, or pass plain data, arrays, tables, dataclasses "
        "or pydantic models."
    )
