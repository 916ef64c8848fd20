"""Batches on disk: whole, in order, and of one process at a time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raflow import errors
from raflow.client import Spool

URL = "http://127.0.0.1:1"


def test_batches_come_back_in_their_order_and_leave_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path).of("run", URL)
    for number in range(12):
        spool.put(f"child-{number % 2}", b"%d" % number)
    assert len(spool) == 12
    found = []
    while (first := spool.first()) is not None:
        found.append((first.flow_run_id, first.content))
        spool.remove_first()
    assert found == [(f"child-{n % 2}", b"%d" % n) for n in range(12)]
    assert list(tmp_path.iterdir()) == []
    spool.put("run", b"more")
    assert len(spool) == 1


def test_what_is_left_is_taken_by_one_process_and_goes_on_counting(tmp_path: Path) -> None:
    mine = Spool(tmp_path).of("run", URL)
    mine.token = "secret"
    mine.put("run", b"a")
    assert list(Spool(tmp_path).left_behind(URL)) == []
    (waiting,) = Spool(tmp_path).waiting()
    assert (waiting.root_id, waiting.batches, waiting.is_being_sent) == ("run", 1, True)
    with pytest.raises(errors.StoreError):
        Spool(tmp_path).of("run", URL).put("run", b"b")
    mine.let_go()
    assert list(Spool(tmp_path).left_behind("http://another:1")) == []
    (found,) = Spool(tmp_path).left_behind(URL)
    assert found.token == "secret"
    found.put("run", b"b")
    assert [path.name for path in sorted(found.folder.glob("*.rfb"))] == [
        "000000000000.rfb",
        "000000000001.rfb",
    ]


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool").of("run", URL)
    spool.put("run", b"a")
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in spool.folder.iterdir()} == {0o600}


def test_names_are_no_paths(tmp_path: Path) -> None:
    for name in ("../evil", "a/b", "refused", ".", "x" * 500, "\udc80"):
        spool = Spool(tmp_path / "spool").of(name, URL)
        spool.put(name, b"a")
        assert spool.folder.parent == tmp_path / "spool"
        first = spool.first()
        assert first is not None
        assert first.flow_run_id == name


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path).of("run", URL)
    spool.put("run", b"a")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(errors.StoreError, match=r"No space left .* Free space"):
            spool.put("run", b"b")
    assert [path.suffix for path in spool.folder.iterdir() if path.suffix == ".part"] == []
    assert len(spool) == 1
    spool.put("run", b"c")
    assert len(spool) == 2


def test_what_is_damaged_or_refused_is_put_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path).of("run", URL)
    spool.put("run", b"a")
    (path,) = spool.folder.glob("*.rfb")
    path.write_bytes(b"\xff")
    with pytest.raises(errors.BatchError, match="damaged"):
        spool.first()
    aside = spool.refuse()
    assert [found.name for found in aside.iterdir()] == [path.name]
    assert Spool(tmp_path).waiting() == []
