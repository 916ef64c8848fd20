"""Unpacking: one read-only directory for all processes, there whole or not at all."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from raflow import errors
from raflow.bundles import Packed, pack, unpack
from tests.unit.bundles.making import archive, entry, made, manifest, member, tree

FILES = {f"pkg/m{n}.py": f"value = {n}\n" for n in range(50)} | {"run.sh": "#!/bin/sh\n"}


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    root = tree(tmp_path / "root", FILES)
    (root / "run.sh").chmod(0o4755)
    return pack(root)


def unpacked(packed: Packed, where: Path) -> Path:
    return unpack(io.BytesIO(archive(packed)), packed.manifest.digest, where)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_is_there_under_its_name_and_nobody_may_write_to_it(
    packed: Packed, tmp_path: Path
) -> None:
    folder = unpacked(packed, tmp_path / "code")
    assert folder == tmp_path / "code" / packed.manifest.digest / "files"
    assert contents(folder) == FILES
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.parent.rglob("*")}
    assert modes == {0o400, 0o500}
    assert stat.S_IMODE((folder / "run.sh").stat().st_mode) == 0o500  # and no set-user-id
    assert stat.S_IMODE((tmp_path / "code").stat().st_mode) == 0o700
    assert pack(folder).manifest == packed.manifest


class Untouched(io.RawIOBase):
    """A source that nobody reads."""

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("it was read")


def test_what_is_there_is_not_unpacked_again(packed: Packed, tmp_path: Path) -> None:
    folder = unpacked(packed, tmp_path)
    untouched: IO[bytes] = Untouched()  # type: ignore[assignment]
    assert unpack(untouched, packed.manifest.digest, tmp_path) == folder


@pytest.mark.parametrize("damage", ["contents", "size", "removed", "link", "manifest"])
def test_what_was_damaged_is_made_anew(packed: Packed, tmp_path: Path, damage: str) -> None:
    folder = unpacked(packed, tmp_path)
    file = folder / "pkg/m7.py"
    file.parent.chmod(0o700)
    file.chmod(0o600)
    if damage == "contents":
        file.write_text("value = 8\n")
    elif damage == "size":
        file.write_text("")
    elif damage == "removed":
        file.unlink()
    elif damage == "link":
        tree(tmp_path, {"same.py": file.read_text()})
        file.unlink()
        file.symlink_to(tmp_path / "same.py")
    else:
        (folder.parent / "MANIFEST").chmod(0o600)
        (folder.parent / "MANIFEST").write_text("")
    assert contents(unpacked(packed, tmp_path)) == FILES
    assert not file.is_symlink()
    assert (folder.parent / "MANIFEST").read_bytes() == packed.manifest.text
    assert [path.name for path in tmp_path.glob(".*") if path.is_dir()] == []


def test_23_nothing_is_written_for_an_archive_that_is_refused(tmp_path: Path) -> None:
    two = manifest(entry("a.py", b"1"), entry("b.py", b"2"))
    evil = [
        member("files/a.py", b"1"),
        member("files/b.py", type=b"2", linkname="/etc/passwd"),
    ]
    with pytest.raises(errors.BundleError, match="there is a symbolic link"):
        unpack(io.BytesIO(made(two.text, evil)), two.digest, tmp_path / "code")
    left = {path.name for path in (tmp_path / "code").iterdir()}
    assert left == {f".{two.digest}.lock"}


def test_a_disk_that_cannot_be_written_is_named(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.BundleError, match=r"cannot be unpacked in .*file/code.*make room"):
        unpacked(packed, tmp_path / "file/code")


def test_many_at_once_share_one(packed: Packed, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: unpacked(packed, tmp_path / "code"), range(16)))
    assert len(folders) == 1
    assert contents(folders.pop()) == FILES
    assert len([*(tmp_path / "code").iterdir()]) == 2  # it, and its lock


STANDING_STILL = """
import sys, time
from raflow.bundles import unpack

class Slow:
    def __init__(self, path):
        self.file, self.left = open(path, "rb"), 3

    def read(self, size):
        self.left -= 1
        if not self.left:
            print("half", flush=True)
            time.sleep(600)
        return self.file.read(max(1, __import__("os").path.getsize(self.file.name) // 4))

unpack(Slow(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def test_a_process_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    noise = {f"m{n}.bin": os.urandom(100_000) for n in range(8)}
    packed = pack(tree(tmp_path / "root", noise))
    (tmp_path / "archive").write_bytes(archive(packed))
    where = tmp_path / "code"
    words = [STANDING_STILL, str(tmp_path / "archive"), packed.manifest.digest, str(where)]
    with subprocess.Popen(
        [sys.executable, "-c", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        draft = where / f".{packed.manifest.digest}.draft"
        assert any((draft / "files").iterdir())
        process.send_signal(signal.SIGKILL)
    assert not (where / packed.manifest.digest).exists()
    folder = unpacked(packed, where)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == noise
    assert not draft.exists()
