"""What Ray calls in a worker process: sent by value, so that it can tell which raflow it finds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

import ray
from ray.exceptions import RayTaskError

import raflow
from raflow import errors

_OTHER: Final = "raflow: another version"
_NONE: Final = "none"

RunBatch = Callable[..., tuple[object, ...]]


def entrance(version: str) -> RunBatch:
    """Return what runs a batch where this version of raflow is; it raises elsewhere.

    A function of a module would only be named to worker processes, and another raflow might not
    have it, or understand something else by it.
    """
    other, none = _OTHER, _NONE

    def run_batch(head: bytes, *lifted: Any) -> tuple[object, ...]:
        try:
            import raflow  # noqa: PLC0415 - by whoever unpickles this

            found = raflow.__version__
        except ImportError:
            found = none
        if found != version:
            import ray  # noqa: PLC0415

            raise ImportError(other, found, ray.util.get_node_ip_address())

        from raflow.execute.ray import _process  # noqa: PLC0415

        return _process.run_batch(head, *lifted)

    return run_batch


def version_error(error: BaseException) -> errors.VersionMismatchError | None:
    """Return what is wrong if a worker process has another raflow; None if that is not it."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if not isinstance(cause, ImportError) or cause.args[:1] != (_OTHER,):
        return None
    _, there, host = cause.args
    here, address = raflow.__version__, ray.get_runtime_context().gcs_address
    what = "no raflow" if there == _NONE else f"raflow {there}"
    way_out = "" if there == _NONE else f", or run the flow with raflow {there}"
    return errors.VersionMismatchError(
        f"The worker processes on {host} of the Ray at {address} have {what}; this process, on "
        f"{socket.gethostname()!r}, has raflow {here}. They must be the same: `pip install "
        f"raflow=={here}` on all nodes{way_out}.",
        here=here,
        there=there,
        host=host,
        address=address,
    )
