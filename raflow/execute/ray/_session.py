"""One flow run on Ray."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import ray

from raflow import errors
from raflow.execute._backend import (
    BackendEvent,
    BackendGone,
    BatchEnded,
    BatchLost,
    BatchSpec,
    CallsHeldUp,
    CallsReturned,
    CallStarted,
    FunctionHandle,
    Kept,
    Known,
    ListOf,
    Packed,
    Part,
    RunEnvironment,
    SlotsAsked,
    SlotsLeft,
    TaskFunction,
    ValueRef,
)
from raflow.execute._failure import message_of
from raflow.execute._offspring import FORCE_GRACE_SECONDS
from raflow.execute._slots import SlotAnswer
from raflow.execute._substitute import runs_of
from raflow.execute.ray._arguments import pack_arguments, pack_items
from raflow.execute.ray._endings import Endings, end_by_ray, give_up
from raflow.execute.ray._entrance import version_error
from raflow.execute.ray._fetch import fetch_value
from raflow.execute.ray._leases import Speaker
from raflow.execute.ray._losses import RUNTIME_ENV, Loss
from raflow.execute.ray._mail import MAX_PAYLOAD, Line
from raflow.execute.ray._mailroom import Word
from raflow.execute.ray._payload import dump_code, loads
from raflow.execute.ray._process import ProcessEnvironment
from raflow.execute.ray._report import decode_report
from raflow.execute.ray._shipping import Shipping
from raflow.execute.ray._tenures import InFlight, Tenure, Way
from raflow.execute.ray._tools import Tools
from raflow.execute.ray._wire import Mailed, Packer
from raflow.model import Cause, Outcome

_CARRIED_BYTES: Final = 32 * 1024
"""Code and environment travel with every batch up to this size, and are fetched once beyond."""
_INSIST_SECONDS: Final = FORCE_GRACE_SECONDS + 1.0


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
        self._keeper = environment.keeper
        self._post = post
        self._tools = tools
        self._closed = closed
        self._shipping = Shipping(environment.sys_path, same_machine=same_machine)
        self._flights: dict[int, InFlight] = {}
        self._held_up = ""
        """What calls were told to wait for."""
        self._is_over = False
        """Whether it was told that nothing can run any more."""
        self._ending = threading.Lock()
        """Held where a batch is told of: nothing is told of it after its end."""
        self._endings = Endings(number, environment.flow_run_id, tools, self._is_flying, self._land)
        shared = ProcessEnvironment(
            environment,
            tools.mailroom.postbox,
            grace,
            tools.progress.token,
            tools.leases.seconds,
            tools.tenures.stay,
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
            BackendError: Ray is gone.
        """
        self._check_alive(f"Task {function.name!r} cannot be sent to another process")
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
        except Exception as error:
            self._post(_not_sent(batch, error))
            return
        flight = InFlight(
            self._number, batch, parcel, can_be_mailed=self._can_be_mailed(batch, parcel)
        )
        self._flights[batch.id] = flight
        place = self._tools.tenures.place(flight)
        if isinstance(place, Tenure):
            self._mail(place, flight)
        elif place is Way.START:
            self._start(flight)

    def _can_be_mailed(self, batch: BatchSpec, parcel: tuple[bytes, *tuple[object, ...]]) -> bool:
        stay = self._tools.tenures.stay
        return stay and len(parcel) == 1 == batch.own_values and len(parcel[0]) <= MAX_PAYLOAD

    def _start(self, flight: InFlight) -> None:
        """Have Ray start a process for a batch."""
        batch, tools = flight.spec, self._tools
        if not self._is_flying(flight):
            return
        if flight.tenure is not None:
            # It was mailed, and came too late: that process is not to be spoken to any more.
            flight.tenure = None
            tools.mailroom.forget(self._number, batch.id)
        gone = tools.probe()
        if gone is not None:
            self._not_started(flight, BatchLost(batch.id, Outcome.LOST, gone, range(batch.size)))
            return
        try:
            remote = tools.remote.get(batch.resources, 2 + batch.own_values)
            report, *values = remote.remote(*flight.parcel)
        except Exception as error:
            self._not_started(flight, _not_sent(batch, error))
            return
        flight.parcel = ()
        tenure = tools.tenures.start(flight, report, tuple(values))
        tools.poll.add(tenure)
        if not self._is_flying(flight):
            # Its end was told meanwhile, or the run was closed.
            give_up(flight, tools)
            self._replace(tenure)
        elif flight.cancelling or flight.forced:
            # Asked while it had no process yet.
            self._end_by_ray(flight)
        elif flight.unwanted:
            self.cancel_calls(batch.id, (), force=False)

    def _not_started(self, flight: InFlight, lost: BatchLost) -> None:
        """Tell of a batch that Ray does not take, and try the next one that waits."""
        self._land(flight, lost)
        following = self._tools.tenures.admit(flight.kind)
        if following is not None:
            self._start(following)

    def _mail(self, tenure: Tenure, flight: InFlight) -> None:
        """Give a process that waits another batch."""
        line, batch = tenure.line, flight.spec.id
        assert line is not None, "whoever waits has spoken"
        self._tools.mailroom.expect(self._number, batch, line)
        parcel = flight.parcel  # nothing if it came too late: Ray may have it by now
        if parcel and not line.send({"next": [self._number, tenure.number, batch]}, parcel[0]):
            self._leaves(tenure, None)
        if flight.tenure is not tenure:
            # That line does not lead to it any more.
            self._tools.mailroom.forget(self._number, batch)

    def word(self, word: Word, line: Line) -> None:
        """Take what a process says of its Ray task."""
        tenure = self._tools.tenures.find(word.session, word.number, line)
        if tenure is None:
            return
        if word.leaves:
            self._leaves(tenure, word.batch)
        elif word.batch is not None:
            self._told(tenure, word.batch, word.payload)

    def _told(self, tenure: Tenure, batch: int, payload: bytes) -> None:
        """Take the report of a batch whose process may go on with another one."""
        flight = tenure.flight
        following = self._tools.tenures.told(tenure, batch)
        if flight is None or following is None:
            return
        try:
            if isinstance(following, InFlight):
                self._mail(tenure, following)
            elif following is Way.LEAVE and tenure.line is not None:
                tenure.line.send({"leave": [self._number, tenure.number]})
        finally:
            report, values = loads(payload)
            self._take(flight, report, (Mailed(values),))

    def _leaves(self, tenure: Tenure, last: int | None) -> None:
        """Take note that a process takes no batch after the last one, not even one on its way."""
        flight = self._tools.tenures.leaves(tenure, last)
        if tenure.flight is None:
            self._replace(tenure)
        if flight is not None:
            self._start(flight)

    def _replace(self, tenure: Tenure) -> None:
        """Have Ray start a process in place of one that is gone, if a batch waits for it."""
        waiting = self._tools.tenures.replace(tenure)
        if waiting is not None:
            self._start(waiting)

    def cancel(self, batch: int, *, force: bool) -> None:
        """End a batch: interrupt its code, or (`force`) kill its process."""
        flight = self._flights.get(batch)
        if flight is None:
            return
        flight.cancelling = True
        if self._tools.tenures.withdraw(flight):
            self._endings.lose(flight, Loss(Outcome.CANCELLED, "it was cancelled"), ())
        elif force:
            self._end_by_force(flight)
        elif not self._tools.mailroom.cancel(self._number, batch):
            # It waits for resources, or began a moment ago.
            self._end_by_ray(flight)

    def cancel_calls(self, batch: int, positions: Sequence[int], *, force: bool) -> None:
        """End single calls of a batch: interrupt their code, or (`force`) kill its process."""
        flight = self._flights.get(batch)
        if flight is None:
            return
        flight.unwanted.update(positions)
        if self._tools.tenures.withdraw(flight):
            self._endings.end_calls(flight)
        elif force:
            flight.forced = True
            self._end_by_force(flight)
        elif not self._tools.mailroom.cancel_calls(self._number, batch, positions):
            progress = self._tools.progress
            if progress.is_all_here and progress.here(self._number, batch) is None:
                # It waits for resources: none of its calls has begun, and none loses anything.
                flight.forced = True
                self._end_by_ray(flight)

    def _end_by_force(self, flight: InFlight) -> None:
        # Nothing may follow it: its process takes a while to end what the batch has started.
        self._tools.tenures.hold(flight)
        if not self._tools.mailroom.kill(self._number, flight.spec.id):
            self._end_by_ray(flight)
        else:
            # A process that hangs in C does not even hear that it is to end itself.
            self._tools.alarms.after(_INSIST_SECONDS, lambda: self._end_by_ray(flight))

    def _end_by_ray(self, flight: InFlight) -> None:
        if self._is_flying(flight):
            end_by_ray(flight, self._tools)

    def _is_flying(self, flight: InFlight) -> bool:
        return self._flights.get(flight.spec.id) is flight

    def fetch(self, source: ValueRef | Part | Known | Kept | ListOf) -> object:
        """Return the value that a source stands for; arrays are views of Ray's memory."""
        return fetch_value(source, self._keeper, self._check_alive)

    def close(self) -> None:
        """End what still runs; nothing is told any more."""
        with self._ending:
            flights = list(self._flights.values())
            self._flights.clear()
        tenures = self._tools.tenures.forget(self._number)
        for tenure in tenures:
            self._tools.poll.drop(tenure)
        for flight in flights:
            end_by_ray(flight, self._tools)
            self._tools.mailroom.forget(self._number, flight.spec.id)
        self._endings.clear_up(flights)
        self._closed(self._number)

    def started(self, event: CallStarted) -> bool:
        """Take a start from the mailroom; False if the batch runs no more."""
        with self._ending:
            flight = self._flights.get(event.batch)
            if flight is None:
                return False
            flight.began[event.run] = event.at
            speaker = self._tools.leases.speaker((self._number, event.batch))
            flight.node_id = "" if speaker is None else speaker.node_id
            self._post(event)
        if flight.cancelling:
            self._tools.mailroom.cancel(self._number, event.batch)
        elif flight.unwanted:
            self._tools.mailroom.cancel_calls(self._number, event.batch, [*flight.unwanted])
        return True

    def returned(self, event: CallsReturned) -> None:
        """Take what a running batch hands back."""
        with self._ending:
            flight = self._flights.get(event.batch)
            if flight is not None:
                flight.returned.update(event.positions)
                self._post(event)

    def slots_wanted(self, event: SlotsAsked | SlotsLeft) -> bool:
        """Take what calls say of slots of limits; False if the batch runs no more."""
        with self._ending:
            flying = event.batch in self._flights
            if flying:
                self._post(event)
        return flying

    def tell_slots(self, batch: int, claim: int, answer: SlotAnswer) -> None:
        """Answer a running call that has asked for slots of limits."""
        self._tools.mailroom.tell_slots(self._number, batch, claim, answer)

    def ended(self, tenure: Tenure, report: bytes) -> None:
        """Take the end of a Ray task, with the report of the batch that it has run last."""
        flight = self._tools.tenures.ended(tenure, reports=True)
        if flight is not None and self._is_flying(flight):
            self._take(flight, report, tenure.values)
        self._replace(tenure)

    def _take(self, flight: InFlight, report: bytes, values: tuple[object, ...]) -> None:
        """Take the report of a batch, unless it is that of the one before it."""
        try:
            decoded = decode_report(report)
        except Exception as error:
            message = (
                f"its report could not be read: {message_of(error)}. The nodes of the cluster need "
                "the same version of raflow as this process"
            )
            self._endings.lose(flight, Loss(Outcome.FAILED, message), range(flight.spec.size))
            return
        if decoded.batch != flight.spec.id:
            self._start(flight)  # it was mailed, and came too late
            return
        used = 1 + max(decoded.own.values(), default=0)
        self._land(flight, BatchEnded(decoded, values[:used]))

    def failed(self, tenure: Tenure, error: BaseException) -> None:
        """Take Ray's error about a Ray task."""
        flight = self._tools.tenures.ended(tenure, reports=False)
        self._replace(tenure)
        if flight is None:
            return
        mismatch = version_error(error)
        if mismatch is not None:
            if not self._is_over:
                self._is_over = True
                self._post(BackendGone(str(mismatch), error=mismatch))
            return
        self._endings.failed(flight, error)

    def nodes_died(self, alive: frozenset[str]) -> None:
        """Take note that only these nodes are left."""
        for flight in list(self._flights.values()):
            self._endings.nodes_died(flight, alive)

    def silent(self, batch: int, speaker: Speaker, seconds: float) -> None:
        """Take note that the process of a batch has said nothing for so long."""
        flight = self._flights.get(batch)
        if flight is not None:
            self._endings.silent(flight, speaker, seconds)

    def dead(self, batch: int) -> None:
        """Take note that the process of a batch is gone, of which Ray has said nothing."""
        flight = self._flights.get(batch)
        if flight is not None:
            self._endings.dead(flight)

    @property
    def flights(self) -> list[InFlight]:
        """What Ray has of the run."""
        return list(self._flights.values())

    def held_up(self, reason: str) -> None:
        """Take note that calls wait for processes that cannot be started; empty: none do."""
        if reason != self._held_up:
            self._held_up = reason
            self._post(CallsHeldUp(reason))

    @property
    def reason(self) -> str:
        """What calls were told to wait for."""
        return self._held_up

    def cannot_start(self, error: errors.WorkerStartError) -> None:
        """Take note that nothing of the run can ever start."""
        if not self._is_over:
            self._is_over = True
            self._post(BackendGone(str(error), error=error))

    def fail(self, batches: Sequence[int], story: str) -> None:
        """Give up batches whose runtime_env lets no process start."""
        for batch in batches:
            flight = self._flights.get(batch)
            if flight is not None:
                give_up(flight, self._tools)
                loss = Loss(Outcome.FAILED, story, cause=Cause(kind=RUNTIME_ENV))
                self._endings.lose(flight, loss, range(flight.spec.size))

    def gone(self, story: str) -> None:
        """Take note that Ray is gone; told once."""
        self._is_over = True
        running = self._tools.progress.running(self._number)
        flights = [(self._flights.get(batch), set(ran)) for batch, ran in running.items()]
        told = [
            run
            for flight, positions in flights
            if flight is not None
            for position, run in enumerate(runs_of(flight.spec))
            if position in positions
        ]
        self._post(BackendGone(story, told))

    def _check_alive(self, what: str) -> None:
        """Raise while there is time: Ray ends the whole process if it finds its raylet dead."""
        gone = self._tools.probe()
        if gone is not None:
            raise errors.BackendError(f"{what}: {gone}.")

    def _land(self, flight: InFlight, event: BatchEnded | BatchLost) -> None:
        """Tell of the end of a batch, unless the session was closed; nothing follows it."""
        # What Ray's own end has ended must not look like a fault of the batch.
        if isinstance(event, BatchLost) or event.lost:
            self._tools.probe()
        with self._ending:
            if self._flights.pop(flight.spec.id, None) is not None:
                self._post(event)
        self._tools.mailroom.forget(self._number, flight.spec.id)
        tenure = flight.tenure
        if tenure is not None and tenure.flight is flight:
            self._replace(tenure)


def _not_sent(batch: BatchSpec, error: Exception) -> BatchLost:
    message = f"it could not be handed to Ray: {message_of(error)}"
    return BatchLost(batch.id, Outcome.FAILED, message, range(batch.size))


def _carried(payload: bytes) -> object:
    return payload if len(payload) <= _CARRIED_BYTES else ray.put(payload)


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=12).hexdigest()
