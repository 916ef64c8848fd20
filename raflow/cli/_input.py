"""`raflow input`: what flow runs ask of people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from raflow import errors
from raflow.cli._options import Json, RunName

if TYPE_CHECKING:
    from raflow.cli._forms import Form
    from raflow.model import FlowRun, InputRequest
    from raflow.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at what flow runs ask of people, and answer.")
_Number = Annotated[
    int,
    typer.Argument(
        metavar="NUMBER", min=0, help="Which question of the run, from 0.", show_default=False
    ),
]


@app.command("ls")
def list_questions(
    run: Annotated[str | None, typer.Option(help="Only what this flow run asks.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also what was answered.")] = False,
    json_: Json = False,
) -> None:
    """List what flow runs ask of people and nobody has answered yet, oldest first."""
    from raflow.cli import _console, _json, _open

    with _open.open_store() as store:
        questions: list[InputRequest] = []
        if store is not None:
            run_id = store.find_flow_run(run).id if run is not None else None
            questions = store.requests.input_requests(flow_run_id=run_id, open_only=not all_)
        names = {q.flow_run_id: _name(store, q.flow_run_id) for q in questions if store}
    if json_:
        _console.emit_json([_json.question(question) for question in questions])
    elif questions:
        _print_questions(questions, names)
    else:
        out = _console.out()
        out.print("No flow run waits for an answer. A flow asks in its body:\n")
        out.print("    from raflow import wait_for_input\n", style="dim")
        out.print("    if wait_for_input(bool, title='Publish?'):", style="dim", markup=False)


@app.command("show")
def show(run: RunName, number: _Number, json_: Json = False) -> None:
    """Show a question, the fields of its form, and its answer if there is one."""
    from raflow.cli import _console, _format, _forms, _json, _runs

    with _runs.found(run) as (store, flow_run):
        question = _question(store, flow_run, number)
    if json_:
        _console.emit_json(_json.question(question))
        return
    out = _console.out()
    answered = _format.moment(question.answered_at)
    out.print(
        _console.facts(
            [
                ("Question", Text(question.title, style="bold")),
                ("Run", flow_run.name),
                ("For", ", ".join(question.assignees) or "anybody"),
                ("Asked", _format.moment(question.asked_at)),
                ("Until", _format.moment(question.expires_at)),
                ("Default", _text(question.default)),
                ("Answer", _text(question.answer)),
                ("Answered", f"{answered} by {_who(question)}" if answered else ""),
            ]
        )
    )
    form = _forms.Form(question.form, question.title)
    out.print()
    out.print(_console.facts(_described(form)))
    if question.answer is None:
        command = f"raflow input answer {flow_run.short_name} {number}"
        out.print()
        out.print(_console.facts([("Next", Text(command, style="bold"))]))


@app.command("answer")
def answer(
    run: RunName,
    number: _Number,
    json_answer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The whole answer, as JSON.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A field of the answer, as JSON or as text. May be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Answer what a flow run asks; on a terminal, field by field if nothing is given.

    The answer is checked against the form before anything is written. The first one counts.
    """
    from raflow._util import person
    from raflow.cli import _console, _forms, _runs, _standing

    if json_answer is not None and field:
        raise errors.ParameterError("Give either --json-answer or --field, not both.")
    with _runs.found(run) as (store, flow_run):
        question = _question(store, flow_run, number)
        form = _forms.Form(question.form, question.title)
        if json_answer is not None:
            value = form.of_json(json_answer)
        elif field:
            value = form.of_fields(field)
        else:
            value = _prompted(form, question)
        form.check(value)
        text = json.dumps(value, ensure_ascii=False)
        by = person()
        store.requests.answer_person(flow_run.id, number, answer=text.encode(), by=by)
        alive = store.leases.is_alive(flow_run.id)
    said = f"Question {number} of flow run {flow_run.name!r} ({question.title}) is answered: {text}"
    if not alive:
        said += f"\nNo process drives the run. Go on: `{_standing.resume_command(flow_run)}`."
    _console.out().print(said, markup=False, soft_wrap=True)


def _question(store: Store, run: FlowRun, number: int) -> InputRequest:
    asked = store.requests.input_requests(flow_run_id=run.id, open_only=False)
    for question in asked:
        if question.number == number:
            return question
    numbers = ", ".join(str(question.number) for question in asked) or "none"
    raise errors.NotFoundError(
        f"Flow run {run.name!r} has no question {number}; it has asked: {numbers}."
    )


def _prompted(form: Form, question: InputRequest) -> Any:
    if question.answer is not None:
        raise errors.AlreadyAnsweredError(
            f"{question.title!r} was answered by {_who(question)}. The first answer counts."
        )
    if not sys.stdin.isatty():
        raise errors.ParameterError(
            "There is no terminal to ask on. Give --field NAME=VALUE for each field of the answer, "
            "or all of it with --json-answer."
        )
    if not form.fields:
        return _one(form, None, question.title)
    answered = {name: _one(form, name, name) for name in form.fields}
    return {name: value for name, value in answered.items() if value is not _LEFT_OUT}


_LEFT_OUT = object()


def _one(form: Form, field: str | None, name: str) -> Any:
    """Ask until there is an answer that fits; a field with a default may be left out."""
    from raflow.cli import _console

    optional = field is not None and not form.needs(field)
    shown = f"{name} ({form.kind(field)})"
    if optional:
        default = form.fields[name].get("default")
        shown += f" [{json.dumps(default, ensure_ascii=False)}]"
    while True:
        text = typer.prompt(shown, default="", show_default=False, err=True)
        if not text and optional:
            return _LEFT_OUT
        try:
            return form.value(text, field)
        except errors.ParameterError as error:
            _console.err().print(error.message, style="yellow", markup=False)


def _described(form: Form) -> list[tuple[str, str]]:
    if not form.fields:
        return [("Answer", form.kind())]
    described = []
    for name, part in form.fields.items():
        text = form.kind(name)
        if not form.needs(name):
            text += f", {json.dumps(part.get('default'), ensure_ascii=False)} if left out"
        if part.get("description"):
            text += f": {part['description']}"
        described.append((name, text))
    return described


def _print_questions(questions: list[InputRequest], names: dict[str, str]) -> None:
    from raflow.cli import _console, _format

    table = _console.table(
        *("Run", "Number", "Question", "For", "Asked", "Until"),
        right=["Number"],
        less=["Asked", "For"],
    )
    for question in questions:
        until = _format.moment(question.expires_at)
        if question.answer is not None:
            until = f"answered by {_who(question)}"
        table.add_row(
            names[question.flow_run_id],
            str(question.number),
            Text(question.title),
            Text(", ".join(question.assignees) or "anybody"),
            _format.moment(question.asked_at),
            until,
        )
    out = _console.out()
    out.print(table)
    waiting = [question for question in questions if question.answer is None]
    if waiting:
        first = waiting[0]
        command = f"raflow input answer {names[first.flow_run_id]} {first.number}"
        out.print()
        out.print(_console.facts([("Next", Text(command, style="bold"))]))


def _name(store: Store, flow_run_id: str) -> str:

    return store.find_flow_run(flow_run_id).short_name


def _who(question: InputRequest) -> str:
    return question.answered_by or "nobody: the default counts"


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()
