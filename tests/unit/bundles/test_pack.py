"""Packing a directory: equal files make equal bundles, and what is not code stays where it is."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow import errors
from raflow.bundles import Limits, pack
from tests.unit.bundles.making import archive, entry, manifest, paths, tree

FILES = {f"pkg/m{n}.py": f"value = {n}\n" * n for n in range(20)} | {"main.py": "", "é.txt": "é"}


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_same_files_make_the_same_bundle(tmp_path: Path, umask: None) -> None:
    one = tree(tmp_path / "one", FILES)
    os.umask(0o002)
    shuffled = random.Random(0).sample(sorted(FILES), len(FILES))
    two = tree(tmp_path / "two", {path: FILES[path] for path in shuffled})
    for number, file in enumerate(sorted(two.rglob("*.py"))):
        os.utime(file, (number, number))
    assert pack(one).manifest.digest == pack(two).manifest.digest
    assert archive(pack(one)) == archive(pack(two))
    (two / "main.py").chmod(0o755)
    assert pack(one).manifest.digest != pack(two).manifest.digest


def test_any_change_makes_another_bundle(tmp_path: Path) -> None:
    tree(tmp_path, FILES)
    digests = [pack(tmp_path).manifest.digest]
    for change in ({"main.py": "x"}, {"new.py": ""}, {"pkg/m1.py": "value = 2\n"}):
        tree(tmp_path, change)
        digests.append(pack(tmp_path).manifest.digest)
    (tmp_path / "new.py").rename(tmp_path / "newer.py")
    digests.append(pack(tmp_path).manifest.digest)
    assert len(set(digests)) == len(digests)


def test_names_are_in_one_form_of_unicode(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", {"e\u0301.py": ""})
    two = tree(tmp_path / "two", {"\u00e9.py": ""})
    assert pack(one).manifest == pack(two).manifest
    tree(one, {"\u00e9.py": "another"})
    with pytest.raises(errors.BundleError, match="form NFC"):
        pack(one)


def test_what_is_no_code_is_left_out(tmp_path: Path) -> None:
    junk = {
        ".git/config": "",
        "pkg/__pycache__/m.cpython-311.pyc": "",
        "pkg/m.pyc": "",
        ".venv/bin/python": "",
        "mine/pyvenv.cfg": "",
        "mine/lib/x.py": "",
        "node_modules/x.js": "",
        ".mypy_cache/x": "",
        ".pytest_cache/x": "",
        ".raflow/raflow.db": "",
    }
    tree(tmp_path, {**junk, "pkg/m.py": "", ".github/workflow": ""})
    packed = pack(tmp_path)
    assert paths(packed) == {"pkg/m.py", ".github/workflow"}
    assert packed.left_out == ()


SECRETS = {
    ".env", ".env.local", ".envrc", "pkg/server.pem", "tls.KEY", "id_rsa", "id_ed25519",
    "credentials", "credentials.json", "x.p12", ".netrc", ".pypirc",
}  # fmt: skip
HARMLESS = {"id_maps.py", "credentials.py", ".env.example", "id_rsa.pub", "credentials/__init__.py"}


def test_files_that_look_like_secrets_are_left_out_with_a_remedy(tmp_path: Path) -> None:
    harmless = HARMLESS - {"credentials/__init__.py"}
    tree(tmp_path, dict.fromkeys(SECRETS | harmless, "x"))
    packed = pack(tmp_path)
    assert paths(packed) == harmless
    assert len(packed.left_out) == len(SECRETS)
    for secret in SECRETS:
        [said] = [text for text in packed.left_out if text.startswith(f"{secret!r} is left out")]
        assert f"--include {secret}" in said
    packed = pack(tmp_path, include=[".env"])
    assert paths(packed) == {*harmless, ".env"}
    assert len(packed.left_out) == len(SECRETS) - 1


def test_a_secret_that_is_ignored_is_no_news(tmp_path: Path) -> None:
    tree(tmp_path, {".gitignore": ".env\n", ".env": "", "main.py": ""})
    assert pack(tmp_path).left_out == ()


def test_what_is_included_by_name_is_taken_from_wherever_it_is(tmp_path: Path) -> None:
    tree(tmp_path, {".gitignore": "out/", "out/a.txt": "", "out/b.txt": "", "venv/x.pem": ""})
    packed = pack(tmp_path, include=["out/a.txt", "venv/x.pem"])
    assert paths(packed) == {".gitignore", "out/a.txt", "venv/x.pem"}
    for wrong in ("out", "no.txt", "../x"):
        with pytest.raises(errors.BundleError, match="names no file"):
            pack(tmp_path, include=[wrong])


def test_links_inside_are_what_they_lead_to(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"pkg/a.py": "a", "pkg/b.py": "b", ".env": "", ".git/HEAD": ""})
    (root / "again").symlink_to("pkg")
    (root / "one.py").symlink_to(root / "pkg/a.py")
    (root / "settings").symlink_to(".env")
    (root / "repository").symlink_to(".git")
    packed = pack(root)
    assert paths(packed) == {"pkg/a.py", "pkg/b.py", "again/a.py", "again/b.py", "one.py"}
    assert [text.split()[0] for text in packed.left_out] == ["'.env'", "'repository'", "'settings'"]
    copied = tree(tmp_path / "copied", {"pkg/a.py": "a", "pkg/b.py": "b", "one.py": "a"})
    tree(copied / "again", {"a.py": "a", "b.py": "b"})
    assert pack(copied).manifest == packed.manifest


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("../secret", "is outside"),
        ("/etc/passwd", "is outside"),
        ("nowhere", "does not exist"),
        (".", "never end"),
    ],
)
def test_links_that_lead_elsewhere_are_refused_unless_ignored(
    tmp_path: Path, target: str, said: str
) -> None:
    tree(tmp_path, {"secret": ""})
    root = tree(tmp_path / "root", {"main.py": ""})
    (root / "link").symlink_to(target)
    with pytest.raises(errors.BundleError, match=f"'link' lead.*{said}.*raflowignore"):
        pack(root)
    tree(root, {".raflowignore": "link"})
    assert paths(pack(root)) == {"main.py", ".raflowignore"}


def test_sockets_and_pipes_are_left_out_with_a_word(tmp_path: Path) -> None:
    tree(tmp_path, {"main.py": ""})
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tmp_path / "socket"))
        packed = pack(tmp_path)
    assert paths(packed) == {"main.py"}
    assert [text.split()[0] for text in packed.left_out] == ["'pipe'", "'socket'"]


def test_too_much_is_refused_with_the_largest_before_it_is_read(tmp_path: Path) -> None:
    tree(tmp_path, {"main.py": "x", "small.bin": "xx"})
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(errors.BundleError, match=r"largest are 'data\.bin' \(1,048,576\.0 MiB\)"):
        pack(tmp_path)
    with pytest.raises(errors.BundleError, match="may hold 2 files"):
        pack(tmp_path, limits=Limits(files=2))


def test_nothing_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(errors.BundleError, match=r"no file.*\.gitignore"):
        pack(tmp_path)
    with pytest.raises(errors.BundleError, match="no directory"):
        pack(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [b"\xff.py", b"a\nb.py", b"a\\b.py"])
def test_names_that_do_not_fit_everywhere_are_named(tmp_path: Path, name: bytes) -> None:
    os.close(os.open(os.path.join(os.fsencode(tmp_path), name), os.O_CREAT | os.O_WRONLY))
    with pytest.raises(errors.BundleError, match=r"cannot be in a bundle.*Rename it"):
        pack(tmp_path)


@pytest.mark.parametrize(("changes", "is_packed"), [(1, True), (2, False)])
@pytest.mark.parametrize("text", ["longer", "two"])
def test_a_file_that_changes_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int, is_packed: bool, text: str
) -> None:
    file = tree(tmp_path, {"main.py": "one"}) / "main.py"
    read, left = os.read, [changes]

    def reading(handle: int, size: int) -> bytes:
        found = read(handle, size)
        if left[0] and not found:
            left[0] -= 1
            file.write_text(text * (1 + left[0] * (text == "longer")))
            os.utime(file, (left[0], left[0]))  # the clock of a file system may be a coarse one
        return found

    monkeypatch.setattr(os, "read", reading)
    if is_packed:
        packed = pack(tmp_path)
        assert packed.manifest == manifest(entry("main.py", text.encode()))
    else:
        with pytest.raises(errors.BundleError, match=r"'main\.py' changed while it was packed"):
            pack(tmp_path)


@pytest.mark.parametrize("change", ["longer text", "", "tw", "two"])
def test_a_file_that_changes_before_it_is_sent_makes_no_archive(
    tmp_path: Path, change: str
) -> None:
    packed = pack(tree(tmp_path, {"main.py": "one"}))
    tree(tmp_path, {"main.py": change})
    with pytest.raises(errors.BundleError, match=r"'main\.py' changed while it was packed"):
        archive(packed)


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    packed = pack(tree(tmp_path, {"main.py": "one"}))
    (tmp_path / "main.py").unlink()
    os.mkfifo(tmp_path / "main.py")
    with pytest.raises(errors.BundleError, match="changed"):
        archive(packed)
    assert stat.S_ISFIFO((tmp_path / "main.py").stat().st_mode)
