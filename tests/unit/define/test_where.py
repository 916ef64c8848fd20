"""Requests and futures say where in the user's code the call stands."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from raflow.define import flow, task
from raflow.define._where import user_line
from tests.unit.define.fake_flow import FakeFlow


@task
def add(a: Any, b: Any = 2) -> Any:
    return a + b


class Steps:
    @task
    def method(self, x: int) -> int:
        return x


@flow
def inner(n: int) -> int:
    return n


def lines(body: FakeFlow) -> list[str]:
    found = [request.line for request in body.requests]
    body.requests.clear()
    return found


def here(offset: int = 0) -> str:
    return f"test_where.py:{sys._getframe(1).f_lineno + offset}"


def test_calls_of_every_kind_tell_their_line(body: FakeFlow) -> None:
    add(1)
    add(1, b=[2])
    add.submit(1)
    add.map([1])
    Steps().method(1)
    Steps().method.submit(1)
    Steps().method.map([1])
    inner(1)
    inner.submit(1)
    assert lines(body) == [here(offset) for offset in range(-9, 0)]


def test_calls_on_one_line_and_in_a_loop(body: FakeFlow) -> None:
    for n in range(3):
        add(n)
        add(add(n), b=n)
    first, second = here(-2), here(-1)
    assert lines(body) == [first, second, second] * 3


def test_calls_in_comprehensions_and_nested_functions(body: FakeFlow) -> None:
    listed = [
        add(n)
        for n in range(2)
    ]  # fmt: skip

    def nested() -> Any:
        return add(1), [*(add(n) for n in range(1))]

    nested()
    assert len(listed) == 2
    assert lines(body) == [here(-9), here(-9), here(-4), here(-4)]


def test_a_call_over_several_lines_tells_where_it_begins(body: FakeFlow) -> None:
    add(
        1,
        b=3,
    )
    assert lines(body) == [here(-4)]


def test_equal_code_of_two_files_is_told_apart(body: FakeFlow) -> None:
    for name in ("one.py", "two.py"):
        exec(compile("add(1)", str(Path("folder") / name), "exec"), {"add": add})
    exec(compile("\n\nadd(1)", "one.py", "exec"), {"add": add})
    assert lines(body) == ["one.py:1", "two.py:1", "one.py:3"]


def test_code_is_not_kept_for_ever(body: FakeFlow) -> None:
    first: dict[str, Any] = {"add": add}
    exec(compile("def f():\n    add(1)\n", "first.py", "exec"), first)
    first["f"]()
    gone = weakref.ref(first["f"].__code__)
    first.clear()
    for n in range(5000):
        exec(compile(f"add({n})", f"{n}.py", "exec"), {"add": add})
    gc.collect()
    assert gone() is None
    assert lines(body) == ["first.py:2", *(f"{n}.py:1" for n in range(5000))]


@pytest.mark.parametrize("skip", [0, 1])
def test_own_frames_are_passed_over_with_or_without_looking(skip: int) -> None:
    def caller() -> str:
        return user_line(skip)

    line = caller()
    assert line == (here(-3) if skip == 0 else here(-1))
