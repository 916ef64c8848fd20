"""Flow x fault x durability: exactly these states, and exactly so many executions."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from raflow.model import Attempt, Outcome, StateName, StateType
from tests.chaos.cluster import Cluster
from tests.chaos.conftest import MakeWorld
from tests.chaos.faults import locked
from tests.chaos.journal import Entry, Event, Key
from tests.chaos.programs.shapes import (
    TARGET,
    UNCOMMITTED,
    Case,
    Dial,
    Fault,
    Gate,
    Shape,
    open_gate,
)
from tests.chaos.promises import Budget, Story
from tests.chaos.rows import AGAIN, RECOVERED, End, Row
from tests.chaos.table_of_deaths import OF_MEMORY, ON_RAY, RESUMED, RESUMED_AT_NIGHT, SHARING
from tests.chaos.table_of_life import ON_THREADS
from tests.chaos.test_worker_deaths import memory_used
from tests.chaos.world import World, check, wait_until

pytestmark = pytest.mark.chaos

_PLAY_SECONDS = 1500.0
"""Many times what it takes: how fast this machine is proves nothing."""
_TOLERANT = frozenset({"victim", "sleeper", "inner", "after", "each"})
"""What may fail in a flow that completes; the table says what really does."""


@dataclass(frozen=True, kw_only=True)
class Came:
    """What came of a row, in the words of a row."""

    victim: End
    failed: tuple[str, ...]
    rest: Mapping[str, End]
    run: StateName
    saw: tuple[str, ...]


def expected(row: Row) -> Came:
    return Came(victim=row.victim, failed=row.failed, rest=dict(row.rest), run=row.run, saw=row.saw)


def came(case: Case, story: Story) -> Came:
    """Tell what is on record of a flow run and its children, and what really ran."""
    ran = Counter(entry.key for entry in story.journal if entry.event is Event.BEGUN)
    ends: dict[str, End] = {}
    hit: Key | None = None
    for key, task_run in story.record.task_runs.items():
        assert task_run.label not in ends
        ends[task_run.label] = End(task_run.state.name, ran.pop(key, 0))
        if task_run.label == label_of_victim(case):
            hit = key
    assert not ran, f"not on record, but they ran: {ran}"
    assert hit is not None, f"{label_of_victim(case)} is not among {sorted(ends)}"
    [root] = (run for run in story.record.runs.values() if run.flow == "shaped")
    return Came(
        victim=ends.pop(label_of_victim(case)),
        failed=tuple(
            told(attempt)
            for attempt in story.record.attempts.get(hit, ())
            if attempt.outcome is not Outcome.COMPLETED
        ),
        rest=ends,
        run=root.state.name,
        saw=tuple(
            entry.told
            for entry in story.journal
            if entry.event is Event.BEGUN and entry.task == "after"
        ),
    )


def label_of_victim(case: Case) -> str:
    task = "sleeper" if case.shape in {Shape.ASYNC, Shape.ASYNC_MAP} else "victim"
    mapped = case.shape in {Shape.MAP, Shape.MAP_AFTER_MAP, Shape.ASYNC_MAP}
    return f"{task}-0[{TARGET}]" if mapped else f"{task}-0"


def told(attempt: Attempt) -> str:
    """Say how an attempt ended, and why, in a few words.

    Whether what was cancelled ended by itself or was killed depends on the moment.
    """
    words = attempt.outcome.value
    if attempt.error is not None:
        words += f": {attempt.error.type.rsplit('.', 1)[-1]}"
    elif attempt.cause is not None and attempt.outcome is not Outcome.CANCELLED:
        words += f": {attempt.cause.kind}"
        if attempt.cause.signal is not None:
            words += f", signal {attempt.cause.signal}"
        if attempt.cause.exit_code is not None:
            words += f", code {attempt.cause.exit_code}"
    return words


def _keeps_every_promise(row: Row, story: Story) -> None:
    case = row.case
    budget = Budget(
        retries=case.retries, crash_retries=case.crash_retries, once=case.dial is Dial.ONCE
    )
    budgets = {"victim": budget, "sleeper": budget}
    check(dataclasses.replace(story, budgets=budgets, tolerated=_TOLERANT))


def _hold(row: Row, story: Story) -> None:
    """Compare a row with what came of it."""
    _keeps_every_promise(row, story)
    assert came(row.case, story) == expected(row)


# Flows one after the other ------------------------------------------------------------------------


def _play(world: World, rows: Sequence[Row]) -> dict[Row, Story]:
    """Run the flows of all rows; returns what came of each."""
    runs = [
        ("durable" if row.case.dial is Dial.TASK else "shaped", {"case": parameters(row.case)})
        for row in rows
    ]
    world.launch_all(runs).finish(_PLAY_SECONDS)
    world.faults.append("the table's")
    whole = world.story()
    oldest_first = [run for run in sorted(whole.record.runs) if _is_root(whole, run)]
    assert len(oldest_first) == len(rows)
    return {row: family(whole, run) for row, run in zip(rows, oldest_first, strict=True)}


def _asked_for(request: pytest.FixtureRequest, rows: Sequence[Row]) -> list[Row]:
    """The rows whose tests are to run, and need what is asked for."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [item for item in items if request.fixturename in item.fixturenames]
    wanted = {item.callspec.params["row"] for item in mine}
    return [row for row in rows if row in wanted]


def parameters(case: Case) -> dict[str, object]:
    return dataclasses.asdict(case)


def _is_root(story: Story, run: str) -> bool:
    return story.record.runs[run].parent_id is None


def family(story: Story, root: str) -> Story:
    """The part of it that is about a flow run and all its subflows."""
    members = {root}
    while (
        more := {run.id for run in story.record.runs.values() if run.parent_id in members} - members
    ):
        members |= more
    return story.of(*members)


@pytest.fixture(scope="module")
def on_ray(
    shared_ray: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Row, Story]]:
    world = World(
        folder=tmp_path_factory.mktemp("table") / "ray",
        backend="ray",
        environment={**shared_ray.environment, "RAFLOW_CANCEL_GRACE_SECONDS": "5"},
    )
    yield _play(world, _asked_for(request, [*ON_RAY, *SHARING]))
    world.close()


@pytest.fixture(scope="module")
def on_threads(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Row, Story]]:
    world = World(folder=tmp_path_factory.mktemp("table") / "threads", backend="local")
    yield _play(world, _asked_for(request, ON_THREADS))
    world.close()


@pytest.mark.ray
@pytest.mark.timeout(_PLAY_SECONDS + 60)
@pytest.mark.parametrize("row", ON_RAY, ids=str)
def test_on_ray(row: Row, on_ray: dict[Row, Story]) -> None:
    _hold(row, on_ray[row])


@pytest.mark.timeout(_PLAY_SECONDS + 60)
@pytest.mark.parametrize("row", ON_THREADS, ids=str)
def test_on_threads(row: Row, on_threads: dict[Row, Story]) -> None:
    _hold(row, on_threads[row])


@pytest.mark.ray
@pytest.mark.timeout(_PLAY_SECONDS + 60)
@pytest.mark.parametrize("row", SHARING, ids=str)
def test_on_ray_in_shared_processes(row: Row, on_ray: dict[Row, Story]) -> None:
    """Bystanders whose values went with their process run again, and nobody is charged for it."""
    _keeps_every_promise(row, on_ray[row])
    found, wanted = came(row.case, on_ray[row]), expected(row)
    assert (found.run, found.victim, found.failed) == (wanted.run, wanted.victim, wanted.failed)
    # Whether a bystander was in that process, and is needed still, depends on the moment.
    for label, end in found.rest.items():
        assert end.state in {wanted.rest[label].state, RECOVERED, StateName.CANCELLED}
        assert end.executions <= 1 + row.victim.executions


# The process that drives them dies ----------------------------------------------------------------


def _die_and_go_on(world: World, rows: Sequence[Row]) -> dict[Row, Story]:
    """Run the flows of all rows side by side, kill their process, and go on in another."""
    child = world.launch("several", cases=[parameters(row.case) for row in rows])
    wait_until(lambda: _all_in_place(world, rows), "each victim is at its place", _PLAY_SECONDS)
    late = [row for row in rows if row.case.fault in UNCOMMITTED]
    with locked(world):
        wanted = _steps(world) + Counter(
            {
                ("victim", Event.DONE): len(late),
                ("after", Event.BEGUN): sum(row.case.dial is not Dial.TASK for row in late),
            }
        )
        open_gate(str(world.journal), Gate.LOCKED)
        wait_until(lambda: _steps(world) >= wanted, "what is done is passed on")
        time.sleep(0.5)  # whoever does not wait for the database begins now at the latest
        world.strike(child.pid, signal.SIGKILL)
        child.wait()
    world.died()
    open_gate(str(world.journal), Gate.RESUMED)
    world.resume("several").finish(_PLAY_SECONDS)
    whole = world.story()
    found = sorted(
        (run for run in whole.record.runs.values() if run.flow == "shaped"),
        key=lambda run: run.parent_node or 0,
    )
    return {row: family(whole, run.id) for row, run in zip(rows, found, strict=True)}


def _all_in_place(world: World, rows: Sequence[Row]) -> bool:
    """Whether of each row one call is known to run, and all that came before it to have ended."""
    if len({entry.key for entry in world.noted(Event.BEGUN)}) < len(rows):
        return False
    record = world.record()
    state_of = {key: task_run.state for key, task_run in record.task_runs.items()}
    begun = [state_of.get(key) for key in {entry.key for entry in world.noted(Event.BEGUN)}]
    running = [state for state in begun if state and state.type is StateType.RUNNING]
    over = [state for state in begun if state and state.is_final]
    return len(running) == len(rows) and len(running) + len(over) == len(begun)


def _steps(world: World) -> Counter[tuple[str, Event]]:
    return Counter((entry.task, entry.event) for entry in world.entries())


@pytest.fixture(scope="module")
def gone_on(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Row, Story]]:
    world = World(folder=tmp_path_factory.mktemp("table") / "resumed", backend="local")
    yield _die_and_go_on(world, _asked_for(request, RESUMED))
    world.close()


@pytest.fixture(scope="module")
def gone_on_on_ray(
    shared_ray: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Row, Story]]:
    world = World(
        folder=tmp_path_factory.mktemp("table") / "resumed-ray",
        backend="ray",
        environment=dict(shared_ray.environment),
    )
    yield _die_and_go_on(world, _asked_for(request, RESUMED))
    world.close()


@pytest.mark.timeout(_PLAY_SECONDS + 60)
@pytest.mark.parametrize("row", RESUMED, ids=str)
def test_resumed_on_threads(row: Row, gone_on: dict[Row, Story]) -> None:
    _hold(row, gone_on[row])


@pytest.mark.ray
@pytest.mark.timeout(_PLAY_SECONDS + 60)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow) if row in RESUMED_AT_NIGHT else row
        for row in RESUMED
    ],
    ids=str,
)
def test_resumed_on_ray(row: Row, gone_on_on_ray: dict[Row, Story]) -> None:
    _hold(row, gone_on_on_ray[row])


# Memory runs out ----------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow  # the limit is that of the machine: whatever else runs there may be killed, too
@pytest.mark.timeout(_PLAY_SECONDS + 60)
def test_memory_that_runs_out(make_world: MakeWorld) -> None:
    world = make_world(
        "ray",
        RAY_memory_monitor_refresh_ms="50",
        RAY_memory_usage_threshold=f"{memory_used() + 0.05:.3f}",
    )
    for row, story in _play(world, OF_MEMORY).items():
        _hold(row, story)


# The table itself ---------------------------------------------------------------------------------

ALL = (ON_RAY, ON_THREADS, SHARING, OF_MEMORY, RESUMED)


def test_every_shape_fault_and_dial_has_its_rows() -> None:
    cases = [row.case for rows in ALL for row in rows]
    assert {case.shape for case in cases} == set(Shape)
    assert {case.fault for case in cases} == set(Fault)
    assert {case.dial for case in cases} == set(Dial)
    for rows in ALL:
        assert len({row.case for row in rows}) == len(rows)


A_RETRY = next(
    row
    for row in ON_THREADS
    if (row.case.shape, row.case.fault, row.victim) == (Shape.CHAIN, Fault.RAISES, AGAIN)
)


def _begun(story: Story, task: str) -> Entry:
    return next(e for e in story.journal if e.event is Event.BEGUN and e.task == task)


def _with_entries(story: Story, *more: Entry) -> Story:
    return dataclasses.replace(story, journal=(*story.journal, *more))


def _without(story: Story, entry: Entry) -> Story:
    return dataclasses.replace(story, journal=tuple(e for e in story.journal if e is not entry))


def _recorded(story: Story, **changes: Any) -> Story:
    return dataclasses.replace(story, record=dataclasses.replace(story.record, **changes))


def _ended(story: Story, task: str, name: StateName) -> Story:
    changed = {
        key: dataclasses.replace(run, state=dataclasses.replace(run.state, name=name))
        if run.task == task
        else run
        for key, run in story.record.task_runs.items()
    }
    return _recorded(story, task_runs=changed)


LIES: Mapping[str, Callable[[Story], Story]] = {
    "the victim ran once more": lambda story: _with_entries(
        story, dataclasses.replace(_begun(story, "victim"), attempt=3)
    ),
    "the victim ran once less": lambda story: _without(story, _begun(story, "victim")),
    "a bystander ran twice": lambda story: _with_entries(
        story, dataclasses.replace(_begun(story, "before"), attempt=2)
    ),
    "the victim ended otherwise": lambda story: _ended(story, "victim", StateName.COMPLETED),
    "a bystander ended otherwise": lambda story: _ended(story, "before", StateName.SKIPPED),
    "the run ended otherwise": lambda story: _recorded(
        story,
        runs={
            key: dataclasses.replace(run, state=dataclasses.replace(run.state, name=RECOVERED))
            for key, run in story.record.runs.items()
        },
    ),
    "an attempt is not on record": lambda story: _recorded(story, attempts={}),
    "a task run is not on record": lambda story: _recorded(
        story,
        task_runs={k: run for k, run in story.record.task_runs.items() if run.task != "after"},
    ),
    "a consumer saw something else": lambda story: _with_entries(
        _without(story, _begun(story, "after")),
        dataclasses.replace(_begun(story, "after"), told="by attempt 1"),
    ),
}


@pytest.mark.timeout(_PLAY_SECONDS + 60)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("row", [A_RETRY], ids=str)
def test_a_lie_is_found(row: Row, lie: str, on_threads: dict[Row, Story]) -> None:
    _hold(row, on_threads[row])
    with pytest.raises(AssertionError):
        _hold(row, LIES[lie](on_threads[row]))
