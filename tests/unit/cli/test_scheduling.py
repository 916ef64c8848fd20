"""Deploying with schedules, and looking at them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raflow import config
from raflow.cli._errors import ExitCode
from raflow.store import Store
from tests.unit.cli.conftest import Cli

FLOW = """
from datetime import timedelta
from raflow import Cron, Interval, Schedule, ScheduleSpec, flow

@flow
def etl(regions: list[str], day: str = "today") -> int:
    return len(regions)

def deploy():
    early = Schedule(rule=Cron("0 4 * * *"))
    special = ScheduleSpec(name="eu", schedule=early, parameters={"regions": ["eu"]})
    return etl.deploy(parameters={"regions": []}, schedules=[Interval(timedelta(hours=1)), special])
"""


@pytest.fixture
def etl(tmp_path: Path, raflow_home: Path) -> str:
    (tmp_path / "etl.py").write_text(FLOW)
    return f"{tmp_path}/etl.py:etl"


def schedules(cli: Cli, *names: str) -> Any:
    return json.loads(cli("schedules", "ls", *names, "--json").out)


def test_a_deployment_gets_schedules(cli: Cli, etl: str) -> None:
    command = ("deploy", etl, "-p", 'regions=["eu"]', "--timezone", "Europe/Paris")
    told = cli(*command, "--cron", "30 2 * * *", "--interval", "90m", "--catchup", "latest")
    assert told.code == ExitCode.OK, told.err
    assert "Schedule 'cron': next 20" in told.out
    cron, interval = schedules(cli)
    assert (cron["name"], interval["name"]) == ("cron", "interval")
    assert (cron["deployment"], cron["timezone"], cron["active"]) == ("etl", "Europe/Paris", True)
    assert cron["rule"]["expression"] == "30 2 * * *"
    assert cron["policy"]["catch_up"] == interval["policy"]["catch_up"] == "latest"
    shown = cli("schedules", "show", "etl/interval").out
    assert "every 1h30m" in shown
    assert "latest, within 1h" in shown
    assert "etl/cron" in cli("schedules", "ls", "etl").out
    # A deploy says all of it.
    assert cli("deploy", etl, "-p", 'regions=["eu"]', "--cron", "30 2 * * *").code == ExitCode.OK
    [left] = schedules(cli, "etl")
    assert (left["id"], left["generation"], left["timezone"]) == (cron["id"], 2, "UTC")
    assert "schedules.interval" in cli("deployments", "diff", "etl").out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cron", "61 * * * *"), "'61' is no minute"),
        (("--cron", "@daily", "--timezone", "Paris"), "'Paris' is no time zone"),
        (("--cron", "@daily", "--overlap", "twice"), "overlap: 'twice' is not one of"),
        (("--interval", "often"), "'often' is no stretch of time"),
        (("--at", "soon"), "'soon' is no time"),
        (("--jitter", "5m"), "and no schedule"),
    ],
)
def test_what_is_written_wrongly_is_told_before_anything_is_done(
    cli: Cli, raflow_home: Path, options: tuple[str, ...], told: str
) -> None:
    # Not even the file is looked for.
    ended = cli("deploy", "nowhere.py:etl", *options)
    assert ended.code == ExitCode.USAGE
    assert told in ended.err
    assert not (raflow_home / "raflow.db").exists()


def test_a_schedule_whose_runs_could_not_begin_is_refused(cli: Cli, etl: str) -> None:
    ended = cli("deploy", etl, "--cron", "@daily")
    assert ended.code == ExitCode.USAGE
    assert "Runs of schedule 'cron' could not begin" in ended.err
    assert "'regions' is missing" in ended.err
    assert cli("deployments", "ls", "--json").out == "[]\n"


def test_python_says_the_same(cli: Cli, etl: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "etl", "__file__": str(tmp_path / "etl.py")}
    exec(compile(FLOW, tmp_path / "etl.py", "exec"), names)
    assert names["deploy"]().version == 1
    eu, interval = schedules(cli, "etl")
    assert (eu["name"], eu["parameters"]) == ("eu", {"regions": ["eu"]})
    assert (interval["name"], interval["parameters"]) == ("interval", {})


def test_the_next_slots_tell_of_clocks_that_are_changed(cli: Cli, etl: str) -> None:
    year = datetime.now(UTC).year + 1
    options = ("--timezone", "Europe/Paris", "--start", f"{year}-03-20", "--end", f"{year}-04-02")
    cli("deploy", etl, "-p", "regions=[]", "--cron", "30 2 * * *", *options)
    slots = json.loads(cli("schedules", "next", "etl", "-n", "50", "--json").out)
    assert len(slots) == 13
    [special] = [slot for slot in slots if slot["words"]]
    assert special["local"].endswith("03:00:00+02:00")
    assert "02:30 does not exist on" in special["words"]
    assert "when it starts instead" in cli("schedules", "next", "etl").out


def test_a_schedule_is_paused_and_goes_on(cli: Cli, etl: str) -> None:
    cli("deploy", etl, "-p", "regions=[]", "--cron", "@daily")
    assert cli("schedules", "pause", "etl").out == "Schedule 'etl/cron' is paused.\n"
    [row] = schedules(cli)
    assert (row["active"], row["next_at"]) == (False, None)
    assert "It is paused" in cli("schedules", "next", "etl").out
    assert "paused" in cli("schedules", "ls").out
    assert "goes on; next: 20" in cli("schedules", "resume", row["id"]).out
    with Store.open(config.load().database, log_dir=Path()) as store:
        store.feed.sequence()
        told = [event.payload["what"] for event in store.feed.after(0, kinds=["schedule.*"])]
        actors = {event.actor for event in store.feed.after(0, kinds=["schedule.*"])}
    assert told == ["made", "paused", "resumed"]
    assert len(actors) == 1
    assert "@" in actors.pop()


def test_slots_that_were_decided(cli: Cli, etl: str) -> None:
    cli("deploy", etl, "-p", "regions=[]", "--interval", "1s", "--overlap", "allow_all")
    with Store.open(config.load().database, log_dir=Path()) as store:
        while not store.schedules.decide_due().runs:
            pass
    [slot, *_] = json.loads(cli("schedules", "slots", "etl", "--json").out)
    assert (slot["action"], slot["reason"]) == ("started", "")
    assert "started" in cli("schedules", "slots", "etl").out


def test_a_schedule_that_is_not_there(cli: Cli, etl: str) -> None:
    assert "raflow deploy FILE:FLOW --cron" in cli("schedules", "ls").out
    assert schedules(cli) == []
    cli("deploy", etl, "-p", "regions=[]", "--cron", "@daily", "--cron", "@hourly")
    ended = cli("schedules", "show", "etl")
    assert (ended.code, "etl/cron, etl/cron-2" in ended.err) == (ExitCode.USAGE, True)
    ended = cli("schedules", "pause", "etl/corn")
    assert (ended.code, "'etl/cron'" in ended.err) == (ExitCode.USAGE, True)


def test_a_schedule_is_set_and_deleted_by_hand(cli: Cli, etl: str) -> None:
    cli("deploy", etl, "--cron", "0 4 * * *", "-p", 'regions=["eu"]')
    told = cli("schedules", "set", "etl/audit", "--interval", "2h", "-p", 'regions=["us"]')
    assert told.out.startswith("Schedule 'etl/audit' is made; next: ")
    [audit, _] = schedules(cli)
    assert (audit["name"], audit["parameters"]) == ("audit", {"regions": ["us"]})
    cli("deploy", etl, "--cron", "0 5 * * *", "-p", 'regions=["eu"]')
    assert [one["name"] for one in schedules(cli)] == ["audit", "cron"]
    for wrong, said in (
        (("set", "etl/cron", "--interval", "2h"), "is part of the deployment"),
        (("delete", "etl/cron"), "is part of the deployment"),
        (("set", "etl", "--interval", "2h"), "Write DEPLOYMENT/SCHEDULE."),
        (("set", "etl/x", "--cron", "0 5 * * *", "-p", "regions=3"), "could not begin"),
        (("set", "etl/x"), "has one of cron, interval, rrule and at"),
    ):
        refused = cli("schedules", *wrong)
        assert refused.code == ExitCode.USAGE
        assert said in " ".join(refused.err.replace("│", " ").split())
    assert "is removed" in cli("schedules", "delete", "etl/audit").out
    assert [one["name"] for one in schedules(cli)] == ["cron"]
