"""What is asked for all the time does not read the whole history."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from raflow.model import RunFilter, StateName, Trigger
from raflow.store import Store
from tests.store import orders


@pytest.fixture
def embedded(sqlite_url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(sqlite_url, log_dir=tmp_path / "logs") as store:
        orders.ordered(store, "r1", "r2")
        yield store


PAGES: dict[str, Callable[[Store], object]] = {
    "all": lambda store: store.runs.page(),
    "roots": lambda store: store.runs.page(RunFilter(roots=True)),
    "of a flow": lambda store: store.runs.page(RunFilter(flow="etl", roots=True)),
    "that failed": lambda store: store.runs.page(RunFilter(states=frozenset({StateName.FAILED}))),
    "of a deployment": lambda store: store.runs.page(RunFilter(deployment="nightly")),
    "of a pool": lambda store: store.runs.page(RunFilter(pool="default")),
    "of a schedule": lambda store: store.runs.page(RunFilter(schedule_id="s1")),
    "of a backfill": lambda store: store.runs.page(RunFilter(backfill_id="b1")),
    "by a trigger": lambda store: store.runs.page(RunFilter(triggers=frozenset({Trigger.API}))),
    "with a tag": lambda store: store.runs.page(RunFilter(tags=frozenset({"a"}))),
}
CALLS: dict[str, Callable[[Store], object]] = {
    **PAGES,
    "claims": orders.claim,
    "abandoned": lambda store: store.leases.abandoned(),
    "dead": lambda store: store.work.dead(),
    "late": lambda store: store.work.mark_late(seconds=0),
    "held": lambda store: store.work.release_held(),
}


def heard(store: Store, call: Callable[[Store], object]) -> list[tuple[str, Any]]:
    """Return the statements of a call that look for something, with their parameters."""
    statements: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if sql.startswith(("SELECT", "WITH", "UPDATE", "DELETE")) and parameters is not None:
            statements.append((sql, parameters))

    engines = (store._database.reader, store._database.writer)
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", keep)
    call(store)
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", keep)
    return statements


@pytest.mark.parametrize("name", CALLS)
def test_it_is_found_by_indexes(embedded: Store, name: str) -> None:
    statements = heard(embedded, CALLS[name])
    assert statements
    with closing(sqlite3.connect(str(embedded._database.writer.url.database))) as connection:
        for sql, parameters in statements:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            steps = [step[3] for step in plan]
            if name in PAGES:
                # In the order of an index, until the page is full.
                assert not any("B-TREE FOR ORDER BY" in step for step in steps), (sql, steps)
                steps = [step for step in steps if "USING INDEX" not in step]
            assert not any(step.startswith("SCAN flow_runs") for step in steps), (sql, steps)


def test_a_claim_of_many_asks_no_more_often_than_one_of_few(embedded: Store) -> None:
    orders.ordered(embedded, *(f"r{n}" for n in range(3, 12)))
    few = heard(embedded, lambda store: orders.claim(store, "w1", most=2))
    many = heard(embedded, lambda store: orders.claim(store, "w2", most=8))
    assert len(many) == len(few)
