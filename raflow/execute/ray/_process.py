"""A worker process of Ray's: what it keeps between batches, and how it runs one."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import ray

from raflow.execute._alarms import Alarms
from raflow.execute._attempt import Site
from raflow.execute._backend import RunEnvironment, TaskFunction
from raflow.execute._capture import Capture
from raflow.execute._loop import BatchLoop
from raflow.execute._minder import Minder
from raflow.execute._offspring import Offspring, forget_mark, mark_children, of_process
from raflow.execute._usage import ProcessMeter, here
from raflow.execute.ray._beat import Beat
from raflow.execute.ray._cells import Cell
from raflow.execute.ray._mail import MAX_PAYLOAD, Postbox
from raflow.execute.ray._manners import Manners, end_if_unfit
from raflow.execute.ray._messenger import Active, Handed, Messenger
from raflow.execute.ray._payload import PICKLING, freeze_result, loads, size_of, thaw_here
from raflow.execute.ray._report import encode_report
from raflow.execute.ray._slot_mail import BatchLine, Outbox
from raflow.execute.ray._tenures import STAY_SECONDS
from raflow.execute.ray._watch import SignalWatch, install, marked
from raflow.execute.ray._wire import POOL, Carried, Lifted, Shelf, WireBatch, read_batch

_KEPT_ENVIRONMENTS: Final = 8
_KEPT_FUNCTIONS: Final = 512

K = TypeVar("K")
V = TypeVar("V")


class ProcessEnvironment(NamedTuple):
    """What each worker process gets once per run."""

    run: RunEnvironment
    postbox: Postbox
    grace: float
    """Seconds between a time limit and the end of the process."""
    token: str
    """Names the cells of the backend's processes; see `_cells`."""
    lease: float
    """Seconds of silence after which the driver gives the process up."""
    stay: bool
    """Whether it may run several batches in one Ray task."""


def run_batch(head: bytes, *lifted: Any) -> tuple[object, ...]:
    """Run a batch; this is what Ray calls.

    Args:
        head: A pickled `WireBatch`.
        *lifted: The objects that arguments and inputs refer to; last, if there are any, a list of
            ObjectRefs to what the process may know already.

    Returns:
        The encoded `BatchReport`, the values, one entry per call, and as many more objects as there
        may be values of their own, None where there is no value.
    """
    process = _process()
    try:
        return process.run(read_batch(head), lifted)
    except SystemExit as error:
        process.heed(error)
        raise


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """Keeps what was used last."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        if key in self:
            self.move_to_end(key)
            return self[key]
        made = self[key] = make()
        while len(self) > self._size:
            self.popitem(last=False)
        return made


class _Process:
    def __init__(self) -> None:
        self._place = here(ray.get_runtime_context().get_node_id())
        self._meter = ProcessMeter()
        self._alarms = Alarms("raflow-alarms")
        self._messenger = Messenger(self._place)
        self._outbox = Outbox()
        self._sites: _Recent[str, tuple[Site, ProcessEnvironment]] = _Recent(_KEPT_ENVIRONMENTS)
        self._functions: _Recent[str, TaskFunction] = _Recent(_KEPT_FUNCTIONS)
        self._cells: dict[str, Cell] = {}
        self._offspring = Offspring(of_process)
        self._manners = Manners()
        mark_children(self._messenger.mark, self._messenger.files)

    def run(self, wire: WireBatch, lifted: Sequence[Any]) -> tuple[object, ...]:
        """Run a batch, and those that are mailed to the same Ray task after it."""
        postbox, stays = self._begin_tenure(wire, lifted)
        left = self._run_batch(wire, lifted)
        while stays and (handed := self._following(postbox, wire, left)) is not None:
            wire = read_batch(handed.head)
            left = self._run_batch(wire, ())
        return left

    def _begin_tenure(self, wire: WireBatch, lifted: Sequence[Any]) -> tuple[Postbox, bool]:
        """Say that a Ray task has begun; also return whether it may run more than one batch."""
        shelf = lifted[-1] if wire.has_shelf else ()
        _, environment = self._environment(wire, shelf)
        # What Ray has given to it, it holds until its end; and how many objects it returns, it was
        # told at its start.
        stays = environment.stay and len(lifted) == wire.has_shelf and wire.own_values == 1
        postbox = environment.postbox
        if environment.stay:
            self._messenger.begin_tenure(postbox, wire.session, wire.batch, self._outbox)
        return postbox, stays

    def _following(
        self, postbox: Postbox, wire: WireBatch, left: tuple[object, ...]
    ) -> Handed | None:
        """Tell of a batch by mail, if it is small, and return the next one; None if there is none.

        Its report and values go to Ray all the same if nothing follows.
        """
        report, values, *own = left
        assert isinstance(report, bytes)
        messenger = self._messenger
        payload = None if own[:1] != [None] else _payload(report, values)
        if payload is None or not messenger.tell(postbox, wire.batch, payload):
            return None
        return messenger.following(STAY_SECONDS) or messenger.end_tenure(postbox, wire.batch)

    def _environment(
        self, wire: WireBatch, shelf: Sequence[Any]
    ) -> tuple[Site, ProcessEnvironment]:
        return self._sites.get_or_make(
            wire.environment_key, lambda: self._settle(_fetch(wire.environment, shelf))
        )

    def _run_batch(self, wire: WireBatch, lifted: Sequence[Any]) -> tuple[object, ...]:
        install()
        self._manners.restore()
        forget_mark()
        shelf = lifted[-1] if wire.has_shelf else ()
        site, environment = self._environment(wire, shelf)
        cell = self._cell(environment.token)
        cell.begin(wire.session, wire.batch)
        loop = BatchLoop(
            wire.batch,
            wire.jobs,
            _Loader(wire, self._functions, shelf, lifted),
            site=site,
            budget=wire.budget,
            own_values=wire.own_values,
            cell=cell.lanes,
        )
        end_if_unfit()
        self._run_loop(loop, wire, environment)
        report, values, own = loop.end()
        encoded = encode_report(report)
        cell.end()
        return (encoded, values, *own, *[None] * (wire.own_values - len(own)))

    def heed(self, error: BaseException) -> None:
        """End the process if that is what an exception of Ray's asks for: SIGTERM has come.

        The code has had it as a `SystemExit`, and has cleaned up by now.
        """
        if isinstance(error, SystemExit) and hasattr(error, "ray_terminate_msg"):
            for cell in self._cells.values():
                cell.note_signal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def _run_loop(self, loop: BatchLoop, wire: WireBatch, environment: ProcessEnvironment) -> None:
        messenger = self._messenger
        slots = BatchLine(
            wire.session,
            wire.batch,
            loop=weakref.ref(loop),
            line=lambda: messenger.line(environment.postbox),
            outbox=self._outbox,
        ).slots
        active = Active(wire.session, wire.batch, loop, environment.postbox, slots)
        watch = SignalWatch(
            grace=environment.grace,
            last_words=lambda: self._last_words(environment.postbox),
            is_meant=lambda: messenger.is_cancelled(active),
            unwanted=loop.unwanted_now,
        )
        minder = Minder(
            loop,
            self._alarms,
            budget=wire.budget,
            started=lambda call: messenger.announce(active, call),
            returned=lambda positions: messenger.give_back(active, positions),
            may_return=lambda: messenger.line(environment.postbox) is not None,
            beat=Beat(environment.lease, lambda: self._beat(active)),
        )
        messenger.activate(active)
        minder.start()
        try:
            if any(job.settings.timeout_seconds is not None for job in wire.jobs):
                marked(wire.session, wire.batch, lambda: loop.run(watch))
            else:
                loop.run(watch)
        finally:
            messenger.active = None
            minder.stop()
            self._offspring.wait()

    def _beat(self, active: Active) -> None:
        peak = self._meter.peak()
        for cell in self._cells.values():
            cell.note_peak(peak)
        self._messenger.beat(active)

    def _last_words(self, postbox: Postbox) -> int | None:
        line = self._messenger.line(postbox)
        return line.fileno() if line is not None else None

    def _settle(self, payload: bytes) -> tuple[Site, ProcessEnvironment]:
        environment: ProcessEnvironment = loads(payload)
        for path in reversed(environment.run.sys_path):
            if path not in sys.path and os.path.isdir(path):
                sys.path.insert(0, path)
        # Never left: the process belongs to raflow's batches, and each call has its own sink.
        Capture(environment.run.log_level).__enter__()
        site = Site(
            environment=environment.run,
            place=self._place,
            meter=self._meter,
            pickling=PICKLING,
            freeze=freeze_result,
            thaw=thaw_here,
            size=size_of,
            whole_process=True,
            offspring=self._offspring,
            slots=self._messenger.slots,
            heed=self.heed,
        )
        return site, environment

    def _cell(self, token: str) -> Cell:
        if token not in self._cells:
            cell = Cell(token)
            cell.watch()
            self._cells[token] = cell
        return self._cells[token]


class _Loader:
    """Knows what travelled with a batch."""

    def __init__(
        self,
        wire: WireBatch,
        kept: _Recent[str, TaskFunction],
        shelf: Sequence[Any],
        lifted: Sequence[Any],
    ) -> None:
        self._functions = wire.functions
        self._pool = wire.pool
        self._kept = kept
        self._shelf = shelf
        self._lifted = lifted

    def function(self, handle: Any) -> TaskFunction:
        carried = self._functions[handle]
        return self._kept.get_or_make(handle, lambda: loads(_fetch(carried, self._shelf)))

    def arguments(self, payload: Any) -> Mapping[str, Any]:
        if type(payload) is dict:
            return payload
        frozen = self._lifted[payload.place] if isinstance(payload, Lifted) else payload
        arguments: Mapping[str, Any] = thaw_here(frozen)
        return arguments

    def object(self, handle: Any) -> Any:
        return self._pool if handle == POOL else self._lifted[handle]


def _payload(report: bytes, values: object) -> bytes | None:
    """Write what is told of a batch by mail; None if that is too much for it."""
    if len(report) > MAX_PAYLOAD:
        return None
    data = pickle.dumps((report, pickle.dumps(values, protocol=5)), protocol=5)
    return data if len(data) <= MAX_PAYLOAD else None


@functools.cache
def _process() -> _Process:
    return _Process()


def _fetch(carried: Carried, shelf: Sequence[Any]) -> bytes:
    if isinstance(carried, Shelf):
        fetched: bytes = ray.get(shelf[carried.place])
        return fetched
    return carried
