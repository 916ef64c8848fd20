"""What was stored and never recorded is removed, and nothing else."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path

import pytest

from raflow import errors
from raflow.model import ResultPolicy, TaskRunKey
from raflow.results import Keeper, _storage, remove_unrecorded

ALWAYS = ResultPolicy(persist=True)
LARGE = "x" * 100_000


@pytest.fixture(params=["path", "file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kinds = {"path": f"{tmp_path}/a", "file": f"file://{tmp_path}/a"}
    return kinds.get(request.param, f"memory://{secrets.token_hex(4)}/a")


def keeper_of(storage: str, incarnation: int = 1) -> Keeper:
    return Keeper(
        flow_run_id="run-1", storage=storage, signing_key=b"k" * 32, incarnation=incarnation
    )


def kept(keeper: Keeper, node: int, item: int = -1, attempt: int = 1) -> str:
    return keeper.keep(LARGE, ALWAYS, run=TaskRunKey(node, item), attempt=attempt).url


def test_only_what_is_on_record_stays(storage: str) -> None:
    keeper = keeper_of(storage)
    gone = [kept(keeper, 3), kept(keeper, 4, 7), kept(keeper, -1)]
    stays = {kept(keeper, 3, attempt=2), kept(keeper, -2)}
    other = kept(dataclasses.replace(keeper, flow_run_id="run-2"), 3)
    assert remove_unrecorded("run-1", 1, [storage], lambda: stays) == len(gone)
    assert set(_storage.files(_storage.below(storage, "run-1"))) == stays
    assert _storage.read(other)
    assert remove_unrecorded("run-1", 1, [storage], lambda: stays) == 0


def test_what_a_later_process_of_the_run_has_stored_stays(storage: str) -> None:
    first, second = keeper_of(storage), keeper_of(storage, incarnation=2)
    before, after = kept(first, 3), kept(second, 3)
    assert before != after
    assert remove_unrecorded("run-1", 1, [storage], set) == 1
    assert _storage.files(_storage.below(storage, "run-1")) == [after]
    assert remove_unrecorded("run-1", 2, [storage], set) == 1


def test_where_recorded_values_are_is_looked_at_too(storage: str, tmp_path: Path) -> None:
    keeper = keeper_of(storage)
    known, gone = kept(keeper, 3), kept(keeper, 4)
    elsewhere = str(tmp_path / "b")
    assert remove_unrecorded("run-1", 1, [elsewhere], lambda: {known, ""}) == 0
    assert remove_unrecorded("run-1", 1, [elsewhere], lambda: {known, ""}, look_further=True) == 1
    with pytest.raises(errors.ResultStorageError):
        _storage.read(gone)
    assert _storage.read(known)


def test_the_record_is_not_read_if_nothing_is_stored(storage: str) -> None:
    def unread() -> set[str]:
        raise AssertionError("it was read")

    assert remove_unrecorded("run-1", 1, [storage], unread) == 0


def test_drafts_are_removed_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    for name in (".3.1.json.77.0123abcd", ".3-5.2.i1.pickle.77.0123abcd", "notes.txt", "3.json"):
        (folder / name).touch()
    assert remove_unrecorded("run-1", 1, [str(tmp_path)], set) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["3.json", "notes.txt"]


def test_storage_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.ResultStorageError, match="'nosuch://a"):
        remove_unrecorded("run-1", 1, ["nosuch://a"], set)
