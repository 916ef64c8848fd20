"""A worker process of Ray's: what it keeps between batches, and how it runs one."""

from __future__ import annotations

import functools
import os
import sys
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
from raflow.execute._usage import ProcessMeter, here
from raflow.execute.ray._cells import Cell
from raflow.execute.ray._mail import Postbox
from raflow.execute.ray._messenger import Active, Messenger
from raflow.execute.ray._payload import PICKLING, freeze_result, loads, size_of, thaw_here
from raflow.execute.ray._report import encode_report
from raflow.execute.ray._watch import SignalWatch, install, marked
from raflow.execute.ray._wire import Carried, Lifted, Shelf, WireBatch, read_batch

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
    return _process().run(read_batch(head), lifted)


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
        self._sites: _Recent[str, tuple[Site, ProcessEnvironment]] = _Recent(_KEPT_ENVIRONMENTS)
        self._functions: _Recent[str, TaskFunction] = _Recent(_KEPT_FUNCTIONS)
        self._cells: dict[str, Cell | None] = {}

    def run(self, wire: WireBatch, lifted: Sequence[Any]) -> tuple[object, ...]:
        install()
        shelf = lifted[-1] if wire.has_shelf else ()
        site, environment = self._sites.get_or_make(
            wire.environment_key, lambda: self._settle(_fetch(wire.environment, shelf))
        )
        cell = self._cell(environment.token)
        loop = BatchLoop(
            wire.batch,
            wire.jobs,
            _Loader(wire.functions, self._functions, shelf, lifted),
            site=site,
            budget=wire.budget,
            own_values=wire.own_values,
            cell=cell.lanes if cell is not None else None,
        )
        if cell is not None:
            cell.begin(wire.session, wire.batch)
        self._run_loop(loop, wire, environment)
        report, values, own = loop.end()
        encoded = encode_report(report)
        if cell is not None:
            cell.end()
        return (encoded, values, *own, *[None] * (wire.own_values - len(own)))

    def _run_loop(self, loop: BatchLoop, wire: WireBatch, environment: ProcessEnvironment) -> None:
        messenger = self._messenger
        active = Active(wire.session, wire.batch, loop, environment.postbox)
        watch = SignalWatch(
            grace=environment.grace,
            last_words=lambda: self._last_words(environment.postbox),
            is_meant=lambda: messenger.is_cancelled(active),
        )
        minder = Minder(
            loop,
            self._alarms,
            budget=wire.budget,
            started=lambda call: messenger.announce(active, call),
            returned=lambda positions: messenger.give_back(active, positions),
            may_return=lambda: messenger.line(environment.postbox) is not None,
        )
        messenger.active = active
        minder.start()
        try:
            if any(job.settings.timeout_seconds is not None for job in wire.jobs):
                marked(wire.session, wire.batch, lambda: loop.run(watch))
            else:
                loop.run(watch)
        finally:
            messenger.active = None
            minder.stop()

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
        )
        return site, environment

    def _cell(self, token: str) -> Cell | None:
        if token not in self._cells:
            try:
                self._cells[token] = Cell(token)
            except OSError:
                self._cells[token] = None  # nobody will know what ran if the process dies
        return self._cells[token]


class _Loader:
    """Knows what travelled with a batch."""

    def __init__(
        self,
        functions: Mapping[str, Carried],
        kept: _Recent[str, TaskFunction],
        shelf: Sequence[Any],
        lifted: Sequence[Any],
    ) -> None:
        self._functions = functions
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
        return self._lifted[handle]


@functools.cache
def _process() -> _Process:
    return _Process()


def _fetch(carried: Carried, shelf: Sequence[Any]) -> bytes:
    if isinstance(carried, Shelf):
        fetched: bytes = ray.get(shelf[carried.place])
        return fetched
    return carried
