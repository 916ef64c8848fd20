"""Values that were computed before, by any run, and those that this run computes for others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias

from raflow import engine, errors, results
from raflow._util import crash_point, short_id
from raflow.define import KeyParts, Task
from raflow.model import Awaited, CacheEntry, FlowRun, ResultInfo, TaskRunKey
from raflow.runtime.desk._slots import ASK_SECONDS, SLOT_SECONDS
from raflow.runtime.record import LazyStore, Recorder, Steward

_THREADS: Final = 4


class CacheFound(NamedTuple):
    """A value that was computed before."""

    event: engine.CacheAnswered
    entry: CacheEntry


Arguments: TypeAlias = Callable[[], Mapping[str, Any]]
"""Returns the arguments of a call, with values where futures were; may take a while."""


class Cache:
    """Looks values up and keeps them; it never blocks the thread that drives the run."""

    def __init__(
        self,
        run: FlowRun,
        parameters: Mapping[str, Any],
        *,
        store: LazyStore,
        steward: Steward,
        recorder: Recorder,
        post: Callable[[Any], None],
        clock: Callable[[], float],
        refreshes: bool = False,
    ) -> None:
        """Look for a run; answers come by `post`.

        With `refreshes` no value is looked for: all are computed, and kept for others.
        """
        self._refreshes = refreshes
        self._run = run
        self._parameters = parameters
        self._store = store
        self._steward = steward
        self._recorder = recorder
        self._post = post
        self._clock = clock
        self._keys: dict[TaskRunKey, str] = {}
        """Keys of the values that the run computes now."""
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Look no more, and let others compute what this run has not."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._keys:
            self._store.open().limits.release_all(self._run.id)

    @property
    def is_in_use(self) -> bool:
        """Whether values are computed that others wait for."""
        return bool(self._keys)

    def wants(self, run: TaskRunKey) -> bool:
        """Whether the value of a call is to be kept for others."""
        return run in self._keys

    def look_up(
        self, run: TaskRunKey, task: Task[..., Any], label: str, arguments: Arguments
    ) -> None:
        """Look for the value of a call; the engine is told, or the driver gets a `CacheFound`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="raflow-cache")
        self._pool.submit(self._make_key, run, task, label, arguments)

    def _make_key(
        self, run: TaskRunKey, task: Task[..., Any], label: str, arguments: Arguments
    ) -> None:
        try:
            parts = KeyParts(
                task=task.name,
                source=functools.partial(_source_of, task),
                arguments=task.with_defaults(arguments()),
                flow_parameters=self._parameters,
                flow_run_id=self._run.id,
                fingerprint=results.fingerprint,
            )
            key = task.cache_policy.key(parts)
        except Exception as error:
            # What the function of a user's policy raises, too: the call fails by it.
            told = str(error) if isinstance(error, errors.RaflowError) else _told(task, error)
            self._answer(run, engine.CacheVerdict.FAILED, told)
            return
        if key is None:
            self._answer(run, engine.CacheVerdict.MISS)
            return
        options = task.options.cache
        refresh = self._refreshes or (options is not None and options.refresh)
        self._steward.soon(functools.partial(self._find, run, key, label, refresh=refresh))

    def _find(self, run: TaskRunKey, key: str, label: str, *, refresh: bool) -> float | None:
        cache = self._store.open().cache
        entry = None if refresh else self._cached(key)
        if entry is not None:
            self._hit(run, entry)
            return None
        claim = cache.claim(
            key,
            self._holder(run),
            seconds=SLOT_SECONDS,
            flow_run_id=self._run.id,
            label=f"{label} of run {self._run.name}",
        )
        if isinstance(claim, Awaited):
            self._answer(run, engine.CacheVerdict.BUSY, claim.reason)
            return ASK_SECONDS
        crash_point("cache.after_claim")
        # Whoever had the claim before may have kept the value in between.
        entry = None if refresh else self._cached(key)
        if entry is not None:
            self._store.open().limits.release(self._holder(run))
            self._hit(run, entry)
            return None
        self._keys[run] = key
        self._answer(run, engine.CacheVerdict.MISS)
        return None

    def _cached(self, key: str) -> CacheEntry | None:
        """Return what is cached under a key, unless its value is gone, or cannot be looked at."""
        entry = self._store.open().cache.find([key]).get(key)
        there = entry is not None and results.result_exists(entry.result)
        # It is not forgotten: storage may be away for a moment. What is computed now replaces it.
        return entry if there else None

    def _hit(self, run: TaskRunKey, entry: CacheEntry) -> None:
        item = "" if entry.run.map_index < 0 else f"[{entry.run.map_index}]"
        event = engine.CacheAnswered(
            at=self._clock(),
            run=run,
            verdict=engine.CacheVerdict.HIT,
            reason=f"computed by {entry.task}{item} of run {short_id(entry.flow_run_id)}",
            length=entry.result.length,
            truth=entry.result.truth,
        )
        self._post(CacheFound(event, entry))

    def _answer(self, run: TaskRunKey, verdict: engine.CacheVerdict, reason: str = "") -> None:
        self._post(engine.CacheAnswered(at=self._clock(), run=run, verdict=verdict, reason=reason))

    def computed(self, run: TaskRunKey, task: Task[..., Any], info: ResultInfo | None) -> None:
        """Keep the value that a call has computed, if it has one, for others to find."""
        key = self._keys.pop(run, None)
        if key is None:
            return
        now = self._clock()
        expires = task.options.cache.expires_seconds if task.options.cache else None
        store, holder = self._store, self._holder(run)

        def keep() -> None:
            if info is not None and info.serializer:
                entry = CacheEntry(
                    key=key,
                    result=info,
                    flow_run_id=self._run.id,
                    run=run,
                    task=task.name,
                    created_at=now,
                    expires_at=None if expires is None else now + expires,
                )
                crash_point("cache.before_keep")
                store.open().cache.keep([entry])
                crash_point("cache.after_keep")
            store.open().limits.release(holder)

        # In its turn: what computed the value is on record before others find it.
        self._recorder.ask(keep)

    def _holder(self, run: TaskRunKey) -> str:
        return f"{self._run.id}/{self._run.incarnation}/{run.node}/{run.map_index}/cache"


def _source_of(task: Task[..., Any]) -> str:
    return task.code_fingerprint()


def _told(task: Task[..., Any], error: Exception) -> str:
    return (
        f"Task {task.name!r}: no cache key could be made: {type(error).__name__}: {error}. Mend "
        "its cache_key_fn, or leave it out."
    )
