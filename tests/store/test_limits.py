"""Slots are never given twice, in the order of arrival, and come back from whoever is killed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raflow import errors
from raflow.model import Awaited, Granted, Limit, LimitState, SlotRequest
from raflow.store import Store
from tests.store import times

ROOT = Path(__file__).parents[2]


def wish(
    holder: str,
    amounts: Mapping[str, int] | None = None,
    *,
    priority: int = 0,
    run: str = "etl-41fc",
) -> SlotRequest:
    return SlotRequest(
        holder=f"{run}/{holder}",
        flow_run_id=run,
        label=f"{holder} of run {run}",
        amounts=amounts or {"warehouse": 1},
        priority=priority,
    )


def ask(store: Store, holder: str, **options: object) -> Granted | Awaited:
    return store.limits.acquire(wish(holder, **options), seconds=10)  # type: ignore[arg-type]


def reason(answer: Granted | Awaited) -> str:
    """Return why somebody waits, with every time of day as `T`."""
    assert isinstance(answer, Awaited)
    return re.sub(r"\b\d\d:\d\d:\d\d\b", "T", answer.reason)


def holders(state: LimitState) -> list[str]:
    return [lease.holder.partition("/")[2] for lease in state.holders]


def waiters(state: LimitState) -> list[str]:
    return [lease.holder.partition("/")[2] for lease in state.waiters]


@pytest.fixture
def limited(store: Store) -> Store:
    """A store with a limit of two slots, and one that is a rate of two a minute."""
    store.limits.set(Limit(name="warehouse", slots=2))
    store.limits.set(Limit(name="api", slots=2, per_seconds=60))
    return store


# --- Limits ---------------------------------------------------------------------------------------


def test_limits_are_set_changed_and_removed(store: Store) -> None:
    assert store.limits.all() == []
    store.limits.set(Limit(name="b", slots=1))
    store.limits.set(Limit(name="a", slots=2, per_seconds=0.5))
    store.limits.set(Limit(name="b", slots=3))
    assert [state.limit for state in store.limits.all()] == [
        Limit(name="a", slots=2, per_seconds=0.5),
        Limit(name="b", slots=3),
    ]
    store.limits.remove("b")
    assert len(store.limits.all()) == 1
    with pytest.raises(errors.UnknownLimitError, match=r"No limit 'b'\."):
        store.limits.remove("b")


@pytest.mark.parametrize(
    "limit",
    [
        Limit(name="", slots=1),
        Limit(name="a", slots=-1),
        Limit(name="a", slots=1, per_seconds=-1.0),
        Limit(name="a", slots=1, per_seconds=float("nan")),
        Limit(name="a", slots=1, per_seconds=float("inf")),
    ],
)
def test_limits_that_cannot_be(store: Store, limit: Limit) -> None:
    with pytest.raises(errors.ConfigError, match="cannot be"):
        store.limits.set(limit)
    assert store.limits.all() == []


def test_a_limit_that_nobody_has_set(limited: Store) -> None:
    with pytest.raises(errors.UnknownLimitError) as caught:
        ask(limited, "load-0", amounts={"warehouse": 1, "warehous": 1})
    assert caught.value.message == (
        "No limit 'warehous'. Did you mean 'warehouse'? `raflow limits set warehous N` sets it to "
        "N slots."
    )
    assert pickle.loads(pickle.dumps(caught.value)).closest == ["warehouse"]
    assert holders(limited.limits.all()[1]) == []


def test_more_than_there_will_ever_be(limited: Store) -> None:
    with pytest.raises(errors.InfeasibleResourcesError, match="raflow limits set warehouse 3"):
        ask(limited, "load-0", amounts={"warehouse": 3})


def test_nothing_is_always_granted(limited: Store) -> None:
    assert limited.limits.acquire(wish("load-0", {"warehouse": 0}), seconds=10) == Granted()
    empty = dataclasses.replace(wish("load-0"), amounts={})
    assert limited.limits.acquire(empty, seconds=10) == Granted()


# --- Slots ----------------------------------------------------------------------------------------


def test_who_comes_too_late_waits_for_a_slot(limited: Store) -> None:
    assert ask(limited, "load-0")
    assert ask(limited, "load-1")
    answer = ask(limited, "load-2")
    assert not answer
    assert reason(answer) == (
        "limit 'warehouse' 2/2, held by load-0 of run etl-41fc since T, load-1 of run etl-41fc "
        "since T"
    )
    assert reason(ask(limited, "load-3")) == (
        "limit 'warehouse' 2/2, held by load-0 of run etl-41fc since T, load-1 of run etl-41fc "
        "since T; load-2 of run etl-41fc comes first, in line since T"
    )
    assert reason(ask(limited, "load-4")).endswith(
        "; 2 come first: load-2 of run etl-41fc, in line since T, and 1 more"
    )
    _, state = limited.limits.all()
    assert holders(state) == ["load-0", "load-1"]
    assert waiters(state) == ["load-2", "load-3", "load-4"]
    limited.limits.release("etl-41fc/load-0")
    assert not ask(limited, "load-4")
    assert not ask(limited, "load-3")
    assert ask(limited, "load-2")


def test_a_reason_does_not_name_a_hundred_holders(store: Store) -> None:
    store.limits.set(Limit(name="many", slots=50))
    for number in range(50):
        assert ask(store, f"f-{number}", amounts={"many": 1})
    assert reason(ask(store, "last", amounts={"many": 2})) == (
        "limit 'many' 50/50, 2 needed, held by f-0 of run etl-41fc since T, f-1 of run etl-41fc "
        "since T, f-2 of run etl-41fc since T and 47 more"
    )


def test_a_holder_from_another_day_is_named_with_the_date(limited: Store) -> None:
    ask(limited, "load-0", amounts={"warehouse": 2})
    times.let_pass(limited, 86_400)
    limited.limits.renew("etl-41fc", seconds=10)
    with limited._database.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE slot_leases SET expires_at = expires_at + 200000")
    answer = ask(limited, "load-1")
    assert isinstance(answer, Awaited)
    assert re.search(r"load-0 of run etl-41fc since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", answer.reason)


def test_asking_again_is_asking_once(limited: Store) -> None:
    for _ in range(3):
        assert ask(limited, "load-0")
    assert ask(limited, "load-1")
    for _ in range(3):
        assert not ask(limited, "load-2")
    _, state = limited.limits.all()
    assert (len(state.holders), len(state.waiters)) == (2, 1)


def test_giving_back_twice_is_giving_back_once(limited: Store) -> None:
    for holder in ("load-0", "load-1", "load-2"):
        ask(limited, holder)
    for _ in range(2):
        limited.limits.release("etl-41fc/load-0")
        limited.limits.release("etl-41fc/nobody")
    assert ask(limited, "load-2")
    assert not ask(limited, "load-3")
    limited.limits.release("etl-41fc/load-3")
    assert waiters(limited.limits.all()[1]) == []


def test_higher_priority_goes_first_and_equals_in_order(limited: Store) -> None:
    ask(limited, "first", amounts={"warehouse": 2})
    priorities = {"a": 0, "b": 5, "c": 5, "d": -1, "e": 9}
    for name, priority in priorities.items():
        assert not ask(limited, name, priority=priority)
    assert waiters(limited.limits.all()[1]) == ["e", "b", "c", "a", "d"]
    # Somebody thinks better of it, and keeps the place among the new equals.
    priorities["a"] = 5
    assert not ask(limited, "a", priority=5)
    assert waiters(limited.limits.all()[1]) == ["e", "a", "b", "c", "d"]
    limited.limits.release("etl-41fc/first")
    order: list[str] = []
    while waiting := set(priorities) - set(order):
        served = [n for n in sorted(waiting) if ask(limited, n, priority=priorities[n])]
        order += served
        assert served
        for name in served:
            limited.limits.release(f"etl-41fc/{name}")
    assert order == ["e", "a", "b", "c", "d"]


def test_nobody_overtakes_who_wants_more(limited: Store) -> None:
    assert ask(limited, "small")
    assert not ask(limited, "large", amounts={"warehouse": 2})
    assert reason(ask(limited, "small-2")) == (
        "limit 'warehouse' 1/2, held by small of run etl-41fc since T; large of run etl-41fc comes "
        "first, in line since T"
    )
    limited.limits.release("etl-41fc/small")
    assert not ask(limited, "small-2")
    assert ask(limited, "large", amounts={"warehouse": 2})


def test_several_limits_are_taken_all_or_none(store: Store) -> None:
    for name in "ab":
        store.limits.set(Limit(name=name, slots=1))
    assert ask(store, "has-b", amounts={"b": 1})
    assert reason(ask(store, "both", amounts={"a": 1, "b": 1})) == (
        "limit 'b' 1/1, held by has-b of run etl-41fc since T"
    )
    a, _ = store.limits.all()
    assert (holders(a), waiters(a)) == ([], ["both"])
    assert reason(ask(store, "late", amounts={"a": 1})) == (
        "limit 'a' 0/1; both of run etl-41fc comes first, in line since T"
    )
    store.limits.release("etl-41fc/has-b")
    assert ask(store, "both", amounts={"b": 1, "a": 1})
    answer = reason(ask(store, "late", amounts={"a": 1, "b": 1}))
    assert answer == (
        "limit 'a' 1/1, held by both of run etl-41fc since T; limit 'b' 1/1, held by both of run "
        "etl-41fc since T"
    )


def test_a_limit_that_is_closed_and_opened_again(limited: Store) -> None:
    limited.limits.set(Limit(name="warehouse", slots=0))
    assert reason(ask(limited, "load-0")) == "limit 'warehouse' is closed: it has no slots"
    limited.limits.set(Limit(name="warehouse", slots=1))
    assert ask(limited, "load-0")


def test_a_limit_that_is_lowered_takes_nothing_away(limited: Store) -> None:
    assert ask(limited, "load-0")
    assert ask(limited, "load-1")
    limited.limits.set(Limit(name="warehouse", slots=1))
    assert reason(ask(limited, "load-2")).startswith("limit 'warehouse' 2/1, held by")
    limited.limits.release("etl-41fc/load-0")
    assert not ask(limited, "load-2")
    assert limited.limits.renew("etl-41fc", seconds=10) == {"etl-41fc/load-1"}
    limited.limits.release("etl-41fc/load-1")
    assert ask(limited, "load-2")


def test_removing_a_limit_frees_whoever_holds_it(limited: Store) -> None:
    assert ask(limited, "load-0")
    limited.limits.remove("warehouse")
    assert limited.limits.renew("etl-41fc", seconds=10) == frozenset()
    with pytest.raises(errors.UnknownLimitError):
        ask(limited, "load-0")


# --- Leases ---------------------------------------------------------------------------------------


def test_slots_that_nobody_renews_are_free(limited: Store) -> None:
    assert ask(limited, "load-0", amounts={"warehouse": 2})
    times.let_pass(limited, 8)
    assert not ask(limited, "load-1")
    assert limited.limits.renew("etl-41fc", seconds=10) == {"etl-41fc/load-0"}
    times.let_pass(limited, 8)
    assert not ask(limited, "load-1")
    times.let_pass(limited, 3)
    assert limited.limits.all()[1].holders == ()
    assert ask(limited, "load-1", amounts={"warehouse": 2})
    assert limited.limits.renew("etl-41fc", seconds=10) == {"etl-41fc/load-1"}
    assert not ask(limited, "load-0")


def test_who_stops_asking_falls_out_of_line(limited: Store) -> None:
    ask(limited, "load-0", amounts={"warehouse": 2})
    for name in ("gone", "stays"):
        assert not ask(limited, name)
    for _ in range(3):
        times.let_pass(limited, 6)
        limited.limits.renew("etl-41fc", seconds=10)
        assert not ask(limited, "stays")
    assert waiters(limited.limits.all()[1]) == ["stays"]
    limited.limits.release("etl-41fc/load-0")
    assert ask(limited, "stays")
    # Who comes back begins at the end of the line.
    assert ask(limited, "another")
    assert not ask(limited, "gone")


def test_all_that_a_run_holds(limited: Store) -> None:
    assert ask(limited, "load-0")
    assert ask(limited, "load-0", run="other")
    assert not ask(limited, "load-1")
    assert limited.limits.renew("other", seconds=10) == {"other/load-0"}
    limited.limits.release_all("etl-41fc")
    limited.limits.release_all("etl-41fc")
    _, state = limited.limits.all()
    assert [lease.flow_run_id for lease in (*state.holders, *state.waiters)] == ["other"]


def test_a_place_in_line_is_not_renewed_with_the_slots(limited: Store) -> None:
    ask(limited, "load-0", amounts={"warehouse": 2})
    ask(limited, "load-1")
    assert limited.limits.renew("etl-41fc", seconds=100) == {"etl-41fc/load-0"}
    times.let_pass(limited, 11)
    assert waiters(limited.limits.all()[1]) == []


# --- Rates ----------------------------------------------------------------------------------------


def test_a_slot_of_a_rate_comes_back_with_time(limited: Store) -> None:
    api = {"api": 1}
    assert ask(limited, "get-0", amounts=api)
    limited.limits.release("etl-41fc/get-0")
    times.let_pass(limited, 20)
    assert ask(limited, "get-1", amounts=api)
    limited.limits.release("etl-41fc/get-1")
    assert reason(ask(limited, "get-2", amounts=api)) == (
        "limit 'api' 2/2 per 60 s, the next comes back at T"
    )
    state, _ = limited.limits.all()
    assert [lease.label.partition(" ")[0] for lease in state.holders] == ["get-0", "get-1"]
    assert [lease.expires_at - lease.since for lease in state.holders] == [60.0, 60.0]
    times.let_pass(limited, 39)
    assert not ask(limited, "get-2", amounts=api)
    times.let_pass(limited, 2)
    assert ask(limited, "get-2", amounts=api)
    assert not ask(limited, "get-3", amounts=api)


def test_who_holds_a_slot_of_a_rate_for_long_does_not_block_it(limited: Store) -> None:
    api = {"api": 2}
    assert ask(limited, "get-0", amounts=api)
    for _ in range(8):
        times.let_pass(limited, 8)
        assert limited.limits.renew("etl-41fc", seconds=10) == {"etl-41fc/get-0"}
    assert ask(limited, "get-1", amounts=api)
    # The answer may have been lost: the slots are its own already.
    assert ask(limited, "get-0", amounts=api)
    limited.limits.release("etl-41fc/get-0")
    assert not ask(limited, "get-0", amounts=api)


def test_a_slot_of_a_rate_stays_taken_when_its_holder_is_gone(limited: Store) -> None:
    both = {"api": 2, "warehouse": 2}
    assert ask(limited, "get-0", amounts=both)
    times.let_pass(limited, 11)
    assert ask(limited, "load-0", amounts={"warehouse": 2})
    # Its lease is over, so it begins anew; what it took of the rate still counts.
    answer = reason(ask(limited, "get-0", amounts=both))
    assert answer.startswith("limit 'api' 2/2 per 60 s")
    times.let_pass(limited, 50)
    assert ask(limited, "get-1", amounts={"api": 2})


def test_a_rate_that_becomes_a_number_of_slots(limited: Store) -> None:
    assert ask(limited, "get-0", amounts={"api": 2})
    limited.limits.set(Limit(name="api", slots=2))
    assert not ask(limited, "get-1", amounts={"api": 1})
    limited.limits.release("etl-41fc/get-0")
    assert ask(limited, "get-1", amounts={"api": 1})


# --- Many at once ---------------------------------------------------------------------------------

_TAKE_TURNS = """
import json, random, sys, threading, time
from pathlib import Path
from raflow.model import SlotRequest
from raflow.store import Store

url, logs, process, turns = sys.argv[1:5]
held = []

def work(store, thread):
    rng = random.Random(f"{process}-{thread}")
    for turn in range(int(turns)):
        names = rng.sample(["a", "b"], rng.choice([1, 1, 2]))
        holder = f"{process}/{thread}/{turn}"
        amounts = {name: rng.choice([1, 1, 2]) for name in names}
        wish = SlotRequest(holder=holder, flow_run_id=process, label=holder, amounts=amounts)
        while not store.limits.acquire(wish, seconds=30):
            time.sleep(0.002)
        since = time.monotonic()
        time.sleep(rng.random() * 0.01)
        held.extend((name, since, time.monotonic(), n) for name, n in amounts.items())
        store.limits.release(holder)

with Store.open(url, log_dir=Path(logs), wait_seconds=60) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=work, args=(store, n)) for n in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(json.dumps(held))
"""


def _most_at_once(held: Sequence[tuple[str, float, float, int]], name: str) -> int:
    """Return how many slots were in use when most were: what a gauge that all share would show."""
    changes = [(at, n) for of, since, _, n in held for at in [since] if of == name]
    changes += [(until, -n) for of, _, until, n in held if of == name]
    return max(itertools.accumulate(n for _, n in sorted(changes)))


def test_processes_never_hold_more_than_there_is(database_url: str, tmp_path: Path) -> None:
    slots = {"a": 3, "b": 2}
    with Store.open(database_url, log_dir=tmp_path) as store:
        for name, number in slots.items():
            store.limits.set(Limit(name=name, slots=number))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKE_TURNS, database_url, str(tmp_path), f"run-{n}", "12"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for n in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n", timeout=250) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    held = [tuple(one) for out, _ in outputs for one in json.loads(out)]
    assert all(0 < _most_at_once(held, name) <= number for name, number in slots.items())
    with Store.open(database_url, log_dir=tmp_path) as store:
        assert [(state.holders, state.waiters) for state in store.limits.all()] == [((), ())] * 2


def test_the_gauge_would_tell() -> None:
    apart = [("a", 0.0, 1.0, 2), ("a", 1.5, 2.0, 2), ("b", 0.0, 9.0, 5)]
    assert _most_at_once(apart, "a") == 2
    assert _most_at_once([*apart, ("a", 0.5, 0.6, 1)], "a") == 3


def test_two_that_want_two_limits_in_opposite_order(store: Store) -> None:
    for name in "ab":
        store.limits.set(Limit(name=name, slots=1))

    def take_turns(number: int) -> int:
        names = "ab" if number % 2 else "ba"
        for turn in range(15):
            holder = f"{number}-{turn}"
            deadline = time.monotonic() + 120
            while not ask(store, holder, amounts=dict.fromkeys(names, 1)):
                assert time.monotonic() < deadline
                time.sleep(0.002)  # or the others hardly come to the one connection
            store.limits.renew("etl-41fc", seconds=10)
            store.limits.release(f"etl-41fc/{holder}")
        return number

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(take_turns, range(6))) == [*range(6)]


def test_in_line_nobody_is_forgotten(store: Store) -> None:
    store.limits.set(Limit(name="warehouse", slots=1))
    assert ask(store, "first")
    order: list[str] = []
    names = [f"load-{n}" for n in range(6)]
    for name in names:
        assert not ask(store, name)
    begin = threading.Barrier(len(names) + 1)

    def wait(name: str) -> None:
        begin.wait()
        while not ask(store, name):
            time.sleep(0.001)
        order.append(name)
        store.limits.release(f"etl-41fc/{name}")

    with ThreadPoolExecutor(len(names)) as pool:
        waiting = [pool.submit(wait, name) for name in reversed(names)]
        begin.wait()
        store.limits.release("etl-41fc/first")
        for one in waiting:
            one.result(200)
    assert order == names


_HOLD = """
import sys, time
from pathlib import Path
from raflow.model import SlotRequest
from raflow.store import Store

store = Store.open(sys.argv[1], log_dir=Path(sys.argv[2]))
wish = SlotRequest(holder="h", flow_run_id="r", label="h", amounts={"warehouse": 1})
assert store.limits.acquire(wish, seconds=60)
print("held", flush=True)
while True:
    time.sleep(0.25)
    assert store.limits.renew("r", seconds=60) == {"h"}
    print("held", flush=True)
"""


def test_a_holder_that_is_killed_frees_its_slot_within_its_lease(
    database_url: str, tmp_path: Path
) -> None:
    with Store.open(database_url, log_dir=tmp_path) as store:
        store.limits.set(Limit(name="warehouse", slots=1))
        command = [sys.executable, "-c", _HOLD, database_url, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            for _ in range(3):  # longer than one lease
                assert process.stdout.readline() == "held\n"
                times.let_pass(store, 25)
                for _ in range(2):  # of which one is of a renewal after that
                    assert process.stdout.readline() == "held\n"
            assert not ask(store, "other")
            process.kill()
        assert not ask(store, "other")
        times.let_pass(store, 61)
        assert ask(store, "other")
