"""Result storage that works, and storage that does not; and the signing key."""

from __future__ import annotations

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
