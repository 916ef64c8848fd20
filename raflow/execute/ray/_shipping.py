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
        for name, loaded in list(sys.modules.items()):
            if name not in self._seen:
                self._seen.add(name)
                if self._must_travel(name, loaded, named=name == module):
                    ray_pickle.register_pickle_by_value(loaded)

    def _must_travel(self, name: str, module: ModuleType, *, named: bool) -> bool:
        file = getattr(module, "__file__", None)
        # cloudpickle sends __main__ by value anyway; raflow is installed wherever its workers are.
        if name.partition(".")[0] in {"__main__", "raflow"} or not isinstance(file, str):
            return False
        if file.startswith(_INSTALLED):
            return False
        file = _real(file)
        if file.startswith(_INSTALLED) or not (named or file.startswith(self._roots)):
            return False
        return not (self._same_machine and _found_at(name) == file)


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
