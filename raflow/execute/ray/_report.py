"""Reports as bytes: pickled as plain tuples, at a third of the cost of dataclasses."""

from __future__ import annotations

import dataclasses
import operator
import pickle
from typing import Any, Final

from raflow.execute.ray._payload import loads
from raflow.model import BatchReport, CallReport, Outcome, ResultInfo, TaskRunKey

_CALL: Final = tuple(field.name for field in dataclasses.fields(CallReport))
_RESULT: Final = tuple(field.name for field in dataclasses.fields(ResultInfo))
_call_values: Final = operator.attrgetter(*_CALL)
_result_values: Final = operator.attrgetter(*_RESULT)


def encode_report(report: BatchReport) -> bytes:
    """Write a report."""
    calls = []
    for call in report.calls:
        values = dict(zip(_CALL, _call_values(call), strict=True))
        values["run"] = tuple(call.run)
        values["outcome"] = call.outcome.value
        values["result"] = call.result and _result_values(call.result)
        calls.append(tuple(values.values()))
    return pickle.dumps((report.batch, calls), protocol=5)


def decode_report(data: bytes) -> BatchReport:
    """Read a report that `encode_report` wrote."""
    batch, calls = loads(data)
    return BatchReport(batch=batch, calls=tuple(map(_call, calls)))


def _call(encoded: tuple[Any, ...]) -> CallReport:
    values: dict[str, Any] = dict(zip(_CALL, encoded, strict=True))
    values["run"] = TaskRunKey(*values["run"])
    values["outcome"] = Outcome(values["outcome"])
    if values["result"] is not None:
        values["result"] = ResultInfo(**dict(zip(_RESULT, values["result"], strict=True)))
    return CallReport(**values)
