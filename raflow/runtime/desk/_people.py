"""Questions of a run to people."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from raflow import errors
from raflow._util import crash_point
from raflow.define import Question
from raflow.model import FlowRun, InputRequest
from raflow.runtime.record import LazyStore, Recorder, Steward

_LOOK_SECONDS: Final = 0.5


class People:
    """Asks people, on the steward's thread."""

    def __init__(
        self,
        run: FlowRun,
        *,
        store: LazyStore,
        steward: Steward,
        recorder: Recorder,
        clock: Callable[[], float],
    ) -> None:
        """Ask for a run."""
        self._run = run
        self._store = store
        self._steward = steward
        self._recorder = recorder
        self._clock = clock

    def ask(self, question: Question, number: int) -> Future[bytes]:
        """Ask people; done with their answer, as JSON, or the default."""
        answer: Future[bytes] = Future()
        asked: list[InputRequest] = []

        def look() -> float | None:
            requests = self._store.open().requests
            if not asked:
                now = self._clock()
                limit = question.timeout_seconds
                request = InputRequest(
                    flow_run_id=self._run.id,
                    number=number,
                    title=question.title,
                    form=question.form,
                    asked_at=now,
                    expires_at=None if limit is None else now + limit,
                    default=question.default,
                    assignees=question.assignees,
                )
                self._recorder.flush()  # a question belongs to a run that is on record
                asked.append(requests.ask_person(request))
                crash_point("input.after_asking")
            else:
                asked[0] = next(
                    found
                    for found in requests.input_requests(flow_run_id=self._run.id, open_only=False)
                    if found.number == number
                )
            if asked[0].answer is not None:
                answer.set_result(asked[0].answer)
                return None
            return self._expire(asked[0], answer)

        self._steward.soon(look)
        return answer

    def _expire(self, asked: InputRequest, answer: Future[bytes]) -> float | None:
        if asked.expires_at is None or self._clock() < asked.expires_at:
            return _LOOK_SECONDS
        if asked.default is None:
            answer.set_exception(
                TimeoutError(f"Nobody answered {asked.title!r} in time, and there is no default.")
            )
            return None
        crash_point("input.before_default")
        try:
            self._store.open().requests.answer_person(
                asked.flow_run_id, asked.number, answer=asked.default, by=""
            )
        except errors.AlreadyAnsweredError:
            return 0.0
        answer.set_result(asked.default)
        return None
