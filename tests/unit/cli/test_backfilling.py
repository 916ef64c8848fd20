"""Backfills from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raflow import config
from raflow.cli._errors import ExitCode
from raflow.store import Store
from tests.unit.cli.conftest import Cli

FLOW = """
from datetime import date
from raflow import flow

@flow
def etl(day: date, n: int = 1) -> str:
    return str(day)
"""
RANGE = ("--since", "2026-01-01", "--until", "2026-01-10")


@pytest.fixture
def etl(cli: Cli, tmp_path: Path, raflow_home: Path) -> None:
    """A deployment with a schedule: midnight in Paris, whose runs know their day."""
    (tmp_path / "etl.py").write_text(FLOW)
    day = ("-p", "day={slot:%Y-%m-%d}")
    done = cli("deploy", "etl.py:etl", *day, "--cron", "@daily", "--timezone", "Europe/Paris")
    assert done.code == ExitCode.OK, done.err


def told(cli: Cli, *args: str) -> Any:
    ended = cli("backfill", *args, "--json")
    assert ended.code == ExitCode.OK, ended.err
    return json.loads(ended.out)


@pytest.mark.usefixtures("etl")
def test_a_dry_run_only_tells(cli: Cli) -> None:
    found = told(cli, "create", "etl", *RANGE, "--dry-run")
    assert (found["slots"], found["runs"], found["already"]) == (10, 10, {})
    assert found["first"][0] == "2025-12-31T23:00:00.000Z"
    shown = cli("backfill", "create", "etl/cron", *RANGE, "--dry-run").out
    assert "10 slots, 10 runs to order." in shown
    assert told(cli, "ls") == []


@pytest.mark.usefixtures("etl")
def test_a_backfill_from_beginning_to_end(cli: Cli) -> None:
    made = told(cli, "create", "etl", *RANGE, "--concurrency", "2", "-p", "n=5")
    assert (made["state"], made["total"], made["counts"]) == ("running", 10, {"waiting": 10})
    with Store.open(config.load().database, log_dir=Path()) as store:
        runs = [store.find_flow_run(run) for run in store.backfills.take().runs]
    assert [run.parameters for run in runs] == [
        {"day": "2026-01-01", "n": 5},
        {"day": "2026-01-02", "n": 5},
    ]
    name = made["id"][-6:]
    assert told(cli, "show", name)["counts"] == {"running": 2, "waiting": 8}
    assert "2 running, 8 waiting" in cli("backfill", "ls", "etl").out
    slots = told(cli, "slots", name, "-n", "3")
    assert [slot["outcome"] for slot in slots] == ["running", "running", "waiting"]
    assert "running" in cli("backfill", "slots", name).out
    assert told(cli, "pause", name)["state"] == "paused"
    assert told(cli, "resume", name)["state"] == "running"
    assert told(cli, "cancel", name)["counts"] == {"cancelled": 8, "running": 2}
    with Store.open(config.load().database, log_dir=Path()) as store:
        store.backfills.take()
    assert told(cli, "show", name)["counts"] == {"cancelled": 8, "failed": 2}
    again = told(cli, "retry", name)
    assert (again["state"], again["counts"]) == ("running", {"cancelled": 8, "waiting": 2})


@pytest.mark.usefixtures("etl")
def test_what_cannot_be_is_told(cli: Cli) -> None:
    for args, said in (
        (("etl", "--since", "soon"), "'soon' is no time"),
        (("etl", "--since", "2999-01-01"), "is of the past"),
        (("etl/corn", *RANGE), "'etl/cron'"),
        (("etl", *RANGE, "-p", "n=many"), "could not begin"),
        (("etl", *RANGE, "--every", "often"), "no stretch of time"),
        (("none", *RANGE, "--every", "1d"), "deployment 'none'"),
    ):
        ended = cli("backfill", "create", *args)
        assert (ended.code, said in " ".join(ended.err.split())) == (ExitCode.USAGE, True), ended
    assert cli("backfill", "show", "000000").code == ExitCode.USAGE
