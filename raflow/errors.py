"""Every exception raflow raises, in one tree.

```
RaflowError
├── DefinitionError            a flow or task is declared wrongly (also a ValueError)
│   ├── CycleError             a graph, or flows calling each other, that never ends
│   └── MappingLengthMismatchError   iterables of unequal length in one map
├── FutureUsedAsValueError     a TaskFuture used where its value is needed (also a TypeError)
│   └── FutureAttributeError       an attribute of the value (also an AttributeError)
├── ParameterError             parameters that do not fit the flow's signature (also a ValueError)
├── ConfigError                a setting that cannot be used
├── ProjectError               a raflow.yaml that cannot be used (also a ValueError)
├── ScheduleError              a schedule written wrongly, or that never comes (also a ValueError)
├── NotFoundError              a name or id that does not exist; carries the closest ones
│   └── UnknownLimitError      a limit that nobody has set
├── InfeasibleResourcesError   a resource hint that the cluster can never meet
├── SerializationError
│   ├── UnserializableArgumentError
│   └── UnserializableResultError
├── ResultStorageError         result storage that cannot be written or read
├── BundleError                code that cannot be packed, or an archive that is not to be trusted
│   ├── BundleMismatchError        an archive that is another bundle than it was called
│   ├── BundleMissingError         a bundle that is not in storage
│   └── BundleStorageError         bundle storage that cannot be written or read
├── BatchError                 bytes that should hold records and cannot be read
├── StoreError                 the database cannot be opened, upgraded or written
│   └── TooSlowError               a list that takes longer than a request may
├── TooManyError               more requests than the server takes from one
├── FencedError                another process drives the flow run by now
├── RunIsAliveError            a run that cannot be taken over: its process is alive
├── RunHasEndedError           a request to a run that is over
├── ResumeError                a run that cannot be resumed, or not with this code
├── ConflictError              an idempotency key that was used for something else
├── StaleError                 a change of something that has changed meanwhile
├── AccessError                something that the caller may not do
│   └── UnauthenticatedError       nobody knows who the caller is
├── CursorError                a cursor of another list (also a ValueError)
├── AlreadyAnsweredError       an input request that somebody else has answered
├── SlotTimeoutError           slots of limits that did not come in time (also a TimeoutError)
├── SlotLostError              slots of limits that became somebody else's while they were held
├── CacheKeyError              an argument from which no cache key can be made (also a TypeError)
├── BackendError               the backend cannot start, or went away
│   ├── VersionMismatchError       worker processes have another raflow
│   └── WorkerStartError           no worker process can be started
├── InvalidTransitionError     a state change that the table does not know: a bug in raflow
├── RunError                   a run did not complete
│   ├── TaskRunError
│   │   ├── TaskFailedError        user code raised, and the exception could not travel
│   │   ├── TaskTimedOutError
│   │   ├── TaskCrashedError       the process of the task died
│   │   ├── UpstreamFailedError
│   │   └── TaskCancelledError
│   └── FlowRunError
│       ├── FlowRunFailedError
│       ├── FlowRunTimedOutError
│       ├── FlowRunCancelledError
│       └── FlowRunSuspendedError   it goes on when somebody resumes it
└── SkipTask                   raised by user code to end its task run as SKIPPED

BaseException
└── Interruption               raised inside user code; no `except Exception` must swallow it
    ├── TaskInterrupted        the task run is being cancelled
    ├── TimeLimitReached       the task's time limit is over
    ├── RunSuspended           the flow run is suspended: its process ends
    └── ValueNeeded            tracing reached a place that needs a task's value
```

Every class pickles round trip: errors cross process borders.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, Self

__all__ = [
    "AccessError",
    "AlreadyAnsweredError",
    "BackendError",
    "BatchError",
    "BundleError",
    "BundleMismatchError",
    "BundleMissingError",
    "BundleStorageError",
    "CacheKeyError",
    "ConfigError",
    "ConflictError",
    "CursorError",
    "CycleError",
    "DefinitionError",
    "FencedError",
    "FlowRunCancelledError",
    "FlowRunError",
    "FlowRunFailedError",
    "FlowRunSuspendedError",
    "FlowRunTimedOutError",
    "FutureAttributeError",
    "FutureUsedAsValueError",
    "InfeasibleResourcesError",
    "Interruption",
    "InvalidTransitionError",
    "MappingLengthMismatchError",
    "NotFoundError",
    "ParameterError",
    "ProjectError",
    "RaflowError",
    "ResultStorageError",
    "ResumeError",
    "RunError",
    "RunHasEndedError",
    "RunIsAliveError",
    "RunSuspended",
    "ScheduleError",
    "SerializationError",
    "SkipTask",
    "SlotLostError",
    "SlotTimeoutError",
    "StaleError",
    "StoreError",
    "TaskCancelledError",
    "TaskCrashedError",
    "TaskFailedError",
    "TaskInterrupted",
    "TaskRunError",
    "TaskTimedOutError",
    "TimeLimitReached",
    "TooManyError",
    "TooSlowError",
    "UnauthenticatedError",
    "UnknownLimitError",
    "UnserializableArgumentError",
    "UnserializableResultError",
    "UpstreamFailedError",
    "ValueNeeded",
    "VersionMismatchError",
    "WorkerStartError",
    "closest",
]


def _rebuild(cls: type[_Described], message: str, details: dict[str, Any]) -> BaseException:
    error = cls(message, **details)
    assert isinstance(error, BaseException)
    return error


class _Described:
    """A message for people, a stable code for programs, and details as attributes."""

    code: ClassVar[str] = "raflow.error"

    def __init__(self, message: str = "", **details: Any) -> None:
        """Describe what happened.

        Args:
            message: What happened, to which thing, and what to do. Default: the class's docstring.
            **details: Facts for programs; each becomes an attribute. They must be picklable.
        """
        text = message or (type(self).__doc__ or "").partition("\n")[0]
        super().__init__(text)  # type: ignore[call-arg]  # the next class is an exception
        self.message = text
        self.details = details

    def __getattr__(self, name: str) -> Any:
        details = self.__dict__.get("details", {})
        if name in details:
            return details[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)


class RaflowError(_Described, Exception):
    """The base of every error that raflow raises."""


class DefinitionError(RaflowError, ValueError):
    """A flow or task is declared in a way that cannot work."""

    code = "raflow.definition"


class CycleError(DefinitionError):
    """A graph contains a cycle, so nothing in it could ever start."""

    code = "raflow.definition.cycle"


class MappingLengthMismatchError(DefinitionError):
    """The iterables given to one map have different lengths."""

    code = "raflow.definition.map_length"


class FutureUsedAsValueError(RaflowError, TypeError):
    """A TaskFuture was used as if it were the value it stands for."""

    code = "raflow.future_used_as_value"


class FutureAttributeError(FutureUsedAsValueError, AttributeError):
    """A TaskFuture was asked for an attribute of the value it stands for."""

    code = "raflow.future_used_as_value.attribute"


class ParameterError(RaflowError, ValueError):
    """Parameters do not fit the flow's signature."""

    code = "raflow.parameters"


class ConfigError(RaflowError, ValueError):
    """A setting cannot be used."""

    code = "raflow.config"


class ScheduleError(RaflowError, ValueError):
    """A schedule is written wrongly, or no instant would ever match it."""

    code = "raflow.schedule"


class ProjectError(RaflowError, ValueError):
    """A file that describes deployments cannot be used.

    `problems` has a text for each thing that is wrong, with file and line.
    """

    code = "raflow.project"


class NotFoundError(RaflowError, LookupError):
    """Nothing of that name or id exists."""

    code = "raflow.not_found"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], remedy: str = "") -> Self:
        """Name what was looked for and the closest things that do exist."""
        near = closest(name, known)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        return cls(f"No {kind} {name!r}.{hint}{' ' + remedy if remedy else ''}", closest=near)


class InfeasibleResourcesError(RaflowError):
    """No node of the cluster can ever offer what a task asks for."""

    code = "raflow.infeasible"


class SerializationError(RaflowError, TypeError):
    """A value cannot travel between processes."""

    code = "raflow.serialization"


class UnserializableArgumentError(SerializationError):
    """An argument of a task call cannot be sent to another process."""

    code = "raflow.serialization.argument"


class UnserializableResultError(SerializationError):
    """The value a task returned cannot be sent to another process."""

    code = "raflow.serialization.result"


class ResultStorageError(RaflowError, OSError):
    """Result storage cannot be written or read."""

    code = "raflow.result_storage"


class BundleError(RaflowError):
    """Code cannot be packed, or an archive of code is not to be trusted."""

    code = "raflow.bundle_refused"


class BundleMismatchError(BundleError):
    """An archive holds another bundle than the one it was called."""

    code = "raflow.bundle_mismatch"


class BundleMissingError(BundleError):
    """A bundle is not in storage."""

    code = "raflow.bundle_missing"


class BundleStorageError(BundleError, OSError):
    """Bundle storage cannot be written or read."""

    code = "raflow.bundle_storage"


class StoreError(RaflowError):
    """The database cannot be opened, upgraded or written."""

    code = "raflow.store"


class TooSlowError(StoreError):
    """What was asked of the database takes longer than a request may."""

    code = "raflow.too_slow"


class TooManyError(RaflowError):
    """One asks more than a server takes: too often without success, or too much at once."""

    code = "raflow.too_many"


class BatchError(RaflowError, ValueError):
    """Bytes that should hold records cannot be read, or hold what no run records."""

    code = "raflow.bad_batch"


class FencedError(RaflowError):
    """Another process drives the flow run by now: what this one writes no longer counts."""

    code = "raflow.fenced"


class RunIsAliveError(RaflowError):
    """A flow run cannot be taken over: the process that drives it is alive."""

    code = "raflow.run_is_alive"


class RunHasEndedError(RaflowError):
    """A flow run that is over can take no request."""

    code = "raflow.run_has_ended"


class ResumeError(RaflowError):
    """A flow run cannot be resumed, or not with this code."""

    code = "raflow.resume"


class ConflictError(RaflowError):
    """An idempotency key was used before, for something else."""

    code = "raflow.idempotency_conflict"


class StaleError(RaflowError):
    """Somebody else has changed it since it was read."""

    code = "raflow.stale"


class CursorError(RaflowError, ValueError):
    """A cursor does not belong to the list that it is used for."""

    code = "raflow.bad_cursor"


class AccessError(RaflowError):
    """Whoever asks may not do this."""

    code = "raflow.forbidden"


class UnauthenticatedError(AccessError):
    """Nobody knows who asks: there is no token, or it does not count."""

    code = "raflow.unauthenticated"


class AlreadyAnsweredError(RaflowError):
    """Somebody else has answered first."""

    code = "raflow.already_answered"


class UnknownLimitError(NotFoundError):
    """A limit that nobody has set."""

    code = "raflow.unknown_limit"


class SlotTimeoutError(RaflowError, TimeoutError):
    """Slots of limits did not come in time."""

    code = "raflow.slots.timeout"


class SlotLostError(RaflowError):
    """Slots of limits are somebody else's by now: nobody could renew them in time."""

    code = "raflow.slots.lost"


class CacheKeyError(RaflowError, TypeError):
    """An argument from which no cache key can be made."""

    code = "raflow.cache_key"


class BackendError(RaflowError):
    """The backend cannot start, or went away."""

    code = "raflow.backend"


class VersionMismatchError(BackendError):
    """The worker processes have another version of raflow than the process of the flow."""

    code = "raflow.version_mismatch"


class WorkerStartError(BackendError):
    """No worker process could be started for too long."""

    code = "raflow.backend.worker_start"


class InvalidTransitionError(RaflowError):
    """A state change that the table of transitions does not know."""

    code = "raflow.invalid_transition"


class RunError(RaflowError):
    """A run did not complete."""

    code = "raflow.run"


class TaskRunError(RunError):
    """A task run did not complete."""

    code = "raflow.task_run"


class TaskFailedError(TaskRunError):
    """User code raised an exception that cannot itself travel between processes."""

    code = "raflow.task_run.failed"


class TaskTimedOutError(TaskRunError, TimeoutError):
    """A task ran longer than its `timeout_seconds`."""

    code = "raflow.task_run.timed_out"


class TaskCrashedError(TaskRunError):
    """The process that ran a task died."""

    code = "raflow.task_run.crashed"


class UpstreamFailedError(TaskRunError):
    """A task did not run because one that it needs did not complete."""

    code = "raflow.task_run.upstream_failed"


class TaskCancelledError(TaskRunError):
    """A task run was cancelled."""

    code = "raflow.task_run.cancelled"


class FlowRunError(RunError):
    """A flow run did not complete."""

    code = "raflow.flow_run"


class FlowRunFailedError(FlowRunError):
    """The flow's body returned, but a failure of one of its tasks was never handled."""

    code = "raflow.flow_run.failed"


class FlowRunTimedOutError(FlowRunError, TimeoutError):
    """A flow ran longer than its `timeout_seconds`."""

    code = "raflow.flow_run.timed_out"


class FlowRunCancelledError(FlowRunError):
    """A flow run was cancelled."""

    code = "raflow.flow_run.cancelled"


class FlowRunSuspendedError(FlowRunError):
    """The flow run is suspended; it goes on when somebody resumes it."""

    code = "raflow.run.suspended"


class SkipTask(RaflowError):
    """Raise this in a task to end its run as SKIPPED."""

    code = "raflow.skip"


class Interruption(_Described, BaseException):
    """Ends user code from outside; not an `Exception`, so that user code does not swallow it."""

    code = "raflow.interruption"


class TaskInterrupted(Interruption):
    """The task run is being cancelled."""

    code = "raflow.interruption.cancel"


class TimeLimitReached(Interruption):
    """The time limit of the task is over."""

    code = "raflow.interruption.time_limit"


class RunSuspended(Interruption):
    """The flow run is suspended: its process ends, and another one goes on with it later."""

    code = "raflow.interruption.suspend"


class ValueNeeded(Interruption):
    """Tracing reached a line that needs the value of a task."""

    code = "raflow.interruption.value_needed"


def closest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return up to `limit` of the `known` names that look most like `name`."""
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)
