"""New runs that reuse what an earlier one has left."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from raflow import allow_failure, config, errors, flow, task
from raflow.model import FlowRun, StateName, StateType, TaskRun
from raflow.store import Store
from tests.flows.conftest import World


def note(journal: str, word: str) -> None:
    with Path(journal).open("a", encoding="utf-8") as file:
        file.write(f"{word}\n")


@pytest.fixture
def journal(tmp_path: Path) -> str:
    path = tmp_path / "journal"
    path.touch()
    return str(path)


def counts(journal: str) -> Counter[str]:
    return Counter(Path(journal).read_text(encoding="utf-8").split("\n")[:-1])


@task
def load(journal: str, name: str, value: int) -> int:
    note(journal, name)
    return value + 1


@task
def picky(journal: str, item: int) -> list[int]:
    note(journal, f"item {item}")
    if item == 2 and not counts(journal)["kinder"]:
        raise ValueError("not 2")
    return [item]


@task(persist_result=False)
def forgotten(journal: str, name: str) -> int:
    note(journal, name)
    return 7


@task
def total(journal: str, parts: list[int]) -> int:
    note(journal, "total")
    return sum(parts)


@flow
def sums(journal: str, extra: int = 5) -> int:
    """left and right -> total; aside depends on nothing but the parameter."""
    left = load(journal, "left", 1)
    right = load(journal, "right", 10)
    aside = load(journal, "aside", extra)
    return total(journal, [left, right]).result() + aside.result()


def states(world: World) -> dict[str, StateName]:
    return {label: run.state.name for label, run in world.task_runs().items()}


def run_of(world: World) -> FlowRun:
    with world.store as store:
        return store.find_flow_run("latest")


CACHED, COMPLETED = StateName.CACHED, StateName.COMPLETED


def test_from_a_task_on_all_that_depends_on_it_runs_again(world: World, journal: str) -> None:
    first = sums.run(journal).flow_run
    outcome = sums.rerun(first.id, from_="load-1")
    assert outcome.unwrap() == 2 + 11 + 6
    assert counts(journal) == {"left": 1, "right": 2, "aside": 1, "total": 2}
    run = run_of(world)
    assert run.id == outcome.flow_run.id != first.id
    assert (run.rerun_of, run.state.name) == (first.id, StateName.COMPLETED)
    assert run.parameters == first.parameters
    assert states(world) == {
        "load-0": CACHED,
        "load-1": COMPLETED,
        "load-2": CACHED,
        "total-0": COMPLETED,
    }
    reused = world.task_runs()["load-0"]
    assert reused.state.message == f"reused from {first.name}"
    assert (reused.attempts, world.attempts("load-0")) == (0, [])
    assert reused.result is not None
    assert reused.result.preview == "2"
    with world.store as store:
        history = [change.state.name for change in store.states(run.id, key=reused.key)]
    assert history == [StateName.PENDING, StateName.CACHED]


def test_a_rerun_can_be_rerun_itself(world: World, journal: str) -> None:
    first = sums.run(journal).flow_run
    sums.rerun(first.id, from_="total").unwrap()
    second = run_of(world)
    assert sums.rerun("latest", from_=["load-2"]).unwrap() == 19
    assert run_of(world).rerun_of == second.id
    assert counts(journal) == {"left": 1, "right": 1, "aside": 2, "total": 2}
    assert states(world)["load-0"] is CACHED
    assert second.name in world.task_runs()["total-0"].state.message


def test_what_failed_runs_again_and_the_rest_does_not(world: World, journal: str) -> None:
    @task(task_run_name="named {name}")
    def name_it(journal: str, name: str) -> str:
        note(journal, name)
        return name

    @flow
    def lists(journal: str) -> int:
        name_it(journal, "name").wait()
        lost = forgotten(journal, "lost")
        lost.wait()
        parts = picky.map([journal] * 4, range(4))
        kept = load.map([journal] * 4, ["a", "b", "c", "d"], [1, 2, 3, 4])
        kept.wait()
        sums = [len(part) for part in parts.result()]
        return total(journal, [*sums, lost]).result()

    with pytest.raises(ValueError, match="not 2"):
        lists(journal)
    note(journal, "kinder")
    assert lists.rerun("latest", failed=True).unwrap() == 11
    once = {"name": 1, "a": 1, "b": 1, "c": 1, "d": 1, "item 0": 1, "item 1": 1, "item 3": 1}
    # The value that was not kept is needed again.
    assert counts(journal) == once | {"item 2": 2, "lost": 2, "total": 1, "kinder": 1}
    found = world.task_runs()
    assert found["named name"].state.name is CACHED
    assert found["picky-0[2]"].state.name is COMPLETED
    assert found["picky-0[3]"].state.name is CACHED
    assert found["forgotten-0"].state.type is StateType.COMPLETED


def test_what_took_a_failure_as_its_value_runs_again(world: World, journal: str) -> None:
    @task
    def look(journal: str, found: object) -> str:
        note(journal, "look")
        return type(found).__name__

    @flow
    def forgiving(journal: str) -> str:
        seen = look(journal, allow_failure(picky(journal, 2)))
        done = seen.result()
        if not counts(journal)["kinder"]:
            raise RuntimeError("no luck")
        return done

    with pytest.raises(RuntimeError):
        forgiving(journal)
    note(journal, "kinder")
    assert forgiving.rerun("latest", failed=True).unwrap() == "list"
    assert counts(journal)["look"] == 2


def test_with_another_parameter_what_depends_on_it_runs_again(world: World, journal: str) -> None:
    first = sums.run(journal).flow_run
    assert sums.rerun(first.id, parameters={"extra": 50}).unwrap() == 64
    assert counts(journal) == {"left": 1, "right": 1, "aside": 2, "total": 1}
    assert run_of(world).parameters["extra"] == 50
    with pytest.raises(errors.ParameterError, match="extra"):
        sums.rerun(first.id, parameters={"extra": "many"})


def test_subflows_are_reused_as_far_as_they_got(world: World, journal: str) -> None:
    @flow
    def inner(journal: str, fails: bool) -> int:
        first = load(journal, f"first {fails}", 1)
        first.wait()
        if fails and not counts(journal)["kinder"]:
            raise RuntimeError("no luck")
        return load(journal, f"second {fails}", first).result()

    @flow
    def outer(journal: str) -> int:
        good = inner.submit(journal, fails=False).result()
        return good + inner.submit(journal, fails=True).result()

    with pytest.raises(RuntimeError):
        outer(journal)
    note(journal, "kinder")
    outcome = outer.rerun("latest", failed=True)
    assert outcome.unwrap() == 6
    once = dict.fromkeys(["first False", "second False", "first True", "second True", "kinder"], 1)
    assert counts(journal) == once
    with world.store as store:
        (child,) = store.flow_runs(parent=outcome.flow_run.id)
        parts: list[TaskRun] = store.task_runs(child.id)
    assert [part.state.name for part in parts] == [CACHED, COMPLETED]
    assert child.rerun_of is not None


def test_a_rerun_that_failed_is_resumed_with_the_values_that_it_reused(
    world: World, journal: str
) -> None:
    @flow
    def unlucky(journal: str) -> int:
        first = load(journal, "first", 1)
        second = load(journal, "second", first)
        second.wait()
        if not counts(journal)["kinder"]:
            raise RuntimeError("no luck")
        return load(journal, "third", second).result()

    assert isinstance(unlucky.run(journal).error, RuntimeError)
    assert isinstance(unlucky.rerun("latest", failed=True).error, RuntimeError)
    note(journal, "kinder")
    assert unlucky.resume("latest").unwrap() == 4
    assert counts(journal) == {"first": 1, "second": 1, "third": 1, "kinder": 1}
    assert states(world) == {"load-0": CACHED, "load-1": CACHED, "load-2": COMPLETED}


@flow
def gates(journal: str, extra: int) -> int:
    first = load(journal, "first", 1)
    Gate("one").pass_through(journal)
    second = load(journal, "second", first)
    aside = load(journal, "aside", extra)
    aside.wait()
    Gate("two").pass_through(journal)
    return load(journal, "third", second).result() + aside.result()


class Gate(NamedTuple):
    name: str

    def pass_through(self, journal: str) -> None:
        if not counts(journal)[f"open {self.name}"]:
            raise RuntimeError(f"{self.name} is closed")


@pytest.mark.parametrize("extra", [5, 6])
def test_a_rerun_that_goes_on_reuses_what_it_had_not_come_to(
    world: World, journal: str, extra: int
) -> None:
    """Here is a body that stops before calls of which an earlier run has the values."""
    note(journal, "open one")
    note(journal, "open two")
    first = gates.run(journal, 5).flow_run
    Path(journal).write_text("".join(f"{n}\n" for n in ("first", "second", "aside", "third")))
    changes = {} if extra == 5 else {"extra": extra}
    stopped = gates.rerun(first.id, from_="load-3", parameters=changes)
    assert isinstance(stopped.error, RuntimeError)
    note(journal, "open one")
    assert isinstance(gates.resume("latest").error, RuntimeError)
    note(journal, "open two")
    assert gates.resume("latest").unwrap() == 4 + extra + 1
    again = {"first": 1, "second": 1, "aside": 1 + (extra == 6), "third": 2}
    assert {name: counts(journal)[name] for name in again} == again
    aside = COMPLETED if extra == 6 else CACHED
    assert list(states(world).values()) == [CACHED, CACHED, aside, COMPLETED]
    assert run_of(world).rerun_from == ("load-3",)
    assert world.task_runs()["load-1"].state.message == f"reused from {first.name}"


def test_a_retry_of_a_rerun_reuses_what_it_had_not_come_to(world: World, journal: str) -> None:
    @flow(retries=1)
    def twice(journal: str) -> int:
        first = load(journal, "first", 1)
        if not counts(journal)["open"]:
            note(journal, "open")
            raise RuntimeError("closed")
        second = load(journal, "second", first)
        return load(journal, "third", second).result()

    note(journal, "open")
    first = twice.run(journal).flow_run
    Path(journal).write_text("")
    assert twice.rerun(first.id, from_="load-2").unwrap() == 4
    assert counts(journal) == {"open": 1, "third": 1}
    assert list(states(world).values()) == [CACHED, CACHED, COMPLETED]


def test_subflows_of_a_rerun_that_goes_on_reuse_what_they_had_not_come_to(
    world: World, journal: str
) -> None:
    @flow
    def inner(journal: str) -> int:
        first = load(journal, "first", 1)
        first.wait()
        Gate("one").pass_through(journal)
        second = load(journal, "second", first)
        second.wait()
        Gate("two").pass_through(journal)
        return second.result()

    @flow
    def outer(journal: str) -> int:
        return inner.submit(journal).result()

    note(journal, "open one")
    assert outer.run(journal).error is not None
    Path(journal).write_text("")
    assert outer.rerun("latest", failed=True).error is not None
    note(journal, "open one")
    note(journal, "open two")
    assert outer.resume("latest").unwrap() == 3
    assert set(counts(journal)) == {"open one", "open two"}


def test_what_cannot_be_rerun_is_refused(world: World, journal: str) -> None:
    @flow
    def curious(journal: str) -> int:
        with pytest.raises(errors.RunIsAliveError, match="still going on"):
            curious.rerun("latest", failed=True)
        return load(journal, "load", 1).result()

    curious(journal)
    with pytest.raises(errors.ResumeError, match=r"--from TASK.*--failed.*--param"):
        curious.rerun("latest")
    with pytest.raises(errors.NotFoundError, match="Did you mean 'load-0'"):
        curious.rerun("latest", from_="load-9")
    with pytest.raises(errors.ResumeError, match="not of 'sums'"):
        sums.rerun("latest", failed=True)


@task
def inc(number: int) -> int:
    return number + 1


@flow(backend="local")
def many(fails: bool) -> int:
    done = sum(future.result() for future in [inc(number) for number in range(10_000)])
    if fails and not Path("kinder").exists():
        raise RuntimeError("no luck")
    return done


def test_many_calls_are_reused_in_bulk(
    raflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    many.run(fails=True)
    Path("kinder").touch()
    begin = time.thread_time()
    outcome = many.rerun("latest", failed=True)
    assert outcome.unwrap() == 50_005_000
    assert time.thread_time() - begin < 5
    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        blocks = list(store.recall.blocks(outcome.flow_run.id))
        rows = list(store.recall.rows(outcome.flow_run.id))
    assert sum(block.size for block in blocks) == 10_000
    assert all(block.origin for block in blocks)
    assert rows == []
