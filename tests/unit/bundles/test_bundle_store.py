"""Storage of bundles: what is found under a name is that bundle, and all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from raflow import errors
from raflow.bundles import BundleStore, Limits, Packed, pack
from tests.unit.bundles.making import archive, tree


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return pack(tree(tmp_path / "root", {f"m{n}.py": f"value = {n}" for n in range(20)}))


@pytest.fixture(params=["{tmp}/a::b #c", "file://{tmp}/store", "memory://bundles"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BundleStore]:
    yield BundleStore(str(request.param).format(tmp=tmp_path))
    fsspec.filesystem("memory").store.clear()


def drafts(tmp_path: Path) -> list[str]:
    kept = [str(path) for path in tmp_path.rglob(".draft-*")]
    return kept + [name for name in fsspec.filesystem("memory").store if ".draft-" in name]


def test_what_was_put_is_there(store: BundleStore, packed: Packed, tmp_path: Path) -> None:
    digest = packed.manifest.digest
    assert not store.have(digest)
    assert store.put(digest, packed.chunks()) == packed.manifest
    assert store.have(digest)
    with store.open(digest) as file:
        assert file.read() == archive(packed)
    assert store.get(digest, tmp_path / "copy") == packed.manifest
    assert (tmp_path / "copy").read_bytes() == archive(packed)
    assert drafts(tmp_path) == []


def test_what_was_not_put_is_told(store: BundleStore, tmp_path: Path) -> None:
    for read in (
        lambda: store.get("0" * 64, tmp_path / "copy"),
        lambda: store.open("0" * 64).__enter__(),
    ):
        with pytest.raises(errors.BundleMissingError, match="Deploy again"):
            read()
    assert not (tmp_path / "copy").exists()


def broken(packed: Packed) -> Iterator[bytes]:
    yield archive(packed)[:100]
    raise ConnectionResetError("the client went away")


def test_nothing_else_is_found_under_a_name(
    store: BundleStore, packed: Packed, tmp_path: Path
) -> None:
    digest, data = packed.manifest.digest, archive(packed)
    with pytest.raises(ConnectionResetError):
        store.put(digest, broken(packed))
    with pytest.raises(errors.BundleMismatchError):
        store.put("0" * 64, [data])
    for bad in (data[:-100], data + b"more", b""):
        with pytest.raises(errors.BundleError, match="is refused"):
            store.put(digest, [bad])
    assert not store.have(digest)
    assert not store.have("0" * 64)
    assert drafts(tmp_path) == []


def test_18_a_name_is_no_path(store: BundleStore) -> None:
    for name in ("../../etc/passwd", "", "A" * 64):
        with pytest.raises(errors.BundleError, match="is no name of a bundle"):
            store.have(name)


def test_what_is_damaged_in_storage_is_not_handed_out(packed: Packed, tmp_path: Path) -> None:
    store, digest = BundleStore(str(tmp_path / "store")), packed.manifest.digest
    store.put(digest, packed.chunks())
    [file] = (tmp_path / "store").rglob("*.zst")
    assert file.name == f"{digest}.tar.zst"
    file.write_bytes(file.read_bytes()[:-50])
    (tmp_path / "copy").write_text("what was there")
    with pytest.raises(errors.BundleError, match="is refused"):
        store.get(digest, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "what was there"
    store.put(digest, packed.chunks())
    assert store.get(digest, tmp_path / "copy") == packed.manifest


def test_an_archive_without_end_is_refused(packed: Packed, tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path / "store"), limits=Limits(total_bytes=1 << 20))
    endless = iter(lambda: bytes(1 << 20), b"")
    with pytest.raises(errors.BundleError, match="is larger than 17,825,792 bytes"):
        store.put(packed.manifest.digest, endless)
    assert drafts(tmp_path) == []


def test_many_at_once_put_one(store: BundleStore, packed: Packed, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        put = [*pool.map(lambda _: store.put(packed.manifest.digest, packed.chunks()), range(16))]
    assert put == [packed.manifest] * 16
    assert store.get(packed.manifest.digest, tmp_path / "copy") == packed.manifest
    assert drafts(tmp_path) == []


@pytest.mark.parametrize("url", ["{tmp}/file/below", "nosuch://bucket"])
def test_a_storage_that_does_not_work_is_named(packed: Packed, tmp_path: Path, url: str) -> None:
    (tmp_path / "file").touch()
    url = url.format(tmp=tmp_path)
    with pytest.raises(errors.BundleStorageError, match=r"cannot be (used|written)") as caught:
        BundleStore(url).put(packed.manifest.digest, packed.chunks())
    assert repr(url) in str(caught.value)


STANDING_STILL = """
import sys, time
from raflow.bundles import BundleStore

def chunks():
    yield open(sys.argv[1], "rb").read()[:-10]
    print("half", flush=True)
    time.sleep(600)

BundleStore(sys.argv[3]).put(sys.argv[2], chunks())
"""


def test_a_process_that_is_killed_leaves_nothing_half(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(archive(packed))
    digest, where = packed.manifest.digest, tmp_path / "store"
    words = [STANDING_STILL, str(tmp_path / "archive"), digest, str(where)]
    with subprocess.Popen(
        [sys.executable, "-c", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    store = BundleStore(str(where))
    assert not store.have(digest)
    [draft] = where.rglob(".draft-*")
    store.put(digest, packed.chunks())
    assert draft.exists()  # it may be somebody's who is slow
    os.utime(draft, (0, 0))
    store.put(digest, packed.chunks())
    assert store.get(digest, tmp_path / "copy") == packed.manifest
    assert drafts(tmp_path) == []
