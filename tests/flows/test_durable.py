"""Runs that go on: resumed, paused, suspended, answered, limited, and spared by the cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pydantic
import pytest

from raflow import (
    INPUTS,
    Flow,
    Task,
    concurrency,
    config,
    errors,
    flow,
    pause_run,
    runtime,
    suspend_run,
    task,
    unmapped,
    wait_for_input,
)
from raflow.execute import process
from raflow.model import FlowRun, Limit, RequestKind, StateName, StateType
from raflow.store import Store
from tests.flows.conftest import World
from tests.waiting import PATIENCE_SECONDS


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
def step(journal: str, name: str, value: int) -> int:
    note(journal, name)
    return value + 1


@task(persist_result=False)
def forgotten(journal: str, name: str, value: int) -> int:
    note(journal, name)
    return value + 1


def eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def in_state(world: World, name: StateName) -> FlowRun | None:
    try:
        run = world.last_run()
    except IndexError:
        return None
    return run if run.state.name is name else None


def completed(world: World) -> int:
    """How many task runs of the last root run are on record as completed."""
    with world.store as store:
        run = store.find_flow_run("latest")
        return store.task_run_counts(run.id).get(0, {}).get(StateType.COMPLETED, 0)


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# --- Resume ---------------------------------------------------------------------------------------


def test_a_failed_run_is_resumed_and_repeats_nothing(world: World, journal: str) -> None:
    @flow
    def unlucky(journal: str) -> int:
        first = step(journal, "first", 1)
        second = step(journal, "second", first)
        if counts(journal)["luck"] == 0:
            second.wait()
            note(journal, "luck")
            raise RuntimeError("no luck")
        return step(journal, "third", second).result()

    with pytest.raises(RuntimeError, match="no luck"):
        unlucky(journal)
    failed = world.last_run()
    outcome = unlucky.resume(failed.id)
    assert outcome.unwrap() == 4
    run = world.last_run()
    assert (run.id, run.incarnation) == (failed.id, 2)
    assert run.state.name is StateName.RECOVERED
    assert run.error is None
    assert counts(journal) == {"first": 1, "second": 1, "third": 1, "luck": 1}
    with world.store as store:
        names = [change.state.name for change in store.states(run.id)]
    assert names == [
        StateName.PENDING,
        StateName.RUNNING,
        StateName.FAILED,
        StateName.RUNNING,
        StateName.RECOVERED,
    ]
    with pytest.raises(errors.ResumeError, match="completed"):
        unlucky.resume(failed.id)


def test_of_a_map_only_the_items_that_did_not_complete_run_again(
    world: World, journal: str
) -> None:
    @task
    def picky(journal: str, item: int) -> int:
        note(journal, f"item {item}")
        if item % 4 == 0 and counts(journal)["kinder"] == 0:
            raise ValueError(f"not {item}")
        return item * 10

    @flow
    def mapped(journal: str) -> list[int]:
        return picky.map([journal] * 9, range(9)).result()

    with pytest.raises(ValueError, match="not"):
        mapped(journal)
    note(journal, "kinder")
    assert mapped.resume("latest").unwrap() == [item * 10 for item in range(9)]
    seen = counts(journal)
    assert [seen[f"item {item}"] for item in range(9)] == [2, 1, 1, 1, 2, 1, 1, 1, 2]
    found = world.task_runs()
    assert found["picky-0[4]"].state.name is StateName.RECOVERED
    assert found["picky-0[5]"].state.name is StateName.COMPLETED


def test_a_call_with_other_arguments_is_refused(world: World, journal: str) -> None:
    @flow
    def restless(journal: str) -> int:
        tries = counts(journal)["luck"]
        known = step(journal, "known", 1).result()
        step.map([journal] * 2, ["a", "b"], [known, lambda: tries]).wait()
        changed = step(journal, "changed", tries)
        if tries == 0:
            changed.wait()
            note(journal, "luck")
            raise RuntimeError("no luck")
        return changed.result()

    with pytest.raises(RuntimeError):
        restless(journal)
    outcome = restless.resume("latest")
    assert isinstance(outcome.error, errors.ResumeError)
    assert "'step-2', with other arguments than 'step-2' had before" in str(outcome.error)
    assert counts(journal)["changed"] == 1
    with world.store as store:
        nodes = store.recall.nodes(outcome.flow_run.id)
    assert [node.inputs is None for node in nodes] == [False, True, False]
    assert nodes[0].code == nodes[2].code == step.code_fingerprint()[:32]


def test_with_new_code_only_what_is_unchanged_is_answered(world: World, journal: str) -> None:
    @task(name="scale")
    def doubled(journal: str, value: int) -> int:
        note(journal, "doubled")
        return value * 2

    @task(name="scale")
    def tripled(journal: str, value: int) -> int:
        note(journal, "tripled")
        return value * 3

    @task
    def part(journal: str, factor: int, item: int) -> int:
        note(journal, f"part {factor}")
        return item * factor

    @flow(name="evolving")
    def before(journal: str) -> int:
        first = step(journal, "first", 1)
        scaled = doubled(journal, first)
        after = step(journal, "after", scaled)
        aside = step(journal, "aside", 10)
        same = part.map([journal] * 3, [1] * 3, range(3))
        changed = part.map([journal] * 3, [2] * 3, range(3))
        for future in (after, aside, same, changed):
            future.wait()
        step(journal, "gone", 1).wait()
        raise RuntimeError("no luck")

    @flow(name="evolving")
    def now(journal: str) -> int:
        first = step(journal, "first", 1)
        scaled = tripled(journal, first)
        after = step(journal, "after", scaled)
        aside = step(journal, "aside", 10)
        same = part.map([journal] * 3, [1] * 3, range(3))
        changed = part.map([journal] * 2, [5] * 2, range(2))
        found = [after.result(), aside.result(), *same.result(), *changed.result()]
        if not counts(journal)["luck"]:
            raise RuntimeError("no luck")
        return sum(found)

    with pytest.raises(RuntimeError):
        before(journal)
    with pytest.raises(errors.ResumeError, match="allow-new-code"):
        now.resume("latest")
    once = {"first": 1, "aside": 1, "gone": 1, "part 1": 3, "part 2": 3, "doubled": 1}
    resumed = now.resume("latest", allow_new_code=True)
    assert isinstance(resumed.error, RuntimeError)
    assert counts(journal) == once | {"after": 2, "tripled": 1, "part 5": 2}
    assert resumed.flow_run.fingerprint == now.fingerprint() != before.fingerprint()
    assert world.task_runs()["step-3"].state.name is StateName.COMPLETED
    # The record is of the new code now, but for the call that nobody has come to yet.
    note(journal, "luck")
    assert now.resume("latest").unwrap() == 7 + 11 + 3 + 5
    assert counts(journal) == once | {"after": 2, "tripled": 1, "part 5": 2, "luck": 1}
    found = world.task_runs()
    assert {label: run.result.preview for label, run in found.items() if run.result} == {
        "step-0": "2",
        "scale-0": "6",
        "step-1": "7",
        "step-2": "11",
        **{f"part-0[{item}]": str(item) for item in range(3)},
        **{f"part-1[{item}]": str(item * 5) for item in range(2)},
    }
    assert {run.attempts for run in found.values()} == {1}
    with world.store as store:
        run = store.find_flow_run("latest")
        assert [node.key for node in store.recall.nodes(run.id)] == [
            "step-0",
            "scale-0",
            "step-1",
            "step-2",
            "part-0",
            "part-1",
        ]
        assert run.versions["earlier code"] == before.fingerprint()[:8]


def test_a_subflow_with_new_code_goes_on_call_by_call(world: World, journal: str) -> None:
    @task(name="last")
    def broken(journal: str, value: int) -> int:
        raise ValueError("broken")

    @task(name="last")
    def mended(journal: str, value: int) -> int:
        note(journal, "mended")
        return value

    @task(name="pay", at_most_once=True)
    def pays(journal: str) -> int:
        note(journal, "paid")
        return 1

    @task(name="pay", at_most_once=True)
    def pays_more(journal: str) -> int:
        note(journal, "paid")
        return 2

    def outer(last: Task[..., int], pay: Task[..., int]) -> Flow[[str], int]:
        @flow(name="inner")
        def inner(journal: str) -> int:
            return last(journal, step(journal, "inner", 1)).result()

        @flow(name="outer")
        def outer(journal: str) -> int:
            paid = pay(journal).result()
            return paid + inner.submit(journal).result()

        return outer

    with pytest.raises(ValueError, match="broken"):
        outer(broken, pays)(journal)
    outcome = outer(mended, pays_more).resume("latest", allow_new_code=True)
    assert outcome.unwrap() == 1 + 2
    assert counts(journal) == {"inner": 1, "mended": 1, "paid": 1}


def test_a_value_that_was_not_kept_is_computed_again_if_somebody_needs_it(
    world: World, journal: str
) -> None:
    @flow
    def forgetful(journal: str) -> int:
        root = forgotten(journal, "root", 1)
        left = forgotten(journal, "left", root)
        right = forgotten(journal, "right", 5)
        if counts(journal)["luck"] == 0:
            left.wait(), right.wait()
            note(journal, "luck")
            raise RuntimeError("no luck")
        return step(journal, "end", left).result()

    with pytest.raises(RuntimeError):
        forgetful(journal)
    assert forgetful.resume("latest").unwrap() == 4
    assert counts(journal) == {"root": 2, "left": 2, "right": 1, "end": 1, "luck": 1}
    assert world.task_runs()["forgotten-1"].state.name is StateName.RECOVERED


def test_a_value_that_was_not_kept_is_computed_again_if_the_body_asks(
    world: World, journal: str
) -> None:
    @flow
    def asking(journal: str) -> int:
        value = forgotten(journal, "value", 1)
        total = value.result() + 1
        if counts(journal)["luck"] == 0:
            note(journal, "luck")
            raise RuntimeError("no luck")
        return total

    with pytest.raises(RuntimeError):
        asking(journal)
    assert asking.resume("latest").unwrap() == 3
    assert counts(journal)["value"] == 2


@task(persist_result=True)
def large(journal: str, n: int) -> bytes:
    note(journal, f"large {n}")
    return bytes([n]) * 100_000


@task
def measure(journal: str, given: list[bytes]) -> list[int]:
    note(journal, "measure")
    return [len(set(value)) * len(value) for value in given]


def test_a_kept_value_that_is_damaged_or_gone_is_computed_again(
    world: World, journal: str, tmp_path: Path
) -> None:
    stored = large.with_options(result_storage=tmp_path / "results")

    @flow
    def careless(journal: str) -> list[int]:
        one, two = stored(journal, 0), stored(journal, 1)
        many = stored.map(unmapped(journal), [2, 3])
        for future in (one, two, many):
            future.wait()
        if counts(journal)["luck"] == 0:
            note(journal, "luck")
            raise RuntimeError("no luck")
        seen = [len(two.result()), *map(len, many.result())]
        return [*seen, *measure(journal, [one, *many]).result()]

    with pytest.raises(RuntimeError):
        careless(journal)
    for path in (tmp_path / "results").rglob("*.pickle"):
        if path.name.startswith(("0.", "2-0")):
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        elif path.name.startswith("1."):
            path.unlink()
    assert careless.resume("latest").unwrap() == [100_000] * 6
    ran = counts(journal)
    assert [ran[f"large {n}"] for n in range(4)] == [2, 2, 2, 1]
    names = {label: run.state.name for label, run in world.task_runs().items()}
    assert names["large-0"] is names["large-1"] is names["large-2[0]"] is StateName.RECOVERED
    assert names["large-2[1]"] is StateName.COMPLETED


def test_subflows_are_resumed_too(world: World, journal: str) -> None:
    @flow
    def inner(journal: str, fails: bool) -> int:
        first = step(journal, "inner first", 1)
        first.wait()
        if fails and counts(journal)["luck"] == 0:
            note(journal, "luck")
            raise RuntimeError("no luck")
        return step(journal, "inner second", first).result()

    @flow
    def outer(journal: str) -> int:
        done = inner.submit(journal, fails=False)
        done.wait()
        return done.result() + inner.submit(journal, fails=True).result()

    with pytest.raises(RuntimeError, match="no luck"):
        outer(journal)
    assert outer.resume("latest").unwrap() == 6
    assert counts(journal) == {"inner first": 2, "inner second": 2, "luck": 1}
    with world.store as store:
        runs = store.flow_runs(flow="inner")
    assert sorted(run.incarnation for run in runs) == [1, 2]
    assert {run.state.type for run in runs} == {StateType.COMPLETED}


def test_changed_code_is_refused_unless_it_is_allowed(world: World, journal: str) -> None:
    def version(more: int) -> Any:
        if more:

            @flow(name="changing")
            def body(journal: str) -> int:
                return step(journal, "only", 1).result() + 100
        else:

            @flow(name="changing")
            def body(journal: str) -> int:
                step(journal, "only", 1).wait()
                raise RuntimeError("no luck")

        return body

    with pytest.raises(RuntimeError):
        version(0)(journal)
    with pytest.raises(errors.ResumeError, match="--allow-new-code"):
        version(1).resume("latest")
    assert version(1).resume("latest", allow_new_code=True).unwrap() == 102
    assert counts(journal) == {"only": 1}
    assert world.last_run().state.name is StateName.RECOVERED


def test_a_body_that_makes_other_calls_than_before_is_told_so(world: World, journal: str) -> None:
    @task
    def other(journal: str) -> int:
        return 1

    @flow
    def fickle(journal: str) -> int:
        if counts(journal)["luck"]:
            return other(journal).result()
        step(journal, "only", 1).wait()
        note(journal, "luck")
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        fickle(journal)
    with pytest.raises(
        errors.ResumeError, match="Call 0 of the flow is now 'other-0', not 'step-0'"
    ):
        fickle.resume("latest").unwrap()
    assert world.last_run().state.name is StateName.FAILED


def test_what_may_have_begun_and_must_not_run_twice_is_lost(world: World, journal: str) -> None:
    @task(at_most_once=True)
    def pay(journal: str) -> int:
        note(journal, "pay")
        if counts(journal)["luck"] == 0:
            raise RuntimeError("no luck")
        return 1

    @flow
    def paying(journal: str) -> int:
        return pay(journal).result()

    with pytest.raises(RuntimeError):
        paying(journal)
    note(journal, "luck")
    with pytest.raises(errors.TaskCrashedError):
        paying.resume("latest").unwrap()
    assert counts(journal)["pay"] == 1
    assert world.task_runs()["pay-0"].state.name is StateName.LOST


PROGRAM = """
import os, signal, sys, time
from raflow import flow, task

JOURNAL = sys.argv[1]

@task
def item(n: int) -> int:
    with open(JOURNAL, "a") as file:
        file.write(f"item {n}\\n")
    return n

@task
def hang() -> int:
    with open(JOURNAL, "a") as file:
        file.write("hang\\n")
    time.sleep(0 if os.path.exists(JOURNAL + ".go") else 600)
    return 1

@flow
def counting() -> int:
    done = item.map(range(200))
    total = sum(done.result())
    return total + hang().result()

if __name__ == "__main__":
    if sys.argv[2] == "run":
        counting()
    else:
        print(counting.resume("latest").unwrap())
"""


def test_a_run_whose_process_was_killed_goes_on_in_another(
    world: World, tmp_path: Path, journal: str
) -> None:
    program = tmp_path / "counting.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(program), journal]
    with subprocess.Popen([*command, "run"], start_new_session=True) as process:
        try:
            eventually(lambda: counts(journal)["hang"])
            eventually(lambda: completed(world) == 200)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    before = world.last_run()
    assert before.state.name is StateName.RUNNING
    Path(f"{journal}.go").touch()
    done = subprocess.run(
        [*command, "resume"], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout) == (0, "19901\n"), done.stderr
    assert world.last_run().id == before.id
    assert world.last_run().state.name is StateName.RECOVERED
    seen = counts(journal)
    assert {seen[f"item {n}"] for n in range(200)} == {1}
    assert seen["hang"] == 2


KEEPER = """
import sys
from raflow import flow, task

@task(persist_result=True)
def large(n: int) -> str:
    return f"{n}" * 100_000

@flow
def keeping() -> int:
    return sum(len(future.result()) for future in [large.submit(n) for n in range(3)])

if __name__ == "__main__":
    keeping() if sys.argv[1] == "run" else keeping.resume("latest").unwrap()
"""


@pytest.mark.parametrize(
    "world",
    [
        ("local", "sqlite"),
        pytest.param(("local", "postgres"), marks=pytest.mark.postgres),
    ],
    indirect=True,
)
@pytest.mark.parametrize("way", ["resumed", "reaped"])
def test_what_a_killed_process_has_stored_and_not_recorded_is_removed(
    world: World, tmp_path: Path, way: str
) -> None:
    program = tmp_path / "keeping.py"
    program.write_text(KEEPER, encoding="utf-8")
    command = [sys.executable, str(program)]
    crash = os.environ | {"RAFLOW_CRASH": "worker.after_kept:1:SIGKILL", "RAFLOW_REAP": "false"}
    killed = subprocess.run([*command, "run"], env=crash, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL
    run = world.last_run()
    folder = Path(config.load().results, run.id)
    left = list(folder.iterdir())
    assert left
    if way == "reaped":
        with world.store as store:
            eventually(store.leases.abandoned)
            runtime.reap(store, run, None, results=config.load().results)
        assert list(folder.iterdir()) == []
        return
    subprocess.run([*command, "resume"], timeout=200, check=True)
    with world.store as store:
        urls = {row.result.url for row in store.task_runs(run.id) if row.result is not None}
    assert len(urls) == 3
    assert {f"file://{path}" for path in folder.iterdir()} == urls


# --- Steering -------------------------------------------------------------------------------------


def ask(world: World, kind: RequestKind, run: FlowRun) -> None:
    with world.store as store:
        request = store.requests.ask(run.id, kind, by="somebody")
        eventually(lambda: next(r for r in store.requests.of(run.id) if r.id == request.id).outcome)


def test_a_run_is_cancelled_from_another_process(world: World, journal: str) -> None:
    @task
    def long(journal: str) -> None:
        note(journal, "begin")
        for _ in range(12_000):
            time.sleep(0.05)

    @flow
    def patient(journal: str) -> None:
        for _ in range(8):
            long(journal)

    def cancel() -> None:
        eventually(lambda: counts(journal)["begin"])
        ask(world, RequestKind.CANCEL, world.last_run())

    thread = beside(cancel)
    with pytest.raises(errors.FlowRunCancelledError, match="cancel asked by somebody"):
        patient(journal)
    thread.join()
    begun = counts(journal)["begin"]
    time.sleep(0.3)
    assert counts(journal)["begin"] == begun < 8
    assert world.last_run().state.name is StateName.CANCELLED


def test_a_run_pauses_until_it_is_let_go_on(world: World, journal: str) -> None:
    @flow
    def pausing(journal: str) -> int:
        first = step(journal, "before", 1).result()
        pause_run()
        return step(journal, "after", first).result()

    def go_on() -> None:
        run = eventually(lambda: in_state(world, StateName.PAUSED))
        assert counts(journal) == {"before": 1}
        ask(world, RequestKind.UNPAUSE, run)

    thread = beside(go_on)
    assert pausing(journal) == 3
    thread.join()


def test_a_pause_that_nobody_ends_in_time(world: World, journal: str) -> None:
    @flow
    def pausing(journal: str) -> int:
        with pytest.raises(TimeoutError, match=r"within 0\.2 seconds"):
            pause_run(timeout_seconds=0.2)
        return step(journal, "after", 1).result()

    assert pausing(journal) == 2


def test_a_run_is_suspended_by_itself_and_resumed(world: World, journal: str) -> None:
    @flow
    def resting(journal: str) -> int:
        first = step(journal, "before", 1)
        suspend_run()
        return step(journal, "after", first).result()

    with pytest.raises(errors.FlowRunSuspendedError, match="raflow resume"):
        resting(journal)
    suspended = world.last_run()
    assert suspended.state.name is StateName.SUSPENDED
    with world.store as store:
        assert not store.leases.is_alive(suspended.id)
        assert store.leases.abandoned() == []
    assert resting.resume("latest").unwrap() == 3
    assert counts(journal) == {"before": 1, "after": 1}


def test_a_run_that_is_being_suspended_is_not_let_go_on(world: World, journal: str) -> None:
    @task
    def slow(journal: str) -> None:
        note(journal, "slow")
        eventually(lambda: counts(journal)["answered"])

    @flow
    def resting(journal: str) -> None:
        for _ in range(20):
            slow(journal)
        suspend_run()

    def steer() -> None:
        eventually(lambda: counts(journal)["slow"])
        ask(world, RequestKind.UNPAUSE, world.last_run())
        note(journal, "answered")

    thread = beside(steer)
    with pytest.raises(errors.FlowRunSuspendedError):
        resting(journal)
    thread.join()
    assert world.last_run().state.name is StateName.SUSPENDED
    assert counts(journal)["slow"] < 20


def test_a_run_is_suspended_from_outside_with_its_subflows(world: World, journal: str) -> None:
    @flow
    def inner(journal: str) -> int:
        value = 0
        for number in range(200):
            value = step(journal, f"step {number}", value).result()
            if number == 10:
                eventually(lambda: counts(journal)["asked"])
        return value

    @flow
    def outer(journal: str) -> int:
        return inner.submit(journal).result()

    def suspend() -> None:
        eventually(lambda: counts(journal)["step 3"])
        with world.store as store:
            (run,) = store.flow_runs(flow="outer")
        ask(world, RequestKind.SUSPEND, run)
        note(journal, "asked")

    thread = beside(suspend)
    with pytest.raises(errors.FlowRunSuspendedError):
        outer(journal)
    thread.join()
    assert 3 < sum(counts(journal).values()) < 200
    assert outer.resume(world.last_run("outer").id).unwrap() == 200
    assert set(counts(journal).values()) == {1}


def test_a_single_call_and_an_item_are_cancelled(world: World, journal: str) -> None:
    @task
    def nap(journal: str, seconds: float) -> float:
        note(journal, f"nap {seconds}")
        for _ in range(int(seconds / 0.05)):
            time.sleep(0.05)
        return seconds

    @flow
    def choosy(journal: str) -> list[object]:
        long = nap(journal, 600.0)
        short = nap(journal, 0.1)
        while not counts(journal)["nap 600.0"]:
            time.sleep(0.02)
        long.cancel()
        long.wait()
        items = nap.map([journal] * 3, [0.1, 601.0, 0.1])
        items[1].cancel()
        items.wait()
        return [long.state.name, short.result(), [item.state.name for item in items]]

    completed, cancelled = StateName.COMPLETED, StateName.CANCELLED
    assert choosy(journal) == [cancelled, 0.1, [completed, cancelled, completed]]


# --- People ---------------------------------------------------------------------------------------


class Approval(pydantic.BaseModel):
    ok: bool
    reason: str = ""


def test_people_answer_and_the_answer_outlives_the_process(world: World, journal: str) -> None:
    @flow
    def asking(journal: str) -> str:
        answer = wait_for_input(Approval, title="Ship it?", assignees=["ada"])
        note(journal, "answered")
        if counts(journal)["answered"] == 1:
            raise RuntimeError("no luck")
        return f"{answer.ok} {answer.reason}"

    def answer() -> None:
        run = eventually(lambda: in_state(world, StateName.AWAITING_INPUT))
        assert "'Ship it?' waits for an answer of ada" in run.state.reason
        with world.store as store:
            (question,) = eventually(store.requests.input_requests)
            assert set(question.form["properties"]) == {"ok", "reason"}
            store.requests.answer_person(
                run.id, question.number, answer=b'{"ok": true, "reason": "tests"}', by="ada"
            )

    thread = beside(answer)
    with pytest.raises(RuntimeError):
        asking(journal)
    thread.join()
    assert asking.resume("latest").unwrap() == "True tests"
    with world.store as store:
        (question,) = store.requests.input_requests(open_only=False)
    assert question.answered_by == "ada"


def test_a_question_that_nobody_answers(world: World) -> None:
    @flow
    def asking() -> list[bool]:
        first = wait_for_input(Approval, timeout_seconds=0.1, default=Approval(ok=False))
        with pytest.raises(TimeoutError, match="Nobody answered"):
            wait_for_input(Approval, timeout_seconds=0.1)
        return [first.ok]

    assert asking() == [False]


# --- Limits ---------------------------------------------------------------------------------------


def test_a_limit_holds_for_all_runs_together(world: World, journal: str) -> None:
    @task(limits=["warehouse"])
    def copy(journal: str) -> None:
        note(journal, "in")
        time.sleep(0.05)
        seen = counts(journal)
        assert seen["in"] - seen["out"] <= 2
        note(journal, "out")

    @flow
    def copying(journal: str) -> None:
        for _ in range(5):
            copy(journal)

    with world.store as store:
        store.limits.set(Limit(name="warehouse", slots=2))
    threads = [beside(lambda: copying(journal)) for _ in range(2)]
    for thread in threads:
        thread.join()
    assert counts(journal) == {"in": 10, "out": 10}
    with world.store as store:
        (state,) = store.limits.all()
        assert state.holders == state.waiters == ()
        assert all(run.state.name is StateName.COMPLETED for run in store.flow_runs())


def test_a_call_in_line_says_who_holds_the_slots(world: World, journal: str) -> None:
    @task(limits={"warehouse": 1})
    def copy(journal: str) -> None:
        note(journal, "in")
        while counts(journal)["go"] == 0:
            time.sleep(0.02)

    @flow(flow_run_name="copying")
    def copying(journal: str) -> None:
        copy(journal)
        copy(journal)

    def look() -> None:
        def waiting() -> str:
            if in_state(world, StateName.RUNNING) is None:
                return ""
            states = [run.state for run in world.task_runs().values()]
            return next((s.reason for s in states if s.name is StateName.AWAITING_SLOT), "")

        reason = eventually(waiting)
        note(journal, "go")
        assert "limit 'warehouse' 1/1, held by copy-0 of run copying since" in reason

    with world.store as store:
        store.limits.set(Limit(name="warehouse", slots=1))
    thread = beside(look)
    copying(journal)
    thread.join()
    assert counts(journal)["in"] == 2


def test_a_limit_that_nobody_has_set(world: World) -> None:
    @task(limits=["nowhere"])
    def copy() -> None: ...

    @flow
    def copying() -> None:
        copy()

    @flow
    def holding() -> None:
        with concurrency("nowhere"):
            pass

    with pytest.raises(errors.FlowRunFailedError):
        copying()
    assert "raflow limits set nowhere" in world.task_runs()["copy-0"].state.message
    with pytest.raises(errors.UnknownLimitError, match="raflow limits set nowhere"):
        holding()


def test_the_body_holds_slots_and_gives_them_back(world: World) -> None:
    @flow
    def holding() -> bool:
        with (
            concurrency("desk", timeout_seconds=100),
            pytest.raises(TimeoutError, match="'desk' 1/1, held by the body of run"),
            concurrency("desk", timeout_seconds=0.5),
        ):
            pass
        with concurrency("desk", timeout_seconds=100):
            return True

    with world.store as store:
        store.limits.set(Limit(name="desk", slots=1))
    assert holding()


# --- The cache ------------------------------------------------------------------------------------


@task(cache_policy=INPUTS - "journal")
def squared(journal: str, value: Any) -> Any:
    note(journal, f"square {value}")
    return value * value if isinstance(value, int) else [v * v for v in value]


@flow
def squares(journal: str, values: list[int]) -> list[int]:
    return squared.map([journal] * len(values), values).result()


def test_what_was_computed_is_not_computed_again(world: World, journal: str) -> None:
    assert squares(journal, [2, 3]) == [4, 9]
    first = world.last_run()
    assert squares(journal, [3, 4, 3]) == [9, 16, 9]
    assert counts(journal) == {"square 2": 1, "square 3": 1, "square 4": 1}
    found = world.task_runs()
    assert found["squared-0[0]"].state.name is StateName.CACHED
    assert found["squared-0[1]"].state.name is StateName.COMPLETED
    assert found["squared-0[0]"].state.message == f"computed by squared[1] of run {first.id[-12:]}"
    assert found["squared-0[0]"].attempts == 0
    assert found["squared-0[0]"].result is not None


def test_values_of_other_tasks_count_by_what_they_are(world: World, journal: str) -> None:
    @flow
    def squaring(journal: str) -> list[list[int]]:
        numbers = step.map([journal] * 2, ["step"] * 2, [1, 2])
        return [squared(journal, numbers).result(), squared(journal, [2, 3]).result()]

    assert squaring(journal) == [[4, 9], [4, 9]]
    assert counts(journal)["square [2, 3]"] == 1


def test_equal_calls_side_by_side_are_computed_once(world: World, journal: str) -> None:
    @task(cache_policy=INPUTS)
    def slow(journal: str, value: int) -> int:
        note(journal, "slow")
        time.sleep(0.5)
        return value

    @flow
    def eager(journal: str) -> list[int]:
        return [future.result() for future in [slow(journal, 1), slow(journal, 1)]]

    threads = [beside(lambda: eager(journal)) for _ in range(2)]
    for thread in threads:
        thread.join()
    assert counts(journal) == {"slow": 1}
    with world.store as store:
        assert {run.state.name for run in store.flow_runs()} == {StateName.COMPLETED}


def test_a_cached_value_that_was_removed_is_computed_again(world: World, journal: str) -> None:
    @task(cache_policy=INPUTS - "journal")
    def large(journal: str, size: int) -> str:
        note(journal, "large")
        return "x" * size

    @flow
    def using(journal: str) -> int:
        return len(large(journal, 200_000).result())

    assert [using(journal) for _ in range(2)] == [200_000] * 2
    assert counts(journal) == {"large": 1}
    for file in Path(config.load().results).rglob("*.*"):
        file.unlink()
    assert [using(journal) for _ in range(2)] == [200_000] * 2
    assert counts(journal) == {"large": 2}


def test_cached_values_expire_and_are_refreshed(world: World, journal: str) -> None:
    @task(cache_policy=INPUTS)
    def brief(journal: str) -> int:
        note(journal, "brief")
        return 1

    @flow
    def once(journal: str, refresh: bool, seconds: float) -> int:
        chosen = brief.with_options(refresh_cache=refresh, cache_expiration=seconds)
        return chosen(journal).result()

    assert [once(journal, refresh=False, seconds=600) for _ in range(2)] == [1, 1]
    assert counts(journal) == {"brief": 1}
    once(journal, refresh=True, seconds=0.1)
    assert counts(journal) == {"brief": 2}
    time.sleep(0.2)
    once(journal, refresh=False, seconds=600)
    assert counts(journal) == {"brief": 3}


def test_a_whole_run_is_refreshed_with_its_subflows(world: World, journal: str) -> None:
    known = step.with_options(cache_policy=INPUTS)

    @flow
    def inner(journal: str) -> int:
        return known(journal, "inner", 1)

    @flow
    def outer(journal: str) -> int:
        return known(journal, "outer", inner(journal)).result()

    for _ in range(2):
        assert outer(journal) == 3
    assert counts(journal) == {"inner": 1, "outer": 1}
    anew = outer.with_options(refresh_cache=True)
    assert [anew(journal), outer(journal)] == [3, 3]
    assert counts(journal) == {"inner": 2, "outer": 2}


def test_an_argument_without_a_key_is_named(world: World) -> None:
    @task(cache_policy=INPUTS)
    def odd(thing: object) -> None: ...

    @flow
    def oddly() -> None:
        odd(Odd())

    with pytest.raises(errors.FlowRunFailedError):
        oddly()
    state = world.task_runs()["odd-0"].state
    assert state.name is StateName.FAILED
    assert "its argument 'thing' has no cache key" in state.message


class Odd:
    """Nothing says what makes two of them equal."""


def test_a_call_that_failed_leaves_nothing_in_the_cache(world: World, journal: str) -> None:
    @task(cache_policy=INPUTS)
    def shaky(journal: str) -> int:
        note(journal, "shaky")
        if counts(journal)["shaky"] == 1:
            raise ValueError("shaky")
        return 1

    @flow
    def shaking(journal: str) -> int:
        return shaky(journal).result()

    with pytest.raises(ValueError, match="shaky"):
        shaking(journal)
    assert shaking(journal) == 1


# --- Hooks ----------------------------------------------------------------------------------------


def test_what_was_done_is_undone_in_reverse_if_the_run_fails(world: World, journal: str) -> None:
    @task
    def book(journal: str, what: str) -> str:
        note(journal, f"book {what}")
        return what

    @book.on_rollback
    def cancel_booking(_: object, run: Any, state: Any) -> None:
        note(journal, f"undo {run.label} {state.name}")

    @flow
    def travel(journal: str, fails: bool) -> None:
        book(journal, "train").wait()
        book(journal, "hotel").wait()
        if fails:
            raise RuntimeError("no visa")

    travel(journal, fails=False)
    assert not [word for word in counts(journal) if word.startswith("undo")]
    with pytest.raises(RuntimeError):
        travel(journal, fails=True)
    words = Path(journal).read_text(encoding="utf-8").split("\n")
    assert [word for word in words if word.startswith("undo")] == [
        "undo book-1 Completed",
        "undo book-0 Completed",
    ]


def test_what_was_undone_is_done_again_if_the_run_is_resumed(world: World, journal: str) -> None:
    @task(cache_policy=INPUTS)
    def book(journal: str, what: str) -> str:
        note(journal, f"book {what}")
        return what

    @book.on_rollback
    def cancel_booking(_: object, run: Any, state: Any) -> None:
        note(journal, f"undo {run.label}")

    @flow
    def travel(journal: str) -> int:
        train = book(journal, "train")
        plan = step(journal, "plan", 1).result()
        if counts(journal)["plan again"] == 0:
            note(journal, "plan again")
            train.wait()
            suspend_run()
        hotel = book(journal, "hotel")
        if counts(journal)["luck"] == 0:
            hotel.wait()
            note(journal, "luck")
            raise RuntimeError("no visa")
        return plan + len(train.result()) + len(hotel.result())

    with pytest.raises(errors.FlowRunSuspendedError):
        travel(journal)
    assert counts(journal)["undo book-0"] == 0
    with pytest.raises(RuntimeError, match="no visa"):
        travel.resume("latest").unwrap()
    # What an earlier process of the run did is undone, too.
    words = Path(journal).read_text(encoding="utf-8").split()
    undone = [after for word, after in pairwise(words) if word == "undo"]
    assert undone == ["book-1", "book-0"]
    states = {label: run.state.name for label, run in world.task_runs().items()}
    assert states == {
        "book-0": StateName.ROLLED_BACK,
        "step-0": StateName.COMPLETED,
        "book-1": StateName.ROLLED_BACK,
    }
    assert travel.resume("latest").unwrap() == 12
    seen = counts(journal)
    assert (seen["book train"], seen["book hotel"], seen["plan"]) == (2, 2, 1)
    assert world.task_runs()["book-0"].state.name is StateName.RECOVERED
    assert world.last_run().state.name is StateName.RECOVERED


def test_a_process_that_has_lost_its_run_ends_what_it_started(world: World, journal: str) -> None:
    @task
    def hold(journal: str, what: str) -> None:
        with subprocess.Popen(["sleep", "600"], start_new_session=True) as child:
            note(journal, f"{what} {child.pid}")
            while True:
                time.sleep(0.05)

    @flow
    def inner(journal: str) -> None:
        hold(journal, "inner").wait()

    @flow
    def outer(journal: str) -> None:
        hold(journal, "outer")
        inner(journal)

    ended: list[BaseException] = []

    def drive() -> None:
        try:
            outer(journal)
        except errors.FencedError as error:
            ended.append(error)

    thread = beside(drive)
    eventually(lambda: len(counts(journal)) == 2)
    children = [int(word.split()[1]) for word in counts(journal)]
    with world.store as store:
        [run] = store.flow_runs(flow="outer")
        store.leases.begin_incarnation(
            run.id, host="another", pid=1, process_started=1.0, seconds=60.0, force=True
        )
    thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in ended] == [errors.FencedError]
    eventually(lambda: all(process(child) is None for child in children))
    assert not world.last_run("outer").state.is_final


def test_teardown_runs_whatever_happened(world: World, journal: str) -> None:
    @task
    def clean(journal: str) -> None:
        note(journal, "clean")

    @flow
    def messy(journal: str) -> int:
        set_up = step(journal, "set up", 1)
        work = step(journal, "work", set_up)
        clean.submit(journal, wait_for=work, teardown_of=set_up)
        work.wait()
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        messy(journal)
    assert counts(journal) == {"set up": 1, "work": 1, "clean": 1}


@task
def on_record(database: str, label: str, value: Any) -> str:
    """Say how a task run stands on record now."""
    with Store.open(database, log_dir=Path(), create=False) as store:
        run = store.find_flow_run("latest")
        return next(t.state.name for t in store.task_runs(run.id) if t.label == label)


@task(retries=1)
def second_time(journal: str) -> int:
    note(journal, "try")
    if counts(journal)["try"] == 1:
        raise RuntimeError("not yet")
    return 1


@flow
def nested(journal: str) -> int:
    return step(journal, "nested", 1)


def test_results_are_on_disk_before_what_needs_them_begins(world: World, journal: str) -> None:
    seen: list[int] = []
    database = config.load().database

    @flow(durability="task")
    def careful(journal: str) -> list[str]:
        value = step(journal, "first", 1).result()
        with world.store as store:
            run = store.find_flow_run("latest")
            seen.append(sum(r.state.type is StateType.COMPLETED for r in store.task_runs(run.id)))
        return [
            on_record(database, "step-1", step(journal, "second", value)),
            on_record(database, "second_time-0", second_time(journal)),
            on_record(database, "nested-0", nested(journal)),
            on_record(database, "step-2[1]", step.map(journal, ["a", "b"], 1)),
        ]

    assert careful(journal) == ["Completed", "Recovered", "Completed", "Completed"]
    assert seen == [1]


def test_a_run_that_waits_for_people_can_be_paused_too(world: World, journal: str) -> None:
    @flow
    def asking(journal: str) -> int:
        wait_for_input(Approval)
        return step(journal, "after", 1).result()

    def steer() -> None:
        run = eventually(lambda: in_state(world, StateName.AWAITING_INPUT))
        ask(world, RequestKind.PAUSE, run)
        both = (
            f"'Approval' waits for an answer of anybody: `raflow input answer {run.name} 0`; "
            f"and no task starts: pause asked by somebody: `raflow unpause {run.name}`"
        )
        eventually(lambda: world.last_run().state.reason == both)
        assert in_state(world, StateName.AWAITING_INPUT)
        ask(world, RequestKind.UNPAUSE, run)
        eventually(lambda: "pause" not in world.last_run().state.reason)
        assert in_state(world, StateName.AWAITING_INPUT)
        ask(world, RequestKind.UNPAUSE, run)
        with world.store as store:
            outcomes = [request.outcome for request in store.requests.of(run.id)]
        assert outcomes == ["taken", "taken", "it was not paused"]
        ask(world, RequestKind.PAUSE, run)
        with world.store as store:
            eventually(store.requests.input_requests)
            store.requests.answer_person(run.id, 0, answer=b'{"ok": true}', by="ada")
        eventually(lambda: in_state(world, StateName.PAUSED))
        assert counts(journal) == {}
        ask(world, RequestKind.UNPAUSE, run)

    thread = beside(steer)
    assert asking(journal) == 2
    thread.join()
