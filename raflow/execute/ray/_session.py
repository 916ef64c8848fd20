"""One flow run on Ray."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import ray

from raflow import errors
from raflow.execute._alarms import Alarms
from raflow.execute._backend import (
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    CallStarted,
    FunctionHandle,
    Packed,
    RunEnvironment,
    TaskFunction,
    ValueRef,
)
from raflow.execute._failure import message_of
from raflow.execute.ray._losses import Loss, classify, timed_out
from raflow.execute.ray._mailroom import Mailroom
from raflow.execute.ray._options import RemoteFunctions
from raflow.execute.ray._payload import INLINE_BYTES, dump_code, freeze, freeze_copy, thaw
from raflow.execute.ray._poll import InFlight, Poll
from raflow.execute.ray._process import ProcessEnvironment
from raflow.execute.ray._report import decode_report
from raflow.execute.ray._shipping import Shipping
from raflow.execute.ray._wire import Packer
from raflow.model import Outcome

_CARRIED_BYTES: Final = 32 * 1024
"""Code and environment travel with every batch up to this size, and are fetched once beyond."""
_LAST_WORDS_SECONDS: Final = 0.3
_PROBE_SECONDS: Final = 2.0
_INSIST_SECONDS: Final = 1.0


class Tools(NamedTuple):
    """What the sessions of a backend share."""

    poll: Poll
    mailroom: Mailroom
    alarms: Alarms
    remote: RemoteFunctions
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
        payload = dump_code(ProcessEnvironment(environment, tools.mailroom.postbox, grace))
        self._environment = (_digest(payload), _carried(payload))

    def pack(self, task: str, arguments: Mapping[str, Any]) -> Packed:
        """Pickle the arguments of a call as they are now."""
        try:
            frozen = freeze_copy(dict(arguments))
        except errors.RaflowError:
            raise  # a future where raflow cannot reach it says so itself
        except Exception as error:
            raise _unserializable(task, arguments, error) from error
        if isinstance(frozen, bytes) and len(frozen) <= INLINE_BYTES:
            return Packed(frozen)
        self._check_alive(f"Task {task!r}: its arguments cannot be stored")
        return Packed(ray.put(frozen))

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
            self._post(BatchLost(batch.id, Outcome.LOST, gone))
            return
        try:
            parcel = Packer().pack(self._number, batch, self._environment)
            remote = self._tools.remote.for_resources(batch.resources)
            values, report = remote.remote(*parcel)
        except Exception as error:
            message = f"it could not be handed to Ray: {message_of(error)}"
            self._post(BatchLost(batch.id, Outcome.FAILED, message))
            return
        flight = InFlight(self._number, batch, values, report)
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
        """Have Ray drop a batch that waits, or kill the process that runs it.

        Always with force: without it Ray aborts this process if the task happens to end in that
        moment ("Tried to complete task that was not pending", Ray 2.60, within a second of trying).
        """
        if self._flights.get(flight.spec.id) is flight:
            with contextlib.suppress(Exception):  # it has ended just now, or Ray itself is gone
                ray.cancel(flight.report, force=True)

    def fetch(self, value: ValueRef) -> object:
        """Return a value; arrays are read-only views of Ray's memory.

        Raises:
            BackendError: The value is gone.
        """
        handle: Any = value.handle
        while True:
            self._check_alive("A value cannot be fetched")
            try:
                values = ray.get(handle, timeout=_PROBE_SECONDS)
                return thaw(values[value.position])
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayError as error:
                loss = classify(error)
                raise errors.BackendError(f"A value is gone: {loss.message}.") from error

    def close(self) -> None:
        """End what still runs; nothing is told any more."""
        for flight in list(self._flights.values()):
            self._tools.poll.drop(flight)
            self._end_by_ray(flight)
            self._tools.mailroom.forget(self._number, flight.spec.id)
        self._flights.clear()
        self._closed(self._number)

    def started(self, event: CallStarted) -> bool:
        """Take a start from the mailroom; False if the batch runs no more."""
        flight = self._flights.get(event.batch)
        if flight is None:
            return False
        self._post(event)
        if flight.cancelling:
            self._tools.mailroom.cancel(self._number, event.batch)
        return True

    def ended(self, flight: InFlight, report: bytes) -> None:
        """Take the report of a batch."""
        if self._land(flight):
            self._post(BatchEnded(decode_report(report), flight.values))

    def failed(self, flight: InFlight, error: BaseException) -> None:
        """Take Ray's error about a batch."""
        loss = classify(error)
        if loss.outcome is not Outcome.CRASHED:
            self._lose(flight, loss)
        elif flight.cancelling:
            self._lose(flight, Loss(Outcome.CANCELLED, loss.message))
        elif any(call.timeout_seconds is not None for call in flight.spec.calls):
            # The last words of the process may still be on their way.
            self._tools.alarms.after(_LAST_WORDS_SECONDS, lambda: self._lose(flight, loss))
        else:
            self._lose(flight, loss)

    def _check_alive(self, what: str) -> None:
        """Raise while there is time: Ray ends the whole process if it finds its raylet dead."""
        gone = self._tools.probe()
        if gone is not None:
            raise errors.BackendError(f"{what}: {gone}.")

    def _lose(self, flight: InFlight, loss: Loss) -> None:
        words = self._tools.mailroom.forget(self._number, flight.spec.id)
        if self._flights.pop(flight.spec.id, None) is None:
            return
        if words is not None and loss.outcome is Outcome.CRASHED:
            loss = timed_out(words)
        self._post(BatchLost(flight.spec.id, loss.outcome, loss.message))

    def _land(self, flight: InFlight) -> bool:
        self._tools.mailroom.forget(self._number, flight.spec.id)
        return self._flights.pop(flight.spec.id, None) is not None


def _carried(payload: bytes) -> object:
    return payload if len(payload) <= _CARRIED_BYTES else ray.put(payload)


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=12).hexdigest()


def _unserializable(
    task: str, arguments: Mapping[str, Any], error: Exception
) -> errors.UnserializableArgumentError:
    for parameter, value in arguments.items():
        try:
            freeze(value)
        except Exception as reason:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            return errors.UnserializableArgumentError(
                f"Task {task!r}: the argument {parameter!r} is or holds a {kind}, which cannot be "
                f"sent to another process: {message_of(reason)}. Pass plain data, or what is "
                "needed to make the object inside the task (a path, a URL, parameters).",
                task=task,
                parameter=parameter,
                type=kind,
            )
    return errors.UnserializableArgumentError(
        f"Task {task!r}: its arguments cannot be sent to another process: {message_of(error)}.",
        task=task,
    )
