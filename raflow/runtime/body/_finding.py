"""Finds the values of calls that are final, and has those computed again that were lost."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from raflow import engine, errors, execute
from raflow.model import Chunk, StateType, TaskRunKey
from raflow.runtime.calls import RunOutcome, is_on_record, sources
from raflow.runtime.driver import Driver, ValueWanted


class Finding:
    """Where the body finds what its calls have returned or raised."""

    def __init__(self, driver: Driver) -> None:
        """Find it for the run that a driver drives."""
        self._driver = driver

    def outcome(self, node: int, item: int | None, *, raise_on_failure: bool) -> Any:
        """Return the value of a run that is final, or those of a map; raise if it failed."""
        if item is None and self._driver.is_map(node):
            return self._whole_map(node, raise_on_failure=raise_on_failure)
        run = TaskRunKey(node, -1 if item is None else item)
        found = self._found(run)
        if isinstance(found, RunOutcome) and found.failed:
            self.see([run])
        try:
            return self._value(found, raise_on_failure=raise_on_failure)
        except errors.BackendError:
            if not self._is_damaged(run):
                raise
        return self._value(self._made_again(run), raise_on_failure=raise_on_failure)

    def _whole_map(self, node: int, *, raise_on_failure: bool) -> list[Any]:
        self.see(self._driver.outcomes.failures(node))
        try:
            return self._values(node, raise_on_failure=raise_on_failure)
        except errors.BackendError:
            items = range(self._driver.outcomes.length(node) or 0)
            damaged = [run for i in items if self._is_damaged(run := TaskRunKey(node, i))]
            if not damaged:
                raise
        for run in damaged:
            self._made_again(run)
        return self._values(node, raise_on_failure=raise_on_failure)

    def _is_damaged(self, run: TaskRunKey) -> bool:
        """Tell whether the record has a value of a run that cannot be read."""
        found = self._driver.outcomes.find(run)
        value = found.value if isinstance(found, RunOutcome) else found
        if not isinstance(value, execute.ValueRef) or not is_on_record(value):
            return False
        try:
            self._fetched(value)
        except errors.BackendError:
            return True
        return False

    def _made_again(self, run: TaskRunKey) -> execute.ValueRef | RunOutcome | None:
        """Have a value computed again that nobody can read any more."""
        there: Future[None] = Future()
        chunk = Chunk(run.node, run.map_index, run.map_index + 1)
        self._driver.post(engine.ValuesLost(at=self._driver.clock(), chunks=(chunk,)))
        self._driver.post(ValueWanted(run, there))
        self._driver.outcomes.until_the_end(there).result()
        return self._found(run)

    def _values(self, node: int, *, raise_on_failure: bool) -> list[Any]:
        values: list[Any] = []
        for run in self._driver.outcomes.without_value(node):
            self._found(run)
        for piece in self._driver.outcomes.items(node):
            if isinstance(piece, execute.ValueSlice):
                listed = execute.ListOf(tuple(sources(piece)))
                several: Any = self._driver.session.fetch(listed)
                values += several
            else:
                values.append(self._value(piece, raise_on_failure=raise_on_failure))
        return values

    def _found(self, run: TaskRunKey) -> execute.ValueRef | RunOutcome | None:
        """Return what became of a run that is final; a value that was lost is computed again."""
        found = self._driver.outcomes.find(run)
        while isinstance(found, RunOutcome) and found.has_lost_its_value:
            there: Future[None] = Future()
            self._driver.post(ValueWanted(run, there))
            self._driver.outcomes.until_the_end(there).result()
            found = self._driver.outcomes.find(run)
        return found

    def see(self, failed: Iterable[TaskRunKey]) -> None:
        """Tell the engine which failures the body has looked at."""
        for key in failed:
            self._driver.post(engine.FailureSeen(at=self._driver.clock(), run=key))

    def _value(self, found: execute.ValueRef | RunOutcome | None, *, raise_on_failure: bool) -> Any:
        if isinstance(found, execute.ValueRef):
            return self._fetched(found)
        assert found is not None, "a value is asked for once the run is final"
        if found.state.type is StateType.SKIPPED:
            return None
        if found.failed:
            if raise_on_failure:
                raise found.failure()
            return found.failure()
        assert found.value is not None
        return self._fetched(found.value)

    def _fetched(self, value: execute.ValueRef | execute.Known) -> Any:
        (source,) = sources(value)
        return self._driver.session.fetch(source)  # type: ignore[arg-type]  # not several values
