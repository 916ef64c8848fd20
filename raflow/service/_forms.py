"""Checks values against JSON Schemas."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from raflow import errors

if TYPE_CHECKING:
    import jsonschema

_VALUES: Final = frozenset({"const", "default", "enum", "examples"})
"""What stands there is no form."""


def faults(form: Mapping[str, Any], value: object) -> list[jsonschema.ValidationError]:
    """Return why a value does not fit a form.

    Raises:
        ValueError: Nothing can: the form refers to what is not in it, or to itself without end.
    """
    # They take a quarter of a second to load, and few servers are ever asked.
    import jsonschema  # noqa: PLC0415
    import referencing.exceptions  # noqa: PLC0415

    # Without this it would fetch whatever address a form refers to.
    nothing_else: referencing.Registry[Any] = referencing.Registry()
    validator = jsonschema.Draft202012Validator(form, registry=nothing_else)
    try:
        return sorted(validator.iter_errors(value), key=str)
    except (referencing.exceptions.Unresolvable, RecursionError) as error:
        raise ValueError(str(error)) from error


def what_is_wrong_with(form: Mapping[str, Any]) -> str:
    """Say why nothing can be checked against a form; empty if it can."""
    import jsonschema  # noqa: PLC0415  # as above

    try:
        jsonschema.Draft202012Validator.check_schema(form)
    except jsonschema.SchemaError as error:
        return f"{error.message}."
    except RecursionError:
        return "it is nested too deeply."
    return next(_lost_references(form, form.get("$defs", {})), "")


def _lost_references(part: object, known: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(part, Mapping):
        for name, inner in part.items():
            if name in {"$id", "$anchor", "$dynamicRef"}:
                yield f"it has {name!r}."
            elif name == "$ref" and str(inner).removeprefix("#/$defs/") not in known:
                yield f"it refers to {inner!r}, which is not in its $defs."
            elif name not in _VALUES:
                yield from _lost_references(inner, known)
    elif isinstance(part, list):
        for inner in part:
            yield from _lost_references(inner, known)


@contextlib.contextmanager
def telling(of: str) -> Iterator[None]:
    """Say that nothing fits a form which refers to itself without end."""
    import referencing.exceptions  # noqa: PLC0415  # as above

    try:
        yield
    except (referencing.exceptions.Unresolvable, RecursionError) as error:
        raise errors.ParameterError(
            f"No parameters fit the schema of {of}, which refers to something that is not in it, "
            "or to itself without end. Deploy it again."
        ) from error
