"""The manifest of a bundle: one text for one set of files, and only paths that fit everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors
from raflow.bundles import Entry, Limits, Manifest
from tests.unit.bundles.making import entry, manifest

NAMES = st.text(st.sampled_from("abAB.é-_ ß"), min_size=1, max_size=4)
ENTRIES = st.lists(
    st.builds(
        entry,
        st.lists(NAMES, min_size=1, max_size=3).map("/".join),
        st.binary(max_size=3),
        executable=st.booleans(),
    ),
    max_size=6,
)


def test_it_is_a_sorted_line_for_each_file() -> None:
    made = manifest(entry("b.py", b"2", executable=True), entry("a/x.py", b"1"))
    one, two = (made.entries[n].sha256 for n in range(2))
    assert made.text.decode() == f"- 1 {one} a/x.py\nx 1 {two} b.py\n"
    assert made.size == 2
    assert len(made.digest) == 64


@given(ENTRIES, st.randoms())
def test_what_is_written_is_read_again_whatever_the_order(
    entries: list[Entry], rng: object
) -> None:
    try:
        made = manifest(*entries)
    except errors.BundleError:
        return
    assert manifest(*reversed(entries)) == made
    assert Manifest.parse(made.text, Limits()) == made


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a/./b",
        "",
        "a/",
        "a\\..\\b",
        "a\nb",
        "a\x00b",
        "a\x7f",
        "e\u0301",
        "\udcff",
        "n" * 256,
        "/".join(["n" * 200] * 6),
    ],
)
def test_paths_that_do_not_fit_everywhere_are_refused(path: str) -> None:
    with pytest.raises(errors.BundleError, match=r"cannot be in a bundle.*Rename it"):
        Manifest.of([Entry(path=path, size=0, sha256="0" * 64)], Limits())


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("a.py", "A.py", "upper and lower case"),
        ("pkg/a.py", "Pkg/b.py", "upper and lower case"),
        ("straße", "STRASSE", "upper and lower case"),
        ("a", "a/b", "a file and a folder"),
        ("a.py", "a.py", "are the same"),
    ],
)
def test_paths_that_are_one_file_somewhere_are_refused(one: str, other: str, said: str) -> None:
    with pytest.raises(errors.BundleError, match=said):
        manifest(entry(one), entry(other))


@pytest.mark.parametrize(
    "text",
    [
        b"x 1 abc a\n",
        b"- 01 " + b"0" * 64 + b" a\n",
        b"- 1 " + b"0" * 64 + b" a",
        b"- 1 " + b"0" * 64 + b" b\n- 1 " + b"0" * 64 + b" a\n",
        b"- 1 " + b"0" * 64 + b" a\n- 1 " + b"0" * 64 + b" a\n",
        b"- 1 " + b"0" * 64 + b" ../a\n",
        b"- 1 " + b"0" * 64 + b" /a\n",
        b"\xff\n",
        b"\n",
    ],
)
def test_a_text_that_raflow_does_not_write_is_refused(text: bytes) -> None:
    with pytest.raises(errors.BundleError):
        Manifest.parse(text, Limits())


@pytest.mark.parametrize(
    "limits", [Limits(files=2), Limits(file_bytes=299), Limits(total_bytes=599)]
)
def test_what_is_too_large_is_refused_with_the_largest_files(limits: Limits) -> None:
    entries = [entry(f"{n}.bin", b"x" * n * 100) for n in (1, 2, 3)]
    with pytest.raises(errors.BundleError, match=r"'3\.bin'.*, '2\.bin'.*\.raflowignore"):
        Manifest.of(entries, limits)
    text = manifest(*entries).text
    with pytest.raises(errors.BundleError):
        Manifest.parse(text, limits)
