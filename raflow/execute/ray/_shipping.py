"""Which of the user's modules travel with the functions that need them."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from types import ModuleType
from typing import Final

import ray.cloudpickle as ray_pickle

_INSTALLED: Final = tuple(
    os.path.join(os.path.realpath(sysconfig.get_path(key)), "")
    for key in ("stdlib", "platstdlib", "purelib", "platlib")
)

_never_sent: Final[set[str]] = set()
"""Names of loaded modules that are raflow's own, installed, or in no file. Looking at all modules
again takes a flow run some milliseconds."""


class Shipping:
    """Has modules sent by value that worker processes cannot import.

    On this machine those are modules that were loaded from a path. On a cluster that we joined they
    are all modules below the given directories: its nodes need not have our files. Installed
    packages are never sent.
    """

    def __init__(self, roots: tuple[str, ...], *, same_machine: bool) -> None:
        """Prepare it.

        Args:
            roots: Directories of the user's own code.
            same_machine: Whether all worker processes see our files.
        """
        self._roots = tuple(os.path.join(os.path.realpath(root), "") for root in roots)
        self._same_machine = same_machine
        self._seen: set[str] = set()

    def prepare(self, module: str) -> None:
        """Decide about a module, and about the user's modules that are loaded."""
        # A list of its items is not made at once: objects that are collected meanwhile let another
        # thread run, which may import something.
        for name, loaded in sys.modules.copy().items():
            if name not in _never_sent and name not in self._seen:
                self._seen.add(name)
                file = _own_file(name, loaded)
                if file is None:
                    _never_sent.add(name)
                elif self._must_travel(name, file, named=name == module):
                    ray_pickle.register_pickle_by_value(loaded)

    def _must_travel(self, name: str, file: str, *, named: bool) -> bool:
        if not (named or file.startswith(self._roots)):
            return False
        return not (self._same_machine and _found_at(name) == file)


def _own_file(name: str, module: ModuleType) -> str | None:
    """Return the file of a module that may have to be sent; None for all others."""
    file = getattr(module, "__file__", None)
    # cloudpickle sends __main__ by value anyway; raflow is installed wherever its workers are.
    if name.partition(".")[0] in {"__main__", "raflow"} or not isinstance(file, str):
        return None
    if file.startswith(_INSTALLED):
        return None
    file = _real(file)
    return None if file.startswith(_INSTALLED) else file


@functools.lru_cache(maxsize=4096)
def _real(file: str) -> str:
    """Return a path without links; every run asks for those of all modules."""
    return os.path.realpath(file)


def _found_at(name: str) -> str | None:
    """Return the file that a fresh process would import under a name."""
    path = None
    origin = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        spec = None
        for finder in sys.meta_path:
            spec = finder.find_spec(".".join(parts[:end]), path)
            if spec is not None:
                break
        if spec is None:
            return None
        path, origin = spec.submodule_search_locations, spec.origin
    return os.path.realpath(origin) if origin else None
