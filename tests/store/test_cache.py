"""Values that were computed are found under their keys, and one at a time computes a key."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings

from raflow.model import Awaited, CacheEntry, Granted, ResultInfo, TaskRunKey
from raflow.store import Store
from tests.store import records, times

RESULT = ResultInfo(type="int", size=28, preview="7", serializer="json", inline=b"7", digest="d")
_numbers = itertools.count()


def entry(
    key: str, *, task: str = "extract", age: float = 0.0, lives: float | None = None
) -> CacheEntry:
    """Return an entry that was made so many seconds ago and lives so many seconds from now."""
    now = time.time()
    return CacheEntry(
        key=key,
        result=RESULT,
        flow_run_id=records.RUN,
        run=TaskRunKey(3, 7),
        task=task,
        created_at=now - age,
        expires_at=None if lives is None else now + lives,
    )


def test_what_was_kept_is_found(store: Store) -> None:
    kept = [entry("a"), entry("b", lives=60)]
    store.cache.keep(kept)
    store.cache.keep([])
    assert store.cache.find(["a", "b", "c"]) == {"a": kept[0], "b": kept[1]}
    assert store.cache.find(["c"]) == {}
    assert store.cache.find([]) == {}


def test_what_has_expired_is_not_found(store: Store) -> None:
    lives = entry("lives", lives=60)
    store.cache.keep([entry("over", lives=-1), lives])
    assert store.cache.find(["over", "lives"]) == {"lives": lives}
    times.let_pass(store, 61)
    assert store.cache.find(["over", "lives"]) == {}
    assert len(store.cache.entries()) == 2


def test_a_newer_value_replaces_the_older_one(store: Store) -> None:
    store.cache.keep([entry("a", lives=-1)])
    newer = dataclasses.replace(entry("a", lives=60), flow_run_id="other", run=TaskRunKey(1))
    store.cache.keep([newer])
    assert store.cache.find(["a"]) == {"a": newer}


def test_thousands_of_keys_at_once(store: Store) -> None:
    kept = [entry(f"key-{n}") for n in range(2_500)]
    store.cache.keep(kept)
    keys = [f"key-{n}" for n in range(2_400, 5_000)]
    assert store.cache.find(iter(keys)) == {e.key: e for e in kept[2_400:]}


def test_what_is_kept_newest_first(store: Store) -> None:
    old, other, new = entry("a", age=20), entry("b", task="load", age=10), entry("c", lives=-1)
    store.cache.keep([old, other, new])
    assert store.cache.entries() == [new, other, old]
    assert store.cache.entries(limit=2) == [new, other]
    assert store.cache.entries(limit=None, task="extract") == [new, old]
    assert store.cache.entries(task="nothing") == []


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({"key": "a"}, "bcd"),
        ({"key": "nothing"}, "abcd"),
        ({"task": "load"}, "acd"),
        ({"older_than": 15.0}, "bd"),
        ({"older_than": 15.0, "task": "load"}, "abcd"),
        ({"older_than": 15.0, "key": "c"}, "abd"),
        ({}, ""),
    ],
)
def test_what_is_cleared(store: Store, conditions: dict[str, object], left: str) -> None:
    store.cache.keep(
        [
            entry("a", age=20),
            entry("b", task="load", age=10),
            entry("c", age=30),
            entry("d", age=10),
        ]
    )
    cleared = store.cache.clear(**conditions)  # type: ignore[arg-type]  # drawn from a table
    assert cleared == 4 - len(left)
    assert set(store.cache.find("abcd")) == set(left)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(result=records.maybe_results, run=records.keys, task=records.texts, at=records.times)
def test_entries_come_back_as_they_were(
    store: Store, result: ResultInfo | None, run: TaskRunKey, task: str, at: float
) -> None:
    key = f"key-{next(_numbers)}"
    kept = CacheEntry(
        key=key,
        result=result or RESULT,
        flow_run_id=records.RUN,
        run=run,
        task=task,
        created_at=at,
        expires_at=at + 1e10,
    )
    store.cache.keep([kept])
    assert store.cache.find([key]) == {key: records.written(kept)}


def test_those_who_keep_the_same_at_once_do_not_wait_for_each_other(store: Store) -> None:
    keys = [f"key-{n}" for n in range(50)]

    def keep(number: int) -> None:
        order = keys if number % 2 else keys[::-1]
        for _ in range(5):
            store.cache.keep([entry(key) for key in order])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(4)))
    assert set(store.cache.find(keys)) == set(keys)


# --- One computes a key ---------------------------------------------------------------------------


def test_one_at_a_time_computes_a_key(store: Store) -> None:
    claim = store.cache.claim
    assert claim("key", "one", seconds=60, flow_run_id="r", label="load-0 of run r") == Granted()
    refused = claim("key", "two", seconds=60)
    assert isinstance(refused, Awaited)
    assert not refused
    assert refused.reason.startswith("load-0 of run r computes the same value since ")
    assert claim("other", "two", seconds=60)
    assert claim("key", "one", seconds=60)
    store.limits.release("one")
    store.limits.release("one")
    assert claim("key", "two", seconds=60)
    assert not claim("key", "one", seconds=60)


def test_a_claim_ends_with_its_lease(store: Store) -> None:
    assert store.cache.claim("key", "one", seconds=10, flow_run_id="r")
    times.let_pass(store, 8)
    assert store.limits.renew("r", seconds=10) == {"one"}
    times.let_pass(store, 8)
    assert not store.cache.claim("key", "two", seconds=10)
    times.let_pass(store, 3)
    assert store.limits.renew("r", seconds=10) == frozenset()
    assert store.cache.claim("key", "two", seconds=10)
    assert not store.cache.claim("key", "one", seconds=10)


def test_of_many_who_claim_a_key_one_gets_it(store: Store) -> None:
    ready = threading.Barrier(12)

    def claim(number: int) -> bool:
        ready.wait()
        return bool(store.cache.claim("key", f"holder-{number}", seconds=60))

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(claim, range(12))) == 1
