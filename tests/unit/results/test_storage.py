"""Result storage that works, and storage that does not; and the signing key."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raflow import errors
from raflow.model import ResultPolicy, TaskRunKey
from raflow.results import Keeper, _storage, check_storage, signing_key


@pytest.mark.parametrize("url", ["{tmp}/new/folder", "file://{tmp}/new", "memory://probe"])
def test_a_storage_that_works_passes_and_is_left_clean(tmp_path: Path, url: str) -> None:
    check_storage(url.format(tmp=tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{tmp}/file/below", "NotADirectoryError"),
        ("/proc/raflow", "cannot be written"),
        ("nosuch://bucket", "nosuch"),
    ],
)
def test_a_storage_that_does_not_work_is_named_with_a_remedy(
    tmp_path: Path, url: str, said: str
) -> None:
    (tmp_path / "file").touch()
    storage = url.format(tmp=tmp_path)
    with pytest.raises(errors.ResultStorageError, match=said) as caught:
        check_storage(storage)
    assert repr(storage) in str(caught.value)
    assert "RAFLOW_RESULT_STORAGE" in str(caught.value)
    keeper = Keeper(flow_run_id="r", storage=storage, signing_key=b"k" * 32)
    with pytest.raises(errors.ResultStorageError):
        keeper.keep("x" * 100_000, ResultPolicy(persist=True), run=TaskRunKey(0), attempt=1)


@pytest.mark.parametrize("folder", ["plain", "a b%20c", "a::b", "a#b?c"])
@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_a_folder_is_the_one_of_that_name(tmp_path: Path, scheme: str, folder: str) -> None:
    url = _storage.write(f"{scheme}{tmp_path / folder}", "x.json", b"data")
    assert url == f"file://{tmp_path / folder}/x.json"
    assert (tmp_path / folder / "x.json").read_bytes() == _storage.read(url) == b"data"


def test_what_is_not_a_path_of_this_machine_goes_to_its_file_system() -> None:
    url = _storage.write("memory://results", "x.json", b"data")
    assert url.startswith("memory://")
    assert _storage.read(url) == b"data"
    assert _storage.read(f"simplecache::{url}") == b"data"


def test_a_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _storage.write(str(tmp_path), "a/b.json", b"old")

    def full(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(errors.ResultStorageError, match="No space left"):
        _storage.write(str(tmp_path), "a/b.json", b"new")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]
    assert _storage.read(str(tmp_path / "a" / "b.json")) == b"old"


def test_a_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    key = signing_key(home)
    path = home / "keys" / "results.key"
    assert len(key) == 32
    assert signing_key(home) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["results.key"]


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: signing_key(tmp_path), range(32)))
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    signing_key(tmp_path)
    path = tmp_path / "keys" / "results.key"
    path.chmod(mode)
    with pytest.raises(errors.ConfigError, match=f"chmod 600 {path}"):
        signing_key(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path)
    (tmp_path / "keys" / "results.key").write_bytes(b"short")
    with pytest.raises(errors.ConfigError, match="5 bytes"):
        signing_key(tmp_path)


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(errors.ResultStorageError, match="RAFLOW_HOME"):
        signing_key(blocked)
    assert os.listdir(tmp_path) == ["file"]


def test_a_kept_value_is_on_disk_with_its_name_before_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{handle}").partition(".raflow")[0])
        sync(handle)

    def renamed(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    keeper = Keeper(flow_run_id="r", storage=str(tmp_path / "a" / "b"), signing_key=b"k" * 32)
    for item in range(2):
        always = ResultPolicy(persist=True)
        keeper.keep("x" * 100_000, always, run=TaskRunKey(0, item), attempt=1)
    folder = tmp_path / "a" / "b" / "r"
    made = [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    drafts = [name for name in done if name.startswith(f"{folder}/.0-")]
    assert len(drafts) == 2
    assert done == [*made, drafts[0], "rename", str(folder), drafts[1], "rename", str(folder)]


def test_a_file_system_that_cannot_sync_folders_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, wrong = os.fsync, errno.EINVAL

    def only_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(wrong, os.strerror(wrong))
        sync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    _storage.write(str(tmp_path), "x.json", b"1", durable=True)
    wrong = errno.EIO
    with pytest.raises(errors.ResultStorageError, match="Input/output error"):
        _storage.write(str(tmp_path), "y.json", b"1", durable=True)


def test_a_disk_that_fills_up_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.ResultStorageError, match="No space left"):
        _storage.write(str(tmp_path), "x.json", b"1", durable=True)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("storage", ["{tmp}/results", "memory://looked-at"])
def test_whether_something_is_stored_can_be_told(storage: str, tmp_path: Path) -> None:
    url = _storage.write(storage.format(tmp=tmp_path), "x.json", b"data")
    assert _storage.exists(url)
    _storage.remove(url)
    assert not _storage.exists(url)
    assert not _storage.exists("no-such-protocol://x")
