"""What flow runs ask of people."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import AnswerIn, In, InputRequestOut, Page

routes = Routes("inputs")


class InputsQuery(In):
    """Which questions."""

    run: str | None = None
    """Of this flow run."""
    open_only: bool = True
    """Only what waits for an answer."""


@routes.get("/input-requests", Permission.READ)
def list_input_requests(
    query: Annotated[InputsQuery, Query()], verbs: Verbs
) -> Page[InputRequestOut]:
    """List what flow runs ask of people, oldest first."""
    found = verbs.inputs.list(flow_run_id=query.run, open_only=query.open_only)
    return Page(items=[InputRequestOut.of(request) for request in found])


@routes.post("/runs/{run_id}/inputs/{number}", Permission.OPERATE)
def answer_input(
    run_id: str,
    number: Annotated[int, Path(ge=0, le=2**31 - 1)],
    answer: AnswerIn,
    verbs: Verbs,
) -> InputRequestOut:
    """Answer a question of a flow run. The first answer counts; it must fit the form."""
    return InputRequestOut.of(verbs.inputs.answer(run_id, number, answer.answer))
