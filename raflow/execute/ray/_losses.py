"""What became of a batch for which Ray has an error instead of a report."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ray import exceptions

from raflow.execute._failure import MACHINERY
from raflow.model import Cause, Outcome


class Loss(NamedTuple):
    """Why there is no report."""

    outcome: Outcome
    message: str
    detail: str = ""
    """All that Ray says."""
    cause: Cause | None = None
    lost: str = ""
    """Id of the object of Ray's that is gone, if that is the reason."""


class RayIsGone(Exception):
    """Ray cannot tell any more what became of its batches."""


_CRASHED: Final = (
    "its worker process died while it ran: the code ended the process, crashed in a library, or "
    "was killed from outside"
)
MORE_MEMORY: Final = (
    "Give the task a `memory` hint, so that fewer run side by side, or let it use less"
)
_OUT_OF_MEMORY: Final = (
    f"Ray killed its worker process because the node ran out of memory. {MORE_MEMORY}"
)
_NODE_DIED: Final = "the node it ran on died"
_VALUE_LOST: Final = "a value it needed, or its report, was lost with the node that held it"
_CANCELLED: Final = "it was cancelled"
_ENVIRONMENT: Final = "its runtime_env could not be set up"
RUNTIME_ENV: Final = "runtime_env"
"""Kind of the cause."""
_UNSCHEDULABLE: Final = "Ray can never place it where its scheduling strategy wants it"

_KINDS: Final[tuple[tuple[type[BaseException], Outcome, str], ...]] = (
    (exceptions.TaskCancelledError, Outcome.CANCELLED, _CANCELLED),
    (exceptions.OutOfMemoryError, Outcome.OUT_OF_MEMORY, _OUT_OF_MEMORY),
    (exceptions.WorkerCrashedError, Outcome.CRASHED, _CRASHED),
    (exceptions.NodeDiedError, Outcome.LOST, _NODE_DIED),
    (exceptions.LocalRayletDiedError, Outcome.LOST, _NODE_DIED),
    (exceptions.ObjectLostError, Outcome.LOST, _VALUE_LOST),
    (exceptions.ObjectFetchTimedOutError, Outcome.LOST, _VALUE_LOST),
    (exceptions.RuntimeEnvSetupError, Outcome.FAILED, _ENVIRONMENT),
    (exceptions.TaskUnschedulableError, Outcome.FAILED, _UNSCHEDULABLE),
)
"""In order: the first that fits counts."""

PROCESS_DIED: Final = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.CANCELLED})
"""Outcomes of a batch whose process was ended on a node that lives on."""

_MARK: Final = " in raflow_batch_"
_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+) in (\S+)$', re.MULTILINE)


def classify(error: BaseException) -> Loss:
    """Say what an error of Ray's means for the batch.

    Anything unknown is a batch that could not be carried out: what a batch runs never raises.
    """
    if isinstance(error, RayIsGone):
        return Loss(Outcome.LOST, str(error))
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else None
    for seen in (cause, error):
        for kind, outcome, message in _KINDS:
            if isinstance(seen, kind):
                set_up = kind is exceptions.RuntimeEnvSetupError
                detail = _last_line(seen) if set_up else _first_line(seen)
                shown = f" ({detail})" if detail and outcome is not Outcome.CANCELLED else ""
                cause = Cause(kind="node lost") if outcome is Outcome.LOST else None
                cause = Cause(kind=RUNTIME_ENV) if set_up else cause
                lost = getattr(seen, "object_ref_hex", "") if outcome is Outcome.LOST else ""
                return Loss(outcome, f"{message}{shown}", str(seen), cause, lost)
    return Loss(Outcome.FAILED, f"Ray could not run it: {str(error).strip() or repr(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]


def timed_out(last_words: str) -> Loss:
    """Describe a process that ended itself because its code ignored its time limit."""
    where = _innermost_user_frame(last_words)
    return Loss(
        Outcome.TIMED_OUT,
        f"it ran longer than its timeout_seconds and could not be interrupted{where}; its process "
        "was ended",
    )


def _innermost_user_frame(last_words: str) -> str:
    """Find where the code hung, in what `faulthandler` wrote: the latest call comes first."""
    for block in last_words.split("\n\n"):
        for path, line, name in _FRAME.findall(block) if _MARK in block else ():
            if not path.startswith(MACHINERY):
                return f" in {name} ({path}:{line})"
    return ""
