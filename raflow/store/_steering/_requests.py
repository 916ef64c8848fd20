"""What is asked of flow runs: by others, to cancel or pause one; by a run, of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import short_id
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._reading import _queries
from raflow.store._record import _driving
from raflow.store._rows import _tables, _upserts, _values

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_runs = _tables.flow_runs
_asked = _tables.run_requests
_questions = _tables.input_requests
_FINAL: Final = _queries.state_names(model.FINAL_TYPES)


class Requests:
    """What is asked of flow runs, and what flow runs ask of people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(
        self, flow_run_id: str, kind: model.RequestKind, *, by: str, message: str = ""
    ) -> model.RunRequest:
        """Ask something of a flow run; the process that drives it looks for that all the time.

        Asking the same again before it is answered is the same request.

        Args:
            flow_run_id: The flow run.
            kind: What it should do.
            by: Who asks: `user@host`, or the name of a token.
            message: Why, for people.

        Raises:
            NotFoundError: No such flow run was recorded.
            RunHasEndedError: It is over.
        """
        return self._database.write(lambda c: ask(c, flow_run_id, kind, by, message))

    def answered(self, request_id: int, outcome: str) -> None:
        """Note what became of a request.

        Args:
            request_id: The request.
            outcome: In words; not empty.

        Raises:
            NotFoundError: There is no such request.
        """
        assert outcome, "an empty outcome means that there is none yet"
        update = sa.update(_asked).where(_asked.c.number == request_id)
        update = update.values(outcome=_values.text(outcome))
        if not self._database.write(lambda c: c.execute(update).rowcount):
            raise errors.NotFoundError.of("request", str(request_id), ())

    def of(self, flow_run_id: str, *, open_only: bool = False) -> tuple[model.RunRequest, ...]:
        """Return what was asked of a flow run, oldest first.

        Args:
            flow_run_id: The flow run.
            open_only: Only what nobody has answered yet. Default: all.
        """
        if open_only:
            return self._database.read(lambda c: unanswered(c, flow_run_id))
        return self._database.read(lambda c: _of(c, flow_run_id))

    def open_in(self, root_id: str) -> tuple[model.RunRequest, ...]:
        """Return what was asked of a flow run and of its subflows, and nobody has answered."""
        return self._database.read(lambda c: _open_in(c, root_id))

    def ask_person(self, request: model.InputRequest) -> model.InputRequest:
        """Ask people for input, or find the answer if the run has asked this before.

        Args:
            request: The question. Of one with the same number nothing changes.

        Returns:
            The question as it stands, with its answer if there is one.

        Raises:
            NotFoundError: The flow run was not recorded.
        """
        return self._database.write(lambda c: _ask_person(c, request))

    def answer_person(
        self, flow_run_id: str, number: int, *, answer: bytes, by: str
    ) -> model.InputRequest:
        """Answer what a flow run asks of people. The first answer counts.

        Args:
            flow_run_id: The flow run.
            number: Which of its questions.
            answer: JSON of the answer.
            by: Who answers; empty: nobody, so that the default counts.

        Raises:
            NotFoundError: There is no such question.
            AlreadyAnsweredError: Somebody else was faster.
            RunHasEndedError: The flow run is over.
        """
        # A run of a deployment that was suspended for it goes on when a worker takes it.
        return self._database.write(lambda c: _answer_person(c, flow_run_id, number, answer, by))

    def input_requests(
        self, *, flow_run_id: str | None = None, open_only: bool = True
    ) -> list[model.InputRequest]:
        """Return what flow runs ask of people, oldest first.

        Args:
            flow_run_id: Only what this flow run asks. Default: all of them.
            open_only: Only what waits for an answer, of runs that are not over. Default: yes.
        """
        return self._database.read(
            lambda c: questions(c, flow_run_id=flow_run_id, open_only=open_only)
        )


# --- Of a flow run --------------------------------------------------------------------------------


def unanswered(connection: sa.Connection, flow_run_id: str) -> tuple[model.RunRequest, ...]:
    """Return what was asked of a flow run and waits for an answer, oldest first."""
    return _of(connection, flow_run_id, _asked.c.outcome == "")


def _of(
    connection: sa.Connection, flow_run_id: str, *conditions: sa.ColumnElement[bool]
) -> tuple[model.RunRequest, ...]:
    query = sa.select(_asked).where(_queries.of(_asked, flow_run_id), *conditions)
    rows = connection.execute(query.order_by(_asked.c.number))
    return tuple(_read_request(flow_run_id, row) for row in rows)


def _open_in(connection: sa.Connection, root_id: str) -> tuple[model.RunRequest, ...]:
    family = sa.select(_runs.c.number, _runs.c.id).where(_runs.c.id == root_id)
    below = family.cte("below", recursive=True)
    below = below.union(
        sa.select(_runs.c.number, _runs.c.id).join(below, _runs.c.parent_id == below.c.id)
    )
    query = sa.select(below.c.id, _asked).join(below, below.c.number == _asked.c.flow_run)
    rows = connection.execute(query.where(_asked.c.outcome == "").order_by(_asked.c.number))
    return tuple(_read_request(row[0], row[1:]) for row in rows)


def _read_request(flow_run_id: str, row: Sequence[Any]) -> model.RunRequest:
    number, _, kind, by, at, message, outcome = row
    return model.RunRequest(
        id=number,
        flow_run_id=flow_run_id,
        kind=model.RequestKind(kind),
        by=by,
        at=at,
        message=message,
        outcome=outcome,
    )


def ask(
    connection: sa.Connection, flow_run_id: str, kind: model.RequestKind, by: str, message: str
) -> model.RunRequest:
    """Ask something of a flow run; see `Requests.ask`."""
    # Locked, so that a request is either seen by the process that ends the run, or refused.
    standing = _going_on(connection, flow_run_id, f"{kind.value} it")
    values = {"kind": kind.value, "asked_by": _values.text(by), "message": _values.text(message)}
    pending = unanswered(connection, flow_run_id)
    if pending and (pending[-1].kind, pending[-1].by, pending[-1].message) == tuple(
        values.values()
    ):
        return pending[-1]
    now = _clock.now(connection)
    insert = sa.insert(_asked).values(flow_run=standing.number, asked_at=now, outcome="", **values)
    row = connection.execute(insert.returning(*_asked.c)).one()
    asked = _read_request(flow_run_id, row)
    payload = {"request": asked.id, "kind": kind.value, "message": message}
    _tell(connection, model.EventKind.FLOW_RUN_REQUESTED, flow_run_id, by, payload)
    return asked


def _tell(
    connection: sa.Connection,
    kind: model.EventKind,
    flow_run_id: str,
    actor: str,
    payload: Mapping[str, Any],
) -> None:
    flow = connection.execute(sa.select(_runs.c.flow).where(_runs.c.id == flow_run_id)).scalar()
    event = model.Event(
        kind=kind,
        object=f"flow_run:{flow_run_id}",
        at=0.0,
        flow_run_id=flow_run_id,
        flow=flow,
        actor=actor,
        payload=payload,
    )
    _feed.append(connection, [event])


def _going_on(connection: sa.Connection, flow_run_id: str, what: str) -> _driving.Standing:
    standing = _driving.known(connection, flow_run_id, shared=True)
    if standing.state.type.is_final:
        name = standing.state.value
        raise errors.RunHasEndedError(
            f"Flow run {short_id(flow_run_id)!r} is over ({name}): nobody is there to {what}.",
            flow_run_id=flow_run_id,
            state=name,
        )
    return standing


# --- Of people ------------------------------------------------------------------------------------


def _ask_person(connection: sa.Connection, request: model.InputRequest) -> model.InputRequest:
    run = _driving.known(connection, request.flow_run_id, shared=True).number
    values = {
        "flow_run": run,
        "number": request.number,
        "title": _values.text(request.title),
        "form": _values.to_json(request.form),
        "asked_at": _values.seconds(request.asked_at),
        "expires_at": _values.maybe_seconds(request.expires_at),
        "default_answer": request.default,
        "assignees": _values.to_json(request.assignees),
        "answer": request.answer,
        "answered_by": _values.text(request.answered_by),
        "answered_at": _values.maybe_seconds(request.answered_at),
    }
    insert = _upserts.insert_into(_questions, connection.dialect.name).values(values)
    if connection.execute(insert.on_conflict_do_nothing()).rowcount:
        asked = {"number": request.number, "title": request.title}
        _tell(connection, model.EventKind.INPUT_ASKED, request.flow_run_id, "", asked)
    return _question(connection, request.flow_run_id, request.number)


def _answer_person(
    connection: sa.Connection, flow_run_id: str, number: int, answer: bytes, by: str
) -> model.InputRequest:
    standing = _going_on(connection, flow_run_id, "take the answer")
    this = sa.and_(_questions.c.flow_run == standing.number, _questions.c.number == number)
    update = sa.update(_questions).where(this, _questions.c.answer.is_(None))
    by, now = _values.text(by), _clock.now(connection)
    done = connection.execute(update.values(answer=answer, answered_by=by, answered_at=now))
    question = _question(connection, flow_run_id, number)
    if done.rowcount:
        told = {"number": number, "title": question.title}
        _tell(connection, model.EventKind.INPUT_ANSWERED, flow_run_id, by, told)
    # The same answer of the same person: its first commit came through, and was not told.
    if not done.rowcount and (question.answer, question.answered_by) != (answer, by):
        who = question.answered_by or "the default"
        at = _clock.time_of_day(question.answered_at or now, now)
        raise errors.AlreadyAnsweredError(
            f"Question {number} of flow run {short_id(flow_run_id)!r} ({question.title}) was "
            f"answered by {who} at {at}. The first answer counts.",
            flow_run_id=flow_run_id,
            number=number,
            answered_by=question.answered_by,
        )
    if standing.pool:
        connection.execute(_UNPARK, {"run": standing.number, "now": now})
    return question


_UNPARK: Final = sa.text(
    "UPDATE dispatches SET stage = 'waiting', kind = 'resume', begins_at = :now, refusals = 0, "
    "resumes = 0, message = '' WHERE flow_run = :run AND stage = 'parked'"
)


def questions(
    connection: sa.Connection,
    *conditions: sa.ColumnElement[bool],
    flow_run_id: str | None = None,
    open_only: bool = True,
    limit: int | None = None,
) -> list[model.InputRequest]:
    """Return what flow runs ask of people; see `Requests.input_requests`."""
    query = sa.select(_runs.c.id, _questions).join_from(_questions, _runs).where(*conditions)
    if flow_run_id is not None:
        query = query.where(_runs.c.id == flow_run_id)
    if open_only:
        query = query.where(_questions.c.answer.is_(None), _runs.c.state.not_in(_FINAL))
    query = query.order_by(_questions.c.asked_at, _runs.c.id, _questions.c.number).limit(limit)
    return [_read_question(row) for row in connection.execute(query)]


def _question(connection: sa.Connection, flow_run_id: str, number: int) -> model.InputRequest:
    query = sa.select(_runs.c.id, _questions).join_from(_questions, _runs)
    query = query.where(_runs.c.id == flow_run_id)
    row = connection.execute(query.where(_questions.c.number == number)).first()
    if row is None:
        known = connection.execute(
            sa.select(_questions.c.number).where(_queries.of(_questions, flow_run_id))
        )
        numbers = ", ".join(str(n) for n in sorted(known.scalars()))
        raise errors.NotFoundError(
            f"Flow run {short_id(flow_run_id)!r} has no question {number}; it has asked"
            f"{': ' + numbers if numbers else ' nothing'}."
        )
    return _read_question(row)


def _read_question(row: Sequence[Any]) -> model.InputRequest:
    flow_run_id, _, number, title, form, asked_at, expires_at, default, assignees = row[:9]
    answer, answered_by, answered_at = row[9:]
    return model.InputRequest(
        flow_run_id=flow_run_id,
        number=number,
        title=title,
        form=_values.from_json(form),
        asked_at=asked_at,
        expires_at=expires_at,
        default=default,
        assignees=tuple(_values.from_json(assignees)),
        answer=answer,
        answered_by=answered_by,
        answered_at=answered_at,
    )
