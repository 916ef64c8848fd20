"""What tasks and flows have in common: a user's function with a name and options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, ClassVar, cast

from raflow import errors
from raflow.define._call_form import CallForm
from raflow.define._keywords import Hook
from raflow.model import NodeKind

RESERVED = ("wait_for", "run_if", "teardown_of")
"""Keywords of `submit` and `map`, which no parameter may be named after."""


class Definition:
    """A user's function, declared as a task or a flow."""

    kind: ClassVar[str]
    """`task` or `flow`, for errors."""
    node_kind: ClassVar[NodeKind]
    """What a call of it is in the graph."""

    fn: Callable[..., Any]
    """The plain function."""
    name: str
    owner: str
    """How errors call it: `Task 'load'`."""
    description: str
    """The description given, or the function's docstring."""
    version: str
    """The version its author gave it; empty if none."""
    signature: inspect.Signature
    form: CallForm
    """How arguments by name become a call of `fn`."""

    def __init__(self, fn: Callable[..., Any], options: Mapping[str, Any]) -> None:
        if isinstance(fn, Definition):
            raise errors.DefinitionError(f"{fn.owner} is a {fn.kind} already.")
        if not callable(fn):
            raise errors.DefinitionError(f"@{self.kind} is for functions, and {fn!r} is none.")
        self.fn = fn
        self._given = dict(options)
        self._checker: Any = None
        self.name = options.get("name") or _name_of(fn)
        self.description = options.get("description") or inspect.getdoc(fn) or ""
        self.version = options.get("version") or ""
        self.owner = f"{self.kind.capitalize()} {self.name!r}"
        self.signature = self._read_signature()
        self.form = CallForm.of(self.signature)
        self._simple = _simple_names(self.signature)
        # So that help() and inspect show the function; a Task is none to the type checker.
        functools.update_wrapper(cast("Callable[..., Any]", self), fn, updated=())

    @property
    def declaration(self) -> str:
        """Name and signature, for errors: `load(rows: list[int], mode: str = 'add')`."""
        return f"{self.name}{signature_text(self.signature)}"

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.fn)

    @property
    def has_hooks(self) -> bool:
        """Whether functions are to be called when its runs change their state."""
        return any(hooks for name, hooks in self._given.items() if name.startswith("on_"))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by parameter name, without defaults.

        What `*rest` takes is a tuple, what `**options` takes a dict.

        Raises:
            TypeError: The call does not fit the signature.
        """
        if self._simple is not None:
            arguments = self._simple.bind(args, kwargs)
            if arguments is not None:
                return arguments
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise TypeError(
                f"{self.owner} cannot be called like this: {error}. It is declared as "
                f"{self.declaration}."
            ) from None

    def with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by parameter name, with defaults.

        Args:
            arguments: As `bind` returns them.
        """
        bound = inspect.BoundArguments(self.signature, dict(arguments))
        bound.apply_defaults()
        return dict(bound.arguments)

    def _read_signature(self) -> inspect.Signature:
        if inspect.isgeneratorfunction(self.fn) or inspect.isasyncgenfunction(self.fn):
            raise errors.DefinitionError(
                f"{self.owner} is a generator, but a {self.kind} returns one value. Return a list "
                "instead of using `yield`."
            )
        try:
            signature = inspect.signature(self.fn)
        except (TypeError, ValueError) as error:
            raise errors.DefinitionError(
                f"{self.owner} has no signature that Python can read ({error}). Wrap it in a "
                "function of your own."
            ) from error
        for name in RESERVED:
            if name in signature.parameters:
                raise errors.DefinitionError(
                    f"{self.owner} has a parameter {name!r}, which `submit` and `map` need for "
                    "themselves. Give the parameter another name."
                )
        return signature

    def _add_hook(self, option: str, hook: Hook) -> Hook:
        if not callable(hook):
            raise errors.DefinitionError(f"{self.owner}: {option} takes a function, not {hook!r}.")
        self._given[option] = [*(self._given.get(option) or ()), hook]
        return hook

    def __getstate__(self) -> dict[str, Any]:
        # Hooks, and the classes made to check parameters, stay with the process that has them: they
        # may hold what cannot travel.
        given = {k: v for k, v in self._given.items() if not k.startswith("on_")}
        return self.__dict__ | {"_given": given, "_checker": None}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class BoundDefinition:
    """A definition that is a method, together with its object."""

    definition: Definition
    """Without the object."""


def signature_text(signature: inspect.Signature) -> str:
    """Return a signature as its author wrote it, with types that are texts out of their quotes."""
    bare = [
        p.replace(annotation=_Bare(p.annotation)) if isinstance(p.annotation, str) else p
        for p in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=Parameter.empty))


class _Bare(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Simple:
    """The signature of a function all of whose parameters are plain names."""

    __slots__ = ("_all", "_count", "_names", "_required")

    def __init__(self, parameters: list[Parameter]) -> None:
        by_position = [p for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
        self._names = tuple(p.name for p in by_position)
        self._all = frozenset(p.name for p in parameters)
        self._required = frozenset(p.name for p in parameters if p.default is Parameter.empty)
        self._count = len(self._names) if self._required <= set(self._names) else -1
        """So many arguments by position are a whole call; -1: there must be others by name."""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the arguments by name; None if they do not fit."""
        if not kwargs and len(args) == self._count:
            return dict(zip(self._names, args))  # noqa: B905 - saying `strict` takes as long again
        if len(args) > len(self._names):
            return None
        arguments = dict(zip(self._names, args))  # noqa: B905
        arguments.update(kwargs)
        given_twice = len(arguments) < len(args) + len(kwargs)
        if given_twice or not self._all.issuperset(arguments):
            return None
        return arguments if arguments.keys() >= self._required else None


def _simple_names(signature: inspect.Signature) -> _Simple | None:
    parameters = list(signature.parameters.values())
    plain = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    return _Simple(parameters) if all(p.kind in plain for p in parameters) else None


def _name_of(fn: Callable[..., Any]) -> str:
    inner = fn.func if isinstance(fn, functools.partial) else fn
    name = getattr(inner, "__name__", type(inner).__name__)
    return "lambda" if name == "<lambda>" else str(name)
