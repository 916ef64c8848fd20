"""Log lines are kept as segments of one file per flow run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raflow import errors
from raflow.model import LogLine, LogSegment, TaskRunKey, encode_log
from raflow.store import Store
from tests.store import records


@pytest.fixture
def logs(sqlite_url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(sqlite_url, log_dir=tmp_path / "logs") as store:
        yield store


def append(
    store: Store,
    lines: list[LogLine],
    *,
    number: int = 0,
    key: TaskRunKey | None = None,
    attempt: int = 0,
    run: str = records.RUN,
) -> LogSegment:
    blob = encode_log(lines)
    file, offset = store.append_log(run, blob)
    return LogSegment(
        flow_run_id=run,
        number=number,
        key=key,
        attempt=attempt,
        file=file,
        offset=offset,
        length=len(blob),
        lines=len(lines),
        first_at=1.0,
        last_at=2.0,
        level=20,
    )


def lines_of(text: str) -> list[LogLine]:
    return [LogLine(1.5, 20, "stdout", f"{text}\0 ünï"), LogLine(2.0, 30, "stderr", text * 100)]


def test_lines_come_back_by_task_run_and_attempt(store: Store) -> None:
    one, two = TaskRunKey(0, 3), TaskRunKey(1)
    wanted = [(None, 0), (one, 1), (two, 1), (one, 2), (None, 0)]
    segments = [
        append(store, lines_of(f"line-{i}"), number=i, key=key, attempt=attempt)
        for i, (key, attempt) in enumerate(wanted)
    ]
    store.apply(records.batch(records.flow_run(), *segments))
    assert store.log_segments(records.RUN) == segments
    assert store.log_segments(records.RUN, key=one) == [segments[1], segments[3]]
    assert store.log_segments(records.RUN, key=one, attempt=2) == [segments[3]]
    assert store.log_segments(records.RUN, attempt=0) == [segments[0], segments[4]]
    assert store.log_segments(records.RUN, key=TaskRunKey(-1)) == [segments[0], segments[4]]
    for i, segment in enumerate(store.log_segments(records.RUN)):
        assert store.read_log(segment) == lines_of(f"line-{i}")


def test_two_flow_runs_have_two_files(logs: Store) -> None:
    one, two = append(logs, lines_of("a"), run="one"), append(logs, lines_of("b"), run="two")
    assert one.file != two.file
    assert (one.offset, two.offset) == (0, 0)


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "a/b", ".hidden", "", "x" * 300, "ü\udcff"])
def test_every_id_makes_a_file_in_the_directory(logs: Store, tmp_path: Path, run_id: str) -> None:
    segment = append(logs, lines_of("a"), run=run_id)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == [segment.file]
    assert logs.read_log(segment) == lines_of("a")


def test_writers_at_the_same_time_do_not_mix(logs: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        texts = [f"line-{i}" for i in range(200)]
        segments = list(pool.map(lambda text: append(logs, lines_of(text)), texts))
    assert [logs.read_log(segment) for segment in segments] == [lines_of(text) for text in texts]


def test_only_the_owner_may_read_logs(logs: Store, tmp_path: Path) -> None:
    segment = append(logs, lines_of("a"))
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "logs" / segment.file).stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_gone(logs: Store, tmp_path: Path) -> None:
    segment = append(logs, lines_of("a"))
    (tmp_path / "logs" / segment.file).unlink()
    with pytest.raises(errors.StoreError, match=r"No such file or directory\. Logs are kept where"):
        logs.read_log(segment)
    # The rest of the history is worth more than lines that are lost already.
    assert logs.apply(records.batch(records.flow_run(), segment)) is True


@pytest.mark.parametrize(("offset", "length"), [(1, 20), (0, 10), (0, 10**6), (10**6, 20)])
def test_a_segment_that_is_damaged(logs: Store, offset: int, length: int) -> None:
    whole = append(logs, lines_of("a"))
    segment = dataclasses.replace(whole, offset=offset, length=length)
    with pytest.raises(errors.StoreError, match="is damaged in"):
        logs.read_log(segment)


@pytest.mark.parametrize("file", ["../raflow.db", "/etc/passwd", "..", ""])
def test_a_row_cannot_name_a_file_elsewhere(logs: Store, file: str) -> None:
    segment = dataclasses.replace(append(logs, lines_of("a")), file=file)
    with pytest.raises(errors.StoreError, match="is not the name of a log file"):
        logs.read_log(segment)


def test_a_log_directory_that_cannot_be_written(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        Store.open(sqlite_url, log_dir=tmp_path / "file" / "logs") as store,
        pytest.raises(errors.StoreError, match="Not a directory"),
    ):
        store.append_log(records.RUN, b"1")
