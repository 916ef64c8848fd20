"""What a running call carries with it: who it is, for `get_run_context`, and where it writes."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, Final

from raflow import define
from raflow.execute._capture import Sink
from raflow.execute._slots import CallSlots
from raflow.execute._work import Work
from raflow.model import TaskRunKey

_making: Final = threading.RLock()
"""Held while a sink is made; a signal handler may print meanwhile, on the same thread."""


class CallContext(define.TaskRunContext):
    """The context of a call, made for every call and therefore as cheap as it can be.

    Its fields are made when someone asks for them, and its sink when something is written.
    """

    __slots__ = ("_offset", "_work", "gate", "name", "sink")

    _work: Work
    _offset: int
    sink: Sink | None
    """Takes what the call writes; None: it has written nothing."""
    name: str
    """What `task_run_name` made."""
    gate: CallSlots | None
    """Where the call has asked for slots of limits. None: nowhere. If it has, it has a sink."""

    __setattr__ = object.__setattr__

    def __getattr__(self, name: str) -> Any:
        make = _FIELDS.get(name)
        if make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = make(self)
        setattr(self, name, value)
        return value

    @property
    def attempted(self) -> tuple[str, TaskRunKey, int]:
        """Which flow run, task run and attempt it is."""
        work, offset = self._work, self._offset
        flow_run_id = work.site.environment.flow_run_id
        return flow_run_id, work.job.run(offset), work.job.attempt(offset)

    @property
    def slots(self) -> define.SlotGate | None:
        """Where the call can have slots of limits."""
        with _making:
            if self.gate is None:
                found = self._work.site.slots()
                if found is not None:
                    self.find()  # so that the end of the call is not passed over
                    position = self._work.base + self._offset
                    self.gate = CallSlots(found, position, self.run, self.label)
            return self.gate

    def over(self) -> None:
        """Take note that the call has ended: it holds no slots any more."""
        if self.sink is not None and self.gate is not None:
            self.gate.over()

    def __reduce__(self) -> tuple[Any, ...]:
        fields = dataclasses.fields(define.TaskRunContext)
        return _plain, ({field.name: getattr(self, field.name) for field in fields},)

    def find(self) -> Sink | None:
        """Return the call's sink; one is made if need be."""
        with _making:
            if self.sink is None:
                environment = self._work.site.environment
                self.sink = Sink(prints=self._work.settings.log_prints, level=environment.log_level)
            return self.sink


def new_context(work: Work, offset: int) -> CallContext:
    """Make the context of a call."""
    context = CallContext.__new__(CallContext)
    context._work = work
    context._offset = offset
    context.sink = None
    context.name = ""
    return context


class CallSinks:
    """Finds the sink of whichever call of a batch writes."""

    def __init__(self) -> None:
        """Begin a batch."""
        self.current: CallContext | None = None
        """The call that threads without a context of their own write for."""

    def find(self) -> Sink | None:
        """Return the sink of the call that this code is part of."""
        context = self.context()
        return context.find() if context is not None else None

    def context(self) -> CallContext | None:
        """Return the call that this code is part of."""
        context = define.active_task.get()
        return context if isinstance(context, CallContext) else self.current


def _plain(fields: dict[str, Any]) -> define.TaskRunContext:
    return define.TaskRunContext(**fields)


_FIELDS: Final[dict[str, Callable[[CallContext], Any]]] = {
    "gate": lambda _: None,
    "flow_run_id": lambda self: self._work.site.environment.flow_run_id,
    "flow": lambda self: self._work.site.environment.flow,
    "flow_run_name": lambda self: self._work.site.environment.flow_run_name,
    "task": lambda self: self._work.who(self._offset).task,
    "label": lambda self: self.name or self._work.job.label(self._offset),
    "run": lambda self: self._work.job.run(self._offset),
    "attempt": lambda self: self._work.job.attempt(self._offset),
    "parameters": lambda self: self._work.site.environment.parameters,
    "occasions": lambda _: define.Occasions(),
}
