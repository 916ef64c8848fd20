"""What has become of each call, for whoever waits for it: the body's threads and event loops."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from raflow.execute import Known, ValueRef
from raflow.model import ErrorInfo, State, TaskRunKey
from raflow.runtime._failures import exception_of

_WHOLE: Final = "whole"
_LENGTH: Final = "length"


@dataclass(slots=True)
class RunOutcome:
    """One task run as the driver sees it."""

    label: str
    state: State
    value: ValueRef | Known | None = None
    """Where the value is, once the run has completed."""
    error: ErrorInfo | None = None
    """The last attempt's exception, if it had one."""
    exception: BaseException | None = None
    """The failure as an exception, once it was asked for; that of a subflow is known as it ends."""

    def failure(self) -> BaseException:
        """Return the failure as an exception, always the same one."""
        if self.exception is None:
            self.exception = exception_of(self.label, self.state, self.error)
        return self.exception


class Outcomes:
    """A table that one thread (the loop) writes and any thread reads and waits on."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._runs: dict[TaskRunKey, RunOutcome] = {}
        self._open: dict[int, int] = {}
        self._lengths: dict[int, int] = {}
        self._watched: dict[Hashable, Future[None]] = {}
        self._over: BaseException | None = None

    def get(self, key: TaskRunKey) -> RunOutcome:
        """Return a task run; it must have been entered."""
        return self._runs[key]

    def runs(self, node: int) -> list[RunOutcome]:
        """Return the items of an expanded map in order, or its one run if it has no items."""
        length = self._lengths.get(node, 0)
        if length == 0 and TaskRunKey(node) in self._runs:
            return [self._runs[TaskRunKey(node)]]
        return [self._runs[TaskRunKey(node, i)] for i in range(length)]

    def length(self, node: int) -> int | None:
        """Return the number of items of a map, or None if that is not known yet."""
        return self._lengths.get(node)

    def is_whole(self, node: int) -> bool:
        """Whether every run of a node is final."""
        return self._open.get(node) == 0

    def expanded(self, node: int, length: int) -> None:
        """Take note of the number of items of a map."""
        with self._lock:
            self._lengths[node] = length
            if length:
                self._open[node] = length
            done = self._done(_LENGTH, node)
            if not length:
                self._open[node] = 0
                done += self._done(_WHOLE, node)
        _wake(done)

    def entered(self, key: TaskRunKey, label: str, state: State) -> RunOutcome:
        """Take note of a new state."""
        done: list[Future[None]] = []
        with self._lock:
            outcome = self._runs.get(key)
            if outcome is None:
                outcome = self._runs[key] = RunOutcome(label, state)
                self._open.setdefault(key.node, 1)
            outcome.state = state
            if state.is_final:
                done = self._done(key)
                self._open[key.node] = max(0, self._open[key.node] - 1)
                if self._open[key.node] == 0:
                    done += self._done(_WHOLE, key.node)
        _wake(done)
        return outcome

    def end(self, error: BaseException) -> None:
        """Let everyone who still waits, or comes to wait later, have this error."""
        with self._lock:
            self._over = error
            watched, self._watched = self._watched, {}
        for future in watched.values():
            future.set_exception(error)

    def watch_run(self, key: TaskRunKey) -> Future[None]:
        """Return a future that is done once the run is final."""
        with self._lock:
            outcome = self._runs.get(key)
            return self._watch(outcome is not None and outcome.state.is_final, key)

    def watch_whole(self, node: int) -> Future[None]:
        """Return a future that is done once every run of the node is final."""
        with self._lock:
            return self._watch(self._open.get(node) == 0, _WHOLE, node)

    def watch_length(self, node: int) -> Future[None]:
        """Return a future that is done once the number of items is known."""
        with self._lock:
            return self._watch(node in self._lengths, _LENGTH, node)

    def _watch(self, already: bool, *what: Hashable) -> Future[None]:
        if already:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        if self._over is not None:
            raise self._over
        return self._watched.setdefault(what, Future())

    def _done(self, *what: Hashable) -> list[Future[None]]:
        future = self._watched.pop(what, None)
        return [future] if future is not None else []


def _wake(done: list[Future[None]]) -> None:
    for future in done:
        future.set_result(None)
