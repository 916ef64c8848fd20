"""Limits and cached values, which all flow runs of a store share."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest

from raflow.cli._errors import ExitCode
from raflow.model import CacheEntry, ResultInfo, SlotRequest, TaskRunKey
from raflow.store import Store
from tests.unit.cli.conftest import RUN_ID, Cli


class Terminal(io.StringIO):
    """Standard input of a person."""

    def isatty(self) -> bool:
        return True


class TestLimits:
    def test_none_says_how_to_set_one(self, cli: Cli, raflow_home: Path) -> None:
        ended = cli("limits", "ls")
        assert ended.code == ExitCode.OK
        assert "raflow limits set warehouse 3" in ended.out
        assert json.loads(cli("limits", "ls", "--json").out) == []
        assert not raflow_home.exists()

    def test_set_change_and_remove(self, cli: Cli) -> None:
        assert "has 3 slots." in cli("limits", "set", "db", "3").out
        assert "has 1 slot." in cli("limits", "set", "db", "1").out
        assert (
            "has 10 slots per 60 s" in cli("limits", "set", "api", "10", "--per-seconds", "60").out
        )
        cli("limits", "set", "db", "5")
        lines = [line.split() for line in cli("limits", "ls").out.splitlines()[2:]]
        assert lines == [["api", "0", "10", "per", "60", "s"], ["db", "0", "5"]]
        assert "'db' is removed" in cli("limits", "rm", "db").out
        (left,) = json.loads(cli("limits", "ls", "--json").out)
        assert (left["name"], left["slots"], left["per_seconds"]) == ("api", 10, 60.0)

    def test_who_holds_and_who_waits(self, cli: Cli, record: Store) -> None:
        cli("limits", "set", "db", "2")
        for name, amount in (("load-0", 2), ("load-1", 1)):
            request = SlotRequest(
                holder=name, flow_run_id=RUN_ID, label=f"{name} of run etl", amounts={"db": amount}
            )
            record.limits.acquire(request, seconds=60)
        first, second = cli("limits", "ls").out.splitlines()[2:]
        assert first.split()[:7] == ["db", "2", "2", "load-0", "of", "run", "etl"]
        assert "(2)" in first
        assert "waits: load-1 of run etl" in second
        (found,) = json.loads(cli("limits", "ls", "--json").out)
        assert found["taken"] == 2
        assert [lease["holder"] for lease in found["holders"]] == ["load-0"]
        assert [lease["label"] for lease in found["waiters"]] == ["load-1 of run etl"]
        assert list(found["waiters"][0]) == [
            *("holder", "label", "flow_run_id", "amount", "priority", "since", "expires_at")
        ]

    def test_an_unknown_limit_names_the_closest(self, cli: Cli) -> None:
        cli("limits", "set", "warehouse", "3")
        ended = cli("limits", "rm", "warehose")
        assert ended.code == ExitCode.USAGE
        assert "Did you mean 'warehouse'" in ended.err

    @pytest.mark.parametrize("wrong", [["db", "--", "-1"], ["db", "many"], ["db"]])
    def test_numbers_that_cannot_be(self, cli: Cli, wrong: list[str]) -> None:
        assert cli("limits", "set", *wrong).code == ExitCode.USAGE


@pytest.fixture
def cached(record: Store) -> Store:
    """Three cached values: two of `load`, of which one has expired, and one of `clean`."""
    now = time.time()
    result = ResultInfo(
        type="builtins.int", size=28, preview="42", serializer="json", inline=b"42", digest="d"
    )
    for key, task, age, expires in (
        ("k1", "load", 500.0, None),
        ("k2", "load", 50.0, now - 10),
        ("k3", "clean", 5.0, now + 1000),
    ):
        entry = CacheEntry(
            key=key,
            result=result,
            flow_run_id=RUN_ID,
            run=TaskRunKey(1, 7 if task == "clean" else -1),
            task=task,
            created_at=now - age,
            expires_at=expires,
        )
        record.cache.keep([entry])
    return record


class TestCache:
    def keys(self, cli: Cli, *options: str) -> list[str]:
        return [entry["key"] for entry in json.loads(cli("cache", "ls", "--json", *options).out)]

    def test_nothing_says_how_to_begin(self, cli: Cli, raflow_home: Path) -> None:
        assert "@task(cache_policy=INPUTS + TASK_SOURCE)" in cli("cache", "ls").out
        assert self.keys(cli) == []
        assert "0 cached values forgotten" in cli("cache", "clear", "--all", "--yes").out
        assert not raflow_home.exists()

    @pytest.mark.usefixtures("cached")
    def test_what_is_cached(self, cli: Cli) -> None:
        lines = cli("cache", "ls").out.splitlines()[2:]
        assert [line.split()[0] for line in lines] == ["clean", "load", "load"]
        assert "call 1[7] of run 0000000000aa" in lines[0]
        assert "expired" in lines[1]
        assert "never" in lines[2]
        assert all(line.split()[1] == "42" for line in lines)
        assert self.keys(cli, "--task", "load") == ["k2", "k1"]
        assert self.keys(cli, "--limit", "1") == ["k3"]
        assert "Nothing is cached of a task 'x'" in cli("cache", "ls", "--task", "x").out

    @pytest.mark.usefixtures("cached")
    def test_the_keys_of_the_json_form(self, cli: Cli) -> None:
        entry = json.loads(cli("cache", "ls", "--json").out)[0]
        assert list(entry) == [
            *("key", "task", "flow_run_id", "node", "map_index", "created_at", "expires_at"),
            "result",
        ]
        assert (entry["map_index"], entry["result"]["value"]) == (7, 42)

    @pytest.mark.usefixtures("cached")
    @pytest.mark.parametrize(
        ("options", "left"),
        [
            (["--key", "k1"], ["k3", "k2"]),
            (["--task", "load"], ["k3"]),
            (["--older-than", "20"], ["k3"]),
            (["--older-than", "100", "--task", "load"], ["k3", "k2"]),
            (["--all"], []),
        ],
    )
    def test_forgetting(self, cli: Cli, options: list[str], left: list[str]) -> None:
        assert cli("cache", "clear", "--yes", *options).code == ExitCode.OK
        assert self.keys(cli) == left

    @pytest.mark.usefixtures("cached")
    @pytest.mark.parametrize(("answer", "left"), [("y\n", ["k3"]), ("n\n", ["k3", "k2", "k1"])])
    def test_a_person_is_asked_first(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, left: list[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        ended = cli("cache", "clear", "--task", "load")
        assert "Forget all cached values of task 'load'?" in ended.err
        assert self.keys(cli) == left

    @pytest.mark.usefixtures("cached")
    def test_nothing_is_forgotten_where_nobody_can_be_asked(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        ended = cli("cache", "clear", "--all")
        assert ended.code == ExitCode.USAGE
        assert "say --yes" in ended.err
        assert len(self.keys(cli)) == 3

    @pytest.mark.parametrize("options", [[], ["--all", "--task", "load"]])
    def test_what_to_forget_has_to_be_said(self, cli: Cli, options: list[str]) -> None:
        ended = cli("cache", "clear", "--yes", *options)
        assert ended.code == ExitCode.USAGE
        assert "Say what to forget" in ended.err
