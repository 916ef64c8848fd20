"""`import raflow` is cheap, and so is a first task: what is not needed yet is not loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"alembic", "fastapi", "pandas", "polars", "pyarrow", "ray", "sqlalchemy", "typer"}


FIRST_TASK = """
from raflow import flow, task

@task
def one():
    return 1

@flow(backend="local")
def first():
    return one()

assert first() == 1
"""


def modules_after(*command: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded at the end of a program."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def telling(program: str) -> str:
    return f"{program}\nimport json, sys\nprint(json.dumps([*sys.modules]))"


@pytest.mark.parametrize(
    "statement",
    [
        "import raflow",
        "from raflow import flow, task",
        "import raflow\n@raflow.flow\ndef f(): ...\n@raflow.task\ndef t(): ...",
    ],
)
def test_importing_raflow_loads_nothing_heavy(statement: str) -> None:
    modules = modules_after("-c", telling(statement))
    loaded = {name.partition(".")[0] for name in modules}
    assert "raflow" in loaded
    assert loaded & HEAVY == set()


def test_a_first_local_task_waits_for_nothing_that_it_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFLOW_HOME", str(tmp_path / "home"))
    program = tmp_path / "first.py"
    program.write_text(telling(FIRST_TASK), encoding="utf-8")
    loaded = modules_after(str(program))
    assert "raflow.store" in loaded
    needless = {"alembic", "fsspec", "psutil", "pyarrow", "ray", "sqlalchemy.dialects.postgresql"}
    assert loaded & needless == set()


def test_what_runs_flows_does_not_wait_for_the_database_to_be_loaded() -> None:
    """The first task of a short flow is over before SQLAlchemy is."""
    code = "import raflow.runtime, sys; print('sqlalchemy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
