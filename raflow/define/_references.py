"""What the code of a flow refers to, and a hash of that code."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import textwrap
import types
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
    found: dict[int, Definition] = {}
    waiting = [definition]
    while waiting:
        for other in _direct(waiting.pop(0)):
            if id(other) not in found and other is not definition:
                found[id(other)] = other
                waiting.append(other)
    return tuple(found.values())


def fingerprint(definition: Definition) -> str:
    """Return a hash of the code of a flow and of all that it refers to.

    It does not depend on comments, formatting, docstrings and line numbers, nor on the process.
    """
    hashes = sorted(f"{d.kind}:{d.name}:{code_hash(d.fn)}" for d in references(definition))
    text = "\n".join([f"{definition.kind}:{definition.name}:{code_hash(definition.fn)}", *hashes])
    return hashlib.sha256(text.encode()).hexdigest()


def code_hash(fn: Callable[..., Any]) -> str:
    """Return a hash of the code of one function, without what it refers to."""
    inner = inspect.unwrap(fn)
    normal = _normal_source(inner) or _normal_bytecode(getattr(inner, "__code__", None))
    return hashlib.sha256((normal or repr(type(inner))).encode()).hexdigest()


def source_of(fn: Callable[..., Any]) -> str:
    """Return the source text of a function; empty if it cannot be read."""
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(fn)))
    except (OSError, TypeError):
        return ""


def _normal_source(fn: Callable[..., Any]) -> str:
    try:
        tree = ast.parse(source_of(fn))
    except SyntaxError:  # a lambda in the middle of an expression
        return ""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree) if tree.body else ""


def _normal_bytecode(code: types.CodeType | None) -> str:
    if code is None:
        return ""
    constants = [
        _normal_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars)
    return repr((code.co_code.hex(), constants, names))


def _direct(definition: Definition) -> Iterator[Definition]:
    seen: set[int] = set()
    package = _package_of(definition.fn)

    def follow(fn: Callable[..., Any]) -> Iterator[Definition]:
        inner = inspect.unwrap(fn)
        code = getattr(inner, "__code__", None)
        if code is None or id(code) in seen:
            return
        seen.add(id(code))
        for value in _reachable(inner, code):
            if isinstance(value, Definition):
                yield value
            elif isinstance(value, types.FunctionType) and _package_of(value) == package:
                yield from follow(value)

    return follow(definition.fn)


def _package_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__module__", "")).partition(".")[0]


def _reachable(fn: Any, code: types.CodeType) -> Iterator[Any]:
    """Yield the objects that the names in a function's code lead to."""
    names, attributes = _names(code)
    closure = dict(zip(code.co_freevars, fn.__closure__ or (), strict=True))
    for name in names:
        if name in closure:
            yield from _unfold(_content(closure[name]), attributes)
        elif name in fn.__globals__:
            yield from _unfold(fn.__globals__[name], attributes)


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
