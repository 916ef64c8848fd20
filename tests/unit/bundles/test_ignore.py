"""What ignore files leave out is what git leaves out."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raflow.bundles import pack
from tests.unit.bundles.making import paths, tree

REPOSITORY = {".git/HEAD": "ref: refs/heads/main\n", ".git/objects/x": "", ".git/refs/x": ""}
FOLDERS = ("", "a/", "b/", "a/b/", "a/b/c/")
NAMES = ("a", "b", "c", "x.py", "a.log", "b c")
PATTERNS = (
    *("a", "b", "c", "*", "**", "*.py", "x.*"),
    *("a/b", "a/*", "a/**", "[ab]", "?", "b c"),
)
LINES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "!", "/", "!/", "**/", "#", " "]),
        st.sampled_from(PATTERNS),
        st.sampled_from(["", "", "/", "/**", "/c", "/**/c", " "]),
    ),
)  # fmt: skip
RULES = st.dictionaries(
    st.sampled_from(FOLDERS), st.lists(LINES, min_size=1, max_size=4), max_size=3
)
FILES = st.sets(
    st.builds("".join, st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES))), min_size=1
)


def taken(root: Path) -> set[str]:
    """Return the files that a bundle has, without the ignore files."""
    found = paths(pack(tree(root, {"kept": ""}), include=["kept"]))
    return {path for path in found - {"kept"} if not path.endswith(".gitignore")}


def git_takes(root: Path, files: set[str]) -> set[str]:
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=root,
        input="\0".join(sorted(files)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return files - set(done.stdout.split("\0"))


@settings(max_examples=60)
@given(RULES, FILES)
@example({"": ["/*", "!/a", "!/a/"], "a/": ["b/"]}, {"a/x.py", "a/b/x.py", "x.py"})
@example({"": ["*/", "!a/"]}, {"a/x.py", "a/b/x.py"})
@example({"": ["a/*", "!a/b"]}, {"a/x.py", "a/b/x.py"})
@example({"": ["a/**", "!a/x.py"]}, {"a/x.py", "a/c"})
@example({"": ["a/**/"]}, {"a/x.py", "a/b/x.py"})
@example({"": ["*.py"], "a/": ["!x.py"]}, {"a/x.py", "b/x.py"})
def test_git_agrees(rules: dict[str, list[str]], files: set[str]) -> None:
    files = {path for path in files if not any(o.startswith(f"{path}/") for o in files)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tree(root, {**REPOSITORY, **dict.fromkeys(files, "")})
        for place, lines in rules.items():
            if (root / place).is_dir():
                tree(root, {f"{place}.gitignore": "\n".join(lines)})
        assert (taken(root), rules) == (git_takes(root, files), rules)


def test_ignore_files_above_the_root_count_up_to_the_top_of_the_repository(tmp_path: Path) -> None:
    tree(tmp_path, {".gitignore": "x.py"})
    tree(tmp_path / "repository", {".git/HEAD": "", ".gitignore": "*.log\n/flows/one/data\n"})
    files = {"a.log": "", "data/big": "", "x.py": "", "sub/a.log": ""}
    root = tree(tmp_path / "repository/flows/one", {**files, "sub/.gitignore": "!a.log"})
    assert taken(root) == {"x.py", "sub/a.log"}


def test_a_byte_order_mark_is_no_part_of_a_pattern(tmp_path: Path) -> None:
    tree(tmp_path, {".gitignore": "\ufeffx.log\n", "x.log": "", "main.py": ""})
    assert taken(tmp_path) == {"main.py"}


def test_raflowignore_has_the_last_word_and_exclude_a_later_one(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            ".gitignore": "*.bin\r\nnotes\r\n",
            ".raflowignore": "!model.bin\ndocs/\n",
            "model.bin": "",
            "other.bin": "",
            "notes": "",
            "docs/x.md": "",
            "main.py": "",
            "old.py": "",
        },
    )
    kept = {".gitignore", ".raflowignore", "model.bin", "main.py"}
    assert paths(pack(tmp_path)) == {*kept, "old.py"}
    assert paths(pack(tmp_path, exclude=["old.*"])) == kept


@pytest.mark.parametrize("line", ["!", "[z-a]", "\\", "//", "/"])
def test_a_line_that_is_no_pattern_means_nothing(tmp_path: Path, line: str) -> None:
    tree(tmp_path, {".gitignore": f"{line}\nx.log\n", "x.log": "", "main.py": ""})
    assert taken(tmp_path) == {"main.py"}
