"""Whoever orders, takes or puts back runs may die at any moment: nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raflow.model import Stage, StateName
from raflow.store import Store
from tests.store import orders, times

ROOT = Path(__file__).parents[2]

_ACTS = {
    "order": "store.work.order([order('r1', key='k', digest=b'1')])",
    "claim": "store.work.claim('default', 'w1', most=5, seconds=30, claim='c')",
    "reap": "store.work.put_back('r1', message='its worker died')",
}


def die_at(url: str, directory: Path, point: str, by: str) -> None:
    """Have another process die there."""
    code = (
        "import sys; from pathlib import Path; from raflow.store import Store\n"
        "from tests.store.orders import order\n"
        "store = Store.open(sys.argv[1], log_dir=Path(sys.argv[2]))\n"
        f"{_ACTS[point.partition('.')[0]]}\n"
        "print('survived')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(directory)],
        env={**os.environ, "RAFLOW_CRASH": f"{point}:1:{by}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.Signals[by], done.stderr
    assert "survived" not in done.stdout


@pytest.mark.parametrize("by", ["SIGKILL", pytest.param("SIGTERM", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "point",
    [f"{act}.{when}" for act in ("order", "claim") for when in ("before_commit", "after_commit")],
)
def test_whoever_dies_is_repeated_and_there_is_one_run(
    sqlite_url: str, tmp_path: Path, point: str, by: str
) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        if point.startswith("claim"):
            orders.ordered(store, "r1")
        die_at(sqlite_url, tmp_path, point, by)
        done = point.endswith("after_commit")
        if point.startswith("order"):
            assert [run.id for run in store.flow_runs()] == (["r1"] if done else [])
            again = orders.order("r2", key="k", digest=b"1")
            assert store.work.order([again]) == [("r1", False) if done else ("r2", True)]
        else:
            assert (orders.stage_of(store, "r1") is Stage.CLAIMED) is done
        [taken] = store.work.claim("default", "w1", most=5, seconds=30, claim="c")
        assert len(store.flow_runs()) == 1
        assert orders.record(store, taken, StateName.RUNNING)


@pytest.mark.parametrize("when", ["before_put_back", "after_put_back"])
def test_whoever_puts_a_run_back_dies(sqlite_url: str, tmp_path: Path, when: str) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        orders.begun(store, "r1")
        times.let_pass(store, 31)
        die_at(sqlite_url, tmp_path, f"reap.{when}", "SIGKILL")
        left = len(store.work.dead())
        assert left == (1 if when == "before_put_back" else 0)
        assert store.work.put_back("r1", message="its worker died") is bool(left)
        [taken] = orders.claim(store, "w2")
        assert taken.flow_run.state.name is StateName.AWAITING_RETRY
        place = store.work.dispatch("r1")
        assert place is not None
        assert place.resumes == 1
