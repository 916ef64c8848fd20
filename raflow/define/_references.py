"""What the code of a flow or task refers to, and a hash of that code."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from raflow.define._code import code_hash, plain_function, text_hash, wrapper_hashes
from raflow.define._definition import BoundDefinition, Definition


def references(definition: Definition) -> tuple[Definition, ...]:
    """Return the tasks and flows that a function refers to, and those that they refer to.

    Found are names in its code that lead, by globals, closures and attributes of modules, classes
    and objects, to a task or flow; also through plain functions of the same package. What is made
    or imported while the function runs is not found.
    """
    reached = _reached(definition.fn, definition)
    return tuple(found for found in reached if isinstance(found, Definition))


def fingerprint(definition: Definition) -> str:
    """Return a hash of the code of a flow, and of the tasks, flows and helpers that it refers to.

    It does not depend on comments, formatting, docstrings and line numbers, nor on the process.
    """
    others = sorted(_line_of(found) for found in _reached(definition.fn, definition))
    return text_hash("\n".join([_line_of(definition), *others]))


def code_fingerprint(code: Callable[..., Any]) -> str:
    """Return a hash of the code of a function or class, and of the functions that it refers to.

    As `fingerprint`, but the names and options of tasks and flows do not count, only what they do.

    Args:
        code: A function, a class, or something else that can be called.
    """
    if isinstance(code, type):
        lines = _lines_of_class(code)
    else:
        lines = [code_hash(code, bare=True), *wrapper_hashes(code), *_lines_below(code)]
    return text_hash("\n".join(lines))


def _lines_of_class(cls: type) -> list[str]:
    bases = [b for b in cls.__mro__[1:] if _package_of(b) == _package_of(cls)]
    functions = {
        name: function
        for base in (cls, *bases)
        for name, function in vars(base).items()
        if isinstance(function, types.FunctionType)
    }
    below = {line for function in functions.values() for line in _lines_below(function)}
    return [code_hash(cls, bare=True), *map(code_hash, bases), *sorted(below)]


def _lines_below(fn: Callable[..., Any]) -> list[str]:
    functions = (found.fn if isinstance(found, Definition) else found for found in _reached(fn))
    return sorted({code_hash(function, bare=True) for function in functions})


def _line_of(found: Definition | types.FunctionType) -> str:
    if isinstance(found, Definition):
        return f"{found.kind}:{found.name}:{code_hash(found.fn)}"
    return f"function:{found.__qualname__}:{code_hash(found)}"


def _reached(
    start: Callable[..., Any], known: Definition | None = None
) -> list[Definition | types.FunctionType]:
    """Return all tasks, flows and helper functions that can be reached from a function.

    Args:
        start: The function; it is not among them.
        known: A definition that is not among them, either.
    """
    found: list[Definition | types.FunctionType] = []
    seen = {id(start), id(known)}
    waiting = deque([start])
    while waiting:
        fn = waiting.popleft()
        for other in _referred(fn):
            helper = isinstance(other, types.FunctionType) and _package_of(other) == _package_of(fn)
            if id(other) not in seen and (helper or isinstance(other, Definition)):
                seen.add(id(other))
                found.append(other)
                waiting.append(other.fn if isinstance(other, Definition) else other)
    return found


def _package_of(fn: object) -> str:
    return str(getattr(fn, "__module__", "")).partition(".")[0]


def _referred(fn: Any) -> Iterator[Any]:
    """Yield the objects that the names in a function's code lead to."""
    inner = plain_function(fn)
    code = getattr(inner, "__code__", None)
    if code is None:
        return
    names, attributes = _names(code)
    closure = dict(zip(code.co_freevars, inner.__closure__ or (), strict=True))
    for name in names:
        if name in closure:
            yield from _unfold(_content(closure[name]), attributes)
        elif name in inner.__globals__:
            yield from _unfold(inner.__globals__[name], attributes)


def _names(code: types.CodeType) -> tuple[list[str], list[str]]:
    """Return the variables and the attributes that code reads, inner functions included."""
    names: dict[str, None] = {}
    attributes: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_ATTR", "LOAD_METHOD"}:
            attributes[instruction.argval] = None
        elif instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"}:
            names[instruction.argval] = None
        elif isinstance(instruction.argval, types.CodeType):
            inner_names, inner_attributes = _names(instruction.argval)
            names |= dict.fromkeys(inner_names)
            attributes |= dict.fromkeys(inner_attributes)
    return list(names), list(attributes)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _unfold(value: Any, attributes: list[str]) -> Iterator[Any]:
    """Yield an object and those of its parts that the code may mean."""
    if isinstance(value, BoundDefinition):
        yield value.definition
    elif isinstance(value, functools.partial):
        yield value.func
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, Definition | types.FunctionType):
        yield value
    else:
        for name in attributes:
            part = inspect.getattr_static(value, name, None)
            if isinstance(part, staticmethod | classmethod):
                part = part.__func__
            if isinstance(part, types.ModuleType):
                yield from _unfold(part, attributes)
            else:
                yield part
