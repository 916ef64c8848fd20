"""Archives of others: nothing in them is acted upon that their digest does not name."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors
from raflow.bundles import Archive, Limits, pack
from tests.unit.bundles.making import archive, entry, made, manifest, member, tree


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


ONE = manifest(entry("main.py", b"print(1)"))
DATA = made(ONE.text, [member("files/main.py", b"print(1)")])


def check(data: bytes, digest: str = ONE.digest, limits: Limits = Limits()) -> None:  # noqa: B008
    assert Archive(io.BytesIO(data), digest, limits).check().digest == digest


def test_what_was_packed_is_read_again(tmp_path: Path) -> None:
    long = f"{'folder-é/' * 20}{'n' * 120}.py"
    tree(
        tmp_path,
        {"main.py": "x" * 3_000_000, "empty": "", long: "deep", "b" * 94: "", "b" * 95: ""},
    )
    packed = pack(tmp_path)
    read = Archive(io.BytesIO(archive(packed)), packed.manifest.digest)
    contents = {entry.path: b"".join(pieces) for entry, pieces in read.members()}
    assert read.manifest == packed.manifest
    assert contents.keys() == {entry.path for entry in packed.manifest.entries}
    assert contents[long] == b"deep"
    assert len(contents["main.py"]) == 3_000_000


def test_any_program_can_read_it(tmp_path: Path) -> None:
    tree(tmp_path, {"main.py": "print(1)", "n" * 120: "", "run.sh": ""})
    (tmp_path / "run.sh").chmod(0o755)
    data = zstandard.ZstdDecompressor().decompressobj().decompress(archive(pack(tmp_path)))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        modes = {info.name: info.mode for info in tar}
    assert modes == {
        "MANIFEST": 0o644,
        "files/main.py": 0o644,
        f"files/{'n' * 120}": 0o644,
        "files/run.sh": 0o755,
    }


def test_another_program_may_have_written_it() -> None:
    check(DATA)
    check(made(ONE.text, [member("files/main.py", b"print(1)")], form=tarfile.USTAR_FORMAT))


# The numbers are those of the attack cases in the project's notes on security; 23 is "upload".
EVIL = {
    "zip slip": [member("files/../main.py", b"print(1)")],
    "absolute": [member("/etc/main.py", b"print(1)")],
    "symbolic link": [member("files/main.py", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "hard link": [member("files/main.py", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "device": [member("files/main.py", type=tarfile.CHRTYPE, devmajor=1, devminor=5)],
    "pipe": [member("files/main.py", type=tarfile.FIFOTYPE)],
    "folder": [member("files/main.py", type=tarfile.DIRTYPE)],
    "sparse": [member("files/main.py", b"print(1)", type=tarfile.GNUTYPE_SPARSE)],
    "another name": [member("files/other.py", b"print(1)")],
    "other contents": [member("files/main.py", b"print(2)")],
    "more contents": [member("files/main.py", b"print(1) or evil()")],
    "less contents": [member("files/main.py", b"print")],
    "nothing": [],
    "twice": [member("files/main.py", b"print(1)"), member("files/main.py", b"print(2)")],
    "one more": [member("files/main.py", b"print(1)"), member("files/more.py", b"")],
    "one before": [member("files/before.py", b""), member("files/main.py", b"print(1)")],
    "a link with a long name": [
        member("files/" + "n" * 200, type=tarfile.SYMTYPE, linkname="x" * 200)
    ],
}


@pytest.mark.parametrize("case", EVIL)
def test_23_what_its_manifest_does_not_say_is_refused(case: str) -> None:
    with pytest.raises(errors.BundleError, match=f"Bundle {ONE.digest!r} is refused"):
        check(made(ONE.text, EVIL[case]))


def test_23_nothing_hides_behind_the_end_of_a_file() -> None:
    raw = bytearray(zstandard.decompress(DATA))
    raw[raw.index(b"print(1)") + 100] = 1
    with pytest.raises(errors.BundleError, match="something is hidden"):
        check(zstandard.compress(bytes(raw)))


def test_23_a_name_in_an_extended_header_is_refused() -> None:
    info, content = member("files/main.py", b"print(1)")
    info.pax_headers = {"path": "../../etc/passwd"}
    with pytest.raises(errors.BundleError, match="is refused"):
        check(made(ONE.text, [(info, content)], form=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    "line", ["../x", "/etc/x", "a/../../x", "a\\x", "a//x", "x\x00y"], ids=ascii
)
def test_23_a_manifest_with_such_paths_is_refused_before_anything_is_read(line: str) -> None:
    text = ONE.text + f"- 0 {'0' * 64} {line}\n".encode()
    with pytest.raises(errors.BundleError, match=r"cannot be in a bundle|names no file"):
        Archive(io.BytesIO(made(text, [])), digest_of(text))


def test_23_a_manifest_with_clashing_names_is_refused() -> None:
    text = f"- 0 {'0' * 64} A.py\n- 0 {'0' * 64} a.py\n".encode()
    with pytest.raises(errors.BundleError, match="upper and lower case"):
        Archive(io.BytesIO(made(text, [])), digest_of(text))


def test_23_too_many_files_are_refused() -> None:
    text = b"".join(f"- 0 {'0' * 64} {n:07}\n".encode() for n in range(10_001))
    with pytest.raises(errors.BundleError, match="10,001 files"):
        Archive(io.BytesIO(made(text, [])), digest_of(text))
    header, _ = member("MANIFEST", size=1 << 32)
    with pytest.raises(errors.BundleError, match="4,294,967,296 bytes"):
        Archive(io.BytesIO(zstandard.compress(header.tobuf())), ONE.digest)


@pytest.mark.parametrize("where", ["in a file", "in the manifest", "after the end"])
def test_13_23_a_bomb_takes_no_memory(where: str) -> None:
    zeros = bytes(64 << 20)
    if where == "in a file":
        data = made(ONE.text, [member("files/main.py", zeros)])
    elif where == "in the manifest":
        data = made(zeros, [])
    else:
        whole = zstandard.decompress(DATA)
        data = zstandard.compress(whole + zeros)
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(errors.BundleError):
            check(data)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_13_a_window_that_asks_for_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(bytes(1 << 20)) + compressor.flush()
    with pytest.raises(errors.BundleError, match="cannot be decompressed"):
        check(data)


def test_another_bundle_is_told_apart_from_a_damaged_one() -> None:
    with pytest.raises(errors.BundleMismatchError, match=f"should be bundle '{'0' * 64}'"):
        check(DATA, "0" * 64)


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_18_a_name_of_a_bundle_is_nothing_else(digest: str) -> None:
    with pytest.raises(errors.BundleError, match="is no name of a bundle"):
        Archive(io.BytesIO(), digest)


@given(st.data())
def test_any_other_bytes_are_refused_and_nothing_worse(data: st.DataObject) -> None:
    raw = bytearray(zstandard.decompress(DATA))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    for bad in (zstandard.compress(bytes(raw[:at])), zstandard.compress(bytes(raw))):
        try:
            read = Archive(io.BytesIO(bad), ONE.digest)
            contents = b"".join(b"".join(pieces) for _, pieces in read.members())
        except errors.BundleError:
            continue
        assert contents == b"print(1)"  # what has changed is an owner, a time or a mode


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    for noise in (data, zstandard.compress(data)):
        with pytest.raises(errors.BundleError):
            check(noise)
