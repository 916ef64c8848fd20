"""Pools, workers, and deployments that are paused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raflow import config
from raflow.cli._errors import ExitCode
from raflow.model import WorkerInfo
from raflow.store import Store
from tests.unit.cli.conftest import Cli

FLOW = "from raflow import flow\n\n@flow\ndef etl() -> None:\n    pass\n"


@pytest.fixture
def store() -> Store:
    settings = config.load()
    return Store.open(settings.database, log_dir=settings.logs)


def listed(cli: Cli, what: str) -> Any:
    return json.loads(cli(what, "ls", "--json").out)


def test_a_pool_is_made_changed_paused_and_removed(cli: Cli) -> None:
    assert "There is no work pool" in cli("pools", "ls").out
    told = cli("pools", "set", "gpu", "--concurrency", "2", "--description", "four cards")
    assert told.out == "Pool 'gpu' has 2 at most under way at the same time.\n"
    assert "`raflow pools resume gpu`" in cli("pools", "pause", "gpu").out
    [pool] = listed(cli, "pools")
    assert (pool["concurrency"], pool["paused"], pool["description"]) == (2, True, "four cards")
    cli("pools", "resume", "gpu")
    assert "any number" in cli("pools", "set", "gpu", "--unlimited").out
    [pool] = listed(cli, "pools")
    assert (pool["concurrency"], pool["paused"]) == (None, False)
    wrong = cli("pools", "pause", "gpo")
    assert (wrong.code, "Did you mean 'gpu'?" in wrong.err) == (ExitCode.USAGE, True)
    assert "gpu" in cli("pools", "ls").out
    cli("pools", "rm", "gpu")
    assert listed(cli, "pools") == []


def test_workers_are_listed_and_told_to_end(cli: Cli, store: Store) -> None:
    assert "    raflow worker\n" in cli("workers", "ls").out
    info = WorkerInfo(id="w1", name="box", pool="gpu", host="here", pid=7, runners=4, busy=1)
    with store:
        store.work.worker_seen(info, seconds=60)
        assert "1 of 4" in cli("workers", "ls").out
        assert cli("workers", "drain", "bax").code == ExitCode.USAGE
        assert "1 worker told to end" in cli("workers", "drain", "box").out
        [worker] = listed(cli, "workers")
        assert (worker["name"], worker["draining"], worker["busy"]) == ("box", True, 1)
        assert store.work.worker_seen(info, seconds=60).draining


def test_a_deployment_is_paused_and_its_runs_say_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "etl.py").write_text(FLOW)
    cli("deploy", f"{tmp_path}/etl.py:etl", "--name", "nightly")
    assert (
        "is paused. `raflow deployments resume nightly`"
        in cli("deployments", "pause", "nightly").out
    )
    assert "nightly (paused)" in cli("deployments", "ls").out
    assert json.loads(cli("deployments", "show", "nightly", "--json").out)["paused"]
    told = cli("run-deployment", "nightly").out
    assert "Deployment 'nightly' is paused: `raflow deployments resume nightly`; pool" in told
    cli("deployments", "resume", "nightly")
    assert "paused" not in cli("runs", "ls").out
