"""How a flow is found by what a person writes."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from raflow import errors
from raflow.define import find_flow

ONE = """
from raflow import flow, task

@task
def one() -> int:
    return 1

@flow(name="daily")
def main_flow() -> int:
    return one()
"""
TWO = (
    ONE
    + """
@flow
def other() -> int:
    return one()
"""
)


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["", ":main_flow", ":daily"])
def test_the_flow_of_a_file_by_either_name_or_none(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "pipeline.py", ONE)
    found = find_flow(file + name)
    assert found.flow.name == "daily"
    assert found.entrypoint == f"{file}:main_flow"
    assert sys.modules["pipeline"].__file__ == file


def test_a_module_in_the_working_directory(tmp_path: Path) -> None:
    write(tmp_path / "pipes" / "__init__.py", "")
    write(tmp_path / "pipes" / "daily.py", ONE)
    assert find_flow("pipes.daily:main_flow").entrypoint == "pipes.daily:main_flow"
    assert find_flow("pipes.daily").flow.name == "daily"


def test_a_file_in_a_package_may_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "src" / "pkg" / "__init__.py", "")
    write(tmp_path / "src" / "pkg" / "tasks.py", ONE.partition("@flow")[0])
    file = write(
        tmp_path / "src" / "pkg" / "flows.py",
        "from raflow import flow\nfrom .tasks import one\n@flow\ndef f() -> int: return one()\n",
    )
    assert find_flow(file).flow.fn.__module__ == "pkg.flows"


def test_a_file_with_the_name_of_another_module_travels_by_value(tmp_path: Path) -> None:
    file = write(tmp_path / "json.py", ONE)
    flow = find_flow(file).flow
    import json

    assert json.dumps(1) == "1"
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=cloudpickle.dumps(flow.tasks()[0].fn),
        cwd="/",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == b"1"


@pytest.mark.parametrize("name", ["my-flow.py", "01_start.py", "a.b.py"])
def test_files_whose_names_are_no_identifiers(tmp_path: Path, name: str) -> None:
    assert find_flow(write(tmp_path / name, ONE)).flow.name == "daily"


def test_a_flow_that_is_imported_counts_only_where_there_is_no_other(tmp_path: Path) -> None:
    write(tmp_path / "base.py", ONE)
    own = write(tmp_path / "own.py", "from base import main_flow\n" + TWO.replace("daily", "d2"))
    with pytest.raises(errors.NotFoundError) as caught:
        find_flow(own)
    assert caught.value.message.count(f"{own}:") == 2
    facade = write(tmp_path / "facade.py", "from base import main_flow\n")
    assert find_flow(facade).flow.name == "daily"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("two.py", r"'two.py' has 2 flows. Name one:\n  two.py:other\n  two.py:main_flow"),
        ("two.py:othr", r"No flow 'othr'. Did you mean 'other'"),
        ("tow.py", r"No file 'tow.py'. Did you mean 'two.py'"),
        ("none.py", "'none.py' has no flow. Decorate"),
        ("folder", "is a directory"),
        ("no_such_module", r"No file or module 'no_such_module'. .*raflow run MODULE:FLOW"),
        ("no.such.module:flow", "No file or module 'no.such.module'"),
        ("missing/file.py", "No file 'missing/file.py'"),
        (":flow", "':flow' names no file or module"),
    ],
)
def test_what_cannot_be_found_is_said_with_what_there_is(
    tmp_path: Path, target: str, said: str
) -> None:
    write(tmp_path / "two.py", TWO)
    write(tmp_path / "none.py", "x = 1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(errors.NotFoundError, match=said):
        find_flow(target)


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("import no_such_module", "ModuleNotFoundError", "import no_such_module"),
        ("def f(:", "SyntaxError", "def f(:"),
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError", "1 / 0"),
        ("raise SystemExit(3)", "SystemExit: 3", "raise SystemExit(3)"),
        ("from raflow import task\n@task(retries=-1)\ndef f(): ...", "retries=-1", "@task"),
    ],
)
@pytest.mark.parametrize("name", ["broken.py", "json.py"])
def test_code_that_raises_when_it_is_loaded_shows_only_its_own_frames(
    tmp_path: Path, name: str, text: str, said: str, line: str
) -> None:
    file = write(tmp_path / name, text)
    with pytest.raises(errors.DefinitionError) as caught:
        find_flow(file)
    assert said in caught.value.message
    trace = caught.value.user_traceback
    assert line in trace
    assert "importlib" not in trace
    assert "/raflow/" not in trace.replace(str(tmp_path), "")
    assert pickle.loads(pickle.dumps(caught.value)).user_traceback == trace


def test_a_mistyped_folder_or_file_gets_the_closest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "examples" / "01_flights" / "flow.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.chdir(tmp_path)
    for wrong in ("examples/01_flight/flow.py", "exmples/01_flights/flow.py", "examples/flow.py"):
        with pytest.raises(errors.NotFoundError) as caught:
            find_flow(wrong)
        expected = ["examples/01_flights/flow.py"] if wrong != "examples/flow.py" else []
        assert caught.value.closest == expected


PARTS = """
from raflow import flow

@flow
def part(n: int) -> int:
    return n

@flow
def whole(n: int) -> int:
    return part(n)
"""


def test_the_one_flow_that_no_other_calls_is_meant(tmp_path: Path) -> None:
    file = write(tmp_path / "parts.py", PARTS)
    assert find_flow(file).entrypoint == f"{file}:whole"
    assert find_flow(f"{file}:part").entrypoint == f"{file}:part"


def test_flows_that_others_call_are_listed_last(tmp_path: Path) -> None:
    file = write(tmp_path / "parts.py", PARTS + "\n@flow\ndef later() -> None: ...\n")
    with pytest.raises(errors.NotFoundError) as raised:
        find_flow(file)
    _, *listed = raised.value.message.splitlines()
    assert listed == [
        f"  {file}:later",
        f"  {file}:whole",
        f"  {file}:part  (called by whole)",
    ]
