"""Reports as bytes: plain tuples and arrays, pickled."""

from __future__ import annotations

import dataclasses
import operator
import pickle
from typing import Any, Final

from raflow.execute.ray._payload import loads
from raflow.model import BatchReport, CallReport, ErrorInfo, Outcome, Place, ResultInfo, TaskRunKey

_REPORT: Final = tuple(field.name for field in dataclasses.fields(BatchReport))
_CALL: Final = tuple(field.name for field in dataclasses.fields(CallReport))
_RESULT: Final = tuple(field.name for field in dataclasses.fields(ResultInfo))
_ERROR: Final = tuple(field.name for field in dataclasses.fields(ErrorInfo))
_report_values: Final = operator.attrgetter(*_REPORT)
_call_values: Final = operator.attrgetter(*_CALL)
_result_values: Final = operator.attrgetter(*_RESULT)
_error_values: Final = operator.attrgetter(*_ERROR)


def encode_report(report: BatchReport) -> bytes:
    """Write a report."""
    values = dict(zip(_REPORT, _report_values(report), strict=True))
    values["place"] = tuple(report.place)
    values["told"] = {position: _call_tuple(call) for position, call in report.told.items()}
    values["results"] = {p: _result_values(result) for p, result in report.results.items()}
    return pickle.dumps(tuple(values.values()), protocol=5)


def decode_report(data: bytes) -> BatchReport:
    """Read a report that `encode_report` wrote."""
    values: dict[str, Any] = dict(zip(_REPORT, loads(data), strict=True))
    values["place"] = Place(*values["place"])
    values["told"] = {position: _call(call) for position, call in values["told"].items()}
    values["results"] = {position: _result(info) for position, info in values["results"].items()}
    return BatchReport(**values)


def _call_tuple(call: CallReport) -> tuple[Any, ...]:
    values = dict(zip(_CALL, _call_values(call), strict=True))
    values["run"] = tuple(call.run)
    values["outcome"] = call.outcome.value
    values["error"] = call.error and _error_values(call.error)
    values["result"] = call.result and _result_values(call.result)
    return tuple(values.values())


def _call(encoded: tuple[Any, ...]) -> CallReport:
    values: dict[str, Any] = dict(zip(_CALL, encoded, strict=True))
    values["run"] = TaskRunKey(*values["run"])
    values["outcome"] = Outcome(values["outcome"])
    if values["error"] is not None:
        values["error"] = ErrorInfo(**dict(zip(_ERROR, values["error"], strict=True)))
    if values["result"] is not None:
        values["result"] = _result(values["result"])
    return CallReport(**values)


def _result(encoded: tuple[Any, ...]) -> ResultInfo:
    return ResultInfo(**dict(zip(_RESULT, encoded, strict=True)))
