"""A place where flows run in processes of their own, so that anything may be done to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from raflow._util import new_id
from raflow.model import RequestKind, RunRequest, StateName, StateType
from raflow.store import Store
from tests.chaos.journal import (
    Ack,
    Entry,
    Event,
    Promise,
    acknowledge,
    read_journal,
    read_ledger,
)
from tests.chaos.programs.__main__ import LEDGER
from tests.chaos.promises import Budget, Record, Story, broken

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 150.0
"""Seconds that anything may take which will surely happen."""
_MARK: Final = "CHAOS_WORLD"
_POLL_SECONDS: Final = 0.01
_LAST_WORDS_SECONDS: Final = 10.0


def wait_until(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"after {patience:g} s still not: {what}"
        time.sleep(_POLL_SECONDS)


def check(story: Story) -> Story:
    """Hold what happened against the promises."""
    violations = broken(story)
    assert not violations, "\n".join(f"{rule}: {told}" for rule, told in violations)
    return story


def _stop(process: psutil.Process) -> None:
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "a process that was stopped")


class Child:
    """A process that drives a flow run."""

    def __init__(self, command: list[str], environment: Mapping[str, str], output: Path) -> None:
        self.output = output
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            # It then tells where its threads stand.
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_LAST_WORDS_SECONDS)
            raise AssertionError(f"still running after {patience:g} s: {self.told()}") from None

    def finish(self, patience: float = PATIENCE) -> None:
        """Wait for an end in good order."""
        assert self.wait(patience) == 0, self.told()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, and be sure that it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def told(self) -> str:
        """The end of what it has printed."""
        return self.output.read_text(errors="replace")[-8000:]


@dataclass(kw_only=True)
class World:
    """Where the flows of a scenario run, and where to look at what they left."""

    folder: Path
    backend: str
    database: str = ""
    """URL. Default: SQLite below the home."""
    environment: dict[str, str] = field(default_factory=dict)
    """More variables for the processes."""
    prefix: tuple[str, ...] = ()
    """A command that runs them, such as `ip netns exec NAME`."""
    faults: list[str] = field(default_factory=list)
    """What was done, and surely hit."""
    earlier: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mark = new_id()
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.journal = self.folder / "journal"
        self.ledger = self.folder / "ledger"
        self.counts = self.folder / "counts"
        self.counts.mkdir()
        # Ray keeps its sockets below it, and the path of a socket must be short.
        self.ray = tempfile.mkdtemp(prefix="chaos-")
        self.children: list[Child] = []
        self.deaths: list[float] = []

    def launch(self, flow: str, crash: str = "", /, **parameters: Any) -> Child:
        """Start a program; see `tests.chaos.programs`.

        Args:
            flow: Name of the flow.
            crash: What happens at crash points; see `raflow._util.crash_point`.
            **parameters: Of the flow, besides its journal.
        """
        return self.launch_all([(flow, parameters)], crash)

    def launch_all(self, runs: Sequence[tuple[str, Mapping[str, Any]]], crash: str = "") -> Child:
        """Start a program that runs flows one after the other."""
        common = {"journal": str(self.journal)}
        return self._program([(flow, {**common, **given}, "") for flow, given in runs], crash)

    def resume(self, flow: str, run: str = "latest", crash: str = "") -> Child:
        """Start a program that goes on with a flow run."""
        return self._program([(flow, {}, run)], crash)

    def raflow(self, *arguments: str, crash: str = "") -> Child:
        """Start what a user types, such as `raflow resume latest`."""
        return self.start(["-m", "raflow", *arguments], crash)

    def _program(self, runs: Sequence[tuple[str, Mapping[str, Any], str]], crash: str) -> Child:
        return self.start(["-m", "tests.chaos.programs", json.dumps(runs)], crash)

    def start(self, arguments: list[str], crash: str = "") -> Child:
        """Start Python on something that drives the flow run."""
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1",
            "RAFLOW_HOME": str(self.home),
            "RAFLOW_BACKEND": self.backend,
            "RAFLOW_DATABASE_URL": self.database,
            "RAFLOW_CRASH": crash,
            "RAFLOW_CRASH_COUNTS": str(self.counts),
            "RAY_TMPDIR": self.ray,
            LEDGER: str(self.ledger),
            _MARK: self.mark,
            **self.environment,
        }
        child = Child([*self.prefix, sys.executable, *arguments], variables, self.folder / "output")
        self.children.append(child)
        return child

    def story(self, **facts: Any) -> Story:
        """Tell what happened; `facts` are more fields of it."""
        return Story(
            journal=tuple(self.entries()),
            acks=tuple(read_ledger(self.ledger)),
            record=self.record(),
            faults=tuple(self.faults),
            earlier=tuple(self.earlier),
            **facts,
        )

    def check(self, *, budgets: Mapping[str, Budget] | None = None, **facts: Any) -> Story:
        """Hold what happened against the promises."""
        return check(self.story(budgets=budgets or {}, **facts))

    @property
    def database_url(self) -> str:
        """Where the record is."""
        return self.database or f"sqlite:///{self.home / 'raflow.db'}"

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """Open the record as another process would."""
        with Store.open(self.database_url, log_dir=self.home / "logs") as store:
            yield store

    def record(self) -> Record:
        with self.store() as store:
            return Record.read(store)

    def entries(self) -> list[Entry]:
        return read_journal(self.journal, self.deaths)

    def wait_for(self, event: Event, times: int = 1) -> list[Entry]:
        """Wait until tasks have noted an event so often; returns those notes."""
        found = self.wait_for_any(event, times)
        assert len(found) >= times, f"only {len(found)} x {event}: {self.children[-1].told()}"
        return found

    def wait_for_any(self, event: Event, times: int) -> list[Entry]:
        """Wait until tasks have noted an event so often, or will not any more."""
        wait_until(lambda: len(self.noted(event)) >= times or self._is_over(), f"{times} x {event}")
        return self.noted(event)

    def noted(self, event: Event) -> list[Entry]:
        return [entry for entry in self.entries() if entry.event is event]

    def running(self) -> list[Entry]:
        """The attempts that have begun and not ended, by their first note."""
        ended = {
            (entry.key, entry.attempt, entry.epoch)
            for entry in self.entries()
            if entry.event in {Event.DONE, Event.RAISED}
        }
        begun = self.noted(Event.BEGUN)
        return [e for e in begun if (e.key, e.attempt, e.epoch) not in ended]

    def hit(self, point: str, nth: int = 1) -> None:
        """Make sure that a crash point was reached so often, which is when it crashes."""
        path = self.counts / point
        assert path.exists(), f"VOID: {point} was never reached"
        assert path.stat().st_size >= nth, f"VOID: {point} was reached less than {nth} times"
        self.faults.append(f"{point}:{nth}")

    def strike(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process of this world."""
        os.kill(pid, number)
        self.faults.append(f"{signal.Signals(number).name} of process {pid}")

    def strike_at_work(self) -> Entry:
        """Kill a process in the middle of a task; returns the note that it has begun."""
        while True:
            wait_until(lambda: bool(self.running()), "a task that runs")
            for hit in self.running()[-1:]:
                process = psutil.Process(hit.pid)
                _stop(process)
                if hit in self.running():
                    self.strike(hit.pid)
                    return hit
                process.resume()

    def cancel(self, child: Child, *, by_request: bool = False) -> None:
        """Cancel the newest run, and wait until the record says so, however soon another begins.

        Args:
            child: Drives it.
            by_request: As `raflow cancel` does. Default: by Ctrl-C.
        """
        with self.store() as store:
            victim, *_ = store.flow_runs(roots=True)

        def heard() -> bool:
            with self.store() as store:
                run = store.flow_run(victim.id)
            asked = run.state.type in {StateType.CANCELLING, StateType.CANCELLED}
            if asked:
                promise = Promise.CANCELLING
                acknowledge(str(self.ledger), Ack(run=run.id, promise=promise, time=time.time()))
            return asked

        if by_request:
            self.ask(RequestKind.CANCEL)
        else:
            child.signal(signal.SIGINT)
        wait_until(heard, "a cancel on record")
        self.faults.append("a cancel" if by_request else "SIGINT")

    def ask(self, kind: RequestKind) -> None:
        """Ask something of the run, as `raflow cancel` and others do."""
        with self.store() as store:
            run, *_ = store.flow_runs(roots=True)
            store.requests.ask(run.id, kind, by="chaos")

    def requests(self, *, open_only: bool = False) -> list[RunRequest]:
        """Return what was asked of the runs."""
        with self.store() as store:
            runs = store.flow_runs(roots=True, limit=None)
            return [ask for run in runs for ask in store.requests.of(run.id, open_only=open_only)]

    def wait_for_state(self, name: StateName) -> None:
        """Wait until the newest run has come to a state."""

        def is_there() -> bool:
            with self.store() as store:
                newest, *_ = store.flow_runs(roots=True)
                return newest.state.name is name

        wait_until(is_there, f"a run that is {name}")

    def died(self) -> Record:
        """Note what is on record now that the process which drove the run is dead."""
        self.deaths.append(time.time())
        record = self.record()
        self.earlier.append(record)
        return record

    def strike_all(self) -> None:
        """Kill every process of this world at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.faults.append("SIGKILL of everything")

    def processes(self) -> dict[int, str]:
        """The processes of this world that live: their ids and command lines."""
        mark = f"{_MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = words.decode(errors="replace")
        return found

    def find(self, program: str) -> int:
        """Return the process that runs a program, such as `raylet`."""
        found = [pid for pid, words in self.processes().items() if f"/{program} " in words]
        assert len(found) == 1, f"{len(found)} processes run {program!r}"
        return found[0]

    def close(self) -> None:
        """End every process of this world."""
        deadline = time.monotonic() + PATIENCE
        while left := self.processes():
            assert time.monotonic() < deadline, f"these cannot be killed: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        for child in self.children:
            child.process.wait(PATIENCE)
        shutil.rmtree(self.ray, ignore_errors=True)

    def _is_over(self) -> bool:
        return all(child.process.poll() is not None for child in self.children)
