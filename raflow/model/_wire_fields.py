"""Records as lists of their fields, and back: every field is checked, as a stranger may send it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from raflow.model._cause import Cause
from raflow.model._records import (
    Attempt,
    FlowRun,
    FlowVersion,
    LogSegment,
    Record,
    StateChange,
    TaskPace,
    TaskRun,
    Trigger,
)
from raflow.model._report import ErrorInfo, Outcome, ResultInfo, TaskRunKey
from raflow.model._spans import Span
from raflow.model._state import State, StateName

_LARGEST: Final = 2**63
_Blobs: TypeAlias = Sequence[bytes]


class _Field(NamedTuple):
    """How one field is written, and read."""

    dump: Callable[[Any, list[bytes]], object]
    load: Callable[[Any, _Blobs], object]


# --- Values ---------------------------------------------------------------------------------------


def text(value: object) -> str:
    """Return a text."""
    if type(value) is not str:
        raise TypeError(f"{value!r:.80} is no text")
    return value


def integer(value: object) -> int:
    """Return an integer that a database can hold."""
    if type(value) is not int or not -_LARGEST <= value < _LARGEST:
        raise TypeError(f"{value!r:.80} is no integer of 64 bits")
    return value


def natural(value: object) -> int:
    """Return such an integer, 0 or more."""
    found = integer(value)
    if found < 0:
        raise ValueError(f"{found} is negative")
    return found


def are_spans(spans: Iterable[Span], *, most: int) -> bool:
    """Tell whether spans name so many task runs at most, and no others than there can be."""
    size = 0
    for span in spans:
        node, step, nodes, start, stop = map(integer, span)
        if node < 0 or step < 1 or nodes < 1 or start < -1 or stop <= start:
            return False
        if max(node + step * nodes, stop) >= _LARGEST:
            return False
        size += span.size
    return size <= most


def _number(value: object) -> float:
    # Infinite ones and such have no JSON, and none of the databases keeps them.
    if value is None:
        return 0.0
    if type(value) not in {int, float}:
        raise TypeError(f"{value!r:.80} is no number")
    return float(value)  # type: ignore[arg-type]  # one of the two


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r:.80} is neither true nor false")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        raise TypeError(f"{value!r:.80} is no list")
    return tuple(map(text, value))


def _object(value: object) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"{value!r:.80} is no object")
    return value


def _by_text(value: object) -> Mapping[str, str]:
    return {key: text(item) for key, item in _object(value).items()}


def _key(value: Any) -> TaskRunKey:
    node, item = value
    return TaskRunKey(natural(node), integer(item))


def _dump_bytes(value: bytes, blobs: list[bytes]) -> int:
    blobs.append(value)
    return len(blobs) - 1


# --- Kinds of fields ------------------------------------------------------------------------------


def _plain(load: Callable[[Any], object]) -> _Field:
    return _Field(lambda value, _: value, lambda value, _: load(value))


def _one_of(kinds: type[StrEnum]) -> _Field:
    return _Field(lambda value, _: value.value, lambda value, _: kinds(value))


def _maybe(field: _Field) -> _Field:
    return _Field(
        lambda value, blobs: None if value is None else field.dump(value, blobs),
        lambda value, blobs: None if value is None else field.load(value, blobs),
    )


def _struct(cls: type, fields: Mapping[str, _Field]) -> _Field:
    names, codecs = tuple(fields), tuple(fields.values())

    def dump(value: Any, blobs: list[bytes]) -> list[object]:
        return [
            field.dump(getattr(value, name), blobs)
            for name, field in zip(names, codecs, strict=True)
        ]

    def load(row: Any, blobs: _Blobs) -> object:
        loaded = [field.load(value, blobs) for field, value in zip(codecs, row, strict=True)]
        return cls(**dict(zip(names, loaded, strict=True)))

    return _Field(dump, load)


_TEXT: Final = _plain(text)
_INT: Final = _plain(integer)
_NUMBER: Final = _plain(_number)
_MAYBE_TEXT: Final = _maybe(_TEXT)
_MAYBE_INT: Final = _maybe(_INT)
_MAYBE_NUMBER: Final = _Field(
    lambda value, _: value if value is not None and math.isfinite(value) else None,
    lambda value, _: None if value is None else _number(value),
)
_BYTES: Final = _Field(_dump_bytes, lambda at, blobs: blobs[natural(at)])
_OBJECT: Final = _plain(_object)
_KEY: Final = _Field(lambda value, _: tuple(value), lambda value, _: _key(value))
_FACTS: Final = _Field(lambda value, _: dict(value), lambda value, _: _by_text(value))
_STATE: Final = _struct(
    State, {"name": _one_of(StateName), "at": _NUMBER, "message": _TEXT, "reason": _TEXT}
)
_ERROR: Final = _maybe(
    _struct(
        ErrorInfo,
        {"type": _TEXT, "message": _TEXT, "traceback": _TEXT, "pickled": _maybe(_BYTES)},
    )
)
_RESULT: Final = _maybe(
    _struct(
        ResultInfo,
        {
            "type": _TEXT,
            "size": _INT,
            "preview": _TEXT,
            "length": _MAYBE_INT,
            "truth": _maybe(_plain(_flag)),
            "serializer": _TEXT,
            "inline": _maybe(_BYTES),
            "url": _TEXT,
            "digest": _TEXT,
        },
    )
)
_CAUSE: Final = _maybe(
    _struct(
        Cause,
        {
            "kind": _TEXT,
            "signal": _MAYBE_INT,
            "exit_code": _MAYBE_INT,
            "host": _TEXT,
            "pid": _INT,
            "node_id": _TEXT,
            "peak_memory": _INT,
            "facts": _FACTS,
        },
    )
)


# --- Records --------------------------------------------------------------------------------------


class Kind:
    """A kind of record."""

    def __init__(
        self,
        name: str,
        cls: type,
        owner: str,
        fields: Mapping[str, _Field],
        *,
        rest: Mapping[str, object] | None = None,
    ) -> None:
        """Describe it.

        Args:
            name: What the header calls records of this kind.
            cls: Their class.
            owner: The field that names the flow run; empty: none does.
            fields: The others that travel, in order.
            rest: What stands in those that do not, where the class has no default.
        """
        self.name = name
        self.cls = cls
        self._owner = owner
        self._fields = tuple(fields.items())
        self._rest = rest or {}

    def dump(self, record: Record, blobs: list[bytes]) -> list[object]:
        """Return the fields of a record; appends what is bytes to the blobs."""
        return [field.dump(getattr(record, name), blobs) for name, field in self._fields]

    def load(self, run: str, row: Any, blobs: _Blobs) -> Record:
        """Return the record of a flow run that these fields tell."""
        pairs = zip(self._fields, row, strict=True)
        values = {name: field.load(value, blobs) for (name, field), value in pairs}
        if self._owner:
            values[self._owner] = run
        record: Record = self.cls(**values, **self._rest)
        return record


KINDS: Final = (
    Kind(
        "versions",
        FlowVersion,
        "",
        {
            "flow": _TEXT,
            "fingerprint": _TEXT,
            "version": _TEXT,
            "description": _TEXT,
            "entrypoint": _TEXT,
            "source": _TEXT,
            "parameter_schema": _OBJECT,
            "created_at": _NUMBER,
        },
    ),
    # Where a run of a deployment comes from does not travel: whoever has ordered it knows.
    Kind(
        "runs",
        FlowRun,
        "id",
        {
            "flow": _TEXT,
            "fingerprint": _TEXT,
            "name": _TEXT,
            "state": _STATE,
            "parameters": _OBJECT,
            "trigger": _one_of(Trigger),
            "backend": _TEXT,
            "parent_id": _MAYBE_TEXT,
            "parent_node": _MAYBE_INT,
            "created_at": _NUMBER,
            "started_at": _MAYBE_NUMBER,
            "ended_at": _MAYBE_NUMBER,
            "tags": _plain(_texts),
            "host": _TEXT,
            "pid": _INT,
            "versions": _plain(_by_text),
            "error": _ERROR,
            "result": _RESULT,
            "incarnation": _INT,
            "inputs": _RESULT,
            "rerun_of": _MAYBE_TEXT,
            "rerun_from": _plain(_texts),
        },
    ),
    Kind(
        "paces",
        TaskPace,
        "",
        {
            "flow": _TEXT,
            "fingerprint": _TEXT,
            "task": _TEXT,
            "seconds": _NUMBER,
            "bytes": _NUMBER,
        },
    ),
    Kind(
        "states",
        StateChange,
        "flow_run_id",
        {"number": _INT, "key": _maybe(_KEY), "state": _STATE},
    ),
    Kind(
        "attempts",
        Attempt,
        "flow_run_id",
        {
            "key": _KEY,
            "number": _INT,
            "outcome": _one_of(Outcome),
            "submitted_at": _NUMBER,
            "started_at": _MAYBE_NUMBER,
            "ended_at": _NUMBER,
            "cpu_seconds": _NUMBER,
            "peak_memory": _INT,
            "memory": _INT,
            "pid": _INT,
            "host": _TEXT,
            "node_id": _TEXT,
            "message": _TEXT,
            "error": _ERROR,
            "cause": _CAUSE,
        },
    ),
    Kind(
        "task_runs",
        TaskRun,
        "flow_run_id",
        {
            "key": _KEY,
            "task": _TEXT,
            "label": _TEXT,
            "state": _STATE,
            "attempts": _INT,
            "created_at": _NUMBER,
            "started_at": _MAYBE_NUMBER,
            "ended_at": _MAYBE_NUMBER,
            "child_flow_run_id": _MAYBE_TEXT,
            "error": _ERROR,
            "result": _RESULT,
        },
    ),
    # Where its lines stand is decided by whoever keeps them.
    Kind(
        "segments",
        LogSegment,
        "flow_run_id",
        {
            "number": _INT,
            "key": _maybe(_KEY),
            "attempt": _INT,
            "length": _INT,
            "lines": _INT,
            "first_at": _NUMBER,
            "last_at": _NUMBER,
            "level": _INT,
        },
        rest={"file": "", "offset": 0},
    ),
)

KIND_OF: Final = {kind.cls: kind for kind in KINDS}
