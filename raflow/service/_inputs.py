"""What flow runs ask of people, and the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raflow import errors, model
from raflow.service import _forms
from raflow.service._signals import Signals
from raflow.store import Store


class Inputs:
    """Questions of flow runs."""

    def __init__(self, store: Store, signals: Signals, actor: str) -> None:
        self._store = store
        self._signals = signals
        self._actor = actor

    def list(
        self, *, flow_run_id: str | None = None, open_only: bool = True
    ) -> list[model.InputRequest]:
        """Return what flow runs ask, oldest first; by default what waits for an answer."""
        return self._store.requests.input_requests(flow_run_id=flow_run_id, open_only=open_only)

    def answer(self, flow_run_id: str, number: int, answer: object) -> model.InputRequest:
        """Answer a question. The first answer counts.

        Args:
            flow_run_id: The flow run that asks.
            number: Which of its questions.
            answer: What its form describes, as JSON has it.

        Raises:
            NotFoundError: There is no such question.
            ParameterError: The answer does not fit its form.
            AlreadyAnsweredError: Somebody else was faster.
            RunHasEndedError: The flow run is over.
        """
        asked = self._store.requests.input_requests(flow_run_id=flow_run_id, open_only=False)
        for question in asked:
            if question.number == number and question.answer is None:
                _check(question, answer)
        text = json.dumps(answer).encode()
        answered = self._store.requests.answer_person(
            flow_run_id, number, answer=text, by=self._actor
        )
        self._signals.wake("feed", f"run:{flow_run_id}")
        return answered


def _check(question: model.InputRequest, answer: object) -> None:
    form: Mapping[str, Any] = question.form
    try:
        found = _forms.faults(form, answer)
    except ValueError as error:
        raise errors.ParameterError(
            f"No answer fits the form of {question.title!r}, which refers to something that is not "
            "in it, or to itself without end. Mend the flow that asks."
        ) from error
    if found:
        where = "/".join(str(part) for part in found[0].absolute_path)
        raise errors.ParameterError(
            f"The answer to {question.title!r} does not fit its form"
            f"{f' at {where!r}' if where else ''}: {found[0].message}."
        )
