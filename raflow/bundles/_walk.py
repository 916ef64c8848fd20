"""Which files of a directory go into its bundle."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from raflow import errors
from raflow.bundles._ignore import Rules, is_ignored
from raflow.bundles._manifest import Limits, too_large

_NEVER: Final = frozenset(
    {
        ".DS_Store",
        ".git",
        ".hg",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".raflow",
        ".ruff_cache",
        ".svn",
        ".tox",
        ".venv",
        "__pycache__",
        "node_modules",
        "venv",
    }
)
_SECRETS: Final = (
    ".env*",
    "*.pem",
    "*.key",
    "id_*",
    "credentials*",
    "*.p12",
    "*.pfx",
    "*.keystore",
    ".netrc",
    ".pypirc",
    ".pgpass",
)
_NO_SECRETS: Final = ("*.py", "*.pyi", "*.pub", "*.example", "*.sample", "*.template")


class Found(NamedTuple):
    """A file that goes into a bundle."""

    path: str
    """From the root, in form NFC."""
    file: Path
    """Where its contents are: elsewhere if it is a link."""
    size: int


@dataclass(slots=True, kw_only=True)
class Walk:
    """A walk through a directory."""

    root: Path
    """Without links in it."""
    include: frozenset[str]
    """Files that are taken in any case."""
    limits: Limits
    base: str = ""
    """The root as the ignore files see it: they may stand above it. Ends with a slash, or empty."""
    found: dict[str, Found] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """What somebody may miss, a sentence each."""

    def files(self, rules: Sequence[Rules]) -> list[Found]:
        """Return what goes into the bundle.

        Args:
            rules: Of the root and of folders above it, the root's first.
        """
        self._folder(self.root, "", rules, (os.path.realpath(self.root),))
        for path in sorted(self.include - self.found.keys()):
            self._included(path)
        return list(self.found.values())

    def _folder(
        self, folder: Path, path: str, rules: Sequence[Rules], way: tuple[str, ...]
    ) -> None:
        """Walk a folder: `path` is its path with a slash, `way` the real folders that led here."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise unreadable(path or ".", error) from error
        for entry in entries:
            name = unicodedata.normalize("NFC", entry.name)
            if name in _NEVER or name.endswith(".pyc"):
                continue
            if entry.is_symlink():
                self._link(Path(entry.path), path + name, rules, way)
            elif entry.is_dir():
                self._subfolder(Path(entry.path), path + name, rules, way)
            else:
                self._file(Path(entry.path), path + name, rules)

    def _subfolder(
        self, folder: Path, path: str, rules: Sequence[Rules], way: tuple[str, ...]
    ) -> None:
        if self._is_ignored(f"{path}/", rules) or Path(folder, "pyvenv.cfg").is_file():
            return
        real = os.path.realpath(folder)
        if real in way:
            raise errors.BundleError(
                f"The link {path!r} leads back to a folder that it is in, so the bundle would "
                "never end. Remove it, or leave it out with a line in .raflowignore.",
                path=path,
            )
        inner = Rules.read(f"{self.base}{path}/", folder)
        self._folder(folder, f"{path}/", [inner, *rules], (*way, real))

    def _link(self, link: Path, path: str, rules: Sequence[Rules], way: tuple[str, ...]) -> None:
        if self._is_ignored(path, rules):
            return
        target = Path(os.path.realpath(link))
        if not target.is_relative_to(self.root) or not target.exists():
            how = "does not exist" if target.is_relative_to(self.root) else "is outside"
            raise errors.BundleError(
                f"The link {path!r} leads to {os.readlink(link)!r}, which {how}: the bundle of "
                f"{str(self.root)!r} holds only what is in that directory. Copy it there, or leave "
                "the link out with a line in .raflowignore.",
                path=path,
            )
        parts = target.relative_to(self.root).parts
        if any(part in _NEVER for part in parts):
            self.left_out.append(f"{path!r} leads to {'/'.join(parts)!r}, which is never packed.")
        elif target.is_dir():
            self._subfolder(link, path, rules, way)
        elif looks_secret(target.name) and path not in self.include:
            self._secret(path)
        else:
            self._file(target, path, rules)

    def _file(self, file: Path, path: str, rules: Sequence[Rules]) -> None:
        if path in self.include:
            self._take(file, path)
        elif self._is_ignored(path, rules):
            return
        elif looks_secret(path.rpartition("/")[2]):
            self._secret(path)
        else:
            self._take(file, path)

    def _included(self, path: str) -> None:
        """Take a file that was asked for, in whatever folder it is."""
        target = Path(os.path.realpath(self.root / path))
        if not target.is_relative_to(self.root) or not target.is_file():
            raise errors.BundleError(
                f"include={path!r} names no file in {str(self.root)!r}. Write the path of one "
                "file, from that directory.",
                path=path,
            )
        self._take(target, unicodedata.normalize("NFC", path))

    def _take(self, file: Path, path: str) -> None:
        try:
            status = file.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            self.left_out.append(f"{path!r} is left out: it is a socket, pipe or device.")
            return
        if path in self.found:
            raise errors.BundleError(
                f"Two files are called {path!r} once their names are in Unicode's form NFC. "
                "Rename one.",
                path=path,
            )
        self.found[path] = Found(path, file, status.st_size)
        if len(self.found) > self.limits.files:
            raise too_large(
                ((found.size, found.path) for found in self.found.values()), self.limits
            )

    def _secret(self, path: str) -> None:
        self.left_out.append(
            f"{path!r} is left out: files of that name hold secrets. If the flow needs it, name it "
            f"in `include` (--include {path}); settings are better given to the worker."
        )

    def _is_ignored(self, path: str, rules: Iterable[Rules]) -> bool:
        return is_ignored(self.base + path, rules)


def rules_of(root: Path, exclude: Sequence[str]) -> tuple[str, list[Rules]]:
    """Return the root as seen from the top of its git repository, and the rules that hold there.

    Args:
        root: Of the bundle.
        exclude: Patterns that have the last word.
    """
    above = list(_up_to_repository(root))
    top = above[-1]
    rules = []
    for folder in above:
        below = folder.relative_to(top).as_posix()
        rules.append(Rules.read("" if below == "." else f"{below}/", folder))
    base = "" if top == root else f"{root.relative_to(top).as_posix()}/"
    return base, [Rules.of(base, exclude), *rules]


def looks_secret(name: str) -> bool:
    """Whether files of such a name usually hold keys or passwords."""
    lower = name.lower()
    if any(fnmatchcase(lower, pattern) for pattern in _NO_SECRETS):
        return False
    return any(fnmatchcase(lower, pattern) for pattern in _SECRETS)


def _up_to_repository(root: Path) -> Iterator[Path]:
    """Return the root and the folders above it up to the git repository it is in, if any."""
    folders = (root, *root.parents)
    top = next((n for n, folder in enumerate(folders) if Path(folder, ".git").exists()), 0)
    yield from folders[: top + 1]


def unreadable(path: str, error: OSError) -> errors.BundleError:
    """Return the error that names what cannot be read."""
    return errors.BundleError(
        f"{path!r} cannot be read: {error.strerror or error}. Make it readable, or leave it out "
        "with a line in .raflowignore.",
        path=path,
    )
