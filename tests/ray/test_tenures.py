"""A process runs one batch after the other: whatever happens when, each batch ends once."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ray import exceptions

from raflow import results
from raflow.execute import (
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    Call,
    EachOf,
    EachPart,
    ListOf,
    Part,
    RunEnvironment,
    ValueRef,
    ValueSlice,
)
from raflow.execute.ray._mail import Line, Postbox
from raflow.execute.ray._mailroom import Word
from raflow.execute.ray._report import encode_report
from raflow.execute.ray._session import RaySession
from raflow.execute.ray._tenures import (
    CROWDED_SECONDS,
    SHORT_TERM_SECONDS,
    TERM_SECONDS,
    InFlight,
    Tenure,
    Tenures,
    Way,
)
from raflow.execute.ray._tools import Tools
from raflow.execute.ray._wire import Mailed, read_batch
from raflow.model import BatchReport, Outcome, Place, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run

SLOTS = 2


class Wire:
    """A line of which both ends, and what is on its way, are in sight."""

    def __init__(self) -> None:
        self.is_cut = False
        self.mailed: list[int] = []
        """Batches that were sent by it."""
        self.to_process: list[tuple[dict[str, Any], bytes]] = []
        self.to_driver: list[Word] = []

    def send(self, message: dict[str, Any], payload: bytes | None = None) -> bool:
        if not self.is_cut:
            self.to_process.append((message, payload or b""))
            self.mailed += message.get("next", ())[2:]
        return not self.is_cut

    def cut(self) -> None:
        self.is_cut = True
        self.to_process.clear()
        self.to_driver.clear()


class Process:
    """Does what `_process` does for one Ray task."""

    def __init__(self, number: int, *, stays: bool) -> None:
        self.number = number
        self.stays = stays
        """Ray was told how many objects the Ray task returns: later batches may return no more."""
        self.wire = Wire()
        self.ran: list[int] = []
        self.mailed: list[int] = []
        """Batches that were sent to it by lines that are lost."""
        self.running: int | None = None
        self.waits = False
        self.is_over = False
        self.error: Exception | None = None
        """What Ray says of it, if it was ended."""

    @property
    def last(self) -> int:
        return self.ran[-1] if self.ran else -1

    @property
    def is_pending(self) -> bool:
        return not self.ran and not self.is_over

    @property
    def late(self) -> set[int]:
        """What it was sent and has not taken up; that may be lost with the line."""
        return {*self.mailed, *self.wire.mailed} - {*self.ran}

    def call_again(self) -> None:
        """Open a new line."""
        self.mailed += self.wire.mailed
        self.wire = Wire()

    def tell(self, batch: int | None, payload: bytes = b"", *, leaves: bool = False) -> bool:
        if not self.wire.is_cut:
            self.wire.to_driver.append(Word(1, self.number, batch, payload, leaves))
        return not self.wire.is_cut


class FakeRay:
    """Stands for Ray and its processes, whose events come in an order that nobody can choose."""

    postbox = Postbox("nowhere", 1, b"")
    token = ""
    seconds = 15.0

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.awaited: dict[int, Tenure] = {}
        self.lines: dict[int, Wire] = {}
        self.alarms: list[Callable[[], None]] = []
        self.unwanted: set[int] = set()
        """Batches that may be ended."""
        self.wrong: list[str] = []
        """What was ended though nobody wanted that."""
        self.victims: set[int] = set()
        """Batches whose process was ended while they were in it."""

    def get(self, _resources: Resources, _returns: int) -> FakeRay:
        return self

    def remote(self, head: bytes) -> tuple[object, ...]:
        batch = read_batch(head)
        number = batch.batch
        assert number not in self.processes, "a batch is given to Ray once"
        self.processes[number] = Process(number, stays=batch.own_values == 1)
        return (number, ("values", number))

    def end(self, number: int, *, force: bool) -> None:
        """Stand for `ray.cancel`."""
        process = self.processes[number]
        if not process.is_over:
            hit = self.end_process(process, exceptions.TaskCancelledError())
            self.wrong += [f"batch {batch} was ended" for batch in hit - self.unwanted]
            self.wrong += [] if force else ["Ray ends this process if it is asked without force"]

    def end_process(self, process: Process, error: Exception) -> set[int]:
        """End a process; returns which batches have their end in that."""
        running = set() if process.running is None else {process.running}
        hit = running or ({process.number} if process.is_pending else process.late)
        # Of what has ended only the process knew, if its word gets lost.
        process.is_over, process.waits, process.running, process.error = True, False, None, error
        process.wire.is_cut = True
        process.wire.to_process.clear()
        self.victims |= hit or {process.last}
        return hit

    def add(self, tenure: Tenure) -> None:
        self.awaited[tenure.number] = tenure

    def drop(self, tenure: Tenure) -> None:
        self.awaited.pop(tenure.number, None)

    def expect(self, _session: int, batch: int, line: Wire) -> None:
        self.lines[batch] = line

    def forget(self, _session: int, batch: int) -> None:
        self.lines.pop(batch, None)

    def ask(self, what: str, batch: int) -> bool:
        line = self.lines.get(batch)
        return line is not None and line.send({what: batch})

    def cancel(self, _session: int, batch: int) -> bool:
        return self.ask("cancel", batch)

    def kill(self, _session: int, batch: int) -> bool:
        return self.ask("kill", batch)

    def after(self, _seconds: float, action: Callable[[], None]) -> None:
        self.alarms.append(action)

    def here(self, *_: object) -> None: ...


def report_of(batch: int) -> bytes:
    none = array("d")
    return encode_report(
        BatchReport(batch=batch, place=Place(), started_at=none, ended_at=none, cpu_seconds=none)
    )


class SessionMachine(RuleBasedStateMachine):
    """Makes batches, and has everything else happen that may."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ray = FakeRay()
        self.events: list[BackendEvent] = []
        self.sent: set[int] = set()
        self.numbers = itertools.count()
        fake = cast(Any, self.ray)
        tools = Tools(
            poll=fake,
            mailroom=fake,
            alarms=fake,
            leases=fake,
            remote=fake,
            progress=fake,
            tenures=Tenures(lambda: self.now, stay=True),
            probe=lambda: None,
        )
        keeper = results.Keeper(flow_run_id="r", storage="", signing_key=b"0" * 32, base="")
        environment = RunEnvironment(flow_run_id="r", flow="f", flow_run_name="n", keeper=keeper)
        self.session = RaySession(
            1,
            environment,
            self.events.append,
            tools,
            grace=1.0,
            same_machine=True,
            closed=lambda _: None,
        )
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(ray, "cancel", self.ray.end)

    @rule(count=st.integers(1, 4), odd=st.integers(0, 9))
    def submit(self, count: int, odd: int) -> None:
        for _ in range(count):
            batch = next(self.numbers)
            self.sent.add(batch)
            spec = BatchSpec(
                id=batch,
                calls=(),
                resources=Resources(num_cpus=2.0 if odd == 1 else 1.0),
                budget=0.1,
                own_values=8 if odd == 2 else 1,
                places=SLOTS,
            )
            self.session.submit(spec)

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """Have something happen that happens by itself."""
        self.something(data)

    @rule(data=st.data())
    def go_on_for_long(self, data: st.DataObject) -> None:
        for _ in range(8):
            self.something(data)

    def something(self, data: st.DataObject) -> None:
        possible: list[Callable[[], None]] = []
        for process in self.ray.processes.values():
            possible += self.steps_of(process, data)
        if possible:
            data.draw(st.sampled_from(possible), label="step")()

    def steps_of(self, process: Process, data: st.DataObject) -> list[Callable[[], None]]:
        """Return what can happen next to a process, and to what it has sent or is sent."""
        steps: list[Callable[[], None]] = []
        if process.wire.to_driver:
            steps.append(lambda: self.hear(process))
        if process.wire.to_process:
            steps.append(lambda: self.receive(process))
        if process.is_pending:
            steps.append(lambda: self.start(process))
        elif process.is_over and process.number in self.ray.awaited:
            steps.append(lambda: self.ray_tells(process))
        elif process.running is not None:
            steps.append(lambda: self.finish(process, small=data.draw(st.integers(0, 9)) > 0))
        elif process.waits and data.draw(st.integers(0, 3)) == 0:
            steps.append(lambda: self.leave(process))
        return steps

    def hear(self, process: Process) -> None:
        self.session.word(process.wire.to_driver.pop(0), cast(Line, process.wire))

    def receive(self, process: Process) -> None:
        message, payload = process.wire.to_process.pop(0)
        if process.is_over:
            return
        match message:
            case {"cancel": batch}:
                if batch == process.running:
                    self.finish(process, small=True)
            case {"kill": batch}:
                if batch == process.running:
                    assert batch in self.ray.unwanted
                    self.ray.end_process(process, exceptions.WorkerCrashedError())
            case {"leave": _}:
                assert process.waits, "it may go, and is not sent away from what it runs"
                self.leave(process)
            case {"next": [1, process.number, batch]}:
                assert process.waits, "a process has one batch at a time"
                assert batch == read_batch(payload).batch
                self.run_batch(process, batch)
            case _:
                raise AssertionError(message)

    def start(self, process: Process) -> None:
        process.tell(None)
        self.run_batch(process, process.number)

    def run_batch(self, process: Process, batch: int) -> None:
        process.ran.append(batch)
        process.running = batch
        process.waits = False

    def finish(self, process: Process, *, small: bool) -> None:
        process.running = None
        payload = pickle.dumps((report_of(process.last), pickle.dumps([process.last])))
        process.waits = small and process.stays and process.tell(process.last, payload)
        process.is_over = not process.waits

    def leave(self, process: Process) -> None:
        process.tell(process.last, leaves=True)
        process.waits, process.is_over = False, True

    def ray_tells(self, process: Process) -> None:
        tenure = self.ray.awaited.pop(process.number)
        if process.error is None:
            self.session.ended(tenure, report_of(process.last))
        else:
            self.session.failed(tenure, process.error)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), is_heard=st.booleans())
    def die(self, data: st.DataObject, is_heard: bool) -> None:
        process = data.draw(st.sampled_from(self.alive()))
        hit = self.ray.end_process(process, RuntimeError("it died"))
        assert len(hit) <= 1, "a death hits one batch"
        if not is_heard:
            process.wire.cut()

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), again=st.booleans())
    def lose_the_line(self, data: st.DataObject, again: bool) -> None:
        process = data.draw(st.sampled_from(self.alive()))
        process.wire.cut()
        if again:
            process.call_again()

    def alive(self) -> list[Process]:
        return [process for process in self.ray.processes.values() if not process.is_over]

    @rule(seconds=st.sampled_from([0.001, CROWDED_SECONDS * 1.1, TERM_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.session.flights)
    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data: st.DataObject, force: bool) -> None:
        flight = data.draw(st.sampled_from(self.session.flights))
        batch, waits = flight.spec.id, flight.tenure is None
        self.ray.unwanted.add(batch)
        self.session.cancel(batch, force=force)
        assert not waits or batch in self.ended(), "what no process has ends at once"
        own = self.ray.processes.get(batch)
        assert own is None or not own.is_pending, "Ray does not start what nobody wants"

    @precondition(lambda self: self.ray.alarms)
    @rule()
    def insist(self) -> None:
        self.ray.alarms.pop(0)()

    def ended(self) -> list[int]:
        ends: list[int] = []
        for event in self.events:
            if isinstance(event, BatchEnded):
                ends.append(event.report.batch)
            elif isinstance(event, BatchLost):
                ends.append(event.batch)
        return ends

    @invariant()
    def each_runs_once_and_ends_once(self) -> None:
        ran = [batch for process in self.ray.processes.values() for batch in process.ran]
        assert len(ran) == len(set(ran))
        ends = self.ended()
        assert len(ends) == len(set(ends))
        for process in self.ray.processes.values():
            told = [batch for batch in ends if batch in process.ran]
            assert told == [batch for batch in process.ran if batch in told], "in their order"

    @invariant()
    def only_what_was_hit_is_lost(self) -> None:
        assert not self.ray.wrong
        lost = {event.batch for event in self.events if isinstance(event, BatchLost)}
        assert lost <= self.ray.victims | self.ray.unwanted

    @invariant()
    def values_come_with_their_report(self) -> None:
        for event in self.events:
            if isinstance(event, BatchEnded):
                [handle] = event.values
                if isinstance(handle, Mailed):
                    assert handle.entries == [event.report.batch]
                else:
                    number = cast(tuple[str, int], handle)[1]
                    assert self.ray.processes[number].last == event.report.batch

    @invariant()
    def what_is_out_is_somewhere(self) -> None:
        ended = set(self.ended())
        for flight in self.session.flights:
            assert flight.spec.id not in ended
            if flight.tenure is not None:
                assert flight.tenure.number in self.ray.awaited, "Ray still has to tell its end"

    def teardown(self) -> None:
        """Whatever has happened: if nothing breaks any more, all batches end."""
        try:
            steps = [True]
            for _ in range(100 * (1 + len(self.sent))):
                steps = [self.take_a_step(one) for one in list(self.ray.processes.values())]
                if not any(steps):
                    break
            assert not any(steps)
            assert set(self.ended()) == self.sent
            assert not self.session.flights
            self.each_runs_once_and_ends_once()
            self.only_what_was_hit_is_lost()
            self.values_come_with_their_report()
        finally:
            self.patch.undo()

    def take_a_step(self, process: Process) -> bool:
        if process.wire.to_driver:
            self.hear(process)
        elif process.wire.to_process:
            self.receive(process)
        elif process.is_pending:
            self.start(process)
        elif process.running is not None:
            self.finish(process, small=True)
        elif process.waits:
            self.leave(process)
        elif process.is_over and process.number in self.ray.awaited:
            self.ray_tells(process)
        else:
            return False
        return True


TestSession = SessionMachine.TestCase
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
