"""Runs are steered, questions answered: on record when the answer comes."""

from __future__ import annotations

import dataclasses
import json
import socket

import pytest

from raflow.model import InputRequest, RequestKind, Role, StateName
from tests.server.conftest import Served, record

RUN = "0198c1f2-run"
FORM = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}},
    "required": ["approved"],
}


@pytest.mark.parametrize("action", ["cancel", "pause", "unpause", "suspend"])
def test_a_request_is_on_record_under_the_name_of_the_token(served: Served, action: str) -> None:
    record(served.store, RUN)
    sent = {"json": {"message": "enough"}}
    answer = served.ask("POST", f"/runs/{RUN}/{action}", role=Role.OPERATOR, **sent)
    assert answer.status_code == 202
    [asked] = served.store.requests.of(RUN)
    assert answer.json() == {"request_id": asked.id, "applied": False}
    assert (asked.kind, asked.by, asked.message) == (RequestKind(action), "operator", "enough")
    again = served.ask("POST", f"/runs/{RUN}/{action}", role=Role.OPERATOR, **sent)
    assert again.json()["request_id"] == asked.id
    events = served.events("kind=flow_run.requested", 1)
    assert [
        (event["flow_run_id"], event["actor"], event["payload"]["kind"]) for event in events
    ] == [(RUN, "operator", action)]


def test_a_run_that_is_over_takes_no_request(served: Served) -> None:
    record(served.store, RUN, state_name=StateName.COMPLETED)
    answer = served.ask("POST", f"/runs/{RUN}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "raflow.run_has_ended")
    assert served.ask("POST", "/runs/none/cancel").status_code == 404


def question(number: int = 0) -> InputRequest:
    return InputRequest(
        flow_run_id=RUN, number=number, title="Approve", form=FORM, asked_at=1.0, assignees=("ann",)
    )


def test_a_form_reaches_for_nothing_outside_of_it(one: Served) -> None:
    record(one.store, RUN)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/form"
        for number, elsewhere in enumerate((address, "#")):
            asked = dataclasses.replace(question(number), form={"$ref": elsewhere})
            one.store.requests.ask_person(asked)
            answer = one.ask("POST", f"/runs/{RUN}/inputs/{number}", json={"answer": 1})
            assert (answer.status_code, answer.json()["code"]) == (422, "raflow.parameters")
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_question_is_answered_once_with_what_fits_its_form(served: Served) -> None:
    record(served.store, RUN)
    served.store.requests.ask_person(question())
    [asked] = served.get("/input-requests")["items"]
    assert (asked["title"], asked["form"], asked["answered"]) == ("Approve", FORM, False)

    def answer(body: object) -> tuple[int, str]:
        # As JSON has it: httpx itself would send no half of a surrogate pair.
        sent = json.dumps({"answer": body})
        kind = {"Content-Type": "application/json"}
        told = served.ask("POST", f"/runs/{RUN}/inputs/0", content=sent, headers=kind)
        return told.status_code, told.json().get("code", "")

    assert answer({"approved": "perhaps"}) == (422, "raflow.parameters")
    assert answer({}) == (422, "raflow.parameters")
    assert answer({"approved": True, "why": "\ud800\0"}) == (200, "")
    assert answer({"approved": False}) == (409, "raflow.already_answered")
    assert served.get("/input-requests")["items"] == []
    [known] = served.get(f"/input-requests?run={RUN}&open_only=false")["items"]
    assert known["answer"]["approved"] is True
    assert known["answered_by"] == "admin"
    kinds = [event["kind"] for event in served.events("kind=input.*", 2)]
    assert kinds == ["input.asked", "input.answered"]
    assert served.ask("POST", f"/runs/{RUN}/inputs/9", json={"answer": 1}).status_code == 404
