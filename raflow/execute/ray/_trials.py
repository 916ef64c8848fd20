"""Asks Ray for processes, and tells why there are none as far as it can be known here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import ray
from ray._private import worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raflow import errors
from raflow.execute.ray._connect import Link
from raflow.execute.ray._starts import HeldUp, amounts
from raflow.model import Resources

_worker: Any = worker

_NODES_AT_ONCE: Final = 8
_LITTLE_SPACE: Final = 8 << 20
_TAIL: Final = 64 << 10
_WORDS: Final = 3
_WORD_LENGTH: Final = 300
_COMPLAINT: Final = re.compile(
    r"^\[[^\]]*\b[EC] \d+ \d+\] (.*)|^((?:\w+\.)*\w*(?:Error|Exception|Fatal Python error)\b.*)"
)
_ASSERTION: Final = "Check failed: "
_DROPPED: Final = re.compile(r"^(?:\(\w+\) )?(?:\w+\.cc:\d+:\s*)?")


def up() -> None:
    """Need nothing but a process."""


_OPTIONS: Final[dict[str, Any]] = {"num_cpus": 0, "max_retries": 0, "enable_task_events": False}
_UP: Final[Any] = ray.remote(**_OPTIONS)(up)


class Trial:
    """Tasks that need nothing but a process; see `_starts.Asked`."""

    def __init__(self, refs: Mapping[Any, str]) -> None:
        """Take them, and the name of the node of each."""
        self._refs = refs
        self.size = len(refs)

    def silent(self) -> Sequence[str]:
        """Return where none has taken it up so far."""
        refs = list(self._refs)
        _, waiting = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return [self._refs[ref] for ref in waiting]

    def drop(self) -> None:
        """Give up those that have not been taken up."""
        with contextlib.suppress(Exception):  # Ray is gone, or they have ended just now
            _, waiting = ray.wait(list(self._refs), num_returns=self.size, timeout=0)
            for ref in waiting:
                ray.cancel(ref, force=True)


def ask(env: str | None, wanted: Resources) -> Trial:
    """Ask for a process: on some nodes that have what is wanted, or anywhere with a runtime_env."""
    if env is not None:
        return Trial({_UP.options(runtime_env=json.loads(env)).remote(): ""})
    needs = amounts(wanted)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    fit = [n for n in nodes if all(n["Resources"].get(k, 0.0) >= v for k, v in needs.items())]
    return Trial({_on(node["NodeID"]): node["NodeManagerAddress"] for node in fit[:_NODES_AT_ONCE]})


def _on(node_id: str) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return _UP.options(scheduling_strategy=strategy).remote()


class Trouble(NamedTuple):
    """Why no process can be started, and what can be done."""

    what: str
    remedy: str
    is_general: bool = False
    """Whether it is known to concern every process, whatever its runtime_env."""


def trouble(link: Link, held: HeldUp) -> Trouble:
    """Say what is known here about why Ray starts no process."""
    local = link.raylet is not None and (link.shares_files or _address() in held.nodes)
    where = "" if link.shares_files else f" on {', '.join(filter(None, held.nodes))}"
    logs = _session() / "logs" if local else None
    if logs is not None:
        known = _token_trouble() or _disk_trouble(logs)
        if known is not None:
            return known
    words = last_words(logs / "raylet.err") if logs is not None else ()
    told = f"Ray wrote: {' / '.join(words)}" if words else "Ray has written nothing about it"
    place = f"{logs}" if logs else f"/tmp/ray/session_latest/logs{where}"  # noqa: S108 - Ray's
    if held.runtime_env is not None:
        parts = ", ".join(json.loads(held.runtime_env))  # what they are may be secret
        remedy = f"Check its {parts}; Ray's logs are in {place}"
        return Trouble(told, remedy)
    return Trouble(told, f"Look into Ray's logs in {place}")


def _token_trouble() -> Trouble | None:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not path or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_MODE") != "token":
        return None
    try:
        why = "" if Path(path).read_text().strip() else "it is empty"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or str(error)
    what = f"the file with the token of Ray, {path!r}, cannot be read: {why}"
    return Trouble(what, "Put the file back", is_general=True) if why else None


def _disk_trouble(logs: Path) -> Trouble | None:
    with contextlib.suppress(OSError):
        if shutil.disk_usage(logs).free < _LITTLE_SPACE:
            return Trouble(
                f"the disk of {str(logs.parent)!r} is full", "Make room on it", is_general=True
            )
    return None


def last_words(path: Path) -> Sequence[str]:
    """Return the last complaints in a log of Ray's, into which failing processes write, too."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    found = [told[1] or told[2] for told in map(_COMPLAINT.match, lines) if told is not None]
    plain = [_DROPPED.sub("", line.rpartition(_ASSERTION)[2]).strip() for line in found]
    return list(dict.fromkeys(line[:_WORD_LENGTH] for line in plain if line))[-_WORDS:]


def reason_of(held: HeldUp, why: Trouble, limit: float) -> str:
    """Say to people what batches wait for."""
    where = _where(held)
    with_it = "" if held.runtime_env is None else " with the runtime_env of a task"
    then = ""
    if held.everywhere:
        ends = "the run ends" if held.runtime_env is None else "its calls fail"
        then = f"; {ends} if none has come up after {limit:g} s"
    return f"Ray cannot start worker processes{where}{with_it}: {why.what}. {why.remedy}{then}"


def start_error(held: HeldUp, why: Trouble) -> errors.WorkerStartError:
    """Say why a run ends."""
    where = _where(held)
    return errors.WorkerStartError(
        f"Ray has not been able to start a worker process{where} for {held.seconds:.0f} s, so no "
        f"task can run: {why.what}. {why.remedy}, then go on with `raflow resume`.",
        nodes=tuple(held.nodes),
    )


def environment_story(held: HeldUp, why: Trouble) -> str:
    """Say why calls fail whose runtime_env lets no process start."""
    return (
        f"its runtime_env lets no worker process start: none has come up for {held.seconds:.0f} s. "
        f"{why.what}. {why.remedy}"
    )


def _where(held: HeldUp) -> str:
    """Name the nodes, unless there is but this machine."""
    return f" on {', '.join(held.nodes)}" if any(held.nodes) else ""


def _address() -> str:
    return str(ray.util.get_node_ip_address())


def _session() -> Path:
    return Path(_worker.global_worker.node.get_session_dir_path())
