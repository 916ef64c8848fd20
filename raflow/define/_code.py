"""The code of one function: its source, and a hash that comments and formatting leave alone."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

_DOCUMENTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OWN_MODULE: Final = "raflow.define"
_OWN_NAMES: Final = frozenset({"task", "flow"})


def code_hash(fn: Callable[..., Any], *, bare: bool = False) -> str:
    """Return a hash of the code of one function or class, without what it refers to.

    Args:
        fn: The function; of decorated ones, and of partials, what is inside counts.
        bare: Leave out `@task(...)` and `@flow(...)`, with the options in them.
    """
    inner = plain_function(fn)
    normal = _normal_source(inner, bare=bare) or _normal_bytecode(inner)
    return text_hash(normal or repr(type(inner)))


def wrapper_hashes(fn: Callable[..., Any]) -> list[str]:
    """Return hashes of the functions that decorators have put around a function."""
    found: list[str] = []
    while hasattr(fn, "__wrapped__"):
        code = getattr(fn, "__code__", None)
        found.append(text_hash(_bytecode_text(code)) if code is not None else repr(type(fn)))
        fn = fn.__wrapped__
    return found


def text_hash(text: str) -> str:
    """Return the hash of a text that stands for code."""
    return hashlib.sha256(text.encode()).hexdigest()


def source_of(fn: Callable[..., Any]) -> str:
    """Return the source text of a function; empty if it cannot be read."""
    try:
        return textwrap.dedent(inspect.getsource(plain_function(fn)))
    except (OSError, TypeError):
        return ""


def plain_function(fn: Callable[..., Any]) -> Any:
    """Return the function that is inside decorators and partials."""
    inner = inspect.unwrap(fn)
    return plain_function(inner.func) if isinstance(inner, functools.partial) else inner


def _normal_source(fn: Callable[..., Any], *, bare: bool) -> str:
    if getattr(fn, "__name__", "") == "<lambda>":  # its source is the statement that it is in
        return ""
    tree = ast.parse(source_of(fn))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    if bare and tree.body and isinstance(tree.body[0], _DOCUMENTED):
        names = getattr(fn, "__globals__", {})
        outer = tree.body[0]
        outer.decorator_list = [d for d in outer.decorator_list if not _is_own(d, names)]
    return ast.dump(tree) if tree.body else ""


def _is_own(decorator: ast.expr, names: Mapping[str, Any]) -> bool:
    """Return whether a decorator is `@task` or `@flow`, by whatever name."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    path: list[str] = []
    while isinstance(called, ast.Attribute):
        path.insert(0, called.attr)
        called = called.value
    if not isinstance(called, ast.Name):
        return False
    if called.id not in names:  # imported inside a function
        return (path or [called.id])[-1] in _OWN_NAMES
    found = names[called.id]
    for name in path:
        found = inspect.getattr_static(found, name, None)
    return str(getattr(found, "__module__", "")).startswith(_OWN_MODULE)


def _normal_bytecode(fn: Any) -> str:
    if isinstance(fn, type):
        functions = {n: f for n, f in vars(fn).items() if isinstance(f, types.FunctionType)}
        return repr(sorted((name, _normal_bytecode(f)) for name, f in functions.items()))
    return _bytecode_text(getattr(fn, "__code__", None))


def _bytecode_text(code: types.CodeType | None) -> str:
    if code is None:
        return ""
    names = (code.co_names, code.co_varnames, code.co_freevars)
    return repr((code.co_code.hex(), [_normal_constant(c) for c in code.co_consts], names))


def _normal_constant(constant: object) -> str:
    if isinstance(constant, types.CodeType):
        return _bytecode_text(constant)
    if isinstance(constant, frozenset):  # its order differs from process to process
        return repr(sorted(map(_normal_constant, constant)))
    return repr(constant)
