"""Databases of every revision become ones that this code can use, whoever else tries at once."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from raflow import errors, model, store
from raflow.model import StateName, StateType, TaskRunKey
from raflow.store import Store
from raflow.store._database import _engine, _migrate
from raflow.store._rows import _service_tables, _tables
from tests.store import records

HISTORY = Path(__file__).parent / "history"
REVISIONS = sorted(path.stem for path in HISTORY.glob("*.sql"))

_scripts = Config()
_scripts.set_main_option(
    "script_location", str(Path(_migrate.__file__).with_name("_migrations")).replace("%", "%%")
)
SCRIPTS = ScriptDirectory.from_config(_scripts)


def execute(url: str, *statements: str) -> None:
    database = _engine.Database.connect(url, create=True)

    def run(connection: sa.Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    try:
        database.write(run)
    finally:
        database.close()


def migrate(url: str, *, to: str) -> None:
    database = _engine.Database.connect(url, create=True, foreign_keys=False)
    try:
        database.write(lambda connection: _migrate.migrate(connection, database.shown, to=to))
    finally:
        database.close()


def test_the_code_needs_the_last_revision() -> None:
    assert SCRIPTS.get_heads() == [store.EXPECTED_REVISION]


def test_every_revision_has_a_history_to_upgrade_from() -> None:
    assert sorted(script.revision for script in SCRIPTS.walk_revisions()) == REVISIONS


@pytest.fixture
def postgres_url(empty_postgres_url: str) -> str:
    """Here tables are made in databases that have none."""
    return empty_postgres_url


def test_an_empty_database_becomes_usable(database_url: str) -> None:
    assert store.upgrade(database_url) is None
    assert store.current_revision(database_url) == store.EXPECTED_REVISION
    assert store.upgrade(database_url) == store.EXPECTED_REVISION


def test_migrations_make_the_tables_that_the_code_knows(database_url: str) -> None:
    migrate(database_url, to="head")
    database = _engine.Database.connect(database_url, create=False)

    def differences(connection: sa.Connection) -> object:
        options = {"version_table": _tables.version.name, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, _service_tables.deployments.metadata)

    try:
        assert database.read(differences) == []
    finally:
        database.close()


def test_migrations_make_what_a_new_sqlite_file_has(tmp_path: Path) -> None:
    new, migrated = f"sqlite:///{tmp_path / 'new.db'}", f"sqlite:///{tmp_path / 'migrated.db'}"
    store.upgrade(new)
    migrate(migrated, to="head")
    schema = schema_of(new)
    assert schema == schema_of(migrated)
    assert {name for kind, name in schema if kind == "table"} >= set(_tables.metadata.tables)
    assert store.current_revision(new) == store.current_revision(migrated)


def schema_of(url: str) -> dict[tuple[object, object], list[str]]:
    """Return the statement of each table and index: constraints, names, WITHOUT ROWID and all."""
    rows = rows_of(url, "SELECT type, name, COALESCE(sql, '') FROM sqlite_master")
    return {
        # Constraints have no order, columns do.
        (kind, name): sorted(
            _parts_of(str(sql)), key=lambda part: part if part.startswith("CONSTRAINT") else ""
        )
        for kind, name, sql in rows
    }


def _parts_of(sql: str) -> list[str]:
    """Return the columns and constraints of a statement: a column that was added has no line."""
    head, _, rest = sql.partition("(")
    body, _, tail = rest.rpartition(")")
    parts = re.split(r",(?![^()]*\))", body)
    return [" ".join(part.split()) for part in (head, *parts, tail)]


@pytest.mark.postgres
def test_migrations_make_what_a_new_server_database_has(postgres_url: str) -> None:
    of_schema = {}
    for schema in ("new", "migrated"):
        execute(postgres_url, f"CREATE SCHEMA {schema}")
        url = f"{postgres_url}&options=-csearch_path%3D{schema}"
        store.upgrade(url) if schema == "new" else migrate(url, to="head")
        of_schema[schema] = [rows_of(url, query) for query in CATALOG]
        assert store.current_revision(url) == store.EXPECTED_REVISION
    text = repr(of_schema["migrated"]).replace("migrated.", "new.")
    assert text == repr(of_schema["new"])
    assert all(of_schema["new"])


CATALOG = (
    """SELECT c.relkind, c.relname, c.reloptions, a.attname, a.attnum,
    format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attstorage, a.attcollation,
    pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
    WHERE c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum""",
    """SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = current_schema()::regnamespace ORDER BY 2, 1""",
    """SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()
    ORDER BY 1, 2""",
)
"""Columns, constraints and indexes of a schema."""


def rows_of(url: str, query: str) -> list[tuple[object, ...]]:
    database = _engine.Database.connect(url, create=False)
    try:
        return database.read(
            lambda connection: [tuple(row) for row in connection.exec_driver_sql(query)]
        )
    finally:
        database.close()


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_history_of_every_revision_can_be_read(
    database_url: str, tmp_path: Path, revision: str
) -> None:
    migrate(database_url, to=revision)
    script = (HISTORY / f"{revision}.sql").read_text(encoding="utf-8")
    rows = [_for(database_url, part) for part in script.split(";\n") if part.strip()]
    execute(database_url, *rows, *_set_sequence(database_url))
    with Store.open(database_url, log_dir=tmp_path) as opened:
        run = opened.find_flow_run("calm-otter")
        assert run.state.type is StateType.FAILED
        assert (run.parameters, run.tags) == ({"day": "2026-01-01"}, ("nightly",))
        assert run.error == model.ErrorInfo(
            type="builtins.ValueError", message="no such day", traceback="Traceback: ..."
        )
        assert opened.flow_version("f1").source == "def etl(): ..."
        graph = opened.graph(run.id)
        assert [node.length for node in graph.nodes] == [None, 2]
        assert graph.nodes[1].resources == model.Resources(
            num_cpus=2, memory=1024, custom=(("disk", 1.0),), scheduling_strategy="SPREAD"
        )
        assert graph.edges == (
            model.Edge(
                source=0, target=1, kind=model.EdgeKind.ITEM, parameter="day", allow_failure=True
            ),
        )
        key = TaskRunKey(1, 0)
        (task_run,) = (t for t in opened.task_runs(run.id, node=1) if t.key == key)
        assert task_run.state.name is StateName.RECOVERED
        assert task_run.result is not None
        assert (task_run.result.truth, task_run.result.preview) == (True, "[1, 2]")
        *_, attempt = opened.attempts(run.id, key)
        assert attempt.queue_wait == 0.25
        assert [c.state.name for c in opened.states(run.id)] == [StateName.PENDING]
        assert [s.level for s in opened.log_segments(run.id, key=key)] == [30]
        assert opened.task_run_counts(run.id) == (COUNTS_OF_0001 if revision == "0001" else COUNTS)
        # What is kept beside the runs is theirs.
        assert opened.runs.recount() == 0
        (tagged,) = opened.runs.page(model.RunFilter(tags=frozenset({"nightly"}))).items
        assert tagged.id == run.id
        # And it can go on.
        known = records.batch(run, flow_run_id=run.id, seq=3, incarnation=run.incarnation)
        assert opened.apply(known) is False
        again = dataclasses.replace(known, seq=4, records=(dataclasses.replace(run, name="new"),))
        assert opened.apply(again) is True
        assert opened.apply(records.batch(records.flow_run("new"), flow_run_id="new")) is True
        assert {r.name for r in opened.flow_runs()} >= {"new", "name-of-new"}
        following = opened.leases.begin_incarnation(
            run.id, host="here", pid=1, process_started=1.5, seconds=10
        )
        assert following == run.incarnation + 1


COUNTS_OF_0001 = {
    0: {StateType.PENDING: 1},
    1: {StateType.COMPLETED: 1, StateType.PENDING: 1},
}
COUNTS = {0: {StateType.COMPLETED: 1}, 1: {StateType.COMPLETED: 2}}


def test_blocks_of_revision_0002_can_be_read(database_url: str, tmp_path: Path) -> None:
    migrate(database_url, to="0002")
    script = (HISTORY / "0002.sql").read_text(encoding="utf-8")
    rows = [_for(database_url, part) for part in script.split(";\n") if part.strip()]
    # Once, each retry of a flow was a run of its own.
    execute(database_url, *rows, """UPDATE flow_runs SET "trigger" = 'retry'""")
    with Store.open(database_url, log_dir=tmp_path) as opened:
        run = opened.find_flow_run("calm-otter")
        assert run.trigger is model.Trigger.MANUAL
        single, _, item = opened.task_runs(run.id)
        assert (single.label, single.created_at, single.started_at) == ("days-0", 2.5, 3.0)
        assert single.result is not None
        assert (single.result.preview, single.result.inline) == ("[1, 2]", b"[1,2]")
        assert (item.label, item.state) == (
            "extract-second",
            model.State(name=StateName.COMPLETED, at=4.0),
        )
        assert opened.result(run.id, item.key) == model.describe_plain(7)
        (attempt,) = opened.attempts(run.id, item.key)
        assert (attempt.queue_wait, attempt.cpu_seconds, attempt.host) == (0.75, 0.25, "node-b")
        assert opened.paces("etl", "f1") == {
            "extract": model.TaskPace(
                flow="etl", fingerprint="f1", task="extract", seconds=0.25, bytes=28.5
            )
        }


def test_what_revision_0003_knows_of_durable_runs(database_url: str, tmp_path: Path) -> None:
    migrate(database_url, to="0003")
    script = (HISTORY / "0003.sql").read_text(encoding="utf-8")
    execute(database_url, *(_for(database_url, p) for p in script.split(";\n") if p.strip()))
    with Store.open(database_url, log_dir=tmp_path) as opened:
        failed, waiting = opened.flow_runs()
        assert failed.incarnation == 2
        assert failed.inputs is not None
        assert (failed.inputs.inline, failed.inputs.digest) == (b"{}", "abc")
        crashed, _ = opened.attempts(failed.id, TaskRunKey(1, 0))
        assert crashed.cause == model.Cause(
            kind="signal",
            signal=9,
            host="node-b",
            pid=41,
            node_id="b",
            peak_memory=900000,
            facts={"by": "kernel"},
        )
        assert opened.leases.abandoned() == [waiting]
        lease = opened.leases.get(waiting.id)
        assert lease is not None
        assert (lease.host, lease.since, lease.expires_at) == ("node-a", 0.25, 12.25)
        (process,) = opened.leases.processes(waiting.id)
        assert (process.pid, process.role) == (40, "driver")
        (request,) = opened.requests.of(waiting.id)
        assert (request.kind, request.by) == (model.RequestKind.PAUSE, "ann@node-a")
        answered, asked = opened.requests.input_requests(open_only=False)
        assert (answered.answer, answered.default, answered.assignees) == (
            b"true",
            b"false",
            ("ann",),
        )
        assert opened.requests.input_requests() == [asked]
        api, warehouse = opened.limits.all()
        assert (api.limit.per_seconds, api.holders) == (60, ())
        (holder,), (waiter,) = warehouse.holders, warehouse.waiters
        assert (holder.priority, holder.since, waiter.amount) == (5, 0.5625, 3)
        (entry,) = opened.cache.find(["k1", "k2"]).values()
        assert (entry.run, entry.result.url) == (TaskRunKey(1, 0), "file:///results/1")
        assert not opened.cache.claim("k2", "me", seconds=5)


def test_what_revision_0004_knows_of_reruns(database_url: str, tmp_path: Path) -> None:
    migrate(database_url, to="0004")
    script = (HISTORY / "0004.sql").read_text(encoding="utf-8")
    execute(database_url, *(_for(database_url, p) for p in script.split(";\n") if p.strip()))
    with Store.open(database_url, log_dir=tmp_path) as opened:
        assert [run.rerun_of for run in opened.flow_runs()] == ["0197-run", None]


def test_what_revision_0005_knows_of_what_was_asked(database_url: str, tmp_path: Path) -> None:
    migrate(database_url, to="0005")
    script = (HISTORY / "0005.sql").read_text(encoding="utf-8")
    execute(database_url, *(_for(database_url, p) for p in script.split(";\n") if p.strip()))
    with Store.open(database_url, log_dir=tmp_path) as opened:
        again, _ = opened.flow_runs()
        assert again.rerun_from == ("load-0", "total")
        crashed, last = opened.attempts(again.id, TaskRunKey(1, 0))
        assert (crashed.memory, last.memory) == (0, 4096)


def test_what_revision_0006_knows_of_the_service(database_url: str, tmp_path: Path) -> None:
    migrate(database_url, to="0006")
    script = (HISTORY / "0006.sql").read_text(encoding="utf-8")
    execute(database_url, *(_for(database_url, p) for p in script.split(";\n") if p.strip()))
    with Store.open(database_url, log_dir=tmp_path) as opened:
        (state,) = opened.work.pools()
        assert (state.pool.concurrency, state.pool.description) == (4, "all that is small")
        assert state.counts == {model.Stage.WAITING: 1}
        (worker,) = opened.work.workers()
        assert (worker.name, worker.pid, worker.runners) == ("left-hand", 44, 2)
        origin = model.RunOrigin(
            deployment="nightly",
            version=1,
            bundle="b1",
            pool="default",
            priority=3,
            schedule_id="s1",
            slot=1.5,
            begins_at=1.5,
            actor="schedule:main",
        )
        order = model.RunOrder(
            flow_run_id="other",
            flow="etl",
            fingerprint="f1",
            name="other",
            origin=origin,
            key=("ann", "k"),
            digest=b"\x00\xff",
        )
        assert opened.work.order([order]) == [("0199-run", False)]
        (claim,) = opened.work.claim("default", "w1", most=5, seconds=30, claim="c")
        assert (claim.flow_run.id, claim.work) == ("0199-run", model.Work.RUN)
        assert (claim.flow_run.origin, claim.numbers.change) == (origin, 2)
        place = opened.work.dispatch("0199-run")
        assert place is not None
        assert (place.refusals, place.message, place.priority) == (1, "no disk", 3)


def test_graphs_of_any_size_survive_the_change_to_blocks(database_url: str, tmp_path: Path) -> None:
    migrate(database_url, to="0001")
    script = (HISTORY / "0001.sql").read_text(encoding="utf-8")
    first, *_ = [part for part in script.split(";\n") if "INTO flow_runs" in part]
    number = "WITH RECURSIVE ids (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids WHERE id < "
    execute(
        database_url,
        "INSERT INTO flows (name) VALUES ('etl')",
        first,
        first.replace("VALUES (7, '0198-run'", "VALUES (8, 'small'"),
        *(
            f"INSERT INTO nodes (flow_run, id, seq, key, kind, name, label, line, length, "
            f"trigger_rule) {number}{count - 1}) SELECT {run}, id, 0, 'f-' || id, 'task', 'f', '', "
            "'etl.py:1', NULL, 'all_success' FROM ids"
            for run, count in ((7, 25_000), (8, 2))
        ),
        "INSERT INTO edges (flow_run, target, source, kind, parameter, source_item, target_item, "
        f"allow_failure) {number}24998) SELECT 7, id + 1, id, 'data', 'x', 3, -1, FALSE FROM ids",
    )
    with Store.open(database_url, log_dir=tmp_path) as opened:
        graph = opened.graph("0198-run")
        assert [node.key for node in graph.nodes] == [f"f-{n}" for n in range(25_000)]
        assert [(e.source, e.target, e.source_item, e.target_item) for e in graph.edges] == [
            (n, n + 1, 3, None) for n in range(24_999)
        ]
        assert [node.id for node in opened.graph("small").nodes] == [0, 1]
        later = model.GraphNode(id=1, key="renamed", kind=model.NodeKind.TASK, name="f")
        record = model.GraphRecord(flow_run_id="small", nodes=(later,))
        assert opened.apply(records.batch(record, flow_run_id="small", seq=0))
        assert [node.key for node in opened.graph("small").nodes] == ["f-0", "renamed"]


def _for(url: str, statement: str) -> str:
    """Write the bytes of a statement as the database reads them."""
    form = r"X'\1'" if url.startswith("sqlite") else r"'\\x\1'::bytea"
    return re.sub(r"BYTES\('([0-9a-f]*)'\)", form, statement)


def _set_sequence(url: str) -> list[str]:
    if url.startswith("sqlite"):
        return []
    return ["SELECT setval(pg_get_serial_sequence('flow_runs', 'number'), 8)"]


@pytest.mark.parametrize("revision", [None, "0004"])
def test_of_several_processes_one_upgrades_and_the_others_wait(
    database_url: str, tmp_path: Path, revision: str | None
) -> None:
    if revision is not None:
        migrate(database_url, to=revision)
        script = (HISTORY / f"{revision}.sql").read_text(encoding="utf-8")
        execute(database_url, *(_for(database_url, p) for p in script.split(";\n") if p.strip()))
    code = (
        "import sys; from raflow import store\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(store.upgrade(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=200) for process in processes]
    befores = sorted(out.strip() for out, _ in outcomes)
    expected = store.EXPECTED_REVISION
    assert befores == sorted([expected, expected, str(revision)]), outcomes
    with Store.open(database_url, log_dir=tmp_path, create=False) as opened:
        known = {StateName.FAILED: 1, StateName.AWAITING_INPUT: 1}
        assert opened.runs.counts() == ({} if revision is None else known)


@pytest.mark.parametrize("create", [True, False])
def test_a_database_of_a_newer_raflow_is_refused(
    database_url: str, tmp_path: Path, create: bool
) -> None:
    store.upgrade(database_url)
    execute(database_url, "UPDATE raflow_version SET version_num = '9999'")
    with pytest.raises(errors.StoreError, match=r"at revision '9999'.*newer"):
        Store.open(database_url, log_dir=tmp_path, create=create)
    assert store.current_revision(database_url) == "9999"


def test_a_database_is_used_as_it_is_when_asked(database_url: str, tmp_path: Path) -> None:
    execute(database_url)
    with pytest.raises(errors.StoreError, match=r"holds no record yet\. `raflow db upgrade`"):
        Store.open(database_url, log_dir=tmp_path, create=False)
    assert store.current_revision(database_url) is None
    store.upgrade(database_url)
    with Store.open(database_url, log_dir=tmp_path, create=False) as opened:
        assert opened.flow_runs() == []


def test_tables_of_something_else_are_left_alone(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "CREATE TABLE states (name TEXT)", "INSERT INTO states VALUES ('Ohio')")
    with pytest.raises(errors.StoreError, match=r"tables of something else \(states\)"):
        Store.open(database_url, log_dir=tmp_path)
    execute(database_url, "UPDATE states SET name = 'Iowa'")


@pytest.mark.postgres
def test_a_server_database_may_be_shared(postgres_url: str, tmp_path: Path) -> None:
    execute(
        postgres_url, "CREATE TABLE customers (name TEXT)", "CREATE TABLE alembic_version (n INT)"
    )
    with Store.open(postgres_url, log_dir=tmp_path) as opened:
        assert opened.flows() == []


@pytest.mark.postgres
def test_a_schema_of_its_own_in_a_shared_database(postgres_url: str, tmp_path: Path) -> None:
    execute(postgres_url, "CREATE TABLE states (name TEXT)", "CREATE SCHEMA raflow")
    url = f"{postgres_url}&options=-csearch_path%3Draflow"
    with Store.open(url, log_dir=tmp_path) as opened:
        assert opened.apply(records.batch(records.flow_run())) is True
    execute(postgres_url, "SELECT name FROM states", "SELECT id FROM raflow.flow_runs")


def test_a_migration_that_fails_changes_nothing(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "CREATE VIEW states AS SELECT 1 AS one")
    with pytest.raises(errors.StoreError, match="states"):
        Store.open(database_url, log_dir=tmp_path)
    assert store.current_revision(database_url) is None
    execute(database_url, "DROP VIEW states")
    with Store.open(database_url, log_dir=tmp_path) as opened:
        assert opened.flows() == []
