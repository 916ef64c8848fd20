"""Runs batches in threads of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cloudpickle

from raflow.execute._alarms import Alarms
from raflow.execute._attempt import Site
from raflow.execute._backend import (
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    FunctionHandle,
    Kept,
    Known,
    ListOf,
    Packed,
    Part,
    RunEnvironment,
    TaskFunction,
    ValueRef,
)
from raflow.execute._capture import Capture
from raflow.execute._failure import Pickling
from raflow.execute._offspring import Offspring, of_thread, started_by
from raflow.execute._slots import SlotAnswer
from raflow.execute._substitute import Verdict, substitute
from raflow.execute._usage import ThreadMeter, here
from raflow.execute.local._admission import Admission
from raflow.execute.local._batch import LocalBatch, value_of
from raflow.execute.local._threads import DaemonThreads
from raflow.model import Capacity, NodeCapacity, Outcome, ProcessInfo, shortfall

_THREAD: Final = "raflow-task"
_PICKLING: Final = Pickling(cloudpickle.dumps, cloudpickle.loads)


class LocalBackend:
    """Runs task runs in threads of this process, without Ray: for tests and debuggers.

    Arguments and values are passed by reference. Resource hints are honoured against this machine's
    CPUs and memory; labels, scheduling strategies and runtime environments mean nothing here.
    Threads cannot be ended inside a call into C: a task that ignores its time limit is left behind,
    reported as timed out, and said so in a warning.
    """

    name = "local"
    window = 256

    def __init__(
        self, *, resources: Mapping[str, float] | None = None, grace_seconds: float = 5.0
    ) -> None:
        """Prepare it; nothing is started before it is needed.

        Args:
            resources: What to claim besides, or instead of, this machine's `CPU` cores and `memory`
                in bytes, by Ray's names: `{"GPU": 1}`.
            grace_seconds: How long a task may take to stop after its time limit before its thread
                is left behind.
        """
        self._amounts = {"CPU": float(os.cpu_count() or 1), "memory": _machine_memory()}
        self._amounts |= resources or {}
        self._place = here("local")
        self._grace = grace_seconds
        self._lock = threading.Lock()
        self._admission: Admission[LocalBatch] = Admission(self._amounts)
        self._threads = DaemonThreads(_THREAD)
        self._alarms = Alarms("raflow-alarms")
        self._sessions: set[LocalSession] = set()

    @property
    def is_gone(self) -> bool:
        """Never: it is this process."""
        return False

    def capacity(self) -> Capacity:
        """Return this machine as the only node."""
        return Capacity(
            nodes=(NodeCapacity(name=self._place.host, amounts=dict(self._amounts)),),
            remedy="Use backend='ray' with a cluster that has it, or let the local backend claim "
            "it, such as RAFLOW_LOCAL_RESOURCES='{\"GPU\": 1}'.",
        )

    def open(
        self, environment: RunEnvironment, post: Callable[[BackendEvent], None]
    ) -> LocalSession:
        """Begin a flow run."""
        session = LocalSession(self, environment, post)
        self._sessions.add(session)
        return session

    def processes(self) -> tuple[ProcessInfo, ...]:
        """Return what tasks have started; the tasks themselves are in this process."""
        threads = [t.native_id for t in threading.enumerate() if t.name == _THREAD and t.native_id]
        host = self._place.host
        return tuple(
            ProcessInfo(host=host, pid=one.pid, started_at=one.started_at, role="child")
            for one in started_by(threads)
        )

    def close(self) -> None:
        """End all sessions and idle threads."""
        for session in list(self._sessions):
            session.close()
        self._alarms.close()
        self._threads.close()

    def site(self, environment: RunEnvironment) -> Site:
        """Describe this process to the attempts of a run."""
        return Site(
            environment=environment,
            place=self._place,
            meter=ThreadMeter(),
            pickling=_PICKLING,
            freeze=lambda value, _last: value,
            thaw=lambda entry: entry,
            size=None,
            whole_process=False,
            offspring=Offspring(of_thread),
        )

    def batch(
        self, session: LocalSession, spec: BatchSpec, post: Callable[[BackendEvent], None]
    ) -> LocalBatch:
        """Make a batch of a session."""
        return LocalBatch(
            spec,
            session.site,
            self._alarms,
            grace=self._grace,
            post=post,
            ended=lambda batch: self._ended(session, batch),
            start=self._threads.start,
        )

    def admit(self, batch: LocalBatch) -> None:
        """Start a batch as soon as its resources are free."""
        with self._lock:
            ready = self._admission.ask(batch, batch.spec.resources.amounts())
        self._start(ready)

    def withdraw(self, batch: LocalBatch) -> bool:
        """Take a batch that waits out of the queue; False if it runs."""
        with self._lock:
            waited, ready = self._admission.withdraw(batch)
        self._start(ready)
        return waited

    def forget(self, session: LocalSession) -> None:
        """Drop a closed session."""
        self._sessions.discard(session)

    def _ended(self, session: LocalSession, batch: LocalBatch) -> None:
        session.ended(batch)
        with self._lock:
            ready = self._admission.give_back(batch.spec.resources.amounts())
        self._start(ready)

    def _start(self, batches: list[LocalBatch]) -> None:
        for batch in batches:
            self._threads.start(batch.run)


class LocalSession:
    """One flow run in threads of this process."""

    def __init__(
        self,
        backend: LocalBackend,
        environment: RunEnvironment,
        post: Callable[[BackendEvent], None],
    ) -> None:
        self.site = backend.site(environment)
        self._backend = backend
        self._post = post
        self._batches: dict[int, LocalBatch] = {}
        self._closed = False
        self._capture = Capture(environment.log_level)
        self._capture.__enter__()

    def pack(self, task: str, arguments: Mapping[str, Any]) -> Packed:  # noqa: ARG002 - nothing can fail
        """Keep the arguments by reference."""
        return Packed(dict(arguments))

    def pack_items(self, task: str, columns: Mapping[str, Sequence[Any]]) -> Packed:  # noqa: ARG002 - nothing can fail
        """Keep the items by reference."""
        return Packed(dict(columns))

    def register(self, function: TaskFunction) -> FunctionHandle:
        """Keep the function by reference."""
        return FunctionHandle(function.key, function)

    def submit(self, batch: BatchSpec) -> None:
        """Start a batch as soon as its resources are free."""
        missing = shortfall(batch.resources, self._backend.capacity())
        if missing is not None:
            message = f"it asks for {missing}"
            self._post(BatchLost(batch.id, Outcome.FAILED, message, range(batch.size)))
            return
        running = self._backend.batch(self, batch, self._post)
        self._batches[batch.id] = running
        self._backend.admit(running)

    def cancel(self, batch: int, *, force: bool) -> None:
        """End a batch; `force` leaves its thread behind."""
        running = self._batches.get(batch)
        if running is None:
            return
        if self._backend.withdraw(running):
            self._batches.pop(batch, None)
            message = "it was cancelled before it started"
            self._post(BatchLost(batch, Outcome.CANCELLED, message, ()))
        elif force:
            running.drop("it was cancelled; its thread was left behind")
        else:
            running.cancel()

    def cancel_calls(self, batch: int, positions: Sequence[int], *, force: bool) -> None:
        """End single calls of a batch; `force` leaves its thread behind."""
        running = self._batches.get(batch)
        if running is None:
            return
        if self._backend.withdraw(running):
            self._batches.pop(batch, None)
            message = "it was cancelled before it started"
            verdict = Verdict(outcome=Outcome.CANCELLED, message=message)
            report = substitute(running.spec, dict.fromkeys(positions, verdict))
            self._post(BatchEnded(report, ()))
        else:
            running.cancel_calls(positions, force=force)

    def tell_slots(self, batch: int, claim: int, answer: SlotAnswer) -> None:
        """Answer a running call that has asked for slots of limits."""
        running = self._batches.get(batch)
        if running is not None:
            running.slots.answered(claim, answer)

    def fetch(self, source: ValueRef | Part | Known | Kept | ListOf) -> object:
        """Return the value that a source stands for."""
        return value_of(source, self.site.environment.keeper)

    def close(self) -> None:
        """Withdraw what waits and leave behind what runs."""
        if self._closed:
            return
        self._closed = True
        batches = list(self._batches.values())
        dropped = [one for one in batches if not self._backend.withdraw(one)]
        for running in dropped:
            running.drop()
        for running in dropped:
            running.wait()
        self._batches.clear()
        self._backend.forget(self)
        self._capture.__exit__(None, None, None)

    def ended(self, batch: LocalBatch) -> None:
        """Forget a batch."""
        self._batches.pop(batch.spec.id, None)


def _machine_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
