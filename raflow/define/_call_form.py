"""How arguments by name become a call again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any, NamedTuple


class CallForm(NamedTuple):
    """The part of a signature that says which arguments must go by position."""

    positional_only: tuple[str, ...] = ()
    before_rest: tuple[str, ...] = ()
    """All that go by position if anything is given for `*rest`."""
    rest: str | None = None
    """Name of `*rest`."""
    options: str | None = None
    """Name of `**options`."""

    @classmethod
    def of(cls, signature: inspect.Signature) -> CallForm:
        """Read the form off a signature."""
        kinds = {
            kind: [p.name for p in signature.parameters.values() if p.kind is kind]
            for kind in (
                Parameter.POSITIONAL_ONLY,
                Parameter.POSITIONAL_OR_KEYWORD,
                Parameter.VAR_POSITIONAL,
                Parameter.VAR_KEYWORD,
            )
        }
        rest = next(iter(kinds[Parameter.VAR_POSITIONAL]), None)
        by_position = kinds[Parameter.POSITIONAL_ONLY] + kinds[Parameter.POSITIONAL_OR_KEYWORD]
        return cls(
            positional_only=tuple(kinds[Parameter.POSITIONAL_ONLY]),
            before_rest=tuple(by_position) if rest else (),
            rest=rest,
            options=next(iter(kinds[Parameter.VAR_KEYWORD]), None),
        )

    def apply(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the `(args, kwargs)` of a call with these arguments.

        Args:
            arguments: By parameter name; what `*rest` takes is a tuple, what `**options` takes a
                dict. Parameters that are left out get their defaults.
        """
        kwargs = dict(arguments)
        rest = tuple(kwargs.pop(self.rest, ())) if self.rest else ()
        options = kwargs.pop(self.options, {}) if self.options else {}
        by_position = self.before_rest if rest else self.positional_only
        args = tuple(kwargs.pop(name) for name in by_position if name in kwargs)
        return args + rest, kwargs | options
