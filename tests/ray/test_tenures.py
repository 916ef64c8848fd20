"""A process runs one batch after the other: whatever happens when, each batch ends once."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from raflow.execute import (
    BatchLost,
    BatchSpec,
    Call,
    EachOf,
    EachPart,
    ListOf,
    Part,
    ValueRef,
    ValueSlice,
)
from raflow.execute.ray._mail import Line
from raflow.execute.ray._tenures import (
    CROWDED_SECONDS,
    SHORT_TERM_SECONDS,
    TERM_SECONDS,
    InFlight,
    Tenure,
    Tenures,
    Way,
)
from raflow.execute.ray._wire import Mailed
from raflow.model import Outcome, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run
from tests.ray.session_machine import Process, SessionMachine, Wire


class OneThread(SessionMachine):
    """One thread does it all: what a process has run is told of in that order."""

    @invariant()
    def batches_of_a_process_end_in_their_order(self) -> None:
        ends = self.ended()
        for process in self.ray.processes.values():
            told = [batch for batch in ends if batch in process.ran]
            assert told == [batch for batch in process.ran if batch in told]


TestSession = OneThread.TestCase
TestSession.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


# --- how long a process stays ---------------------------------------------------------------------


class Clocked:
    """`Tenures`, and a clock that stands."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tenures = Tenures(lambda: self.now, stay=True)
        self.batches = itertools.count()

    def flight(self, *, places: int = 2, cpus: float = 1.0) -> InFlight:
        resources = Resources(num_cpus=cpus)
        spec = BatchSpec(
            id=next(self.batches), calls=(), resources=resources, budget=0.1, places=places
        )
        return InFlight(1, spec, can_be_mailed=True)

    def started(self, flight: InFlight) -> Tenure:
        tenure = self.tenures.start(flight, object(), ())
        self.tenures.find(1, tenure.number, cast(Line, SimpleNamespace()))
        return tenure


def test_a_batch_in_line_waits_for_a_process_that_speaks() -> None:
    given = Clocked()
    tenure = given.started(given.flight())
    assert given.tenures.place(given.flight(places=1)) is Way.START, "it may never speak"
    assert given.tenures.told(tenure, 0) is Way.WAIT
    assert given.tenures.place(following := given.flight()) is tenure
    assert given.tenures.place(given.flight()) is Way.START, "there is room"
    assert given.tenures.place(given.flight(places=1, cpus=2.0)) is Way.START
    assert given.tenures.place(waiting := given.flight(places=1)) is Way.WAIT
    assert given.tenures.told(tenure, following.spec.id) is waiting


def test_a_process_is_given_back_after_its_term() -> None:
    given = Clocked()
    tenure = given.started(given.flight())
    given.tenures.told(tenure, 0)
    given.tenures.place(given.flight())
    given.tenures.place(given.flight(places=1))
    given.now = TERM_SECONDS + 0.001
    assert given.tenures.told(tenure, 1) is Way.LEAVE
    waiting = given.tenures.replace(tenure)
    assert waiting is not None
    assert waiting.spec.id == 2, "Ray gets what has waited for the process"


def test_a_process_does_not_stay_while_something_else_waits_for_a_place() -> None:
    given = Clocked()
    tenure = given.started(given.flight())
    given.tenures.told(tenure, 0)
    given.tenures.place(given.flight())
    given.tenures.start(given.flight(cpus=2.0), object(), ())
    given.now = CROWDED_SECONDS + 0.001
    assert given.tenures.told(tenure, 1) is Way.LEAVE


def test_a_process_has_a_shorter_term_while_something_else_waits_for_a_place() -> None:
    given = Clocked()
    tenure = given.started(given.flight())
    given.tenures.told(tenure, 0)
    given.tenures.start(given.flight(cpus=2.0), object(), ())
    following = [given.flight(), *(given.flight(places=1) for _ in range(2))]
    for flight in following:
        given.tenures.place(flight)
    given.now = CROWDED_SECONDS + 0.001
    assert given.tenures.told(tenure, following[0].spec.id) is following[1]
    given.now = SHORT_TERM_SECONDS + 0.001
    assert given.tenures.told(tenure, following[1].spec.id) is Way.LEAVE


def test_values_that_came_by_mail_are_unpickled_once() -> None:
    mailed = Mailed(pickle.dumps([1, "a"]))
    assert mailed.entries is mailed.entries
    assert mailed.entries == [1, "a"]


def test_what_was_told_of_a_batch_may_be_lost_with_its_line() -> None:
    """The process says by a new line that it takes no more: Ray still has the report."""
    machine = SessionMachine()
    machine.submit(count=1, odd=0)
    [process] = machine.ray.processes.values()
    machine.start(process)
    machine.hear(process)
    machine.finish(process, small=True)
    process.wire.cut()
    process.wire = Wire()
    machine.leave(process)
    machine.hear(process)
    assert not machine.ended()
    machine.ray_tells(process)
    assert machine.ended() == [0]
    machine.teardown()


def resting() -> tuple[SessionMachine, Process]:
    """Return a session whose only process waits for more."""
    machine = SessionMachine()
    machine.submit(count=1, odd=0)
    [process] = machine.ray.processes.values()
    machine.start(process)
    machine.hear(process)
    machine.finish(process, small=True)
    machine.hear(process)
    return machine, process


def test_ray_may_tell_that_a_process_has_left_while_that_is_given_a_batch() -> None:
    machine, process = resting()
    expect = machine.ray.expect

    def late(session: int, batch: int, line: Wire) -> None:
        machine.leave(process)
        machine.ray_tells(process)
        expect(session, batch, line)

    machine.patch.setattr(machine.ray, "expect", late)
    machine.submit(count=1, odd=0)
    assert not process.wire.to_process, "Ray has the batch"
    assert not machine.ray.lines, "a cancel by that line would not reach it"
    machine.teardown()


def test_nothing_follows_a_batch_whose_process_is_asked_to_end_itself() -> None:
    machine, process = resting()
    machine.submit(count=4, odd=0)
    machine.receive(process)
    machine.ray.unwanted.add(1)
    machine.session.cancel(1, force=True)
    assert len(process.wire.to_process) == 1
    machine.finish(process, small=True)
    machine.hear(process)
    assert len(process.wire.to_process) == 1, "it ends what the batch has started, then itself"
    machine.teardown()


def test_a_late_look_for_a_process_does_not_touch_what_it_runs_now() -> None:
    machine = SessionMachine()
    machine.submit(count=1, odd=0)
    [flight] = machine.session.flights
    [process] = machine.ray.processes.values()
    machine.start(process)
    machine.hear(process)
    machine.finish(process, small=True)
    machine.hear(process)
    machine.submit(count=1, odd=0)
    machine.session._endings.dead(flight)
    machine.what_is_out_is_somewhere()
    assert not process.is_over
    machine.teardown()


def test_batches_that_wait_are_told_of_if_ray_takes_none_any_more() -> None:
    machine, _ = resting()
    machine.submit(count=2, odd=0)
    machine.submit(count=4, odd=0)
    assert sum(flight.tenure is None for flight in machine.session.flights) == 4

    def refuse(_head: bytes) -> tuple[object, ...]:
        raise ValueError("it is full")

    machine.patch.setattr(machine.ray, "remote", refuse)
    for one in list(machine.ray.processes.values()):
        if not one.is_over:
            machine.ray.end_process(one, RuntimeError("it died"))
        machine.ray_tells(one)
    assert set(machine.ended()) == machine.sent
    machine.patch.undo()


@pytest.mark.parametrize("by_mail_first", [True, False])
def test_one_thread_alone_gets_a_batch_that_came_too_late(by_mail_first: bool) -> None:
    """By mail the process tells that it leaves, and Ray that it has ended: two threads hear it."""
    given = Clocked()
    tenure = given.started(given.flight())
    given.tenures.told(tenure, 0)
    assert given.tenures.place(late := given.flight()) is tenure
    found = [given.tenures.leaves(tenure, 0) for _ in range(by_mail_first)]
    found.append(given.tenures.ended(tenure, reports=True))
    found.append(given.tenures.leaves(tenure, 0))
    assert found.count(late) == 1
    assert found[0] is late


# --- on Ray ---------------------------------------------------------------------------------------


def mailed(run: Run, *calls: Callable[[], Call]) -> int:
    """Submit calls until they go to a process that waits for more; returns the batch."""
    for _ in range(100):
        run.value(user.process)
        batch = run.submit(*(call() for call in calls))
        flight = run.session._flights.get(batch)  # type: ignore[attr-defined]  # a RaySession
        if flight is not None and flight.tenure is not None and flight.tenure.number != batch:
            return batch
        run.session.cancel(batch, force=True)
        run.end_of(batch)
    raise AssertionError("no process has taken a second batch")


@pytest.mark.ray
def test_the_next_batch_runs_in_the_same_ray_task(ray_run: Run) -> None:
    batch = mailed(ray_run, lambda: ray_run.call(user.ray_task))
    end = ray_run.finish(batch)
    assert isinstance(end.values[0], Mailed)
    following: list[object] = [ray_run.session.fetch(ray_run.value(user.ray_task))]
    for _ in range(100):
        following.append(ray_run.session.fetch(ray_run.value(user.ray_task)))
        if following[-1] == following[-2]:
            return
    raise AssertionError("each batch had a Ray task of its own")


@pytest.mark.ray
def test_a_process_whose_ray_task_returns_more_objects_does_not_stay(ray_run: Run) -> None:
    for _ in range(3):
        ray_run.finish(mailed(ray_run, lambda: ray_run.call(user.process)))
        end = ray_run.finish(ray_run.submit(ray_run.call(user.process), own_values=4))
        assert not isinstance(end.values[0], Mailed)


@pytest.mark.ray
def test_values_that_came_by_mail_are_inputs_of_any_kind(ray_run: Run) -> None:
    batch = mailed(
        ray_run,
        lambda: ray_run.call(user.echo, items={"value": [1, [2, 3], "four"]}),
        lambda: ray_run.call(user.numbers, {"length": 4}),
    )
    end = ray_run.finish(batch)
    [handle] = end.values
    assert isinstance(handle, Mailed)
    listed = ListOf((ValueSlice(handle, 1, 3), ValueRef(handle, 0)))
    assert ray_run.session.fetch(listed) == [[2, 3], "four", 1]
    assert ray_run.session.fetch(Part(ValueRef(handle, 3), 2)) == 2
    taken = ray_run.value(user.echo, inputs={"value": listed})
    assert ray_run.session.fetch(taken) == [[2, 3], "four", 1]
    part = ray_run.value(user.echo, inputs={"value": Part(ValueRef(handle, 3), 2)})
    assert ray_run.session.fetch(part) == 2
    each = ray_run.submit(
        ray_run.call(user.echo, inputs={"value": EachOf((ValueSlice(handle, 0, 3),))}, length=3),
        ray_run.call(user.echo, inputs={"value": EachPart(ValueRef(handle, 3), 1)}, length=2),
    )
    assert [ray_run.fetch(each, n) for n in range(5)] == [1, [2, 3], "four", 1, 2]


@pytest.mark.ray
def test_a_mailed_batch_is_cancelled_and_its_process_goes_on(ray_run: Run) -> None:
    batch = mailed(ray_run, lambda: ray_run.call(user.nap, {"seconds": 600}))
    ray_run.session.cancel(batch, force=False)
    [report] = ray_run.reports(batch)
    assert report.outcome is Outcome.CANCELLED
    again = ray_run.submit(ray_run.call(user.process))
    [found] = ray_run.reports(again)
    assert found.pid == report.pid


@pytest.mark.ray
def test_a_process_killed_in_a_mailed_batch_costs_that_call_alone(ray_run: Run) -> None:
    batch = mailed(
        ray_run,
        lambda: ray_run.call(user.die_at, {"fatal": 1}, items={"x": [0, 1, 2]}),
    )
    loss = ray_run.lose(batch)
    assert loss.outcome is Outcome.CRASHED
    assert loss.running == [1]
    ray_run.value(user.process)


@pytest.mark.ray
def test_a_process_killed_while_it_waits_for_more_costs_nothing(ray_run: Run) -> None:
    for _ in range(3):
        batch = mailed(ray_run, lambda: ray_run.call(user.process))
        pid: Any = ray_run.fetch(batch)
        os.kill(pid, signal.SIGKILL)
        following = ray_run.submit(ray_run.call(user.echo, {"value": 5}))
        end = ray_run.end_of(following)
        if isinstance(end, BatchLost):
            # It was on its way, or was just being unpacked: then none of its calls had begun.
            assert end.running is not None
            assert not end.running
        else:
            assert ray_run.fetch(following) == 5
        assert ray_run.fetch(batch) == pid
