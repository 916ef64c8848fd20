"""Questions of flow runs, and the answers that people give on the command line."""

from __future__ import annotations

import datetime
import io
import json
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pydantic
import pytest

from raflow import errors
from raflow._util import person
from raflow.cli._errors import ExitCode
from raflow.cli._forms import Form
from raflow.model import InputRequest
from raflow.store import Store
from tests.unit.cli.conftest import RUN_ID, T0, Cli
from tests.unit.cli.test_limits_and_cache import Terminal
from tests.unit.cli.test_resuming import going


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Place(pydantic.BaseModel):
    x: int


class Approval(pydantic.BaseModel):
    approved: bool
    comment: str = "none"
    level: int = pydantic.Field(default=3, ge=1, description="how sure")
    colours: list[Colour] = []
    day: datetime.date | None = None
    place: Place | None = None


Ask = Callable[..., int]


@pytest.fixture
def ask(record: Store) -> Ask:
    """Let a run that is under way ask; returns the number of the question."""
    run = going(record, pid=1)
    asked: list[int] = []

    def ask(form: Any = Approval, title: str = "Approval", **more: Any) -> int:
        request = InputRequest(
            flow_run_id=run.id,
            number=len(asked),
            title=title,
            form=pydantic.TypeAdapter(form).json_schema(),
            asked_at=T0 + 20 + len(asked),
            **more,
        )
        record.requests.ask_person(request)
        asked.append(request.number)
        return request.number

    return ask


def questions(cli: Cli, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("input", "ls", "--json", *options).out)
    return found


class TestLs:
    def test_nothing_says_how_to_ask(self, cli: Cli, raflow_home: Path) -> None:
        assert "wait_for_input" in cli("input", "ls").out
        assert questions(cli) == []
        assert not raflow_home.exists()

    def test_what_is_asked(self, cli: Cli, ask: Ask) -> None:
        ask(assignees=("ada", "bob"))
        ask(bool, "Publish?", expires_at=T0 + 900, default=b"true")
        lines = cli("input", "ls").out.splitlines()
        assert lines[2].split()[:5] == ["etl-0000cc", "0", "Approval", "ada,", "bob"]
        assert lines[3].split()[:4] == ["etl-0000cc", "1", "Publish?", "anybody"]
        assert "raflow input answer etl-0000cc 0" in lines[-1]
        assert list(questions(cli)[1]) == [
            *("flow_run_id", "number", "title", "form", "assignees", "asked_at", "expires_at"),
            *("default", "answer", "answered_by", "answered_at"),
        ]
        assert questions(cli)[1]["default"] is True

    def test_of_one_run_and_of_the_past(self, cli: Cli, ask: Ask) -> None:
        ask(bool, "Publish?")
        assert questions(cli, "--run", RUN_ID) == []
        assert len(questions(cli, "--run", "latest")) == 1
        cli("input", "answer", "latest", "0", "--json-answer", "true")
        assert questions(cli) == []
        (past,) = questions(cli, "--all")
        assert (past["answer"], past["answered_by"]) == (True, person())
        assert f"answered by {person()}" in cli("input", "ls", "--all").out


class TestShow:
    def test_the_fields_of_a_form(self, cli: Cli, ask: Ask) -> None:
        out = cli("input", "show", "latest", str(ask(assignees=("ada",)))).out
        rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line}
        assert rows["approved"] == "yes or no"
        assert rows["comment"] == 'text, "none" if left out'
        assert rows["level"] == "integer, 3 if left out: how sure"
        assert rows["colours"] == 'a JSON list of "red" or "blue", [] if left out'
        assert rows["day"] == "date or null, null if left out"
        assert rows["place"] == "a JSON object or null, null if left out"
        assert rows["Next"] == "raflow input answer etl-0000cc 0"

    def test_an_answer_and_who_gave_it(self, cli: Cli, ask: Ask) -> None:
        number = ask(int, "How many?")
        assert cli("input", "answer", "latest", "0", "--json-answer", "7").code == ExitCode.OK
        out = cli("input", "show", "latest", str(number)).out
        assert f"by {person()}" in out
        assert "Next" not in out
        assert json.loads(cli("input", "show", "latest", "0", "--json").out)["answer"] == 7

    def test_no_such_question(self, cli: Cli, ask: Ask) -> None:
        ask()
        for command in ("show", "answer"):
            ended = cli("input", command, "latest", "4")
            assert ended.code == ExitCode.USAGE
            assert "has no question 4; it has asked: 0." in ended.err


class TestAnswer:
    def test_field_by_field(self, cli: Cli, ask: Ask, record: Store) -> None:
        ask()
        fields = ("approved=yes", "comment=5", "level=5", 'colours=["red"]', "day=2026-01-31")
        options = [option for field in fields for option in ("--field", field)]
        ended = cli("input", "answer", "latest", "0", *options)
        assert ended.code == ExitCode.OK
        (question,) = record.requests.input_requests(open_only=False)
        answered = Approval.model_validate_json(question.answer or b"")
        assert answered == Approval(
            approved=True,
            comment="5",
            level=5,
            colours=[Colour.RED],
            day=datetime.date(2026, 1, 31),
        )
        assert question.answered_by == person()
        assert "No process drives" not in ended.out

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["--field", "approved=perhaps"], "approved='perhaps' does not fit"),
            (["--field", "aproved=yes"], "Did you mean 'approved'"),
            (["--field", "approved"], "--field NAME=VALUE"),
            (["--field", "comment=x"], "'approved' is a required property"),
            (["--json-answer", '{"approved": true, "level": 0}'], "level: 0 is less than"),
            (["--json-answer", '{"approved": true, "colours": ["pink"]}'], "colours.0: 'pink'"),
            (["--json-answer", '{"approved": true, "place": {"x": "here"}}'], "place"),
            (["--json-answer", "{approved}"], "is no JSON"),
            (["--json-answer", "1", "--field", "approved=yes"], "not both"),
            ([], "There is no terminal to ask on"),
        ],
    )
    def test_what_does_not_fit_is_not_written(
        self,
        cli: Cli,
        ask: Ask,
        monkeypatch: pytest.MonkeyPatch,
        given: list[str],
        said: str,
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        ask()
        ended = cli("input", "answer", "latest", "0", *given)
        assert ended.code == ExitCode.USAGE
        assert said in " ".join(ended.err.replace("│", "").split())
        assert questions(cli)[0]["answer"] is None

    def test_the_first_answer_counts(
        self, cli: Cli, ask: Ask, record: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask(bool, "Publish?")
        (question,) = record.requests.input_requests()
        record.requests.answer_person(question.flow_run_id, 0, answer=b"false", by="ada@sea")
        monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
        for given in (["--json-answer", "true"], []):
            ended = cli("input", "answer", "latest", "0", *given)
            assert ended.code == ExitCode.USAGE
            assert "ada@sea" in ended.err

    def test_a_person_is_asked_for_each_field(
        self, cli: Cli, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask()
        monkeypatch.setattr(sys, "stdin", Terminal("perhaps\ny\nfine by me\n9\n\n\n\n"))
        ended = cli("input", "answer", "latest", "0")
        assert ended.code == ExitCode.OK
        assert "approved (yes or no)" in ended.err
        assert "does not fit the form 'Approval': give yes or no." in ended.err
        assert 'comment (text) ["none"]' in ended.err
        (question,) = questions(cli, "--all")
        assert question["answer"] == {"approved": True, "comment": "fine by me", "level": 9}

    def test_a_person_is_asked_for_one_value(
        self, cli: Cli, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask(list[int], "Which?")
        monkeypatch.setattr(sys, "stdin", Terminal("\n[1, 2]\n"))
        ended = cli("input", "answer", "latest", "0")
        assert "Which? (a JSON list of integer)" in ended.err
        assert questions(cli, "--all")[0]["answer"] == [1, 2]

    def test_an_answer_to_a_run_that_nobody_drives(self, cli: Cli, record: Store) -> None:
        run = going(record)
        request = InputRequest(
            flow_run_id=run.id, number=0, title="Q", form={"type": "boolean"}, asked_at=T0
        )
        record.requests.ask_person(request)
        ended = cli("input", "answer", "latest", "0", "--json-answer", "true")
        assert ended.code == ExitCode.OK
        assert "Go on: `raflow resume etl-0000cc`" in ended.out


class TestForm:
    @pytest.mark.parametrize(
        ("form", "text", "value"),
        [
            (bool, "No", False),
            (bool, "true", True),
            (str, "yes", "yes"),
            (str, "5", "5"),
            (str, '"5"', '"5"'),
            (int, "5", 5),
            (float, "5", 5),
            (int | None, "null", None),
            (str | None, "some text", "some text"),
            (Colour, "red", "red"),
            (Place, '{"x": 1}', {"x": 1}),
            (dict[str, int], '{"a": 1}', {"a": 1}),
            (Any, "5", 5),
        ],
    )
    def test_what_a_text_means(self, form: Any, text: str, value: object) -> None:
        made = Form(pydantic.TypeAdapter(form).json_schema(), "it")
        read = made.value(text)
        assert (read, type(read)) == (value, type(value))
        made.check(read)

    @pytest.mark.parametrize(
        ("form", "text"), [(bool, "1"), (int, "5.5"), (Colour, "pink"), (Place, "{}"), (int, "")]
    )
    def test_what_does_not_fit(self, form: Any, text: str) -> None:
        with pytest.raises(errors.ParameterError, match="does not fit the form 'it'"):
            Form(pydantic.TypeAdapter(form).json_schema(), "it").value(text)
