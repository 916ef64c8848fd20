from __future__ import annotations

import pickle

import pytest

from raflow import errors
from raflow.model import ErrorInfo, FlowRunEvent, State, StateName
from raflow.runtime.attempts._identity import to_json
from raflow.runtime.calls._failures import error_info, exception_of
from raflow.runtime.calls._outcomes import RunOutcome
from raflow.runtime.ending._ending import TIME_IS_UP, Ending, ending


def failed(label: str, name: StateName = StateName.FAILED) -> RunOutcome:
    return RunOutcome(label, State(name=name, at=1.0, message="so it was"))


def end(
    *,
    body_error: BaseException | None = None,
    cancel_reason: str = "",
    unhandled: tuple[RunOutcome, ...] = (),
) -> Ending:
    return ending(
        flow="f",
        body_error=body_error,
        cancelled=bool(cancel_reason),
        cancel_reason=cancel_reason,
        unhandled=unhandled,
    )


def test_a_run_without_failures_completes() -> None:
    assert end() == Ending(event=FlowRunEvent.COMPLETED)


def test_cancelled_wins_over_every_failure() -> None:
    found = end(body_error=ValueError("x"), cancel_reason="enough", unhandled=(failed("a"),))
    assert found.event is FlowRunEvent.CANCELLED
    assert isinstance(found.error, errors.FlowRunCancelledError)
    assert "enough" in found.message


def test_time_up_is_told_apart_from_cancelled() -> None:
    found = end(cancel_reason=TIME_IS_UP)
    assert found.event is FlowRunEvent.TIMED_OUT
    assert isinstance(found.error, errors.FlowRunTimedOutError)


def test_the_bodys_own_exception_is_the_error() -> None:
    error = ValueError("first\nsecond")
    assert end(body_error=error) == Ending(
        event=FlowRunEvent.FAILED, message="ValueError: first", error=error
    )


def test_unhandled_failures_are_named_by_their_causes() -> None:
    runs = [failed(f"a-{n}") for n in range(5)]
    found = end(unhandled=(*runs, failed("b-0", StateName.UPSTREAM_FAILED)))
    assert found.message == (
        "Flow 'f' failed: a-0, a-1, a-2 and 2 more did not complete; "
        "1 more could not run because of it."
    )
    assert isinstance(found.error, errors.FlowRunFailedError)
    assert isinstance(found.error.__cause__, errors.TaskFailedError)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        (StateName.FAILED, errors.TaskFailedError),
        (StateName.TIMED_OUT, errors.TaskTimedOutError),
        (StateName.UPSTREAM_FAILED, errors.UpstreamFailedError),
        (StateName.CRASHED, errors.TaskCrashedError),
        (StateName.OUT_OF_MEMORY, errors.TaskCrashedError),
        (StateName.LOST, errors.TaskCrashedError),
        (StateName.CANCELLED, errors.TaskCancelledError),
    ],
)
def test_each_final_state_has_its_exception(name: StateName, cls: type[BaseException]) -> None:
    error = exception_of("a-0", State(name=name, at=1.0, message="so it was"), None)
    assert type(error) is cls
    assert str(error) == f"Task run 'a-0' ended {name.value}: so it was"


def test_the_exception_of_the_task_travels_with_its_traceback_as_a_note() -> None:
    info = ErrorInfo(
        type="builtins.KeyError",
        message="'k'",
        traceback="line 1",
        pickled=pickle.dumps(KeyError("k")),
    )
    error = exception_of("a-0", State(name=StateName.FAILED, at=1.0), info)
    assert isinstance(error, KeyError)
    assert "line 1" in error.__notes__[0]


def test_bytes_that_are_no_exception_do_no_harm() -> None:
    info = ErrorInfo(type="x.Y", message="m", pickled=b"garbage")
    error = exception_of("a-0", State(name=StateName.FAILED, at=1.0), info)
    assert isinstance(error, errors.TaskFailedError)
    assert "x.Y: m" in str(error)


def test_an_exception_of_the_body_as_data() -> None:
    try:
        raise LookupError("gone")
    except LookupError as error:
        info = error_info(error)
    assert (info.type, info.message) == ("builtins.LookupError", "gone")
    assert 'raise LookupError("gone")' in info.traceback
    assert info.pickled is not None


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_parameters_that_json_cannot_carry_stand_as_previews() -> None:
    assert to_json({"a": (1, 2)}) == {"a": [1, 2]}
    assert to_json(Unspeakable()) == "<Unspeakable>"
    assert len(str(to_json("x" * 1_000_000))) < 300
    circular: list[object] = []
    circular.append(circular)
    assert to_json(circular) == "[[...]]"
