"""What a flow refers to, and the hash of its code."""

from __future__ import annotations

import functools
import linecache
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raflow.define import Flow, Task, code_fingerprint, flow, task
from tests.unit.define import some_tasks
from tests.unit.define.some_tasks import Steps

alone = some_tasks.first.with_options(name="alone")
listed = [some_tasks.first.with_options(name="in list")]
by_name = {"x": some_tasks.first.with_options(name="in dict")}
bound = Steps().method
part = functools.partial(some_tasks.first.with_options(name="in partial"), 1)


@task
def unused(x: int) -> int:
    return x


def helper(x: Any) -> Any:
    return [alone(y) for y in x]


@flow
def child() -> Any:
    return some_tasks.second(1)


@flow
def everything(unused: int = 0) -> Any:
    local = unused

    def inner() -> Any:
        return some_tasks.nested.third(1)

    class Holder:
        unused = 1

    helper([local])
    listed[0](1)
    by_name["x"](1)
    Steps.shared(1)
    bound(1)
    part()
    return child(), inner(), Holder().unused


def test_everything_that_the_code_names_is_found() -> None:
    names = {found.name for found in everything.tasks()}
    assert names == {
        *("alone", "in list", "in dict", "in partial", "shared", "method", "child", "second"),
        "third",
    }
    assert {found.kind for found in everything.tasks()} == {"task", "flow"}


def test_decorators_and_partials_are_looked_into() -> None:
    made = flow(functools.partial(helper, [1]))
    assert [found.name for found in made.tasks()] == ["alone"]
    assert made.source.startswith("def helper(")
    other = flow(name="helper")(functools.partial(some_tasks.first.fn, 1))
    assert made.fingerprint() != other.fingerprint()


def test_closures_are_looked_into() -> None:
    own = some_tasks.first.with_options(name="own")

    @flow
    def body() -> Any:
        return own(1), later(2)

    assert [found.name for found in body.tasks()] == ["own"]
    later = some_tasks.second
    assert [found.name for found in body.tasks()] == ["own", "second"]


def test_a_flow_that_calls_itself_is_found_once() -> None:
    @flow
    def again(n: int) -> Any:
        return again(n - 1) if n else alone(n)

    assert [found.name for found in again.tasks()] == ["alone"]


SOURCE = '''
"""A module."""
from __future__ import annotations
from raflow import flow, task

def helper(x):
    """Help."""
    return x + 1

@task(retries=2)
def load(x):
    return helper(x)

@flow
def etl(n: int):
    """Load."""
    # a comment
    return load(n)
'''


def flow_of(source: str, name: str, folder: Path) -> Flow[..., Any]:
    module = ModuleType(name)
    path = folder / f"{name}.py"
    path.write_text(source)
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        made: Flow[..., Any] = module.__dict__["etl"]
        made.fingerprint()
    finally:
        del sys.modules[name]
    return made


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("# a comment", "# another, longer comment\n", False),
        ('"""Load."""', '"""Load it all."""', False),
        ("return load(n)", "return load(\n        n,\n    )", False),
        ('"""A module."""', "# nothing\n\n\n", False),
        ("return load(n)", "return load(n + 1)", True),
        ("n: int", "n: str", True),
        ("return helper(x)", "return helper(2 * x)", True),
        ("return x + 1", "return x + 2", True),
        ("retries=2", "retries=3", True),
    ],
)
def test_the_fingerprint_follows_the_code_and_nothing_else(
    tmp_path: Path, old: str, new: str, differs: bool
) -> None:
    assert old in SOURCE
    before = flow_of(SOURCE, "some_module", tmp_path).fingerprint()
    after = flow_of(SOURCE.replace(old, new), "some_module", tmp_path).fingerprint()
    assert (before != after) == differs
    assert len(before) == 64


@pytest.mark.parametrize(
    "script",
    [
        "import pipeline; print(pipeline.etl.fingerprint())",
        "from raflow import flow; print(flow(lambda x: x in {'a', 'b', 'c'}).fingerprint())",
    ],
    ids=["source", "bytecode"],
)
def test_the_fingerprint_is_the_same_in_every_process(tmp_path: Path, script: str) -> None:
    (tmp_path / "pipeline.py").write_text(SOURCE)
    prints = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(prints) == 1


def test_code_without_a_source_has_a_fingerprint_too() -> None:
    def made(text: str) -> Flow[..., Any]:
        names: dict[str, Any] = {"flow": flow}
        exec(textwrap.dedent(text), names)
        found: Flow[..., Any] = names["etl"]
        return found

    one = made("@flow\ndef etl(x):\n    return [y + 1 for y in x]")
    same = made("\n\n@flow\ndef etl(x):\n    return [y + 1 for y in x]")
    other = made("@flow\ndef etl(x):\n    return [y + 2 for y in x]")
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.source == ""
    lambdas = [flow(lambda x: x + 1), flow(lambda x: x + 2)]
    assert lambdas[0].fingerprint() != lambdas[1].fingerprint()


TASK_SOURCE = '''
from __future__ import annotations
import functools
import raflow
from raflow import task
from raflow import task as step

def helper(x):
    return x + 1

def other(x):
    return helper(x)

def twice(fn):
    @functools.wraps(fn)
    def both(x):
        return fn(fn(x))
    return both

@task
def inner(x):
    return other(x)

@task(retries=2)
@twice
def load(x):
    """Load."""
    return inner(x)
'''


def code_of(source: str, folder: Path) -> str:
    path = folder / "some_tasks_module.py"
    path.write_text(source)
    module = ModuleType("some_tasks_module")
    sys.modules[module.__name__] = module
    linecache.checkcache(str(path))
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        made: Task[..., Any] = module.__dict__["load"]
        return made.code_fingerprint()
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("@task(retries=2)", "@task", False),
        ("@task(retries=2)", "@task(name='other', memory='2GiB')", False),
        ("@task(retries=2)", "@raflow.task", False),
        ("@task(retries=2)", "@step(retries=3)", False),
        ("@task\ndef inner", "@task(retries=5)\ndef inner", False),
        ('"""Load."""', "# says nothing", False),
        ("return inner(x)", "return inner(  x  )", False),
        ("return inner(x)", "return inner(x + 1)", True),
        ("return other(x)", "return other(x + 1)", True),
        ("return x + 1", "return x + 2", True),
        ("return fn(fn(x))", "return fn(x)", True),
        ("@twice", "", True),
        ("@twice", "@functools.cache", True),
        ("def load(x)", "def load(x=1)", True),
    ],
)
def test_the_code_of_a_task_counts_and_its_options_do_not(
    tmp_path: Path, old: str, new: str, differs: bool
) -> None:
    assert old in TASK_SOURCE
    before = code_of(TASK_SOURCE, tmp_path)
    assert before == code_of(TASK_SOURCE, tmp_path)
    assert (before != code_of(TASK_SOURCE.replace(old, new), tmp_path)) == differs


def test_copies_of_a_task_have_the_same_code() -> None:
    first = some_tasks.first
    assert first.code_fingerprint() == first.with_options(name="x", retries=3).code_fingerprint()
    assert first.code_fingerprint() == code_fingerprint(first.fn)
    assert first.code_fingerprint() != some_tasks.second.code_fingerprint()


DECORATORS = [lambda fn: fn]


def test_decorators_of_any_form_are_part_of_the_code() -> None:
    @task
    @DECORATORS[0]
    def plain(x: int) -> int:
        return x

    @task
    def bare(x: int) -> int:
        return x

    assert plain.code_fingerprint() != bare.code_fingerprint()
    wrapped = task(functools.wraps(bare.fn)(functools.partial(bare.fn, x=1)))
    assert wrapped.code_fingerprint() != bare.code_fingerprint()
    assert task(abs).code_fingerprint() == task(abs).code_fingerprint()


def test_a_task_declared_with_a_name_that_only_a_function_knows() -> None:
    from raflow import task as local_task

    @local_task
    def load(x: int) -> int:
        return x

    declared = load

    @some_decorator  # type: ignore[no-redef]  # on purpose
    def load(x: int) -> int:
        return x

    assert declared.code_fingerprint() != code_fingerprint(load)


def some_decorator(fn: Any) -> Any:
    return fn


class Base:
    def size(self) -> int:
        return len(helper([]))


class Derived(Base):
    def name(self) -> str:
        return "derived"


def test_the_code_of_a_class_is_that_of_its_methods_and_bases() -> None:
    prints = {code_fingerprint(cls) for cls in (Base, Derived, int, str, Steps)}
    assert len(prints) == 4
    made = [type("Made", (), {"f": eval(text)}) for text in ("lambda s: 1", "lambda s: 2")]
    assert code_fingerprint(made[0]) != code_fingerprint(made[1])
