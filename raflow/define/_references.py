"""What the code of a flow refers to, and a hash of that code."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import textwrap
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from raflow.define._definition import Definition
from raflow.define._task import BoundTask

_DOCUMENTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def references(definition: Definition) -> tuple[Definition, ...]:
    """Return the tasks and flows that a function refers to, and those that they refer to.

    Found are names in its code that lead, by globals, closures and attributes of modules, classes
    and objects, to a task or flow; also through plain functions of the same package. What is made
    or imported while the function runs is not found.
    """
    return tuple(found for found in _reached(definition) if isinstance(found, Definition))


def fingerprint(definition: Definition) -> str:
    """Return a hash of the code of a flow, and of the tasks, flows and helpers that it refers to.

    It does not depend on comments, formatting, docstrings and line numbers, nor on the process.
    """
    others = sorted(_line_of(found) for found in _reached(definition))
    return _digest("\n".join([_line_of(definition), *others]))


def _line_of(found: Definition | types.FunctionType) -> str:
    if isinstance(found, Definition):
        return f"{found.kind}:{found.name}:{code_hash(found.fn)}"
    return f"function:{found.__qualname__}:{code_hash(found)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def code_hash(fn: Callable[..., Any]) -> str:
    """Return a hash of the code of one function, without what it refers to."""
    inner = _plain(fn)
    normal = _normal_source(inner) or _normal_bytecode(getattr(inner, "__code__", None))
    return _digest(normal or repr(type(inner)))


def source_of(fn: Callable[..., Any]) -> str:
    """Return the source text of a function; empty if it cannot be read."""
    try:
        return textwrap.dedent(inspect.getsource(_plain(fn)))
    except (OSError, TypeError):
        return ""


def _normal_source(fn: Callable[..., Any]) -> str:
    if getattr(fn, "__name__", "") == "<lambda>":  # its source is the statement that it is in
        return ""
    tree = ast.parse(source_of(fn))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree) if tree.body else ""


def _normal_bytecode(code: types.CodeType | None) -> str:
    if code is None:
        return ""
    names = (code.co_names, code.co_varnames, code.co_freevars)
    return repr((code.co_code.hex(), [_normal_constant(c) for c in code.co_consts], names))


def _normal_constant(constant: object) -> str:
    if isinstance(constant, types.CodeType):
        return _normal_bytecode(constant)
    if isinstance(constant, frozenset):  # its order differs from process to process
        return repr(sorted(map(_normal_constant, constant)))
    return repr(constant)


def _plain(fn: Callable[..., Any]) -> Any:
    """Return the function that is inside decorators and partials."""
    inner = inspect.unwrap(fn)
    return _plain(inner.func) if isinstance(inner, functools.partial) else inner


def _reached(start: Definition) -> list[Definition | types.FunctionType]:
    """Return all tasks, flows and helper functions that can be reached from a definition."""
    found: dict[int, Definition | types.FunctionType] = {id(start): start}
    waiting = deque(found.values())
    while waiting:
        user = waiting.popleft()
        fn = user.fn if isinstance(user, Definition) else user
        for other in _referred(fn):
            helper = isinstance(other, types.FunctionType) and _package_of(other) == _package_of(fn)
            if id(other) not in found and (helper or isinstance(other, Definition)):
                found[id(other)] = other
                waiting.append(other)
    return list(found.values())[1:]


def _package_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__module__", "")).partition(".")[0]


def _referred(fn: Any) -> Iterator[Any]:
    """Yield the objects that the names in a function's code lead to."""
    inner = _plain(fn)
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
    if isinstance(value, BoundTask):
        yield value.task
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
