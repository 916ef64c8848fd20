"""A worker process of Ray's: what it keeps between batches, and how it runs one."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import ray

from raflow import define, errors
from raflow.execute._alarms import Alarms
from raflow.execute._attempt import (
    Done,
    Loaded,
    Site,
    cancelled_before_start,
    run_attempt,
    sink_for,
)
from raflow.execute._backend import Known, RunEnvironment, TaskFunction, ValueRef
from raflow.execute._capture import Capture
from raflow.execute._failure import message_of
from raflow.execute._inputs import resolve
from raflow.execute._usage import Place, ProcessMeter
from raflow.execute.ray._mail import Postbox
from raflow.execute.ray._messenger import Messenger, Running
from raflow.execute.ray._payload import PICKLING, freeze, loads, thaw
from raflow.execute.ray._report import encode_report
from raflow.execute.ray._watch import SignalWatch, install, marked
from raflow.execute.ray._wire import Carried, Lifted, Shelf, WireBatch, WireCall
from raflow.model import BatchReport

ANNOUNCE_SECONDS: Final = 0.5
"""A call that runs longer than this is told to the driver."""

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


def run_batch(head: bytes, *lifted: Any) -> tuple[list[object], bytes]:
    """Run a batch; this is what Ray calls.

    Args:
        head: A pickled `WireBatch`.
        *lifted: The objects that arguments and inputs refer to; last, if there are any, a list of
            ObjectRefs to what the process may know already.

    Returns:
        The values, one per call, and the encoded `BatchReport`.
    """
    wire: WireBatch = loads(head)
    shelf = lifted[-1] if wire.has_shelf else ()
    return _process().run(wire, shelf, lifted)


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
        self._place = Place.here(ray.get_runtime_context().get_node_id())
        self._meter = ProcessMeter()
        self._alarms = Alarms("raflow-alarms")
        self._messenger = Messenger(self._place)
        self._sites: _Recent[str, tuple[Site, ProcessEnvironment]] = _Recent(_KEPT_ENVIRONMENTS)
        self._functions: _Recent[str, TaskFunction] = _Recent(_KEPT_FUNCTIONS)

    def run(
        self, wire: WireBatch, shelf: Sequence[Any], lifted: Sequence[Any]
    ) -> tuple[list[object], bytes]:
        install()
        site, environment = self._sites.get_or_make(
            wire.environment_key, lambda: self._settle(_fetch(wire.environment, shelf))
        )
        done: list[Done] = []
        cancelled = False
        for call in wire.calls:
            if cancelled:
                done.append(Done(None, cancelled_before_start(call.work, self._place)))
                continue
            load = functools.partial(self._load, call, wire, shelf, lifted)
            running = Running(wire.session, wire.batch, call.work, time.time())
            watch = self._watch(running, environment)
            done.append(self._run_call(running, load, watch, site, environment))
            cancelled = isinstance(watch.fired, errors.TaskInterrupted)
        report = BatchReport(batch=wire.batch, calls=tuple(item.report for item in done))
        return [item.value for item in done], encode_report(report)

    def _watch(self, running: Running, environment: ProcessEnvironment) -> SignalWatch:
        timeout = running.work.timeout_seconds
        line = self._messenger.line(environment.postbox) if timeout is not None else None
        return SignalWatch(
            timeout,
            grace=environment.grace,
            last_words=line.fileno() if line is not None else None,
            is_meant=lambda: self._messenger.is_cancelled(running),
        )

    def _run_call(
        self,
        running: Running,
        load: Callable[[], Loaded],
        watch: SignalWatch,
        site: Site,
        environment: ProcessEnvironment,
    ) -> Done:
        work = running.work
        sink = sink_for(work, environment.run)
        attempt = functools.partial(run_attempt, work, load, sink=sink, watch=watch, site=site)
        alarm = self._alarms.after(
            ANNOUNCE_SECONDS, lambda: self._messenger.announce(environment.postbox, running)
        )
        self._messenger.running = running
        try:
            if work.timeout_seconds is None:
                return attempt()
            return marked(running.session, running.batch, attempt)
        finally:
            self._messenger.running = None
            alarm.cancel()

    def _settle(self, payload: bytes) -> tuple[Site, ProcessEnvironment]:
        environment: ProcessEnvironment = loads(payload)
        for path in reversed(environment.run.sys_path):
            if path not in sys.path and os.path.isdir(path):
                sys.path.insert(0, path)
        # Never left: the process belongs to raflow's batches, and each has its own sink.
        Capture(environment.run.log_level).__enter__()
        site = Site(
            environment=environment.run,
            place=self._place,
            meter=self._meter,
            pickling=PICKLING,
            freeze=freeze,
            whole_process=True,
        )
        return site, environment

    def _load(
        self, call: WireCall, wire: WireBatch, shelf: Sequence[Any], lifted: Sequence[Any]
    ) -> Loaded:
        key = call.function
        try:
            function = self._functions.get_or_make(
                key, lambda: loads(_fetch(wire.functions[key], shelf))
            )
            arguments = _arguments(call, lifted)
        except Exception as error:
            raise errors.SerializationError(
                f"Task {call.work.label!r}: its function or an argument could not be unpacked on "
                f"host {self._place.host!r}: {type(error).__name__}: {message_of(error)}. If a "
                "module is missing there, install it on the cluster's nodes or send it with "
                "runtime_env."
            ) from error
        return Loaded(function, arguments)


@functools.cache
def _process() -> _Process:
    return _Process()


def _fetch(carried: Carried, shelf: Sequence[Any]) -> bytes:
    if isinstance(carried, Shelf):
        fetched: bytes = ray.get(shelf[carried.place])
        return fetched
    return carried


def _arguments(call: WireCall, lifted: Sequence[Any]) -> dict[str, Any]:
    def value_at(value: ValueRef) -> object:
        assert isinstance(value.handle, int)
        return thaw(lifted[value.handle][value.position])

    def known(value: Known) -> object:
        assert isinstance(value.value, bytes | tuple)
        return thaw(value.value)

    values = {hole: resolve(source, value_at, known) for hole, source in call.inputs.items()}
    arguments: dict[str, Any] = {}
    for payload in call.arguments:
        frozen = lifted[payload.place] if isinstance(payload, Lifted) else payload
        arguments |= define.fill(thaw(frozen), values)
    return arguments
