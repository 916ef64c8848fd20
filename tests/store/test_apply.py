"""A batch is applied whole or not at all, and at most once; the newest record of a key counts."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from raflow import errors, model
from raflow.model import StateName, TaskRunKey
from raflow.store import Store
from tests.store import records


def test_a_batch_is_applied_once(store: Store) -> None:
    first = records.batch(records.flow_version(), records.flow_run(), records.task_run())
    again = records.batch(records.task_run(state_name=StateName.FAILED))
    assert store.apply(first) is True
    assert store.apply(first) is False
    assert store.apply(again) is False
    (run,) = store.task_runs(records.RUN)
    assert run.state.name is StateName.COMPLETED


def test_of_two_that_apply_the_same_batch_one_does(database_url: str, tmp_path: Path) -> None:
    ready = threading.Barrier(4)
    batches = [
        records.batch(records.flow_run(), *(records.task_run(0, i) for i in range(200)), seq=seq)
        for seq in range(10)
    ]

    def apply_all() -> list[bool]:
        with Store.open(database_url, log_dir=tmp_path) as store:
            ready.wait()
            return [store.apply(batch) for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(apply_all) for _ in range(4)]
        applied = [future.result() for future in futures]
    assert [sum(one) for one in zip(*applied, strict=True)] == [1] * 10


def test_a_later_batch_replaces_what_an_earlier_one_wrote(store: Store) -> None:
    key = TaskRunKey(0)
    node = records.node(0, kind=model.NodeKind.MAP)
    longer = node._replace(nodes=(node.nodes[0]._replace(length=3),))
    failed = dataclasses.replace(
        records.task_run(state_name=StateName.AWAITING_RETRY),
        error=model.ErrorInfo(type="builtins.ValueError", message="no", pickled=b"1"),
    )
    store.apply(records.batch(records.flow_run(), node, failed))
    done = records.flow_run(state_name=StateName.COMPLETED)
    store.apply(records.batch(done, longer, records.task_run(), seq=1))
    assert store.find_flow_run(records.RUN) == done
    assert store.graph(records.RUN).nodes == longer.nodes
    assert store.task_runs(records.RUN)[0] == records.task_run()
    assert store.result(records.RUN, key) is None


def test_of_several_records_in_a_batch_the_last_one_counts(store: Store) -> None:
    names = [StateName.PENDING, StateName.SUBMITTED, StateName.COMPLETED]
    store.apply(
        records.batch(
            *(records.flow_run(state_name=name) for name in names),
            *(records.task_run(state_name=name) for name in names),
            records.state_change(0, None, StateName.PENDING),
            records.state_change(0, None, StateName.RUNNING),
        )
    )
    assert store.find_flow_run(records.RUN).state.name is StateName.COMPLETED
    assert [run.state.name for run in store.task_runs(records.RUN)] == [StateName.COMPLETED]
    assert [c.state.name for c in store.states(records.RUN)] == [StateName.RUNNING]


def test_a_batch_that_comes_late_replaces_nothing(store: Store) -> None:
    store.apply(records.batch(records.flow_run(), records.task_run(), records.node(0), seq=2))
    late = records.flow_run(state_name=StateName.PENDING)
    failed = records.task_run(state_name=StateName.FAILED)
    assert store.apply(records.batch(late, failed, seq=1)) is True
    assert store.find_flow_run(records.RUN) == records.flow_run()
    assert store.task_runs(records.RUN) == [records.task_run()]


def test_runs_share_the_version_of_their_flow(store: Store) -> None:
    for number in range(3):
        run = records.flow_run(f"run-{number}")
        store.apply(records.batch(records.flow_version(), run, flow_run_id=run.id))
    (summary,) = store.flows()
    assert summary.versions == 1
    assert summary.counts == {model.StateType.RUNNING: 3}


def test_a_batch_of_nothing_is_applied_once_too(store: Store) -> None:
    assert store.apply(records.batch()) is True
    assert store.apply(records.batch()) is False


def test_records_before_their_flow_run_are_refused_whole(store: Store) -> None:
    with pytest.raises(errors.StoreError, match="came before the flow run itself"):
        store.apply(records.batch(records.flow_version(), records.task_run()))
    assert store.flows() == []
    assert store.apply(records.batch(records.flow_run(), records.task_run())) is True


@pytest.mark.parametrize(
    "foreign", [records.task_run(flow_run_id="other"), records.flow_run("other")]
)
def test_a_record_of_another_flow_run_is_refused(store: Store, foreign: model.Record) -> None:
    with pytest.raises(errors.StoreError, match="of flow run 'other'"):
        store.apply(records.batch(records.flow_run(), foreign))


def test_a_batch_that_fails_half_way_leaves_nothing(store: Store) -> None:
    broken = dataclasses.replace(records.task_run(1), task=None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        store.apply(records.batch(records.flow_run(), records.task_run(0), broken))
    assert store.flow_runs() == []
    assert store.apply(records.batch(records.flow_run())) is True


@pytest.mark.postgres
def test_connections_that_the_server_ended_are_made_anew(postgres_url: str, tmp_path: Path) -> None:
    with Store.open(postgres_url, log_dir=tmp_path) as store:
        store.apply(records.batch(records.flow_run()))
        with psycopg.connect(postgres_url) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert store.apply(records.batch(records.task_run(), seq=1)) is True
        assert store.task_runs(records.RUN) == [records.task_run()]


def test_a_run_of_its_own_costs_no_more_than_it_did(store: Store) -> None:
    """Only its end is counted: one statement more in its life, and none for what it is not."""
    statements: list[str] = []
    engine = store._database.writer

    def note(*told: object) -> None:
        statements.append(str(told[2]))

    sa.event.listen(engine, "before_cursor_execute", note)
    states = (StateName.PENDING, StateName.RUNNING, StateName.RUNNING, StateName.COMPLETED)
    for seq, name in enumerate(states):
        change = records.state_change(seq, None, name)
        run = records.flow_run(state_name=name, pid=7)
        assert store.apply(records.batch(run, change, seq=seq))
    assert sum("run_tallies" in text for text in statements) == 1
    of_deployments = ("dispatches", "run_tags", "pools", "workers", "idempotency")
    assert [text for text in statements if any(name in text for name in of_deployments)] == []
