"""Small flows of every shape, in each of which one call, the victim, is hit by a fault."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from raflow import SkipTask, allow_failure, config, flow, get_run_context, task, unmapped
from raflow.model import RequestKind
from raflow.store import Store
from tests.chaos.journal import journaled, read_journal

ITEMS: Final = 3
TARGET: Final = 1
"""Which item of a map is the victim."""
TIME_LIMIT: Final = 1.0
_BEAT_SECONDS: Final = 0.05
_LONG_SECONDS: Final = 60.0


class Shape(StrEnum):
    """How the calls of a flow hang together."""

    SINGLE = "single"
    CHAIN = "chain"
    DIAMOND = "diamond"
    FAN_OUT = "fan-out"
    MAP = "map"
    MAP_AFTER_MAP = "map after map"
    SUBFLOW = "subflow"
    TEARDOWN = "teardown"
    WAIT_FOR = "wait_for"
    ALL_DONE = "all_done"
    ALL_FAILED = "all_failed"
    ONE_FAILED = "one_failed"
    NONE_FAILED = "none_failed"
    ALLOW_FAILURE = "allow_failure"
    HANDLED = "handled by the body"
    ASYNC = "async"
    ASYNC_MAP = "async map"


class Fault(StrEnum):
    """What happens to the victim."""

    NONE = "nothing"
    RAISES = "raises"
    TOO_LONG = "takes too long"
    SKIPS = "skips itself"
    KILLED_BEFORE = "killed before the effect"
    KILLED_AFTER = "killed after the effect"
    KILLED_REPORTING = "killed before the report"
    KILLED_REPORTED = "killed after the report"
    TERMINATED = "its process gets SIGTERM"
    EXITS = "ends its process with code 0"
    SEGFAULTS = "segfaults"
    VALUE = "returns what cannot be pickled"
    ERROR = "raises what cannot be pickled"
    GREEDY = "takes too much memory"
    CALL_CANCELLED_PENDING = "call cancelled while pending"
    CALL_CANCELLED_RUNNING = "call cancelled while running"
    CALL_CANCELLED_DONE = "call cancelled when done"
    RUN_CANCELLED_PENDING = "run cancelled while pending"
    RUN_CANCELLED_RUNNING = "run cancelled while running"
    RUN_CANCELLED_DONE = "run cancelled when done"
    DRIVER_PENDING = "driver killed while pending"
    DRIVER_BEFORE = "driver killed before the effect"
    DRIVER_AFTER = "driver killed after the effect"
    DRIVER_UNCOMMITTED = "driver killed before the commit"
    DRIVER_RETRIED = "driver killed before the commit of a retry"
    DRIVER_COMMITTED = "driver killed after the commit"


UNCOMMITTED: Final = frozenset({Fault.DRIVER_UNCOMMITTED, Fault.DRIVER_RETRIED})


class Dial(StrEnum):
    """How durable the victim's result is."""

    GROUP = "group"
    TASK = "task"
    ONCE = "at most once"

    @property
    def durability(self) -> Literal["group", "task"]:
        return "task" if self is Dial.TASK else "group"


class Gate(StrEnum):
    """What calls wait for, so that each is at its place when something happens."""

    RELEASED = "released"
    LOCKED = "locked"
    RESUMED = "resumed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is done to which flow."""

    shape: Shape
    fault: Fault
    dial: Dial = Dial.GROUP
    times: int = 1
    """At how many attempts, from the first."""
    retries: int = 0
    crash_retries: int = 0
    shared: bool = False
    """Whether other calls may share the process of the victim."""

    @property
    def options(self) -> dict[str, Any]:
        """Of the victim."""
        limit = TIME_LIMIT if self.fault is Fault.TOO_LONG else None
        budgets = {"retries": self.retries, "crash_retries": self.crash_retries}
        once = self.dial is Dial.ONCE
        given = {"at_most_once": True} if once else budgets
        return {"timeout_seconds": limit, "batch": self.shared, "num_cpus": 0.01, **given}


def open_gate(journal: str, gate: Gate) -> None:
    """Let all go on that wait there."""
    Path(f"{journal}.{gate}").touch()


def _hold(journal: str, gate: Gate) -> None:
    while not Path(f"{journal}.{gate}").exists():
        time.sleep(0.01)


# Tasks ----------------------------------------------------------------------------------------


@task(num_cpus=0.01)
def before(journal: str, case: Case) -> str:
    with journaled(journal) as value:
        if case.fault is Fault.CALL_CANCELLED_PENDING:
            _hold(journal, Gate.RELEASED)
        elif case.fault is Fault.RUN_CANCELLED_PENDING:
            _be_busy()
        elif case.fault is Fault.DRIVER_PENDING:
            _hold(journal, Gate.RESUMED)
    return value


@task
def victim(journal: str, case: Case, n: int, given: object) -> object:
    if n != TARGET or get_run_context().attempt > case.times:
        with journaled(journal) as value:
            return value
    return _MISDEEDS[case.fault](journal)


@task
async def sleeper(journal: str, case: Case, n: int, given: object) -> object:
    """Be the victim, and async."""
    with journaled(journal) as value:
        await asyncio.sleep(0.01)
        if n == TARGET and get_run_context().attempt <= case.times:
            match case.fault:
                case Fault.RAISES:
                    raise ValueError("as it was told")
                case Fault.TOO_LONG | Fault.CALL_CANCELLED_RUNNING | Fault.RUN_CANCELLED_RUNNING:
                    await asyncio.sleep(_LONG_SECONDS)
                case Fault.KILLED_BEFORE:
                    os.kill(os.getpid(), signal.SIGKILL)
                case Fault.TERMINATED:
                    os.kill(os.getpid(), signal.SIGTERM)
        return value


@task(num_cpus=0.01)
def beside(journal: str, given: object) -> str:
    with journaled(journal) as value:
        return value


@task(num_cpus=0.01)
def each(journal: str, given: object) -> str:
    with journaled(journal, told=shown(given)) as value:
        return value


@task(num_cpus=0.01)
def after(journal: str, case: Case, given: object) -> str:
    with journaled(journal, told=shown(given)) as value:
        if case.fault in UNCOMMITTED | {Fault.DRIVER_COMMITTED}:
            _hold(journal, Gate.RESUMED)
        return value


def shown(given: object) -> str:
    """What a task was given, in a few words."""
    if isinstance(given, list):
        return f"[{', '.join(map(shown, given))}]"
    return str(given) if isinstance(given, str | None) else type(given).__name__


# Misdeeds -------------------------------------------------------------------------------------


class _Deadly:
    """Kills whoever pickles it."""

    def __reduce__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")


class _Stuck(Exception):
    """Cannot be pickled, and cannot even be shown."""

    def __init__(self) -> None:
        super().__init__("stuck")
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def _be_busy() -> None:
    deadline = time.monotonic() + _LONG_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_BEAT_SECONDS)


def _be_greedy() -> None:
    kept = []
    for _ in range(100):
        kept.append(bytearray(b"x") * (50 << 20))
        time.sleep(_BEAT_SECONDS)


def _in_the_act(what: Callable[[], object]) -> Callable[[str], object]:
    def do(journal: str) -> object:
        with journaled(journal) as value:
            what()
        return value

    return do


def _and_then(what: Callable[[], object]) -> Callable[[str], object]:
    def do(journal: str) -> object:
        with journaled(journal):
            pass
        return what()

    return do


def _hold_until(gate: Gate, *, done: bool = False) -> Callable[[str], object]:
    def do(journal: str) -> object:
        with journaled(journal) as value:
            if not done:
                _hold(journal, gate)
        if done:
            _hold(journal, gate)
        return value

    return do


def _fail_then_hold(journal: str) -> object:
    with journaled(journal) as value:
        if get_run_context().attempt == 1:
            raise ValueError("as it was told")
        _hold(journal, Gate.LOCKED)
    return value


def _raise(error: Callable[[], BaseException]) -> Callable[[], object]:
    def do() -> object:
        raise error()

    return do


def _kill() -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return None


_plain: Final = _in_the_act(lambda: None)

_MISDEEDS: Final[Mapping[Fault, Callable[[str], object]]] = {
    Fault.NONE: _plain,
    Fault.RAISES: _in_the_act(_raise(lambda: ValueError("as it was told"))),
    Fault.TOO_LONG: _in_the_act(_be_busy),
    Fault.SKIPS: _in_the_act(_raise(lambda: SkipTask("nothing to do"))),
    Fault.KILLED_BEFORE: _in_the_act(_kill),
    Fault.KILLED_AFTER: _and_then(_kill),
    Fault.KILLED_REPORTING: _and_then(_Deadly),
    Fault.KILLED_REPORTED: _plain,
    Fault.TERMINATED: _in_the_act(lambda: os.kill(os.getpid(), signal.SIGTERM)),
    Fault.EXITS: _in_the_act(lambda: os._exit(0)),
    Fault.SEGFAULTS: _in_the_act(lambda: ctypes.string_at(0)),
    Fault.VALUE: _and_then(threading.Lock),
    Fault.ERROR: _in_the_act(_raise(_Stuck)),
    Fault.GREEDY: _in_the_act(_be_greedy),
    Fault.CALL_CANCELLED_PENDING: _plain,
    Fault.CALL_CANCELLED_RUNNING: _in_the_act(_be_busy),
    Fault.CALL_CANCELLED_DONE: _plain,
    Fault.RUN_CANCELLED_PENDING: _plain,
    Fault.RUN_CANCELLED_RUNNING: _in_the_act(_be_busy),
    Fault.RUN_CANCELLED_DONE: _plain,
    Fault.DRIVER_PENDING: _plain,
    Fault.DRIVER_BEFORE: _hold_until(Gate.RESUMED),
    Fault.DRIVER_AFTER: _hold_until(Gate.RESUMED, done=True),
    Fault.DRIVER_UNCOMMITTED: _hold_until(Gate.LOCKED),
    Fault.DRIVER_RETRIED: _fail_then_hold,
    Fault.DRIVER_COMMITTED: _plain,
}


# Flows ----------------------------------------------------------------------------------------


@dataclass
class _Stage:
    """Where the calls of a shape are made."""

    journal: str
    case: Case
    first: Any = None
    """What the victim waits for."""
    others: tuple[Any, ...] = ()
    """The other items, if it is one of a map."""

    def hit(self, given: object = None) -> Any:
        """Call the victim."""
        one = sleeper if self.case.shape is Shape.ASYNC else victim
        return one.with_options(**self.case.options)(self.journal, self.case, TARGET, given)

    def hit_item(self) -> Any:
        """Map the victim over some items, of which one is hit."""
        many = self.case.shape is Shape.ASYNC_MAP
        more: dict[str, Any] = {"concurrency_per_worker": ITEMS, "batch": True} if many else {}
        one = (sleeper if many else victim).with_options(**self.case.options | more)
        shared = unmapped(self.journal), unmapped(self.case)
        mapped = one.map(*shared, range(ITEMS), unmapped(None))
        self.others = tuple(mapped[n] for n in range(ITEMS) if n != TARGET)
        return mapped

    def before(self) -> Any:
        self.first = before(self.journal, self.case)
        return self.first

    def after(self, given: object, **options: Any) -> Any:
        return after.submit(self.journal, self.case, given, **options)

    def ruled(self, rule: str) -> Any:
        """Call something under a rule after the victim."""
        hit = self.hit()
        last = after.with_options(trigger_rule=rule).submit(self.journal, self.case, hit)
        return hit, last


def _chain(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit(stage.before())
    return hit, stage.after(hit)


def _diamond(stage: _Stage) -> tuple[Any, Any]:
    first = stage.before()
    hit = stage.hit(first)
    side = beside(stage.journal, first)
    last = stage.after([hit, side])
    side.wait()  # or a victim that is quick to fail ends the run before this has begun
    return hit, last


def _fan_out(stage: _Stage) -> tuple[Any, Any]:
    first = stage.before()
    hit = stage.hit(first)
    return hit, [hit, *(beside(stage.journal, first) for _ in range(2))]


def _map(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit_item()
    return hit[TARGET], stage.after(hit)


def _map_after_map(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit_item()
    return hit[TARGET], stage.after(each.map(unmapped(stage.journal), hit))


def _subflow(stage: _Stage) -> tuple[Any, Any]:
    nested = inner.with_options(durability=stage.case.dial.durability)
    hit = nested(stage.journal, stage.case)
    return hit, stage.after(hit)


def _teardown(stage: _Stage) -> tuple[Any, Any]:
    first = stage.before()
    hit = stage.hit(first)
    beside.submit(stage.journal, None, wait_for=hit, teardown_of=first)
    return hit, hit


def _wait_for(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit()
    return hit, stage.after("nothing", wait_for=hit)


def _allow_failure(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit(stage.before())
    return hit, stage.after(allow_failure(hit))


def _handled(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit()
    with contextlib.suppress(Exception):
        hit.result()
    return hit, "handled"


def _alone(stage: _Stage) -> tuple[Any, Any]:
    hit = stage.hit()
    return hit, hit


_SHAPES: Final[Mapping[Shape, Callable[[_Stage], tuple[Any, Any]]]] = {
    Shape.SINGLE: _alone,
    Shape.CHAIN: _chain,
    Shape.DIAMOND: _diamond,
    Shape.FAN_OUT: _fan_out,
    Shape.MAP: _map,
    Shape.MAP_AFTER_MAP: _map_after_map,
    Shape.SUBFLOW: _subflow,
    Shape.TEARDOWN: _teardown,
    Shape.WAIT_FOR: _wait_for,
    Shape.ALL_DONE: lambda stage: stage.ruled("all_done"),
    Shape.ALL_FAILED: lambda stage: stage.ruled("all_failed"),
    Shape.ONE_FAILED: lambda stage: stage.ruled("one_failed"),
    Shape.NONE_FAILED: lambda stage: stage.ruled("none_failed"),
    Shape.ALLOW_FAILURE: _allow_failure,
    Shape.HANDLED: _handled,
    Shape.ASYNC: _chain,
    Shape.ASYNC_MAP: _map,
}


@flow
def inner(journal: str, case: Case) -> Any:
    return _Stage(journal, case).hit()


@flow
def shaped(journal: str, case: Case) -> Any:
    """Make the calls of a shape, and do to them what only the body can do."""
    stage = _Stage(journal, case)
    if case.fault in {Fault.KILLED_REPORTED, Fault.RUN_CANCELLED_DONE}:
        hit = stage.hit(stage.before())
        hit.wait()
        if case.fault is Fault.KILLED_REPORTED:
            # The next call may be given to it as it dies.
            os.kill(_wait_for_the_victim(stage, hit), signal.SIGKILL)
        else:
            _cancel_run()
        return stage.after(hit)
    hit, value = _SHAPES[case.shape](stage)
    _interfere(stage, hit)
    return value


durable: Final = shaped.with_options(durability="task")


@flow
def several(journal: str, cases: list[Case]) -> int:
    """Run many of them beside each other."""
    runs = [shaped.with_options(durability=case.dial.durability)(journal, case) for case in cases]
    return len([run.result(raise_on_failure=False) for run in runs])


def _interfere(stage: _Stage, hit: Any) -> None:
    if stage.case.fault in {Fault.CALL_CANCELLED_RUNNING, Fault.RUN_CANCELLED_RUNNING}:
        for other in stage.others:
            other.wait()
    match stage.case.fault:
        case Fault.CALL_CANCELLED_PENDING:
            hit.cancel()
            hit.wait()
            open_gate(stage.journal, Gate.RELEASED)
            stage.first.wait()
        case Fault.CALL_CANCELLED_RUNNING:
            _wait_for_the_victim(stage, hit)
            hit.cancel()
        case Fault.CALL_CANCELLED_DONE:
            hit.wait()
            hit.cancel()
        case Fault.RUN_CANCELLED_PENDING:
            _wait_for_note(stage, stage.first, "before")
            _cancel_run()
        case Fault.RUN_CANCELLED_RUNNING:
            _wait_for_the_victim(stage, hit)
            _cancel_run()


def _wait_for_the_victim(stage: _Stage, hit: Any) -> int:
    """Wait until the victim has begun; returns its process."""
    return _wait_for_note(stage, hit, "victim", "sleeper")


def _wait_for_note(stage: _Stage, future: Any, *tasks: str) -> int:
    with _store() as store:
        run = _this_run(store)
        while True:
            over = future.done()
            runs = {run, *(child.id for child in store.flow_runs(parent=run))}
            for entry in read_journal(Path(stage.journal)):
                aimed = entry.map_index in {-1, TARGET}
                if entry.task in tasks and aimed and entry.run in runs:
                    return entry.pid
            assert not over, f"{future!r} ended without having begun"
            time.sleep(0.01)


def _cancel_run() -> None:
    """Ask for the end of this run as another process does, and wait until that is heard."""
    with _store() as store:
        run = _this_run(store)
        request = store.requests.ask(run, RequestKind.CANCEL, by="its body")
        while not any(r.outcome for r in store.requests.of(run) if r.id == request.id):
            time.sleep(0.01)


def _this_run(store: Store) -> str:
    """The run of this body: the one that goes on now, as they go one after the other."""
    while True:
        [*found] = store.flow_runs(roots=True, limit=1)
        if found and not found[0].state.is_final:
            return found[0].id
        time.sleep(0.01)


@contextlib.contextmanager
def _store() -> Iterator[Store]:
    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        yield store
