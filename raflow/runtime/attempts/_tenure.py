"""How a process holds on to the flow run that it drives, and hears what others ask of it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from raflow import errors, execute
from raflow._util import crash_point
from raflow.model import TAKEN, ProcessInfo, RequestKind, RunRequest
from raflow.runtime.desk import Desk
from raflow.runtime.driver import Driver, Fenced, GoOn, PauseWanted, SuspendWanted
from raflow.runtime.leases import LEASE_SECONDS, this_process
from raflow.runtime.record import LazyStore, Steward

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

_LOOK_SECONDS: Final = 0.5
_WAIT_SECONDS: Final = 5.0
_RENEW_EVERY: Final = 4
"""The lease is renewed with every such look."""
_NOTE_EVERY: Final = 4 * _RENEW_EVERY
"""What would be left behind is looked for more rarely: on Ray all processes must be looked at."""


class Tenure:
    """Renews the lease of a run, and of what it holds, and takes requests to it."""

    def __init__(
        self,
        store: LazyStore,
        driver: Driver,
        steward: Steward,
        desk: Desk,
        *,
        is_child: bool,
        flush: Callable[[], None],
        processes: Callable[[], Iterable[ProcessInfo]],
        look_around: Callable[[RunStore], int] | None = None,
    ) -> None:
        """Prepare it; `begin` starts.

        Args:
            store: The record.
            driver: Drives the run.
            steward: On whose thread things are done.
            desk: Where the run holds slots.
            is_child: Whether the lease is the parent's.
            flush: Waits until all that was recorded so far is on disk.
            processes: Returns what would be left behind if this process died now.
            look_around: Looks, once, after runs of others; returns the id of a process that it has
                started for that, or 0. Default: nobody looks.
        """
        self._store = store
        self._driver = driver
        self._steward = steward
        self._desk = desk
        self._is_child = is_child
        self._flush = flush
        self._left_behind = _LeftBehind(processes)
        self._look_around = None if is_child else look_around
        self._looks = 0
        self._taken: set[int] = set()

    def begin(self) -> None:
        """Begin: the process that records a run has it for a while without more ado."""
        self._steward.after(_LOOK_SECONDS, self._look)

    def _look(self) -> float | None:
        self._looks += 1
        try:
            requests = self._requests(renew=self._looks % _RENEW_EVERY == 0)
        except errors.FencedError as error:
            self._driver.post(Fenced(error))
            return None
        for request in requests:
            if request.id not in self._taken:
                self._taken.add(request.id)
                self._take(request)
        if self._look_around is not None:
            look_around, self._look_around = self._look_around, None
            self._wait_for(look_around(self._store.open()))
        return _LOOK_SECONDS

    def _wait_for(self, pid: int) -> None:
        if pid:
            self._steward.after(_WAIT_SECONDS, lambda: None if has_ended(pid) else _WAIT_SECONDS)

    def _requests(self, *, renew: bool) -> tuple[RunRequest, ...]:
        store, run = self._store.open(), self._driver.history.flow_run
        if renew and self._desk.holds_something:
            self._desk.slots.renew()
        if not renew or self._is_child:
            return store.requests.of(run.id, open_only=True)
        crash_point("lease.before_renewal")
        requests = store.leases.renew(
            run.id, run.incarnation, seconds=LEASE_SECONDS, **this_process()
        )
        crash_point("lease.after_renewal")
        if self._looks % _NOTE_EVERY == _RENEW_EVERY:
            # A run that nobody has asked to be recorded, or not yet, has nothing to be found by.
            with contextlib.suppress(errors.NotFoundError):
                self._left_behind.note(functools.partial(store.leases.note_processes, run.id))
        return requests

    def _take(self, request: RunRequest) -> None:
        crash_point("request.before_taking")
        reason = f"{request.kind.value} asked by {request.by}"
        if request.message:
            reason += f": {request.message}"
        outcome: Future[str] = Future()
        match request.kind:
            case RequestKind.CANCEL:
                self._driver.cancel(reason)
            case RequestKind.PAUSE:
                self._driver.post(PauseWanted(reason))
            case RequestKind.UNPAUSE:
                self._driver.post(GoOn(outcome))
            case RequestKind.SUSPEND:
                self._driver.post(SuspendWanted(reason))
        # Messages are handled in order: once this one is, the request has been, too.
        handled: Future[None] = Future()
        self._driver.tell_when_handled(handled)
        answer = functools.partial(self._answer, request, outcome)
        handled.add_done_callback(lambda _: self._steward.soon(answer))

    def _answer(self, request: RunRequest, outcome: Future[str]) -> None:
        if request.kind is RequestKind.CANCEL:
            # Once it is answered nobody looks at it any more: whoever goes on with the run, if this
            # process dies, goes by its state.
            try:
                self._flush()
            except errors.FencedError:
                return
        crash_point("request.before_answer")
        told = outcome.result() if outcome.done() else TAKEN
        self._store.open().requests.answered(request.id, told)


class _LeftBehind:
    """Keeps on record which processes this one would leave behind if it died."""

    def __init__(self, processes: Callable[[], Iterable[ProcessInfo]]) -> None:
        self._processes = processes
        self._noted: dict[int, ProcessInfo] = {}

    def note(self, write: Callable[..., None]) -> None:
        """Have written down what has changed, if anything has."""
        ended = [one for one in self._noted.values() if execute.same_process(one) is None]
        known = self._noted.keys() - {one.pid for one in ended}
        begun = [one for one in self._processes() if one.pid not in known]
        if begun or ended:
            write(begun, ended=ended)
            for one in ended:
                del self._noted[one.pid]
            self._noted.update((one.pid, one) for one in begun)


def has_ended(pid: int) -> bool:
    """Tell whether a child of this process has ended; asked until it has, so that it can go."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
