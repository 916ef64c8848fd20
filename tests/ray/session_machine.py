"""A session against a Ray whose events come in a drawn order."""

from __future__ import annotations

import itertools
import pickle
from array import array
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest
import ray
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ray import exceptions

from raflow import results
from raflow.execute import BackendEvent, BatchEnded, BatchLost, BatchSpec, RunEnvironment
from raflow.execute.ray._mail import Line, Postbox
from raflow.execute.ray._mailroom import Word
from raflow.execute.ray._report import encode_report
from raflow.execute.ray._session import RaySession
from raflow.execute.ray._tenures import CROWDED_SECONDS, TERM_SECONDS, InFlight, Tenure, Tenures
from raflow.execute.ray._tools import Tools
from raflow.execute.ray._wire import Mailed, read_batch
from raflow.model import BatchReport, Place, Resources

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


class NotedTenures(Tenures):
    """Knows which processes were to run which batches."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock, stay=True)
        self.given: defaultdict[int, list[int]] = defaultdict(list)

    def _give(self, tenure: Tenure, flight: InFlight) -> None:  # type: ignore[override]
        self.given[flight.spec.id].append(tenure.number)
        super()._give(tenure, flight)


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
        self.tenures = NotedTenures(lambda: self.now)
        tools = Tools(
            poll=fake,
            mailroom=fake,
            alarms=fake,
            leases=fake,
            remote=fake,
            progress=fake,
            tenures=self.tenures,
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
        word, line = process.wire.to_driver.pop(0), cast(Line, process.wire)
        self.do("mail", lambda: self.session.word(word, line))

    def do(self, _thread: str, action: Callable[[], None]) -> None:
        """Do what a thread of the backend does."""
        action()

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
        tenure, error = self.ray.awaited.pop(process.number), process.error
        if error is None:
            report = report_of(process.last)
            self.do("poll", lambda: self.session.ended(tenure, report))
        else:
            self.do("poll", lambda: self.session.failed(tenure, error))

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

    @invariant()
    def only_what_was_hit_is_lost(self) -> None:
        assert not self.ray.wrong
        lost = {event.batch for event in self.events if isinstance(event, BatchLost)}
        ran = {batch for process in self.ray.processes.values() for batch in process.ran}
        for batch in lost - self.ray.victims - self.ray.unwanted:
            assert batch not in ran
            given = [self.ray.processes[number] for number in self.tenures.given[batch]]
            assert any(process.error for process in given), "none that it was meant for has died"

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
