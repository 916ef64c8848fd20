"""Calls whose values may have been computed before, and values to be kept for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from raflow import engine, execute
from raflow.define import Task, fill
from raflow.model import (
    BatchReport,
    Chunk,
    ResultInfo,
    StateName,
    TaskRun,
    TaskRunKey,
    call_report,
)
from raflow.runtime.calls import CallEntry, Inputs, KeptValue
from raflow.runtime.desk import Cache, CacheFound
from raflow.runtime.driver._driven import Driven

_WITH_VALUE: Final = frozenset({StateName.COMPLETED, StateName.RECOVERED})


class Caching:
    """Stands between calls that are cached and the cache; on the driver's thread."""

    def __init__(self, driver: Driven) -> None:
        """Begin with no call that is cached."""
        self._driver = driver
        self._cache: Cache | None = None

    def begin(self, cache: Cache) -> None:
        """Take the place where values are looked for; before the first call."""
        self._cache = cache

    @property
    def cache(self) -> Cache:
        """Where values are looked for, and kept for others."""
        assert self._cache is not None, "nothing is asked before the run has begun"
        return self._cache

    def _ask_cache(self, command: engine.AskCache) -> None:
        entry = self._driver.entry(command.chunk.node)
        task = entry.request.target
        assert isinstance(task, Task)
        inputs = Inputs(self._driver.outcomes)
        for run in command.chunk.runs():
            fed = inputs.of(entry, _alone(run)) if entry.edges else {}
            label = entry.label(run.map_index)
            arguments = _Arguments(self._driver.session, entry, run, fed)
            self.cache.look_up(run, task, label, arguments)

    def _cache_found(self, message: CacheFound) -> None:
        run, driver = message.event.run, self._driver
        entry = driver.entries[run.node]
        if entry is None:
            return
        label = entry.label(run.map_index)
        info = message.entry.result
        driver.history.task_runs.cached(run, entry, info)
        outcome = driver.outcomes.tried(run, label, message.event.at)
        outcome.value = execute.ValueRef(KeptValue(info), 0)
        driver.feed(message.event)

    def completed(self, command: engine.CallsCompleted, report: BatchReport) -> None:
        """Keep the values of calls that have completed at once, for others to find."""
        if not self.cache.is_in_use:
            return
        for chunk, position in command.chunks:
            for offset, run in enumerate(chunk.runs()):
                if self.cache.wants(run):
                    made = call_report(report, position + offset, run=run, attempt=1)
                    self._computed(run, made.result if made else None)

    def ended(self, run: TaskRun) -> None:
        """Keep the value of a task run that is final, if it has one, for others to find."""
        if self.cache.wants(run.key):
            self._computed(run.key, run.result if run.state.name in _WITH_VALUE else None)

    def _computed(self, run: TaskRunKey, result: ResultInfo | None) -> None:
        task = self._driver.entry(run.node).request.target
        assert isinstance(task, Task)
        self.cache.computed(run, task, result)

    def message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what handles messages to the driver."""
        return {CacheFound: self._cache_found}

    def command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what carries out commands of the engine."""
        return {engine.AskCache: self._ask_cache}


class _Arguments:
    """The arguments of one run, with values where futures were; fetched when they are asked for."""

    def __init__(
        self,
        session: execute.Session,
        entry: CallEntry,
        run: TaskRunKey,
        inputs: Mapping[int, execute.InputSource],
    ) -> None:
        self._session = session
        self._entry = entry
        self._item = run.map_index
        self._inputs = inputs

    def __call__(self) -> Mapping[str, Any]:
        request = self._entry.request
        arguments = {**request.arguments, **request.item_arguments}
        if self._entry.items is not None:
            columns = self._entry.items.slice(self._item, self._item + 1)
            arguments |= {name: column[0] for name, column in columns.items()}
        values = {edge: self._fetched(source) for edge, source in self._inputs.items()}
        return fill(arguments, values)

    def _fetched(self, source: execute.InputSource) -> object:
        match source:
            case execute.EachOf(items):
                found: Any = self._session.fetch(execute.ListOf(items))
                return found[0]
            case execute.EachPart(execute.Known(value), start):
                several: Any = value
                return several[start]
            case execute.EachPart(execute.ValueRef() | execute.Kept() as value, start):
                return self._session.fetch(execute.Part(value, start))
            case execute.InBatch():
                raise AssertionError("the inputs of a call that asks the cache are there")
        return self._session.fetch(source)  # type: ignore[arg-type]  # both forms of EachPart are above


def _alone(run: TaskRunKey) -> Chunk:
    return Chunk(run.node, run.map_index, run.map_index + 1)
