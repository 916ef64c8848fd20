"""Which paths ignore files leave out, as git reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

IGNORE_FILES: Final = (".gitignore", ".raflowignore")
"""Of one folder, the later one has the last word."""
_FOLDER_MARK: Final = "ps_d"
"""What pathspec calls the slash after the folder that a pattern has matched."""


class Rules(NamedTuple):
    """The patterns that stand in one folder."""

    folder: str
    """From the outermost folder, with a slash at its end; empty: that folder itself."""
    patterns: tuple[GitIgnoreSpecPattern, ...]
    """The last one first: it decides."""

    @classmethod
    def of(cls, folder: str, lines: Iterable[str]) -> Rules:
        """Read patterns; as with git, a line that is none means nothing."""
        patterns = [pattern for line in lines for pattern in _pattern(line)]
        return cls(folder, tuple(reversed(patterns)))

    @classmethod
    def read(cls, folder: str, path: Path) -> Rules:
        """Read the ignore files of a folder."""
        lines: list[str] = []
        for name in IGNORE_FILES:
            file = path / name
            if file.is_file():
                text = file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
                lines += text.split("\n")
        return cls.of(folder, lines)


def is_ignored(path: str, rules: Iterable[Rules]) -> bool:
    """Whether rules leave out a path, none of whose folders they leave out.

    Args:
        path: From the outermost folder; a folder has a slash at its end.
        rules: The innermost folder's first.
    """
    for folder, patterns in rules:
        below = path.removeprefix(folder)
        for pattern in patterns:
            if _matches(pattern, below):
                return bool(pattern.include)
    return False


def _pattern(line: str) -> Iterator[GitIgnoreSpecPattern]:
    line = line.rstrip("\r")
    if line.rstrip(" ").endswith("/**/"):
        # All folders below a folder. pathspec takes it for the folder itself.
        line = f"{line.rstrip(' ')}*/"
    try:
        pattern = GitIgnoreSpecPattern(line)
    except (ValueError, re.error):
        return
    if pattern.include is not None:
        yield pattern


def _matches(pattern: GitIgnoreSpecPattern, path: str) -> bool:
    """Whether a pattern means this path, and not only a folder that it is in.

    pathspec's expressions also match what is below a folder. In a walk that would let a pattern
    decide twice: a folder that a later pattern takes in again would stay empty.
    """
    assert pattern.regex is not None
    for match in pattern.regex.finditer(path):
        reaches_end = match.end() == len(path)
        if match.groupdict().get(_FOLDER_MARK):
            if reaches_end:
                return True
        elif not (reaches_end and match.group().endswith("/")):  # `folder/**` is not the folder
            return True
    return False
