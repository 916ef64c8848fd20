"""Flow runs of deployments, begun and resumed by processes that a worker has them for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raflow import Flow, errors, flow, runtime, task
from raflow.model import Claim, RunOrder, RunOrigin, Stage, StateName, Trigger, Work
from tests.flows.conftest import World

PATIENCE_SECONDS = 60.0
ON_THREADS = pytest.mark.parametrize(
    "world",
    [("local", "sqlite"), pytest.param(("local", "postgres"), marks=pytest.mark.postgres)],
    ids=["local-sqlite", "local-postgres"],
    indirect=True,
)
"""For what never comes to a backend."""


@task
def step(journal: str, name: str, value: int) -> int:
    with Path(journal).open("a") as lines:
        lines.write(f"{name}\n")
    return value + 1


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def noted(journal: str) -> list[str]:
    return Path(journal).read_text().split() if Path(journal).exists() else []


def ordered(world: World, its: Flow[..., Any], *, max_resumes: int = 3, **parameters: Any) -> str:
    """Order a run of a deployment; return its id."""
    origin = RunOrigin(deployment="nightly", version=1, bundle="b1", pool="default", actor="ann")
    one = RunOrder(
        flow_run_id=f"run-{its.name}",
        flow=its.name,
        fingerprint=its.fingerprint(),
        name="the-first",
        origin=origin,
        parameters=parameters,
        trigger=Trigger.SCHEDULE,
        tags=("ordered",),
        max_resumes=max_resumes,
    )
    with world.store as store:
        [made] = store.work.order([one])
    return made.flow_run_id


def claimed(world: World, token: str = "c1") -> Claim:
    with world.store as store:
        [claim] = store.work.claim("default", "w1", most=1, seconds=30, claim=token)
    return claim


def states(world: World, run: str) -> list[StateName]:
    with world.store as store:
        return [change.state.name for change in store.states(run)]


def eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_runs_on_record_before_its_first_line(world: World, journal: str) -> None:
    seen: list[object] = []

    @flow(tags=["own"])
    def quick(journal: str, day: int) -> int:
        with world.store as store:
            seen.append(store.find_flow_run("run-quick").state.name)
            dispatch = store.work.dispatch("run-quick")
            seen.append(dispatch and dispatch.stage)
        return step(journal, "one", day)

    run = ordered(world, quick, journal=journal, day=1)
    outcome = runtime.run_claimed(quick, claimed(world))
    assert outcome.unwrap() == 2
    assert seen == [StateName.RUNNING, Stage.RUNNING]
    assert states(world, run) == [
        StateName.SCHEDULED,
        StateName.SUBMITTED,
        StateName.RUNNING,
        StateName.COMPLETED,
    ]
    with world.store as store:
        kept = store.find_flow_run(run)
        assert store.work.dispatch(run) is None
    assert kept.name == "the-first"
    assert kept.trigger is Trigger.SCHEDULE
    assert kept.tags == ("ordered", "own")
    assert kept.origin is not None
    assert kept.origin.actor == "ann"
    assert kept.backend == world.backend


@ON_THREADS
def test_one_that_was_given_back_does_not_begin(world: World, journal: str) -> None:
    @flow
    def stale(journal: str) -> int:
        return step(journal, "one", 1)

    run = ordered(world, stale, journal=journal)
    claim = claimed(world)
    with world.store as store:
        assert store.work.give_back(run, claim.incarnation, message="no room")
    with pytest.raises(errors.FencedError):
        runtime.run_claimed(stale, claim)
    assert noted(journal) == []
    with world.store as store:
        dispatch = store.work.dispatch(run)
    assert dispatch is not None
    assert (dispatch.stage, dispatch.refusals, dispatch.resumes) == (Stage.WAITING, 1, 0)
    assert states(world, run)[-1] is StateName.SCHEDULED


@ON_THREADS
def test_parameters_that_do_not_fit_are_told_before_it_begins(world: World) -> None:
    @flow
    def strict(day: int) -> int:
        return day

    run = ordered(world, strict, day="no number")
    with pytest.raises(errors.ParameterError):
        runtime.run_claimed(strict, claimed(world))
    assert states(world, run) == [StateName.SCHEDULED, StateName.SUBMITTED]


def died_meanwhile(
    world: World, its: Flow[..., Any], run: str, done: Callable[[], bool]
) -> Callable[[], BaseException | None]:
    """Begin a run, and have it put back as if its process had died; return what ends it."""
    errors_raised: list[BaseException | None] = []
    claim = claimed(world)

    def drive() -> None:
        try:
            errors_raised.append(runtime.run_claimed(its, claim).error)
        except errors.FencedError as error:
            errors_raised.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    eventually(done)
    with world.store as store:
        assert store.work.put_back(run, message="it died", died=claim.incarnation)

    def ended() -> BaseException | None:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        return errors_raised[0]

    return ended


def test_another_worker_goes_on_with_it(world: World, journal: str, tmp_path: Path) -> None:
    go = tmp_path / "go"

    @flow
    def waits(journal: str, go: str) -> int:
        first = step(journal, "first", 1)
        while not Path(go).exists():
            time.sleep(0.01)
        return step(journal, "second", first)

    def first_is_kept() -> bool:
        with world.store as store:
            return any(row.state.name is StateName.COMPLETED for row in store.task_runs(run))

    run = ordered(world, waits, journal=journal, go=str(go))
    ended = died_meanwhile(world, waits, run, first_is_kept)
    claim = claimed(world, "c2")
    assert claim.work is Work.RESUME
    go.touch()
    assert runtime.resume_claimed(waits, claim).unwrap() == 3
    assert noted(journal).count("first") == 1
    assert isinstance(ended(), errors.FencedError)
    assert states(world, run)[2:] == [
        StateName.RUNNING,
        StateName.AWAITING_RETRY,
        StateName.RUNNING,
        StateName.RECOVERED,
    ]
    with world.store as store:
        assert store.work.dispatch(run) is None


@ON_THREADS
def test_one_that_may_not_go_on_is_ended_with_its_hooks(world: World, tmp_path: Path) -> None:
    go, told = tmp_path / "go", tmp_path / "told"

    def tell(*args: Any) -> None:
        told.write_text("crashed")

    @flow(on_crashed=[tell])
    def hopeless(go: str) -> None:
        Path(go + ".begun").touch()
        while not Path(go).exists():
            time.sleep(0.01)

    run = ordered(world, hopeless, max_resumes=0, go=str(go))
    ended = died_meanwhile(world, hopeless, run, Path(f"{go}.begun").exists)
    claim = claimed(world, "c2")
    assert claim.work is Work.END
    kept = runtime.end_claimed(hopeless, claim)
    assert kept.state.name is StateName.CRASHED
    assert told.read_text() == "crashed"
    go.touch()
    assert isinstance(ended(), errors.FencedError)
    with world.store as store:
        assert store.work.dispatch(run) is None
        assert store.find_flow_run(run).state.name is StateName.CRASHED


@ON_THREADS
def test_nobody_reaps_it_but_its_pool(world: World, tmp_path: Path) -> None:
    @flow
    def left(go: str) -> None:
        Path(go + ".begun").touch()

    run = ordered(world, left, go=str(tmp_path / "go"))
    claim = claimed(world)
    with world.store as store:
        # A process of this machine that is no more.
        host, pid = socket.gethostname(), 2**22 - 1
        store.leases.renew(
            run, claim.incarnation, seconds=30, host=host, pid=pid, process_started=1.0
        )
        assert store.leases.of_host(host)
        assert runtime.abandoned(store) == []
