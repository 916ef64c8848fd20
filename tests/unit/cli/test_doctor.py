"""The doctor: what is sound, what is not, and how to mend it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from raflow import config
from raflow.cli._errors import ExitCode
from raflow.cli.doctor import Health, _machine, _record, _service, run_checks
from raflow.model import Pool, PoolState, Stage, WorkerInfo
from tests.unit.cli.conftest import Cli

NOW = 1_790_000_000.0
WELL = {
    "versions": {"raflow": "0.1.0"},
    "database_seconds": 0.002,
    "loops": [{"name": "scheduler", "is_well": True}],
}


def test_a_sound_installation(cli: Cli) -> None:
    ended = cli("doctor")
    assert ended.code == ExitCode.OK
    assert "made by the first run" in ended.out
    cli("db", "upgrade")
    checks = json.loads(cli("doctor", "--json").out)
    assert checks["ok"] is True
    assert [check["name"] for check in checks["checks"]] == [
        *("python", "raflow", "ray", "home", "disk", "signing key", "result storage"),
        *("code storage", "backend", "database", "clock", "schedules", "workers"),
    ]
    assert all(check["health"] != "failed" for check in checks["checks"])


@pytest.mark.parametrize(
    ("variable", "value", "check", "said"),
    [
        ("RAFLOW_HOME", "/proc/raflow", "home", "RAFLOW_HOME"),
        ("RAFLOW_RESULT_STORAGE", "/proc/raflow", "result storage", "RAFLOW_RESULT_STORAGE"),
        ("RAFLOW_BUNDLE_STORAGE", "/proc/raflow", "code storage", "/proc/raflow"),
        ("RAFLOW_DATABASE_URL", "sqlite:////proc/no.db", "database", "/proc/no.db"),
        ("RAFLOW_BACKEND", "dask", "settings", "RAFLOW_BACKEND"),
        ("RAFLOW_API_URL", "http://127.0.0.1:1", "service", "http://127.0.0.1:1"),
        ("RAFLOW_API_URL", "nowhere", "access", "RAFLOW_API_URL"),
    ],
)
def test_what_is_wrong_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    ended = cli("doctor", "--json")
    assert ended.code == ExitCode.ENVIRONMENT
    found = {c["name"]: c for c in json.loads(ended.out)["checks"]}[check]
    assert found["health"] == "failed"
    assert said in found["found"] + found["remedy"]


def test_a_key_that_others_can_read(cli: Cli, raflow_home: Path) -> None:
    cli("doctor")
    (raflow_home / "keys" / "results.key").chmod(0o644)
    ended = cli("doctor")
    assert ended.code == ExitCode.ENVIRONMENT
    assert "chmod 600" in ended.out


def test_an_outdated_database(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    cli("db", "upgrade")
    monkeypatch.setattr("raflow.store.EXPECTED_REVISION", "9999")
    found = {check.name: check for check in run_checks(with_ray=False)}["database"]
    assert found.health is Health.FAILED
    assert found.remedy == "Run `raflow db upgrade`."


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_machine, "ENOUGH_DISK", 1 << 60)
    monkeypatch.setattr(_machine, "ENOUGH_SHARED_MEMORY", 1 << 60)
    found = _machine._disk(config.load(home=tmp_path))
    assert found.health is Health.WARNING
    assert found.remedy == "Free some space, or set RAFLOW_HOME to a larger disk."
    assert _machine.ray().health is Health.WARNING


def test_whether_a_cluster_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = "{}:{}".format(*head.getsockname())
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
        found = _machine._backend(config.load(backend="ray", ray_address=address))
        assert found.health is Health.OK
        assert found.found.endswith(f"{address}, with the token in RAY_AUTH_TOKEN")
    found = _machine._backend(config.load(backend="ray", ray_address=address))
    assert found.health is Health.FAILED
    assert "ray start --head" in found.remedy
    found = _machine._backend(config.load(backend="ray", ray_address="ray://head:10001"))
    assert "host:port" in found.remedy


def test_clocks_that_differ() -> None:
    assert _record.of_clock(-1.9, "the database").health is Health.OK
    found = _record.of_clock(-90.0, "the database")
    assert (found.health, found.found) == (Health.WARNING, "90.0 s behind the database's")
    assert "NTP" in found.remedy


def test_schedules_that_nobody_looks_after() -> None:
    for due in (None, NOW + 5, NOW - 59):
        assert _record.of_schedules(due, NOW).health is Health.OK
    found = _record.of_schedules(NOW - 600, NOW)
    assert (found.health, found.found) == (
        Health.WARNING,
        "one was due 10 min ago, and nobody has looked",
    )


def test_runs_that_wait_for_no_worker_and_workers_of_other_versions() -> None:
    pool = PoolState(pool=Pool(name="gpu"), counts={Stage.WAITING: 1}, waiting_since=NOW)
    found = _record.of_workers([pool], ())
    assert found.health is Health.WARNING
    assert found.remedy == "Start one: `raflow worker --pool gpu`."
    known: dict[str, Any] = _record._versions()
    same = known | {"python": known["python"].rpartition(".")[0] + ".99"}
    assert _record.of_workers((), [_worker(same)]).health is Health.OK
    found = _record.of_workers((), [_worker(same), _worker(known | {"ray": "1.0.0"})])
    assert (found.health, found.found[:24]) == (Health.WARNING, "worker 'box' has ray 1.0")


def _worker(versions: dict[str, str]) -> WorkerInfo:
    return WorkerInfo(id="w1", name="box", pool="gpu", host="here", pid=7, versions=versions)


def test_a_record_on_a_file_system_of_several_machines(
    monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    cli("db", "upgrade")
    assert _record._file_system("/proc/self/fd") == "proc"
    monkeypatch.setattr(_record, "_file_system", lambda _: "nfs4")
    found = {check.name: check for check in run_checks(with_ray=False)}["database"]
    assert found.health is Health.WARNING
    assert "PostgreSQL" in found.remedy


def test_what_a_service_says_of_itself() -> None:
    assert _service.of_health(WELL, "0.1.0").health is Health.OK
    assert "0.2.0" in _service.of_health(WELL, "0.2.0").found
    stuck = WELL | {"loops": [{"name": "scheduler", "is_well": False}]}
    assert "stuck: scheduler" in _service.of_health(stuck, "0.1.0").found
