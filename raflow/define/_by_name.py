"""User functions and texts over some of the parameters of a task or flow, picked by name."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any, Final

from raflow import errors

_ALL: Final = "parameters"
"""A function with a parameter of this name gets all arguments as a dict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName:
    """A user's function that takes some parameters of a task or flow; picklable if that is."""

    fn: Callable[..., Any]
    names: tuple[str, ...]
    """The parameters it takes."""
    defaults: Mapping[str, Any]
    """What they are where the call says nothing."""
    positional: tuple[str, ...]
    """The parameters of the task or flow that may be given by position, in order."""
    rest: str | None = None
    """Name of `*rest` of the task or flow."""
    takes_all: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it with what it needs of a call of the task or flow."""
        arguments = dict(zip(self.positional, args, strict=False)) | kwargs
        if self.rest:
            arguments[self.rest] = args[len(self.positional) :]
        return self.of(arguments)

    def of(self, arguments: Mapping[str, Any]) -> Any:
        """Call it with what it needs of arguments by name."""
        known = {**self.defaults, **arguments}
        taken = {name: known[name] for name in self.names}
        return self.fn(**taken, **({_ALL: known} if self.takes_all else {}))


def by_name(
    owner: str, option: str, fn: Callable[..., Any], signature: inspect.Signature
) -> ByName:
    """Prepare a user's function.

    Raises:
        DefinitionError: It takes a parameter that the task or flow does not have.
    """
    known = signature.parameters
    try:
        own = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError) as error:
        raise errors.DefinitionError(
            f"{owner}: {option}={fn!r} cannot be called: {error}."
        ) from error
    if any(p.kind is Parameter.VAR_KEYWORD for p in own):
        names = tuple(known)
    else:
        names = tuple(p.name for p in own if p.name in known or p.default is Parameter.empty)
    takes_all = _ALL in names and _ALL not in known
    names = tuple(name for name in names if not (takes_all and name == _ALL))
    for name in names:
        _check_known(owner, option, name, signature)
    return ByName(
        fn=fn,
        names=names,
        defaults=_defaults(signature, None if takes_all else names),
        positional=_names(signature, Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD),
        rest=next(iter(_names(signature, Parameter.VAR_POSITIONAL)), None),
        takes_all=takes_all,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunName:
    """Names a run from its arguments; picklable."""

    template: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fn: ByName | None = None

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        """Return the name of a run with these arguments, by parameter name."""
        if self.fn is not None:
            return str(self.fn.of(arguments))
        return self.template.format_map({**self.defaults, **arguments})


def run_name(
    owner: str, option: str, spec: str | Callable[..., str] | None, signature: inspect.Signature
) -> RunName | None:
    """Prepare what a user gave to name runs: a text with `{parameter}` in it, or a function.

    Raises:
        DefinitionError: It names a parameter that the task or flow does not have.
    """
    if spec is None:
        return None
    if not isinstance(spec, str):
        return RunName(fn=by_name(owner, option, spec, signature))
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(spec) if name is not None]
    except ValueError as error:
        raise errors.DefinitionError(
            f"{owner}: {option}={spec!r} is not a text with {{parameter}} in it: {error}."
        ) from error
    names = tuple(name.partition(".")[0].partition("[")[0] for name in fields)
    for name in names:
        _check_known(owner, option, name, signature)
    return RunName(template=spec, defaults=_defaults(signature, names))


def _check_known(owner: str, option: str, name: str, signature: inspect.Signature) -> None:
    known = signature.parameters
    if name in known:
        return
    near = errors.closest(name, known)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise errors.DefinitionError(
        f"{owner}: {option} uses {name!r}, which is not one of its parameters "
        f"({', '.join(known) or 'it has none'}).{hint}"
    )


def _defaults(signature: inspect.Signature, names: tuple[str, ...] | None) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for p in signature.parameters.values():
        if names is not None and p.name not in names:
            continue
        if p.kind is Parameter.VAR_POSITIONAL:
            defaults[p.name] = ()
        elif p.kind is Parameter.VAR_KEYWORD:
            defaults[p.name] = {}
        elif p.default is not Parameter.empty:
            defaults[p.name] = p.default
    return defaults


def _names(signature: inspect.Signature, *kinds: object) -> tuple[str, ...]:
    return tuple(p.name for p in signature.parameters.values() if p.kind in kinds)
