"""One flow run on Ray."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import ray

from raflow import errors
from raflow.execute._alarms import Alarms
from raflow.execute._backend import (
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    CallsReturned,
    CallStarted,
    FunctionHandle,
    Known,
    ListOf,
    Packed,
    Part,
    RunEnvironment,
    TaskFunction,
    ValueRef,
)
from raflow.execute._failure import message_of
from raflow.execute.ray._arguments import pack_arguments, pack_items
from raflow.execute.ray._fetch import fetch_value
from raflow.execute.ray._losses import PROCESS_DIED, Loss, RayIsGone, classify, timed_out
from raflow.execute.ray._mailroom import Mailroom
from raflow.execute.ray._options import RemoteFunctions
from raflow.execute.ray._payload import dump_code
from raflow.execute.ray._poll import InFlight, Poll
from raflow.execute.ray._process import ProcessEnvironment
from raflow.execute.ray._progress import Progress
from raflow.execute.ray._report import decode_report
from raflow.execute.ray._shipping import Shipping
from raflow.execute.ray._wire import Packer
from raflow.model import Outcome

_CARRIED_BYTES: Final = 32 * 1024
"""Code and environment travel with every batch up to this size, and are fetched once beyond."""
_LAST_WORDS_SECONDS: Final = 0.3
_INSIST_SECONDS: Final = 1.0


class Tools(NamedTuple):
    """What the sessions of a backend share."""

    poll: Poll
    mailroom: Mailroom
    alarms: Alarms
    remote: RemoteFunctions
    progress: Progress
    probe: Callable[[], str | None]
    """Says why Ray is gone, or None."""


class RaySession:
    """Sends the batches of one flow run to Ray, and tells what becomes of them."""

    def __init__(
        self,
        number: int,
        environment: RunEnvironment,
        post: Callable[[BackendEvent], None],
        tools: Tools,
        *,
        grace: float,
        same_machine: bool,
        closed: Callable[[int], None],
    ) -> None:
        """Prepare it.

        Args:
            number: Which session of its backend this is.
            environment: What the run's calls share.
            post: Told of all that happens.
            tools: What the backend shares with it.
            grace: Seconds between a time limit and the end of the process.
            same_machine: Whether all worker processes see this machine's files.
            closed: Called with `number` when the session is closed.
        """
        self._number = number
        self._post = post
        self._tools = tools
        self._closed = closed
        self._shipping = Shipping(environment.sys_path, same_machine=same_machine)
        self._flights: dict[int, InFlight] = {}
        self._ending = threading.Lock()
        """Held where a batch is told of: nothing is told of it after its end."""
        shared = ProcessEnvironment(
            environment, tools.mailroom.postbox, grace, tools.progress.token
        )
        payload = dump_code(shared)
        self._environment = (_digest(payload), _carried(payload))

    def pack(self, task: str, arguments: Mapping[str, Any]) -> Packed:
        """Take the arguments of a call as they are now."""
        return pack_arguments(task, arguments, self._check_alive)

    def pack_items(self, task: str, columns: Mapping[str, Sequence[Any]]) -> Packed:
        """Take the items of a chunk as they are now."""
        return pack_items(task, columns, self._check_alive)

    def register(self, function: TaskFunction) -> FunctionHandle:
        """Pickle a task's function.

        Raises:
            SerializationError: The function refers to something that cannot travel.
        """
        self._shipping.prepare(function.fn.__module__)
        try:
            payload = dump_code(function)
        except Exception as error:
            raise errors.SerializationError(
                f"Task {function.name!r} cannot be sent to another process: {message_of(error)}. "
                "Make what it refers to (a lock, a connection, an open file) inside the function, "
                "or put the task into a module that can be imported.",
                task=function.name,
            ) from error
        return FunctionHandle(f"{function.key}:{_digest(payload)}", _carried(payload))

    def submit(self, batch: BatchSpec) -> None:
        """Hand a batch to Ray, which starts it as soon as its resources are free."""
        gone = self._tools.probe()
        if gone is not None:
            self._post(BatchLost(batch.id, Outcome.LOST, gone, range(batch.size)))
            return
        try:
            parcel = Packer().pack(self._number, batch, self._environment)
            remote = self._tools.remote.get(batch.resources, 2 + batch.own_values)
            report, *values = remote.remote(*parcel)
        except Exception as error:
            message = f"it could not be handed to Ray: {message_of(error)}"
            self._post(BatchLost(batch.id, Outcome.FAILED, message, range(batch.size)))
            return
        flight = InFlight(self._number, batch, report, tuple(values))
        self._flights[batch.id] = flight
        self._tools.poll.add(flight)

    def cancel(self, batch: int, *, force: bool) -> None:
        """End a batch: interrupt its code, or (`force`) kill its process."""
        flight = self._flights.get(batch)
        if flight is None:
            return
        flight.cancelling = True
        mailroom = self._tools.mailroom
        if not (mailroom.kill if force else mailroom.cancel)(self._number, batch):
            # It waits for resources, or began a moment ago.
            self._end_by_ray(flight)
        elif force:
            # A process that hangs in C does not even hear that it is to end itself.
            self._tools.alarms.after(_INSIST_SECONDS, lambda: self._end_by_ray(flight))

    def _end_by_ray(self, flight: InFlight) -> None:
        if self._flights.get(flight.spec.id) is flight:
            _end(flight)

    def fetch(self, source: ValueRef | Part | Known | ListOf) -> object:
        """Return the value that a source stands for; arrays are views of Ray's memory."""
        return fetch_value(source, self._check_alive)

    def close(self) -> None:
        """End what still runs; nothing is told any more."""
        with self._ending:
            flights = list(self._flights.values())
            self._flights.clear()
        for flight in flights:
            self._tools.poll.drop(flight)
            _end(flight)
            self._tools.mailroom.forget(self._number, flight.spec.id)
        self._closed(self._number)

    def started(self, event: CallStarted) -> bool:
        """Take a start from the mailroom; False if the batch runs no more."""
        with self._ending:
            flight = self._flights.get(event.batch)
            if flight is None:
                return False
            self._post(event)
        if flight.cancelling:
            self._tools.mailroom.cancel(self._number, event.batch)
        return True

    def returned(self, event: CallsReturned) -> None:
        """Take what a running batch hands back."""
        with self._ending:
            if event.batch in self._flights:
                self._post(event)

    def ended(self, flight: InFlight, report: bytes) -> None:
        """Take the report of a batch."""
        try:
            decoded = decode_report(report)
        except Exception as error:
            message = (
                f"its report could not be read: {message_of(error)}. The nodes of the cluster need "
                "the same version of raflow as this process"
            )
            self._lose(flight, Loss(Outcome.FAILED, message), range(flight.spec.size))
            return
        used = 1 + max(decoded.own.values(), default=0)
        self._land(flight, BatchEnded(decoded, flight.values[:used]))

    def failed(self, flight: InFlight, error: BaseException) -> None:
        """Take Ray's error about a batch."""
        loss = classify(error)
        if loss.outcome not in PROCESS_DIED:
            # A node that died may have run any call. What else happens, happens to all of them.
            one = isinstance(error, RayIsGone) or loss.outcome is not Outcome.LOST
            self._lose(flight, loss, range(flight.spec.size) if one else None)
        elif flight.cancelling:
            self._examine(flight, Loss(Outcome.CANCELLED, loss.message))
        elif any(call.settings.timeout_seconds is not None for call in flight.spec.calls):
            # The last words of the process may still be on their way.
            self._tools.alarms.after(_LAST_WORDS_SECONDS, lambda: self._examine(flight, loss))
        else:
            self._examine(flight, loss)

    def _examine(self, flight: InFlight, loss: Loss) -> None:
        """Find out which call was running when the process died."""
        batch = flight.spec.id
        words = self._tools.mailroom.forget(self._number, batch)
        if words is not None and loss.outcome is Outcome.CRASHED:
            loss = timed_out(words)
        progress = self._tools.progress
        running = progress.here(self._number, batch)
        if loss.outcome is Outcome.CANCELLED:
            # Most often it waited for resources.
            self._lose(flight, loss, running or ())
        elif running is not None or progress.is_all_here or flight.spec.size == 1:
            self._lose(flight, loss, running)
        else:
            # Nodes take a while to answer, and this thread has others to tell of.
            ask = functools.partial(self._ask_nodes, flight, loss)
            threading.Thread(target=ask, name="raflow-progress", daemon=True).start()

    def _ask_nodes(self, flight: InFlight, loss: Loss) -> None:
        self._lose(flight, loss, self._tools.progress.elsewhere(self._number, flight.spec.id))

    def _check_alive(self, what: str) -> None:
        """Raise while there is time: Ray ends the whole process if it finds its raylet dead."""
        gone = self._tools.probe()
        if gone is not None:
            raise errors.BackendError(f"{what}: {gone}.")

    def _lose(self, flight: InFlight, loss: Loss, running: Sequence[int] | None) -> None:
        if not running and flight.spec.size == 1 and loss.outcome is not Outcome.CANCELLED:
            running = (0,)
        self._land(flight, BatchLost(flight.spec.id, loss.outcome, loss.message, running))

    def _land(self, flight: InFlight, event: BatchEnded | BatchLost) -> None:
        """Tell of the end of a batch, unless the session was closed; nothing follows it."""
        with self._ending:
            if self._flights.pop(flight.spec.id, None) is not None:
                self._post(event)
        self._tools.mailroom.forget(self._number, flight.spec.id)


def _end(flight: InFlight) -> None:
    """Have Ray drop a batch that waits, or kill the process that runs it.

    Always with force: without it Ray aborts this process if the task happens to end in that moment
    ("Tried to complete task that was not pending", Ray 2.60, within a second of trying).
    """
    with contextlib.suppress(Exception):  # it has ended just now, or Ray itself is gone
        ray.cancel(flight.report, force=True)


def _carried(payload: bytes) -> object:
    return payload if len(payload) <= _CARRIED_BYTES else ray.put(payload)


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=12).hexdigest()
