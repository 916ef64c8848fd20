"""Pages of flow runs are what a filter of all of them gives, and counts are what is counted."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raflow import errors, model
from raflow.model import FlowRun, RunFilter, RunOrder, RunOrigin, Sort, StateName, Trigger
from raflow.store import Store
from raflow.store._record import _tallies
from raflow.store._rows import _service_tables
from tests.store import orders, records

_HOUR = 3600.0
_STATES = (
    *(StateName.RUNNING, StateName.COMPLETED, StateName.FAILED),
    *(StateName.SUSPENDED, StateName.RECOVERED),
)


def fill(store: Store) -> list[FlowRun]:
    """Record runs that differ in all that can be asked for; several were made at once."""
    made = []
    for n in range(60):
        run = dataclasses.replace(
            records.flow_run(
                f"run-{n:02}",
                flow=("etl", "report")[n % 2],
                name=("Calm-%otter-{}", "calm-otter-{}", "éa-{}")[n % 3].format(n),
                state_name=_STATES[n % 5],
                created_at=_HOUR * (n // 7),
                parent_id="run-00" if n % 11 == 5 else None,
            ),
            tags=[(), ("a",), ("a", "b"), ("b",)][n % 4],
            trigger=(Trigger.MANUAL, Trigger.PARENT)[n % 2],
        )
        store.apply(records.batch(run, flow_run_id=run.id))
        made.append(run)
    return made


def order_some(store: Store) -> None:
    for n in range(6):
        origin = RunOrigin(
            deployment=f"d{n % 2}",
            version=1,
            bundle="b",
            pool=f"p{n % 3}",
            schedule_id="s" if n % 2 else None,
            backfill_id="f" if n % 3 else None,
        )
        order = RunOrder(
            flow_run_id=f"ordered-{n}", flow="etl", fingerprint="f1", name=f"o{n}", origin=origin
        )
        store.work.order([order])


def pages(store: Store, which: RunFilter, sort: Sort, limit: int) -> list[str]:
    found: list[str] = []
    cursor = ""
    for _ in range(1000):
        page = store.runs.page(which, sort=sort, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        found.extend(item.id for item in page.items)
        cursor = page.next_cursor
        if not cursor:
            return found
        assert len(page.items) == limit
    raise AssertionError("there is no end of pages")


def keeps(which: RunFilter) -> Callable[[FlowRun], bool]:
    def keep(run: FlowRun) -> bool:
        origin = run.origin
        exact = (
            (which.flow, run.flow),
            (which.parent, run.parent_id),
            (which.deployment, origin and origin.deployment),
            (which.pool, origin and origin.pool),
            (which.schedule_id, origin and origin.schedule_id),
            (which.backfill_id, origin and origin.backfill_id),
        )
        return (
            all(wanted is None or wanted == found for wanted, found in exact)
            and (not which.states or run.state.name in which.states)
            and (not which.triggers or run.trigger in which.triggers)
            and which.tags <= set(run.tags)
            and run.name.startswith(which.name)
            and which.name_contains in run.name
            and (which.since is None or run.created_at >= which.since)
            and (which.until is None or run.created_at < which.until)
            and not (which.roots and run.parent_id)
        )

    return keep


FILTERS = (
    RunFilter(),
    RunFilter(flow="etl"),
    RunFilter(flow="nothing"),
    RunFilter(states=frozenset({StateName.FAILED})),
    RunFilter(states=frozenset({StateName.FAILED, StateName.RUNNING, StateName.SUSPENDED})),
    RunFilter(flow="report", states=frozenset({StateName.COMPLETED, StateName.RECOVERED})),
    RunFilter(tags=frozenset({"a"})),
    RunFilter(tags=frozenset({"a", "b"}), states=frozenset(_STATES[:2])),
    RunFilter(name="calm-"),
    RunFilter(name="Calm-%"),
    RunFilter(name_contains="%otter-1"),
    RunFilter(name_contains="éa", flow="etl"),
    RunFilter(since=_HOUR * 2, until=_HOUR * 5),
    RunFilter(since=0.5, until=_HOUR * 5 + 0.5),
    RunFilter(parent="run-00"),
    RunFilter(roots=True, triggers=frozenset({Trigger.PARENT})),
    RunFilter(triggers=frozenset({Trigger.PARENT, Trigger.API})),
    RunFilter(deployment="d1"),
    RunFilter(pool="p0", states=frozenset({StateName.SCHEDULED, StateName.LATE})),
    RunFilter(schedule_id="s", backfill_id="f"),
)


def test_pages_and_counts_are_those_of_a_filter_of_all(store: Store) -> None:
    fill(store)
    order_some(store)
    everything = store.flow_runs(limit=None)
    assert len(everything) == 66
    for which, sort, limit in itertools.product(FILTERS, Sort, (1, 7, 200)):
        newest = sort is Sort.NEWEST
        runs = sorted(everything, key=lambda run: (run.created_at, run.id), reverse=newest)
        expected = [run.id for run in filter(keeps(which), runs)]
        assert pages(store, which, sort, limit) == expected, which
    for which in FILTERS:
        total = len([run for run in everything if keeps(which)(run)])
        assert store.runs.count(which) == (total, True), which


def test_what_lists_show(store: Store) -> None:
    orders.ordered(store, orders.order("r1", tags=("x",), schedule_id="s", begins_at=5.0))
    [shown] = store.runs.page().items
    run = store.find_flow_run("r1")
    assert shown == model.RunSummary(
        id="r1",
        flow="etl",
        name="name-of-r1",
        state=run.state,
        created_at=run.created_at,
        begins_at=5.0,
        trigger=Trigger.API,
        tags=("x",),
        deployment="nightly",
        version=2,
        pool="default",
        schedule_id="s",
    )


def test_runs_that_are_made_meanwhile_do_not_move_pages(store: Store) -> None:
    made = fill(store)
    first = store.runs.page(limit=20)
    for at in (0.0, 1e6):
        run = records.flow_run(f"new-{at}", created_at=at)
        store.apply(records.batch(run, flow_run_id=run.id))
    second = store.runs.page(cursor=first.next_cursor, limit=60)
    runs = sorted(made, key=lambda run: (run.created_at, run.id), reverse=True)
    expected = [run.id for run in runs]
    seen = [item.id for item in (*first.items, *second.items)]
    assert [run for run in seen if run in expected] == expected
    # What is older than the first page is seen, what is newer is not.
    assert ("new-0.0" in seen, "new-1000000.0" in seen) == (True, False)


def test_a_cursor_that_was_made_up_asks_the_database_nothing_strange(store: Store) -> None:
    orders.ordered(store, "r1", "r2")
    mark, at, _ = orjson.loads(base64.urlsafe_b64decode(_padded(store.runs.page(limit=1))))
    made_up = base64.urlsafe_b64encode(orjson.dumps([mark, at, "\0"])).decode()
    assert store.runs.page(cursor=made_up).items == ()


def _padded(page: model.Page[model.RunSummary]) -> str:
    return page.next_cursor + "=" * (-len(page.next_cursor) % 4)


def test_a_cursor_holds_for_its_list_only(store: Store) -> None:
    fill(store)
    cursor = store.runs.page(RunFilter(flow="etl"), limit=2).next_cursor
    store.runs.page(RunFilter(flow="etl"), cursor=cursor, limit=5)
    for which, sort in (
        (RunFilter(flow="report"), Sort.NEWEST),
        (RunFilter(flow="etl"), Sort.OLDEST),
        (RunFilter(flow="etl", roots=True), Sort.NEWEST),
    ):
        with pytest.raises(errors.CursorError, match="not one of this list"):
            store.runs.page(which, sort=sort, cursor=cursor)
    for broken in ("x", "é", cursor[:-3], "bnVsbA", "W10"):
        with pytest.raises(errors.CursorError):
            store.runs.page(RunFilter(flow="etl"), cursor=broken)
    with pytest.raises(errors.ConfigError, match="1 to 200"):
        store.runs.page(limit=201)


def test_what_is_not_counted_beforehand_is_counted_up_to_a_number(store: Store) -> None:
    fill(store)
    tagged = RunFilter(tags=frozenset({"a"}))
    assert store.runs.count(tagged, most=29) == (29, False)
    assert store.runs.count(tagged, most=30) == (30, True)
    assert store.runs.counts(tagged) is None
    assert store.runs.counts(RunFilter(since=1.0)) is None
    assert store.runs.by_hour(RunFilter(flow="etl", since=_HOUR * 7)) == {
        hour: dict(Counter(run.state.name for run in _of_hour(store, hour))) for hour in (7, 8)
    }


def _of_hour(store: Store, hour: int) -> list[FlowRun]:
    runs = store.flow_runs(flow="etl", limit=None)
    return [run for run in runs if run.created_at // _HOUR == hour]


# --- Kept counts ----------------------------------------------------------------------------------

runs_of = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(["etl", "report"]),
        st.sampled_from([StateName.PENDING, *_STATES, StateName.CANCELLED]),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=15,
)


def play(store: Store, history: Sequence[tuple[int, str, StateName, int, bool]]) -> None:
    """Record states of runs, also some twice and some that come too late."""
    seqs: Counter[str] = Counter()
    for n, flow, state, hour, again in history:
        # Which flow it is of, and when it was made, does not change as a rule; it counts anyway.
        run_id = f"run-{n}"
        run = records.flow_run(
            run_id, flow=flow, state_name=state, created_at=hour * _HOUR + 1800.5
        )
        batch = records.batch(run, flow_run_id=run_id, seq=seqs[run_id] + 1)
        seqs[run_id] += 1
        assert store.apply(batch)
        if again:
            assert not store.apply(batch)
    for run_id in seqs:
        old = records.flow_run(run_id, state_name=StateName.CRASHED, created_at=5.0)
        assert store.apply(records.batch(old, flow_run_id=run_id, seq=0))


def check_counts(store: Store) -> None:
    runs = store.flow_runs(limit=None)
    for flow in (None, "etl"):
        expected = Counter(run.state.name for run in runs if flow in {None, run.flow})
        assert store.runs.counts(RunFilter(flow=flow)) == expected
    assert store.runs.recount() == 0
    total = Counter(run.state.name for run in runs)
    assert store.runs.counts() == total


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=runs_of)
def test_kept_counts_are_what_a_recount_finds(
    history: list[tuple[int, str, StateName, int, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/raflow.db"
        with Store.open(url, log_dir=Path(directory)) as store:
            play(store, history)
            check_counts(store)


def test_kept_counts_follow_what_the_store_ends_by_itself(store: Store) -> None:
    history = [(n, "etl", _STATES[n % 5], n, False) for n in range(20)]
    play(store, [*history, *((n, "etl", _STATES[n % 3], n, True) for n in range(20))])
    orders.begun(store, "r1")
    orders.ordered(store, "r2", "r3")
    assert store.work.cancel_waiting("r2", message="")
    [taken] = orders.claim(store)
    assert store.work.give_back("r3", taken.incarnation, message="", permanent=True)
    check_counts(store)
    assert store.runs.counts(RunFilter(deployment="nightly")) == {
        StateName.RUNNING: 1,
        StateName.CANCELLED: 1,
        StateName.FAILED: 1,
    }


def test_days_stand_for_their_hours_and_no_hour_counts_twice() -> None:
    table, hours = _service_tables.run_tallies, range(-60, 100)
    engine = sa.create_engine("sqlite://")
    table.create(engine)
    with engine.begin() as connection:
        for hour in hours:
            counted = _tallies.Counted(hour * _HOUR, "etl", "", StateName.COMPLETED)
            _tallies.move(connection, 0, None, counted)
        ends = (None, *range(-60, 101, 7), -48, -24, 0, 24, 48, 72, 96)
        for since, until in itertools.product(ends, repeat=2):
            within = _tallies.within(table.c.hour, since, until)
            n = sa.select(sa.func.coalesce(sa.func.sum(table.c.n), 0)).where(within)
            first = -60 if since is None else since
            behind = 100 if until is None else until
            assert connection.execute(n).scalar_one() == max(0, behind - first), (since, until)
        rows = sa.select(sa.func.count()).where(_tallies.within(table.c.hour, -60, 100))
        assert connection.execute(rows).scalar_one() == 12 + 6 + 4


def test_a_recount_mends_what_is_wrong(store: Store) -> None:
    fill(store)
    before = store.runs.counts()
    table = _service_tables.run_tallies
    store._database.write(lambda c: c.execute(sa.update(table).values(n=table.c.n + 1)))
    assert store.runs.counts() != before
    assert store.runs.recount(since=_HOUR * 4) > 0
    assert store.runs.recount() > 0
    assert store.runs.counts() == before
    assert store.runs.recount() == 0
