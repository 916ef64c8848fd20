"""Finds a flow by what a person writes: `file.py`, `file.py:flow`, `module` or `module:flow`."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from raflow import errors
from raflow.define._flow import Flow

_FILES_LOOKED_AT = 1_000


class Found(NamedTuple):
    """A flow, and how to find it again."""

    flow: Flow[..., Any]
    entrypoint: str
    """`/path/file.py:flow` or `module:flow`."""


def find_flow(target: str) -> Found:
    """Load the file or module, and return the flow in it.

    Args:
        target: `FILE[:FLOW]` or `MODULE[:FLOW]`; the flow may be left out where there is one only.

    Raises:
        NotFoundError: No such file, module or flow; or several flows and none was named.
        DefinitionError: The code raises an error when it is loaded.
    """
    place, name = _split(target)
    if not place:
        raise errors.NotFoundError(f"{target!r} names no file or module.")
    module = _load(place)
    flows = _flows_in(module)
    if not flows:
        raise errors.NotFoundError(
            f"{place!r} has no flow. Decorate a function in it with `@flow` (`from raflow import "
            "flow`)."
        )
    chosen = _choose(flows, name, place)
    # Whoever looks for the flow later may be somewhere else.
    where = str(Path(place).absolute()) if Path(place).is_file() else place
    return Found(flows[chosen], f"{where}:{chosen}")


def _flows_in(module: ModuleType) -> dict[str, Flow[..., Any]]:
    """Return the flows of a module by the name they have in it: its own, or else imported ones."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, Flow)}
    own = {name: flow for name, flow in found.items() if flow.fn.__module__ == module.__name__}
    return own or found


def _split(target: str) -> tuple[str, str]:
    if Path(target).exists():
        return target, ""
    place, colon, name = target.rpartition(":")
    return (place, name) if colon else (target, "")


def _choose(flows: dict[str, Flow[..., Any]], name: str, place: str) -> str:
    if not name:
        callers = _callers(flows)
        likely = [known for known, by in callers.items() if not by]
        if len(likely) == 1:
            return likely[0]
        listed = "\n".join(
            f"  {place}:{known}" + (f"  (called by {by})" if by else "")
            for known, by in callers.items()
        )
        raise errors.NotFoundError(f"{place!r} has {len(flows)} flows. Name one:\n{listed}")
    for known, flow in flows.items():
        if name in {known, flow.name}:
            return known
    there = f"{place!r} has {', '.join(flows)}."
    raise errors.NotFoundError.of("flow", name, flows, there)


def _callers(flows: dict[str, Flow[..., Any]]) -> dict[str, str]:
    """Return who of the flows calls each of them, "" for nobody; those that are likely meant first.

    Those are the ones that no other calls, and among them what was defined last.
    """
    by = {
        known: next((name for name, other in flows.items() if _calls(other, flow)), "")
        for known, flow in reversed(flows.items())
    }
    return dict(sorted(by.items(), key=lambda found: bool(found[1])))


def _calls(flow: Flow[..., Any], other: Flow[..., Any]) -> bool:
    return flow is not other and any(found is other for found in flow.tasks())


def _load(place: str) -> ModuleType:
    path = Path(place)
    if path.is_dir():
        raise errors.NotFoundError(f"{place!r} is a directory. Name the Python file in it.")
    if path.is_file():
        return _load_file(path.resolve())
    if place.endswith(".py") or "/" in place:
        raise errors.NotFoundError.of("file", place, _files_near(path))
    return _load_module(place)


def _files_near(missing: Path) -> list[str]:
    """Return Python files that may have been meant: those below the last directory that exists."""
    there = next(parent for parent in (*missing.parents, Path()) if parent.is_dir())
    levels = len(missing.parts) - len(there.parts)
    patterns = ("*/" * depth + "*.py" for depth in range(levels))
    found = (path for pattern in patterns for path in there.glob(pattern))
    return [str(path) for path in itertools.islice(found, _FILES_LOOKED_AT)]


def _load_module(name: str) -> ModuleType:
    _put_first(str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package is missing, or is no package
        spec = None
    if spec is None:
        raise errors.NotFoundError.of(
            "file or module",
            name,
            [str(path) for path in Path().glob("*.py")],
            "Write `raflow run FILE.py` or `raflow run MODULE:FLOW`.",
        )
    return _guarded_import(name, name)


def _load_file(path: Path) -> ModuleType:
    """Import a file as its own package layout says, so that worker processes find it by name."""
    parts = [path.stem] if path.name != "__init__.py" else []
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    name = ".".join(parts)
    _put_first(str(root))
    if "." in path.stem or _taken(name, path):
        return _load_apart(path)
    return _guarded_import(name, str(path))


def _taken(name: str, path: Path) -> bool:
    """Whether `import name` gives another module than the file: json.py, test.py, typing.py."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "__file__", None) != str(path)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return True
    return spec is None or spec.origin != str(path)


def _load_apart(path: Path) -> ModuleType:
    name = f"raflow_file_{path.stem.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise errors.NotFoundError(f"{str(path)!r} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    import cloudpickle  # noqa: PLC0415  # few files need it, and it takes long

    # Worker processes cannot import it under this name.
    cloudpickle.register_pickle_by_value(module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise _broken(error, str(path)) from error
    return module


def _guarded_import(name: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise _broken(error, place) from error


def _broken(error: BaseException, place: str) -> errors.DefinitionError:
    summary = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return errors.DefinitionError(
        f"{place!r} cannot be loaded: {summary}", user_traceback=_user_traceback(error)
    )


def _user_traceback(error: BaseException) -> str:
    """Return the traceback without the frames of the import system and of raflow."""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if not _is_internal(frame.filename)]
    )
    return "".join(shown.format(chain=False)).rstrip()


def _is_internal(file: str) -> bool:
    inside = str(Path(errors.__file__).parent)
    return file.startswith(("<frozen importlib", inside)) or file == importlib.__file__


def _put_first(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
