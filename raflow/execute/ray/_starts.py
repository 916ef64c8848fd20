"""Finds out whether Ray can start the worker processes that calls wait for.

Ray tries for ever to start one, and says nothing. So whatever nobody has taken up for a while gets
company: a task that needs nothing but a process. If nobody takes that up either, there is none.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from raflow.model import Resources

_log = logging.getLogger(__name__)

START_SECONDS: Final = 90.0
"""After so long nobody waits for a process any more; Ray tries once a minute."""
SUSPECT_SECONDS: Final = 5.0
"""A batch that nobody has taken up for so long is inquired about."""
TELL_SECONDS: Final = 10.0
"""A process may take so long to start."""
_LOOK_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 30.0
_MAX_PAUSE_SECONDS: Final = 300.0
_QUICK: Final = frozenset({"env_vars", "py_executable", "worker_process_setup_hook", "config"})
"""Parts of a `runtime_env` for which Ray has to fetch and install nothing."""
_SET_UP_SECONDS: Final = 600.0
"""How long Ray lets a `runtime_env` be set up, unless that says otherwise; then it tells itself."""


class Waiting(NamedTuple):
    """A batch that was handed to Ray, as far as its processes matter."""

    session: int
    batch: int
    resources: Resources
    has_begun: bool
    waited: float
    """Seconds since it was handed over."""


class Asked(Protocol):
    """Tasks that need nothing but a process, one for each node on which the batches may run."""

    def silent(self) -> Sequence[str]:
        """Return where none has taken it up so far: nodes by name."""

    @property
    def size(self) -> int:
        """How many there are."""

    def drop(self) -> None:
        """Give up those that have not been taken up."""


class HeldUp(NamedTuple):
    """Batches wait for processes that Ray cannot start."""

    batches: Sequence[Waiting]
    runtime_env: str | None
    """As JSON: with this one none can be started."""
    nodes: Sequence[str]
    """Where."""
    seconds: float
    """How long nobody has taken up what was sent along."""
    everywhere: bool
    """Whether none could be started on any node that they may run on."""
    is_hopeless: bool
    """Whether that goes on for too long."""


class _Inquiry(NamedTuple):
    asked_at: float
    asked: Asked


class Starts:
    """Decides which batches wait for processes that cannot be started."""

    def __init__(
        self,
        limit: float,
        *,
        ask: Callable[[str | None, Resources], Asked],
        total: Callable[[], Mapping[str, float]],
    ) -> None:
        """Begin without a suspicion.

        Args:
            limit: Seconds after which it is hopeless.
            ask: Sends tasks that need nothing but a process with a `runtime_env`, or without one,
                to where calls with such resources may run.
            total: Asks Ray for all resources of the cluster.
        """
        self._limit = limit
        self._ask = ask
        self._total = total
        self._open: dict[str | None, _Inquiry] = {}
        self._hindered_at = float("-inf")
        """When processes for a `runtime_env` were last inquired about. Ray starts but a few at a
        time: those that never come up hold up all others for a minute."""
        self._next: dict[str | None, tuple[float, float]] = {}
        """When to inquire again, and how long to wait the next time."""

    def look(self, now: float, batches: Sequence[Waiting]) -> list[HeldUp]:
        """Return who is held up; to be called every second.

        Args:
            now: The time, in seconds.
            batches: All that Ray has.
        """
        late: dict[str | None, list[Waiting]] = {}
        for one in batches:
            if not one.has_begun:
                known = late.setdefault(one.resources.runtime_env, [])
                if one.waited > SUSPECT_SECONDS:
                    known.append(one)
        for env in self._open.keys() - late.keys():
            self._open.pop(env).asked.drop()
        for env in self._next.keys() - late.keys():
            del self._next[env]
        if any(env is not None for env in self._open):
            self._hindered_at = now
        running = [one.resources for one in batches if one.has_begun]
        found = [
            self._inquire(now, env, waiting, running) for env, waiting in late.items() if waiting
        ]
        return [held for held in found if held is not None]

    def close(self) -> None:
        """Give up what was sent."""
        for inquiry in self._open.values():
            inquiry.asked.drop()
        self._open.clear()

    def _inquire(
        self, now: float, env: str | None, late: list[Waiting], running: Sequence[Resources]
    ) -> HeldUp | None:
        inquiry = self._open.get(env)
        if inquiry is None:
            due, _ = self._next.get(env, (now, 0.0))
            if now >= due:
                total = self._total()
                free = [one for one in late if not waits_for_own(one.resources, running, total)]
                if free:
                    self._open[env] = _Inquiry(now, self._ask(env, free[0].resources))
            return None
        silent = inquiry.asked.silent()
        if not silent:
            self._over(now, env)
            return None
        seconds = now - inquiry.asked_at
        allowance = set_up_seconds(env)
        if seconds < TELL_SECONDS + allowance:
            return None
        everywhere = len(silent) == inquiry.asked.size
        if env is None:
            hindered = now - self._hindered_at < self._limit
            hopeless = everywhere and not running and not hindered and seconds >= self._limit
        else:
            hopeless = everywhere and seconds >= self._limit + allowance
        return HeldUp(late, env, silent, seconds, everywhere, hopeless)

    def _over(self, now: float, env: str | None) -> None:
        """Ask again later: processes can be started, so the batches wait for something else."""
        self._open.pop(env).asked.drop()
        _, pause = self._next.get(env, (0.0, _PAUSE_SECONDS))
        self._next[env] = (now + pause, min(2 * pause, _MAX_PAUSE_SECONDS))


def waits_for_own(
    wanted: Resources, running: Iterable[Resources], total: Mapping[str, float]
) -> bool:
    """Tell whether a call lacks what other calls use, or what the cluster has not got yet."""
    used: Counter[str] = Counter()
    for one in running:
        used.update(amounts(one))
    return any(total.get(name, 0.0) - used[name] < n - 1e-9 for name, n in amounts(wanted).items())


def amounts(resources: Resources) -> dict[str, float]:
    """Return what calls ask for, by Ray's names."""
    named = {
        "CPU": resources.num_cpus,
        "GPU": resources.num_gpus,
        "memory": float(resources.memory),
        **dict(resources.custom),
    }
    return {name: amount for name, amount in named.items() if amount}


def set_up_seconds(env: str | None) -> float:
    """Return how long Ray may be busy with setting up a `runtime_env`: then it tells itself."""
    known: dict[str, object] = json.loads(env) if env else {}
    if known.keys() <= _QUICK:
        return 0.0
    config = known.get("config")
    own = config.get("setup_timeout_seconds") if isinstance(config, dict) else None
    return float(own) if isinstance(own, int | float) and own > 0 else _SET_UP_SECONDS


class StartWatch:
    """Looks every second, on a thread of its own."""

    def __init__(
        self,
        starts: Starts,
        *,
        batches: Callable[[], Sequence[Waiting]],
        tell: Callable[[Sequence[HeldUp]], None],
        is_there: Callable[[], bool],
    ) -> None:
        """Begin to look.

        Args:
            starts: Decides.
            batches: Returns all that Ray has.
            tell: Told every second of all that is held up.
            is_there: Whether there is a Ray that can be asked: it would start anew if there is not.
        """
        self._is_there = is_there
        self._starts = starts
        self._batches = batches
        self._tell = tell
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raflow-starts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join(timeout=_CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            if not self._is_there():
                continue
            try:
                self._tell(self._starts.look(time.monotonic(), self._batches()))
            except Exception as error:  # Ray is gone, or busy: it is asked again
                _log.debug("Ray does not say whether processes can be started: %r", error)
        if self._is_there():
            self._starts.close()
