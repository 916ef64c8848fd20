"""The size limits that keep the code readable (docs/contributing/code.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
FILES = [
    path for path in sorted((ROOT / "raflow").rglob("*.py")) if "_migrations" not in path.parts
]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring: documentation is not length."""
    start, end = function.lineno, function.end_lineno or function.lineno
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        end -= (first.end_lineno or first.lineno) - first.lineno + 1
    return end - start + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    long = {f.name: lines for f in functions(path) if (lines := code_lines(f)) > MAX_FUNCTION_LINES}
    assert long == {}


def test_there_is_code_to_measure() -> None:
    assert FILES
