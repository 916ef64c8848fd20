"""Checks of the record: the database, its clock, what looks after schedules, workers."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from raflow.cli.doctor._finding import Finding, broken, doubtful, sound

if TYPE_CHECKING:
    from raflow.config import Settings
    from raflow.model import PoolState, WorkerInfo

_SKEW_SECONDS: Final = 2.0
_LATE_SECONDS: Final = 60.0
_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "lustre", "ceph"}
)
"""File systems on which locks of several machines are not to be relied on."""


def of_clock(ahead: float, whose: str) -> Finding:
    """Compare two clocks.

    Args:
        ahead: By how many seconds this machine's clock is ahead.
        whose: Whose the other one is.
    """
    if abs(ahead) <= _SKEW_SECONDS:
        return sound(f"as {whose}'s, to {_SKEW_SECONDS:g} s")
    words = f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} {whose}'s"
    remedy = "Have both set by NTP: times of states and logs are this machine's, leases and "
    return doubtful(words, f"{remedy}schedules go by the other clock.")


def of_schedules(due: float | None, now: float) -> Finding:
    """Tell whether somebody looks after schedules.

    Args:
        due: When one is to be looked at next: seconds since the Unix epoch; None: there is none.
        now: The time.
    """
    if due is None:
        return sound("none is active")
    if now - due <= _LATE_SECONDS:
        return sound("somebody looks after them, or none is due yet")
    late = f"{(now - due) / 60:,.0f} min"
    return doubtful(
        f"one was due {late} ago, and nobody has looked",
        "Start `raflow server`, which looks after schedules; what was missed follows, as far as "
        "the schedule allows.",
    )


def of_workers(pools: Iterable[PoolState], workers: Sequence[WorkerInfo]) -> Finding:
    """Tell whether runs of deployments wait for nobody, and whether workers fit this machine.

    Args:
        pools: What goes on in each.
        workers: Those that are alive.
    """
    alone = [pool for pool in pools if pool.waiting_since is not None and not pool.workers]
    if alone:
        names = " and ".join(repr(pool.pool.name) for pool in alone)
        remedy = f"Start one: `raflow worker --pool {alone[0].pool.name}`."
        return doubtful(f"runs wait in {names}, which has no worker", remedy)
    for worker in workers:
        theirs = {name: worker.versions.get(name, "") for name in ("python", "ray", "raflow")}
        for name, version in _versions().items():
            if theirs[name] and not _fits(name, theirs[name], version):
                return doubtful(
                    f"worker {worker.name!r} has {name} {theirs[name]}, this machine {version}",
                    "Values may not be readable on the other side: use the same versions.",
                )
    number = len(workers)
    return sound(f"{number} {'is' if number == 1 else 'are'} alive; no run waits for one")


def _fits(name: str, theirs: str, ours: str) -> bool:
    """Tell whether pickled values are readable: of Python the minor version decides."""
    parts = 2 if name == "python" else 3
    return theirs.split(".")[:parts] == ours.split(".")[:parts]


def _versions() -> dict[str, str]:
    from raflow._util import version_of

    return {
        "python": platform.python_version(),
        "ray": version_of("ray"),
        "raflow": version_of("raflow"),
    }


def _database(settings: Settings) -> Finding:
    from raflow import store
    from raflow.cli import _open

    shown = store.without_passwords(settings.database)
    if not _open.has_record(settings):
        return sound(f"{shown} is made by the first run")
    revision = store.current_revision(settings.database)
    if revision != store.EXPECTED_REVISION:
        found = f"{shown} is at revision {revision}, not {store.EXPECTED_REVISION}"
        return broken(found, "Run `raflow db upgrade`.")
    with store.Store.open(settings.database, log_dir=settings.logs, create=False) as opened:
        begun = time.perf_counter()
        opened.flow_runs(limit=1)
        took = (time.perf_counter() - begun) * 1000
    found = f"{shown} at revision {revision}, answers in {took:.1f} ms"
    kind = "" if settings.database_url else _file_system(str(settings.home))
    if kind in _REMOTE:
        remedy = "SQLite may lose its locks there. Set RAFLOW_HOME to a local disk, or use "
        return doubtful(f"{found}, on {kind}", f"{remedy}PostgreSQL (RAFLOW_DATABASE_URL).")
    return sound(found)


def _file_system(path: str) -> str:
    """Return the kind of file system that a path is on; empty if that is not to be learned."""
    best = ("", "")
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                _, place, kind, *_ = line.split()
                inside = path == place or path.startswith(place.rstrip("/") + "/")
                if inside and len(place) >= len(best[0]):
                    best = (place, kind)
    except OSError:
        return ""
    return best[1]


def _clock(settings: Settings) -> Finding:
    from raflow.cli import _open

    if not settings.database_url or settings.database_url.startswith("sqlite"):
        return sound("the database goes by this machine's")
    with _open.make_store() as store:
        before = time.time()
        theirs = store.now()
        return of_clock((before + time.time()) / 2 - theirs, "the database")


def _schedules(settings: Settings) -> Finding:
    from raflow.cli import _open

    if not _open.has_record(settings):
        return of_schedules(None, 0.0)
    with _open.make_store() as store:
        return of_schedules(store.schedules.next_wake(), store.now())


def _workers(settings: Settings) -> Finding:
    from raflow.cli import _open

    if not _open.has_record(settings):
        return of_workers((), ())
    with _open.make_store() as store:
        now = store.now()
        alive = [worker for worker in store.work.workers() if worker.expires_at > now]
        return of_workers(store.work.pools(), alive)


CHECKS: Final[tuple[tuple[str, Callable[[Settings], Finding]], ...]] = (
    ("database", _database),
    ("clock", _clock),
    ("schedules", _schedules),
    ("workers", _workers),
)
