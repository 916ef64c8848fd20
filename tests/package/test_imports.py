"""`import raflow` is cheap: the heavy packages load when a flow runs, not before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"alembic", "fastapi", "pandas", "polars", "pyarrow", "ray", "sqlalchemy", "typer"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after a statement."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return {str(name).partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    "statement",
    [
        "import raflow",
        "from raflow import flow, task",
        "import raflow\n@raflow.flow\ndef f(): ...\n@raflow.task\ndef t(): ...",
    ],
)
def test_importing_raflow_loads_nothing_heavy(statement: str) -> None:
    loaded = modules_after(statement)
    assert "raflow" in loaded
    assert loaded & HEAVY == set()
