"""Slots of limits when processes are stopped and killed: real ones, with real signals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from raflow import concurrency, flow
from raflow.model import FlowRun, Limit, Outcome, State, StateName
from tests.flows.conftest import World
from tests.flows.test_durable import beside, counts, note
from tests.store.times import let_pass, stop_between_writes

PATIENCE_SECONDS = 100.0
"""A process that drives a run may have to start Ray first."""


def eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


_LOSER = """
import json, os, sys, time
from raflow import concurrency, errors, flow, get_run_context, task

JOURNAL = sys.argv[1]

def note(word):
    with open(JOURNAL, "a") as file:
        file.write(word + "\\n")

def noted(word):
    with open(JOURNAL) as file:
        return word + "\\n" in file

def wait_for(word):
    while not noted(word):
        time.sleep(0.02)

@task(num_cpus=0.1)
def patient():
    with concurrency("patient"):
        note("patient in")
        wait_for("other out")
    return "went on"

@task(num_cpus=0.1)
def strict():
    try:
        with concurrency("strict", strict=True):
            note("strict in")
            wait_for("never")
    except errors.SlotLostError as error:
        note("strict out")
        return str(error)

@task(num_cpus=0.1, limits=["call"], strict_limits=True, crash_retries=1)
def call():
    attempt = get_run_context().attempt
    note(f"call {attempt}")
    if attempt == 1:
        wait_for("never")
    return attempt

@flow(flow_run_name="loser")
def losing():
    told = ""
    tasks = [patient(), strict(), call()]
    try:
        with concurrency("body", strict=True):
            note("body in")
            tasks[1].wait()
    except errors.SlotLostError as error:
        told = str(error)
    return [told, *(one.result() for one in tasks)]

if __name__ == "__main__":
    print(json.dumps(losing()))
"""
_NAMES = ("body", "call", "patient", "strict")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "world",
    [
        pytest.param(("local", "sqlite"), id="local-sqlite"),
        pytest.param(
            ("ray", "postgres"), id="ray-postgres", marks=[pytest.mark.ray, pytest.mark.postgres]
        ),
    ],
    indirect=True,
)
def test_who_was_stopped_for_too_long_is_told_that_its_slots_are_lost(
    world: World, tmp_path: Path
) -> None:
    program, path = tmp_path / "losing.py", tmp_path / "journal"
    program.write_text(_LOSER, encoding="utf-8")
    path.touch()
    journal = str(path)
    with world.store as store:
        for name in _NAMES:
            store.limits.set(Limit(name=name, slots=1))

    @flow(backend="local", flow_run_name="other")
    def taking() -> None:
        with concurrency(_NAMES):
            note(journal, "other in")
            eventually(lambda: counts(journal)["strict out"])
            eventually(lambda: attempts(world)[:1] == [Outcome.LOST])
            eventually(lambda: bool(losses_of_patient(world)))
            assert not counts(journal)["call 2"]
        note(journal, "other out")

    command = [sys.executable, str(program), journal]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        try:
            inside = ("body in", "call 1", "patient in", "strict in")
            eventually(lambda: all(counts(journal)[word] for word in inside))
            with world.store as store:
                stop_between_writes(process, store)
                let_pass(store, 60)
            thread = beside(taking)
            eventually(lambda: counts(journal)["other in"])
            assert not counts(journal)["strict out"]
            process.send_signal(signal.SIGCONT)
            out, told = process.communicate(timeout=PATIENCE_SECONDS)
            thread.join()
        finally:
            process.kill()
    assert process.returncode == 0, told
    body, patient, strict, attempt = json.loads(out)
    assert body.startswith("the body of run loser has lost its slots of limit 'body': ")
    assert patient == "went on"
    assert strict.startswith("strict-0 of run loser has lost its slots of limit 'strict': ")
    assert attempt == 2
    check_record(world)


def loser(world: World) -> FlowRun:
    return world.last_run("losing")


def attempts(world: World) -> list[Outcome]:
    with world.store as store:
        run = loser(world)
        keys = [row.key for row in store.task_runs(run.id) if row.label == "call-0"]
        return [attempt.outcome for key in keys for attempt in store.attempts(run.id, key=key)]


def losses_of_patient(world: World) -> list[State]:
    with world.store as store:
        run = loser(world)
        [row] = [row for row in store.task_runs(run.id) if row.label == "patient-0"]
        states = [change.state for change in store.states(run.id, key=row.key)]
        return [state for state in states if "has lost its slots" in state.message]


def check_record(world: World) -> None:
    """What the run says of the slots that it has lost."""
    run = loser(world)
    assert attempts(world) == [Outcome.LOST, Outcome.COMPLETED]
    with world.store as store:
        rows = {row.label: row for row in store.task_runs(run.id)}
        lines = [
            (line.level, line.text)
            for segment in store.log_segments(run.id)
            if segment.key is None
            for line in store.read_log(segment)
        ]
        assert all(limit.holders == limit.waiters == () for limit in store.limits.all())
    assert rows["call-0"].state.name is StateName.RECOVERED
    assert [state.name for state in losses_of_patient(world)] == [StateName.RUNNING]
    lost = sorted(text.split()[0] for level, text in lines if level == 30 and " lost " in text)
    assert lost == ["call-0", "patient-0", "strict-0", "the"]


_WORKLOAD = """
import os, random, sys, time
from raflow import concurrency, flow, task

JOURNAL, SEED, ITEMS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def note(*words):
    line = " ".join(map(str, (words[0], SEED, *words[1:]))) + "\\n"
    file = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)

@task(num_cpus=0.1)
def work(item: int) -> None:
    rng = random.Random(SEED * 1000 + item)
    names = rng.sample(["a", "b"], rng.choice([1, 1, 2]))
    occupy = rng.choice([1, 1, 2])
    with concurrency(names, occupy, priority=rng.choice([0, 0, 1]), strict=True):
        for name in names:
            note("in", name, occupy)
        time.sleep(rng.random() * 0.3)
        for name in names:
            note("out", name, occupy)

@flow
def working() -> None:
    work.map(range(ITEMS)).result()

if __name__ == "__main__":
    working()
"""
_SLOTS = {"a": 3, "b": 2}


class Workload:
    """Processes that share limits, and what they have noted."""

    def __init__(self, folder: Path, items: int) -> None:
        self.program, self.journal = folder / "working.py", folder / "journal"
        self.program.write_text(_WORKLOAD, encoding="utf-8")
        self.journal.touch()
        self.output = folder / "output"
        self.items = items
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        given = (self.program, self.journal, number, self.items)
        with self.output.open("ab") as file:
            self.processes[number] = subprocess.Popen(
                [sys.executable, *map(str, given)],
                stdout=file,
                stderr=file,
                cwd=self.program.parent,
                start_new_session=True,
            )

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.journal.read_text().split("\n")[:-1]]

    def holds(self, number: int) -> bool:
        inside = Counter[str]()
        for word, who, *_ in self.lines():
            inside[who] += {"in": 1, "out": -1}.get(word, 0)
        return inside[str(number)] > 0

    def kill(self, number: int) -> None:
        """End a process that holds slots, and all that it has started, at once."""
        eventually(lambda: self.holds(number))
        process = self.processes.pop(number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with self.journal.open("a") as file:
            file.write(f"dead {number}\n")

    def finish(self) -> None:
        for process in self.processes.values():
            assert process.wait(timeout=500) == 0, self.output.read_text()

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def most_at_once(lines: Sequence[Sequence[str]], name: str) -> int:
    """The most slots of a limit that were held at once, by what the holders noted."""
    held = Counter[str]()
    most = 0
    for word, who, *what in lines:
        if word == "dead":
            del held[who]
        elif what[0] == name:
            held[who] += int(what[1]) * (1 if word == "in" else -1)
        most = max(most, sum(held.values()))
    return most


_NIGHTLY_SEEDS = (3, 4) if "CHAOS_NIGHTLY" in os.environ else ()
"""Of large workloads on all worlds, each of which takes half a minute or longer."""


@pytest.fixture
def workload(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workload]:
    made = Workload(tmp_path, request.param)
    yield made
    made.close()


def test_the_gauge_would_tell() -> None:
    lines = ["in 1 a 2", "in 2 a 1", "out 1 a 2", "in 3 a 2", "dead 3", "in 1 a 2", "in 2 b 9"]
    split = [line.split() for line in lines]
    assert (most_at_once(split, "a"), most_at_once(split, "b")) == (3, 9)
    assert most_at_once([*split, ["in", "1", "a", "1"]], "a") == 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("world", "workload", "seed"),
    [
        pytest.param(("local", "sqlite"), 12, 1, id="local-sqlite-1"),
        pytest.param(
            ("local", "postgres"), 12, 2, id="local-postgres-2", marks=pytest.mark.postgres
        ),
        *(
            pytest.param(
                (backend, database),
                40,
                seed,
                id=f"{backend}-{database}-{seed}",
                marks=[pytest.mark.slow, pytest.mark.postgres, pytest.mark.ray],
            )
            for seed in _NIGHTLY_SEEDS
            for backend, database in (
                ("local", "sqlite"),
                ("local", "postgres"),
                ("ray", "sqlite"),
                ("ray", "postgres"),
            )
        ),
    ],
    indirect=["world", "workload"],
)
def test_tasks_never_hold_more_than_there_is_and_the_dead_hold_nothing(
    world: World, workload: Workload, seed: int
) -> None:
    with world.store as store:
        for name, slots in _SLOTS.items():
            store.limits.set(Limit(name=name, slots=slots))
    numbers = range(3)
    for number in numbers:
        workload.start(10 * seed + number)
    workload.kill(10 * seed + random.Random(seed).choice(numbers))
    workload.finish()  # so the slots of the dead came back
    lines = workload.lines()
    assert sum(word == "in" for word, *_ in lines) > workload.items
    for name, slots in _SLOTS.items():
        assert 0 < most_at_once(lines, name) <= slots
    with world.store as store:
        dead = [lease for limit in store.limits.all() for lease in limit.holders]
        assert not dead or {lease.expires_at - time.time() < 16 for lease in dead} == {True}
