"""Whoever decides about slots, or changes schedules, may die at any moment, and several do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raflow.model import BackfillOrder, SlotAction
from raflow.model.schedule import Cron, Overlap, Policy
from raflow.store import Store
from tests.store import schedules
from tests.store.schedules import deploy, each_second, put, spec

ROOT = Path(__file__).parents[2]
_BEGIN = (
    "import sys; from pathlib import Path; from raflow.store import Store\n"
    "from tests.store.schedules import Cron, put, spec\n"
    "store = Store.open(sys.argv[1], log_dir=Path(sys.argv[2]), wait_seconds=60.0)\n"
)
_DECIDE = "while store.schedules.decide_due(limit=2).schedules: pass\n"
_BACKFILL = (
    "from raflow.model import BackfillOrder\n"
    "store.backfills.create(BackfillOrder(deployment='nightly', schedule='main', since=100.0,\n"
    "    until=104.0, concurrency=5))\n"
)
_TAKE = "store.backfills.take()\n"
_EDIT = "put(store, spec(Cron('0 3 * * *')))\n"


def process(url: str, directory: Path, code: str, crash: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _BEGIN + code, url, str(directory)],
        env={**os.environ, "RAFLOW_CRASH": crash},
        cwd=ROOT,
        text=True,
    )


@pytest.mark.parametrize(
    "by",
    ["SIGKILL", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT"))],
)
@pytest.mark.parametrize("when", ["before_claim", "after_claim", "before_commit", "after_commit"])
def test_a_slot_has_one_run_whoever_dies(
    sqlite_url: str, tmp_path: Path, when: str, by: str
) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        deploy(store)
        row = put(store, spec(Cron("0 0 1 1 *"), policy=Policy(overlap=Overlap.ALLOW_ALL)))
        _, nominal = schedules.rewind(store, put(store, each_second()).id, 5)
        with process(sqlite_url, tmp_path, _DECIDE, f"scheduler.{when}:1:{by}") as dying:
            code = dying.wait(120)
        assert code == -signal.Signals[by]
        assert bool(store.flow_runs()) is (when == "after_commit")
        while store.schedules.decide_due().schedules:
            pass
        slots = [s for s in store.schedules.slots(row.id) if s.instant in nominal]
        assert sorted(s.instant for s in slots) == nominal
        assert sum(s.action is SlotAction.STARTED for s in slots) == 1
        assert {run.id for run in store.flow_runs()} == {
            s.flow_run_id for s in store.schedules.slots(row.id) if s.flow_run_id
        }


@pytest.mark.parametrize("when", ["before_edit", "after_edit"])
def test_an_edit_is_whole_or_not_at_all(sqlite_url: str, tmp_path: Path, when: str) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        deploy(store)
        put(store)
        with process(sqlite_url, tmp_path, _EDIT, f"schedules.{when}:1:SIGKILL") as dying:
            assert dying.wait(120) == -signal.SIGKILL
        [row] = store.schedules.of()
        assert row.generation == (1 if when == "before_edit" else 2)
        # Whoever does not know repeats it.
        assert put(store, spec(Cron("0 3 * * *"))).generation == 2


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_backfill_is_there_or_not_and_its_slots_have_one_run(
    sqlite_url: str, tmp_path: Path, when: str
) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        deploy(store)
        put(store, each_second())
        wanted = BackfillOrder(
            deployment="nightly", schedule="main", since=100.0, until=104.0, concurrency=5
        )
        with process(sqlite_url, tmp_path, _BACKFILL, f"backfill.{when}:1:SIGKILL") as dying:
            assert dying.wait(120) == -signal.SIGKILL
        assert bool(store.backfills.all()) is (when == "after_commit")
        if when == "before_commit":
            store.backfills.create(wanted)
        with process(sqlite_url, tmp_path, _TAKE, f"backfill.{when}:1:SIGKILL") as dying:
            assert dying.wait(120) == -signal.SIGKILL
        assert len(store.flow_runs()) == (5 if when == "after_commit" else 0)
        store.backfills.take()
        assert len({run.id for run in store.flow_runs()}) == 5


def test_processes_that_decide_at_once_and_die(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    deploy(store)
    policy = Policy(overlap=Overlap.ALLOW_ALL)
    rows = store.schedules.put("nightly", [each_second(name=n, policy=policy) for n in "abcdef"])
    nominal = {row.id: schedules.rewind(store, row.id, 20)[1] for row in rows}
    crashes = ["scheduler.before_commit:2:SIGKILL", "scheduler.after_commit:1:SIGKILL", ""]
    begun = [process(database_url, tmp_path, _DECIDE, crash) for crash in crashes]
    codes = [one.wait(120) for one in begun]
    assert codes[2] == 0
    while store.schedules.decide_due().schedules:
        pass
    runs = [run.origin for run in store.flow_runs(limit=None) if run.origin]
    for row in rows:
        found = sorted(o.slot for o in runs if o.schedule_id == row.id and o.slot)
        assert found[:20] == nominal[row.id]
        assert len(set(found)) == len(found)
