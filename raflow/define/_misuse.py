"""Every way in which a future can be mistaken for its value, answered with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from raflow import errors
from raflow.define._where import user_line

_OPERATORS: Final = (
    *("add", "and", "divmod", "floordiv", "lshift", "matmul", "mod"),
    *("mul", "or", "pow", "rshift", "sub", "truediv", "xor"),
)
_NUMBERS: Final = (
    *("abs", "ceil", "complex", "float", "floor", "index"),
    *("int", "invert", "neg", "pos", "round", "trunc"),
)
_USES: Final = {
    **{f"{form}{name}": "in an operation" for name in _OPERATORS for form in ("", "r", "i")},
    **dict.fromkeys(_NUMBERS, "as a number"),
    **dict.fromkeys(("lt", "le", "gt", "ge"), "in a comparison"),
    **dict.fromkeys(("enter", "exit", "aenter", "aexit"), "in a `with`"),
    "aiter": "in an `async for`",
    "bytes": "as bytes",
    "call": "as a function",
    "delitem": "with an index",
    "format": "inside a text",
    "fspath": "as a path",
    "setitem": "with an index",
}
_CONTAINER_USES: Final = {
    "bool": "as a condition",
    "contains": "with `in`",
    "getitem": "with an index",
    "iter": "in a loop or unpacked",
    "len": "for its length",
    "reversed": "in a loop",
}


class NotAValue:
    """What stands for a value that is not there yet; using it as that value is an error."""

    __slots__ = ()

    _described: str
    """What this is, for errors."""

    def _refuse(self, what: str) -> NoReturn:
        line = user_line()
        raise errors.FutureUsedAsValueError(
            f"{self._described} was used {what} at {line}, but its value is not here yet. Call "
            "`.result()` on it to wait for the value, or pass it to another task, which gets the "
            "value.",
            line=line,
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        line = user_line()
        raise errors.FutureAttributeError(
            f"{self._described} was asked for its attribute {name!r} at {line}, but its value is "
            "not here yet. Call `.result()` on it to wait for the value, or pass it to another "
            "task, which gets the value.",
            line=line,
        )


def refuse_uses(cls: type[NotAValue], *, container: bool) -> None:
    """Make using an object of this class as a value an error.

    Args:
        cls: The class, which is changed.
        container: Also refuse what only containers can do: a length, items, iteration, truth.
    """
    uses = _USES | _CONTAINER_USES if container else _USES
    for name, what in uses.items():
        setattr(cls, f"__{name}__", _refusal(what))


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(self: NotAValue, *_: Any) -> NoReturn:
        self._refuse(what)

    return refuse
