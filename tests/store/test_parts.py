"""A batch that has travelled leaves the same rows as one that was written where it was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from raflow import errors, model
from raflow.store import Store
from raflow.store._rows import _service_tables, _tables
from tests.postgres import new_database
from tests.store import records

TABLES: Final = (
    _tables.flows,
    _tables.flow_versions,
    _tables.task_paces,
    _tables.flow_runs,
    _tables.states,
    _tables.attempts,
    _tables.log_segments,
    _tables.graph_blocks,
    _tables.task_run_blocks,
    _tables.task_runs,
    _service_tables.run_tags,
)


@pytest.fixture
def another_url(database_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of another database of the same kind."""
    if database_url.startswith("sqlite"):
        yield database_url.replace("raflow.db", "another.db")
        return
    fixtures = (request.getfixturevalue(f"postgres_{name}") for name in ("server", "tables"))
    with new_database(*fixtures) as url:
        yield url


@pytest.fixture
def another(another_url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(another_url, log_dir=tmp_path / "others", wait_seconds=60.0) as opened:
        yield opened


def rows(store: Store) -> Mapping[str, list[tuple[object, ...]]]:
    def read(connection: sa.Connection) -> dict[str, list[tuple[object, ...]]]:
        return {
            table.name: sorted(
                (tuple(row) for row in connection.execute(sa.select(table))), key=repr
            )
            for table in TABLES
        }

    return store._database.read(read)


def emptied(store: Store) -> None:
    def write(connection: sa.Connection) -> None:
        for table in reversed(_tables.metadata.sorted_tables):
            connection.execute(sa.delete(table))

    store._database.write(write)


histories = st.lists(
    st.lists(
        st.one_of(
            records.flow_versions,
            records.flow_runs.map(
                lambda run: dataclasses.replace(run, id=records.RUN, incarnation=1)
            ),
            records.state_changes,
            records.attempts,
            records.task_runs,
            st.integers(0, 3).map(records.node),
            st.builds(
                records.block,
                st.integers(0, 3),
                st.builds(
                    model.Chunk, st.integers(0, 3), st.just(0), st.integers(1, 4), st.just(1)
                ),
            ),
            st.builds(
                model.GraphRecord,
                flow_run_id=st.just(records.RUN),
                nodes=st.just(()),
                edges=st.just(()),
                dropped=st.lists(st.integers(0, 3), max_size=2).map(tuple),
            ),
        ),
        max_size=5,
    ),
    max_size=3,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=15,
    deadline=None,
    phases=[Phase.generate],
)
@given(history=histories)
def test_the_record_is_the_same(
    store: Store, another: Store, history: list[list[model.Record]]
) -> None:
    for one in (store, another):
        emptied(one)
    for seq, parts in enumerate(history):
        batch = records.batch(records.flow_run(), *parts, seq=seq)
        travelled = model.decode_batch(model.encode_batch(model.parts_of(batch)))
        assert store.apply(batch)
        assert another.apply(travelled)
        assert not another.apply(travelled)
    assert rows(store) == rows(another)


def test_log_lines_that_travelled_are_read_where_they_were_kept(store: Store) -> None:
    lines = [model.LogLine(1.0, 20, "stdout", "hello")]
    blob = model.encode_log(lines)
    segment = model.LogSegment(
        flow_run_id=records.RUN,
        number=0,
        key=None,
        attempt=0,
        file="../../etc/passwd",
        offset=0,
        length=len(blob),
        lines=1,
        first_at=1.0,
        last_at=1.0,
        level=20,
    )
    batch = model.parts_of(records.batch(records.flow_run(), segment))
    travelled = model.decode_batch(model.encode_batch(dataclasses.replace(batch, logs=(blob,))))
    assert store.apply(travelled)
    (found,) = store.log_segments(records.RUN)
    assert store.read_log(found) == lines


def test_a_later_process_fences_what_travelled(store: Store) -> None:
    run = dataclasses.replace(records.flow_run(), incarnation=2)
    assert store.apply(records.batch(run, incarnation=2))
    late = model.parts_of(records.batch(records.task_run(), seq=1))
    with pytest.raises(errors.FencedError):
        store.apply(model.decode_batch(model.encode_batch(late)))
