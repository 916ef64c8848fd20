"""The engine, the mail, Ray's answers and alarms reach a session by threads of their own.

One of them goes on at a time, for as many lines as is drawn: so two threads meet at any line of the
session's code, and what is found can be repeated.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from raflow.execute.ray import _endings, _session, _tenures
from raflow.execute.ray._tenures import CROWDED_SECONDS, TERM_SECONDS
from tests.ray.session_machine import SLOTS, Process, SessionMachine

_TRACED = {module.__file__ for module in (_session, _tenures, _endings)}
_HANGS_SECONDS = 30.0
LINES = st.sampled_from([1, 2, 3, 5, 8, 13, 21, 34, 1000])


class Turn:
    """A thread in the session's code, which goes on for some lines when it is told to."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.is_over = False
        self.error: BaseException | None = None
        self.waits_for: DrawnLock | None = None
        self._action = action
        self._left = 0
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def can_go_on(self) -> bool:
        return self.waits_for is None or self.waits_for.owner is None

    def go_on(self, lines: int) -> None:
        self._left = lines
        self._go.release()
        assert self._stopped.acquire(timeout=_HANGS_SECONDS), "it hangs"
        if self.error is not None:
            raise self.error

    def pause(self) -> None:
        self._stopped.release()
        self._go.acquire()

    def _run(self) -> None:
        _of_thread.turn = self
        self._go.acquire()
        sys.settrace(self._enter)
        try:
            self._action()
        except BaseException as error:
            self.error = error
        finally:
            sys.settrace(None)
            self.is_over = True
            self._stopped.release()

    def _enter(self, frame: FrameType, _event: str, _arg: object) -> Any:
        return self._line if frame.f_code.co_filename in _TRACED else None

    def _line(self, _frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            while self._left == 0:
                self.pause()
            self._left -= 1
        return self._line


_of_thread = threading.local()


class DrawnLock:
    """A lock for which a turn waits by not going on."""

    def __init__(self) -> None:
        self.owner: object = None

    def __enter__(self) -> None:
        turn: Turn | None = getattr(_of_thread, "turn", None)
        while self.owner is not None:
            assert turn is not None, "every turn is over"
            assert self.owner is not turn, "it waits for itself"
            turn.waits_for = self
            turn.pause()
        if turn is not None:
            turn.waits_for = None
        self.owner = turn or self

    def __exit__(self, *_: object) -> None:
        self.owner = None


class ThreadsMachine(SessionMachine):
    """Has all threads that speak to a session do so at once."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: dict[str, Turn] = {}
        self.in_turns = True
        self.withdrawn: list[int] = []
        self.session._tools.tenures._lock = DrawnLock()  # type: ignore[assignment]
        self.session._ending = DrawnLock()  # type: ignore[assignment]

    @initialize(waiting=st.integers(0, 4))
    def begin(self, waiting: int) -> None:
        """Have processes that speak with the driver, and batches that wait for one."""
        with self.alone():
            super().submit(SLOTS, 0)
            for process in self.alive():
                self.start(process)
                self.hear(process)
            self.finish(process, small=True)
            self.hear(process)
            super().submit(1 + waiting, 0)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Do all at once, as long as no thread is in the middle of something."""
        assert not self.turns
        self.in_turns = False
        yield
        self.in_turns = True

    def do(self, thread: str, action: Callable[[], None]) -> None:
        """Have a thread begin something."""
        if self.in_turns:
            assert thread not in self.turns
            self.turns[thread] = Turn(action)
        else:
            action()

    def go_on_with(self, thread: str, lines: int) -> None:
        turn = self.turns.pop(thread)
        turn.go_on(lines)
        if not turn.is_over:
            self.turns[thread] = turn

    def is_free(self, thread: str) -> bool:
        return thread not in self.turns

    def can_go_on(self) -> list[str]:
        return [thread for thread, turn in self.turns.items() if turn.can_go_on]

    @rule(seconds=st.sampled_from([0.001, 0.001, 0.001, CROWDED_SECONDS * 1.1, TERM_SECONDS]))
    def wait(self, seconds: float) -> None:
        super().wait(seconds)

    @precondition(lambda self: self.is_free("engine"))
    @rule(count=st.integers(1, 4), odd=st.integers(0, 9))
    def submit(self, count: int, odd: int) -> None:
        again = super().submit
        self.do("engine", lambda: again(count, odd))

    @precondition(lambda self: self.is_free("engine") and self.session.flights)
    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data: st.DataObject, force: bool) -> None:
        batch = data.draw(st.sampled_from(sorted(one.spec.id for one in self.session.flights)))
        self.ray.unwanted.add(batch)
        self.do("engine", lambda: self.session.cancel(batch, force=force))

    @precondition(lambda self: not self.turns and self.at_work())
    @rule(data=st.data(), force=st.booleans(), waiting=st.integers(0, 3))
    def cancel_what_ends(self, data: st.DataObject, force: bool, waiting: int) -> None:
        with self.alone():
            super().submit(waiting, 0)
        process = data.draw(st.sampled_from(self.at_work()))
        batch = process.last
        self.finish(process, small=True)
        self.ray.unwanted.add(batch)
        self.do("engine", lambda: self.session.cancel(batch, force=force))
        while process.wire.to_driver and self.is_free("mail"):
            self.hear(process)
        self.take_turns_with(data, process)

    def at_work(self) -> list[Process]:
        return [one for one in self.ray.processes.values() if one.running is not None]

    def take_turns_with(self, data: st.DataObject, process: Process) -> None:
        """Let the threads go on, and the process as soon as it can."""
        for lines in data.draw(st.lists(LINES, min_size=6, max_size=16)):
            if self.can_go_on():
                self.go_on_with(data.draw(st.sampled_from(self.can_go_on())), lines)
            if process.wire.to_process:
                self.receive(process)
            elif process.wire.to_driver and self.is_free("mail"):
                self.hear(process)

    @precondition(lambda self: self.is_free("alarms") and self.ray.alarms)
    @rule()
    def insist(self) -> None:
        self.do("alarms", self.ray.alarms.pop(0))

    @precondition(lambda self: self.can_go_on())
    @rule(data=st.data(), lines=LINES)
    def take_turns(self, data: st.DataObject, lines: int) -> None:
        self.go_on_with(data.draw(st.sampled_from(self.can_go_on())), lines)

    @precondition(lambda self: self.can_go_on())
    @rule(data=st.data())
    def take_many_turns(self, data: st.DataObject) -> None:
        for lines in data.draw(st.lists(LINES, min_size=4, max_size=12)):
            if self.can_go_on():
                self.go_on_with(data.draw(st.sampled_from(self.can_go_on())), lines)
            self.something(data)

    def steps_of(self, process: Process, data: st.DataObject) -> list[Callable[[], None]]:
        steps = super().steps_of(process, data)
        if process.wire.to_driver and not self.is_free("mail"):
            del steps[0]
        if process.is_over and process.number in self.ray.awaited and not self.is_free("poll"):
            steps.pop()
        return steps

    @invariant()
    def what_is_out_is_somewhere(self) -> None:
        if not self.turns:
            super().what_is_out_is_somewhere()

    def teardown(self) -> None:
        while self.turns:
            assert self.can_go_on(), "all wait for each other"
            for thread in self.can_go_on():
                if thread in self.can_go_on():
                    self.go_on_with(thread, 1000)
        self.in_turns = False
        super().teardown()


TestThreads = ThreadsMachine.TestCase
TestThreads.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# --- Any line of one thread at which another one does all that it has to --------------------------


def cancels(machine: ThreadsMachine, one: Process, force: bool) -> None:
    batch = one.last
    machine.ray.unwanted.add(batch)
    machine.do("engine", lambda: machine.session.cancel(batch, force=force))


Action: TypeAlias = Callable[[ThreadsMachine, Process], None]


def withdraws(machine: ThreadsMachine, _: Process) -> None:
    """Cancel what waits for a process, or would if another thread had not come first."""
    waiting = [flight for flight in machine.session.flights if flight.tenure is None]
    if waiting:
        batch = waiting[0].spec.id
        machine.ray.unwanted.add(batch)
        machine.withdrawn.append(batch)
        machine.do("engine", lambda: machine.session.cancel(batch, force=False))


def dies(machine: ThreadsMachine, one: Process) -> None:
    machine.ray.end_process(one, RuntimeError("it died"))
    machine.ray_tells(one)


FIRST: dict[str, Action] = {
    "cancel": lambda machine, one: cancels(machine, one, force=False),
    "kill": lambda machine, one: cancels(machine, one, force=True),
    "withdraw": withdraws,
    "submit": lambda machine, _: machine.submit(1, 0),
}
SECOND: dict[str, Action] = {
    "told": lambda machine, one: machine.hear(one),
    "died": dies,
}


@pytest.mark.parametrize("waiting", [0, 2])
@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_whatever_line_it_is_interrupted_at(first: str, second: str, waiting: int) -> None:
    pairs = ((FIRST[first], SECOND[second]), (SECOND[second], FIRST[first]))
    for lead, follow in pairs:
        lines, is_over = 0, False
        while not is_over:
            lines += 1
            is_over = interrupted(lead, follow, lines, waiting)
        assert lines > 3 or not waiting


def interrupted(lead: Action, follow: Action, lines: int, waiting: int) -> bool:
    """Have one thread stop after some lines; return whether it was over before."""
    machine = ThreadsMachine()
    machine.begin(waiting)
    one = next(process for process in machine.alive() if process.running is not None)
    machine.finish(one, small=True)
    lead(machine, one)
    if not machine.turns:
        assert not waiting, "there is something to cancel"
        machine.teardown()
        return True
    (thread,) = machine.turns
    machine.go_on_with(thread, lines)
    is_over = thread not in machine.turns
    follow(machine, one)
    for other in [name for name in machine.can_go_on() if name != thread]:
        machine.go_on_with(other, 1000)
    for process in machine.alive():
        while process.wire.to_process:
            machine.receive(process)
    while machine.can_go_on():
        machine.go_on_with(machine.can_go_on()[0], 1000)
    for batch in machine.withdrawn:
        own = machine.ray.processes.get(batch)
        assert own is None or not own.is_pending, "Ray does not start what nobody wants"
    machine.teardown()
    assert not machine.ray.lines, "nobody is spoken to of what has ended"
    return is_over
