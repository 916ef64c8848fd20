"""What was acknowledged is there, whatever happens to the process, the disk or the driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raflow import errors
from raflow.store import Store
from tests.store import records

_WRITE_FOREVER = """
import itertools, sys
from pathlib import Path
from raflow.model import LogLine, LogSegment, TaskRunKey, encode_log
from raflow.store import Store
from tests.store import records

store = Store.open(sys.argv[1], log_dir=Path(sys.argv[2]))
store.apply(records.batch(records.flow_run()))
for seq in itertools.count(1):
    blob = encode_log([LogLine(1.0, 20, "stdout", f"batch {seq}")])
    file, offset = store.append_log(records.RUN, blob)
    segment = LogSegment(
        flow_run_id=records.RUN, number=seq, key=None, attempt=0, file=file, offset=offset,
        length=len(blob), lines=1, first_at=1.0, last_at=1.0, level=20,
    )
    items = [records.task_run(0, seq * 100 + i) for i in range(100)]
    assert store.apply(records.batch(segment, *items, seq=seq))
    print(seq, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(database_url: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    command = [sys.executable, "-c", _WRITE_FOREVER, database_url, str(logs)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.kill()
        acknowledged = 20 + len(process.stdout.readlines())
    with Store.open(database_url, log_dir=logs) as store:
        segments = store.log_segments(records.RUN)
        texts = [line.text for segment in segments for line in store.read_log(segment)]
        written = len(segments)
        # The last commit may have been under way.
        assert acknowledged <= written <= acknowledged + 1
        assert texts == [f"batch {seq}" for seq in range(1, written + 1)]
        assert len(store.task_runs(records.RUN)) == written * 100
        assert store.apply(records.batch(seq=written)) is False
        assert store.apply(records.batch(seq=written + 1)) is True


def test_a_full_disk_loses_nothing_that_was_written(sqlite_url: str, tmp_path: Path) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        assert store.apply(records.batch(records.flow_run(), records.task_run(0)))
        _allow_pages(store, 1)  # SQLite takes the pages in use as the limit
        many = records.batch(*(records.task_run(1, i) for i in range(5000)), seq=1)
        with pytest.raises(errors.StoreError, match=r"disk is full\. Free disk space"):
            store.apply(many)
        assert store.task_runs(records.RUN) == [records.task_run(0)]
        _allow_pages(store, 1_000_000)
        assert store.apply(many) is True


def _allow_pages(store: Store, pages: int) -> None:
    with store._database.writer.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


def test_a_writer_that_never_ends_is_an_error_for_the_next(sqlite_url: str, tmp_path: Path) -> None:
    with (
        Store.open(sqlite_url, log_dir=tmp_path, wait_seconds=0.1) as store,
        store._database.writer.connect(),
        pytest.raises(errors.StoreError, match="kept busy by other threads"),
    ):
        store.apply(records.batch(records.flow_run()))


def test_a_driver_that_is_not_installed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from raflow.store import Store\n"
        "sys.modules['psycopg'] = None\n"
        "Store.open('postgresql://host/db', log_dir=Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "pip install 'raflow[postgres]'" in done.stderr
