"""Every named crash point is reached, and dying there leaves a record that holds."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raflow._util import CRASH_POINTS, crash_point
from raflow._util._crash_points import crashing
from raflow.model import Limit, RequestKind, StateName, StateType
from tests.chaos.conftest import MakeWorld
from tests.chaos.journal import Event
from tests.chaos.promises import Budget
from tests.chaos.world import ROOT, World, wait_until


def calls_in_source() -> list[str]:
    """The names of all crash points that the code calls."""
    found = []
    for path in sorted(Path(ROOT, "raflow").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("crash_point"):
                [name] = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}"
                found.append(str(name.value))
    return found


def test_every_point_of_the_code_is_registered_and_every_registered_one_is_there() -> None:
    assert set(calls_in_source()) == CRASH_POINTS.keys()


class TestRules:
    def test_without_a_rule_nothing_happens(self) -> None:
        assert crash_point is crashing("")
        crash_point("run.before_record")

    def test_what_is_asked_for_happens_at_its_time_only(self) -> None:
        reached = crashing("run.before_record:2:raise")
        reached("run.before_record")
        reached("run.after_record")
        with pytest.raises(RuntimeError, match=r"'run\.before_record' was reached"):
            reached("run.before_record")
        reached("run.before_record")

    def test_it_may_happen_from_then_on(self) -> None:
        reached = crashing("run.before_record:2+:raise=builtins.OSError")
        reached("run.before_record")
        for _ in range(2):
            with pytest.raises(OSError, match="was reached"):
                reached("run.before_record")

    def test_processes_count_together(self, tmp_path: Path) -> None:
        rule = "hooks.after_call:3:raise,hooks.before_call:1:raise=builtins.KeyError"
        one, other = (crashing(rule, str(tmp_path)) for _ in range(2))
        one("hooks.after_call")
        other("hooks.after_call")
        with pytest.raises(RuntimeError):
            one("hooks.after_call")
        with pytest.raises(KeyError):
            other("hooks.before_call")
        assert (tmp_path / "hooks.after_call").stat().st_size == 3

    @pytest.mark.parametrize(
        "rule", ["run.before:1:exit", "run.before_record:first:exit", "run.before_record:1:explode"]
    )
    def test_a_rule_that_says_nothing_is_refused(self, rule: str) -> None:
        with pytest.raises(ValueError, match=rule.rsplit(":", 1)[-1]):
            crashing(rule)

    @pytest.mark.parametrize(
        ("action", "code"),
        [("SIGKILL", -signal.SIGKILL), ("SIGTERM", -signal.SIGTERM), ("exit=7", 7), ("sleep=0", 0)],
    )
    def test_a_process_dies_as_it_is_told(self, action: str, code: int) -> None:
        program = "from raflow._util import crash_point; crash_point('run.before_record')"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(ROOT), "RAFLOW_CRASH": f"run.before_record:1:{action}"},
            check=False,
        )
        assert done.returncode == code


_ASKED = {
    "run.before_cancelling": RequestKind.CANCEL,
    "request.before_taking": RequestKind.PAUSE,
    "request.before_answer": RequestKind.PAUSE,
    "pause.before_state": RequestKind.PAUSE,
    "suspend.before_rest": RequestKind.SUSPEND,
    "suspend.before_state": RequestKind.SUSPEND,
    "suspend.after_state": RequestKind.SUSPEND,
}
"""What is asked of a run that it may reach these points."""
_UNDER_WAY = {StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.COMPLETED}
"""A dead driver ends nothing: whatever is final was so before, and all of it was there."""


def _die_at(world: World, point: str) -> str:
    """Run something that reaches a point, and die there; returns the flow."""
    flow = "everything"
    if point in _ASKED or point.startswith("lease."):
        flow = "chain"
        child = world.launch(flow, f"{point}:1:SIGKILL", seconds=0.5, length=8)
        if point in _ASKED:
            world.wait_for(Event.DONE)
            world.ask(_ASKED[point])
    elif point.startswith("resume."):
        flow = "watched"
        first = world.launch(flow)
        wait_until(lambda: bool(world.record().task_runs), "a task run on record")
        first.kill()
        world.died()
        Path(f"{world.journal}.go").touch()
        child = world.resume(flow, crash=f"{point}:1:SIGKILL")
    elif point.startswith(("slots.", "cache.", "input.")):
        flow = "asking"
        with world.store() as store:
            store.limits.set(Limit(name="narrow", slots=1))
        child = world.launch(flow, f"{point}:1:SIGKILL")
    else:
        child = world.launch(flow, f"{point}:1:SIGKILL")
    assert child.wait() == -signal.SIGKILL, child.told()
    world.hit(point)
    world.died()
    return flow


def _go_on(world: World, flow: str) -> None:
    """Resume what there is to resume, and let it come to its end."""
    runs = world.earlier[-1].runs.values()
    if all(run.state.type is StateType.COMPLETED for run in runs):
        return
    child = world.resume(flow)
    if any(ask.kind is RequestKind.PAUSE for ask in world.requests(open_only=True)):
        # It holds for the process that goes on, too.
        world.wait_for_state(StateName.PAUSED)
        world.ask(RequestKind.UNPAUSE)
    child.finish()
    story = world.check(budgets={"sturdy": Budget(crash_retries=3)}, lease=10.0)
    cancelled = any(ask.kind is RequestKind.CANCEL for ask in world.requests())
    ends = {run.state.name for run in story.record.runs.values()}
    expected = {StateName.CANCELLED} if cancelled else {StateName.COMPLETED, StateName.RECOVERED}
    assert ends <= expected


# Of the service: a driver never comes there (tests/store and tests/chaos have tests of their own).
_ELSEWHERE = (
    "reaper.",
    "order.",
    "claim.",
    "reap.",
    "schedules.",
    "scheduler.",
    "spool.",
    "backfill.",
)


@pytest.mark.chaos
@pytest.mark.parametrize("point", [p for p in CRASH_POINTS if not p.startswith(_ELSEWHERE)])
def test_a_driver_dies_at(point: str, local_world: World) -> None:
    flow = _die_at(local_world, point)
    story = local_world.check(abandoned=True)
    assert {run.state.type for run in story.record.runs.values()} <= _UNDER_WAY
    _go_on(local_world, flow)
    if not point.startswith(("store.", "recorder.")):
        return
    before = local_world.record()
    local_world.launch("everything").finish()
    story = local_world.check(abandoned=True)
    new = [run for run in story.record.runs.values() if run.id not in before.runs]
    assert {run.state.name for run in new} == {StateName.COMPLETED}
    # Nobody has touched the other one.
    assert before.runs.items() <= dict(story.record.runs).items()


@pytest.mark.chaos
@pytest.mark.postgres
@pytest.mark.parametrize("point", [p for p in CRASH_POINTS if p.startswith(("store", "recorder"))])
def test_a_driver_dies_at_on_postgres(point: str, make_world: MakeWorld, postgres_url: str) -> None:
    test_a_driver_dies_at(point, make_world("local", postgres_url))


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 3])
def test_a_commit_that_succeeded_and_was_reported_as_failed(times: int, local_world: World) -> None:
    rules = [f"store.after_commit:{n}:raise=raflow.errors.StoreError" for n in range(1, times + 1)]
    local_world.launch("fan", ",".join(rules), seconds=0.1, items=20).finish()
    local_world.hit("store.after_commit", times)
    story = local_world.check()
    [run] = story.record.runs.values()
    assert run.state.name is StateName.COMPLETED
    assert Counter(t.attempts for t in story.record.task_runs.values()) == {1: 22}


@pytest.mark.chaos
def test_a_transaction_that_fails_is_written_again(local_world: World) -> None:
    rules = "store.before_commit:1:raise=raflow.errors.StoreError,store.before_commit:2:sleep=0.5"
    local_world.launch("fan", rules, seconds=0.1, items=20).finish()
    local_world.hit("store.before_commit", 2)
    story = local_world.check()
    assert len(story.record.task_runs) == 22
