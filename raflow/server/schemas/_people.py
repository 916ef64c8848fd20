"""Questions to people, tokens, sessions, events and health, as the wire has them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from raflow import model
from raflow.model import Permission, Role, StateName, StateType, TokenKind
from raflow.server.schemas._base import In, Out, maybe_moment, moment, plain, text
from raflow.service import LoopState, Made


class InputRequestOut(Out):
    """What a flow run asks of people, and the answer if there is one."""

    flow_run_id: str
    number: int
    title: str
    form: dict[str, Any]
    """JSON Schema of the answer."""
    assignees: list[str]
    asked_at: datetime
    expires_at: datetime | None
    default: Any
    answered: bool
    answer: Any
    answered_by: str
    answered_at: datetime | None

    @classmethod
    def of(cls, request: model.InputRequest) -> Self:
        """Return it as the wire has it."""
        return cls(
            flow_run_id=request.flow_run_id,
            number=request.number,
            title=request.title,
            form=plain(request.form),
            assignees=list(request.assignees),
            asked_at=moment(request.asked_at),
            expires_at=maybe_moment(request.expires_at),
            default=_loaded(request.default),
            answered=request.answer is not None,
            answer=_loaded(request.answer),
            answered_by=request.answered_by,
            answered_at=maybe_moment(request.answered_at),
        )


def _loaded(text: bytes | None) -> Any:
    return None if text is None else plain(json.loads(text))


class AnswerIn(In):
    """An answer to a question."""

    answer: Any = Field(...)


class TokenOut(Out):
    """A token, without its secret."""

    id: str
    name: str
    kind: TokenKind
    role: Role
    scope: str
    actor: str
    """Who made it."""
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None

    @classmethod
    def of(cls, token: model.Token) -> Self:
        """Return it as the wire has it."""
        return cls(
            id=token.id,
            name=token.name,
            kind=token.kind,
            role=token.role,
            scope=token.scope,
            actor=token.actor,
            created_at=moment(token.created_at),
            expires_at=maybe_moment(token.expires_at),
            used_at=maybe_moment(token.used_at),
        )


class TokenMadeOut(TokenOut):
    """A new token: its text is told only now."""

    text: str

    @classmethod
    def of_made(cls, made: Made) -> Self:
        """Return it as the wire has it."""
        return cls(text=made.text, **TokenOut.of(made.token).model_dump())


class TokenIn(In):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.@ -]+$")]
    kind: Literal[TokenKind.USER, TokenKind.WORKER] = TokenKind.USER
    """Of a person or program, or of a worker, which may take runs and nothing else."""
    role: Role = Role.VIEWER
    """Of a person or program."""
    pool: Annotated[str, Field(max_length=200)] = ""
    """The only pool of a worker. Empty: any."""
    days: Annotated[float, Field(gt=0, le=3650)] | None = None
    """How long it counts. Null: until it is revoked."""


class SessionIn(In):
    """The code of a sign-in link."""

    code: Annotated[str, Field(max_length=200)]


class MeOut(Out):
    """Who asks, and what they may."""

    actor: str
    kind: TokenKind
    role: Role
    permissions: list[Permission]
    csrf: str
    """What a browser repeats as `X-Raflow-CSRF`; empty without a session."""


class EventOut(Out):
    """Something that has happened."""

    seq: int
    kind: str
    at: datetime
    object: str
    flow_run_id: str | None
    flow: str | None
    deployment: str | None
    actor: str
    payload: dict[str, Any]

    @classmethod
    def of(cls, event: model.Event) -> Self:
        """Return it as the wire has it."""
        return cls(
            seq=event.seq,
            kind=event.kind,
            at=moment(event.at),
            object=event.object,
            flow_run_id=event.flow_run_id,
            flow=event.flow,
            deployment=event.deployment,
            actor=event.actor,
            payload=plain(event.payload),
        )


class EventsOut(Out):
    """Events, oldest first."""

    items: list[EventOut]
    last_seq: int
    """Go on `after` this."""
    missed: bool = False
    """Whether some behind `after` are gone: old ones are not kept."""


class AliveOut(Out):
    """The server is there."""

    status: Literal["ok"] = "ok"


class LoopOut(Out):
    """A loop of the server that looks after schedules or runs."""

    name: str
    is_well: bool
    silent_seconds: float
    """How long ago it should have looked, and did not, or with an error; 0: all is well."""
    error: str
    """What went wrong the last time; empty: nothing."""

    @classmethod
    def of(cls, loop: LoopState) -> Self:
        """Return it as the wire has it."""
        return cls(
            name=loop.name,
            is_well=loop.is_well,
            silent_seconds=round(loop.silent_seconds, 3),
            error=text(loop.error),
        )


class HealthOut(AliveOut):
    """How the server is."""

    at: datetime
    """The time by the clock of the database, which leases and schedules go by."""
    database: str
    """Its URL, without passwords."""
    revision: str
    database_seconds: float
    """How long it took to answer."""
    free_bytes: int
    """On the disk of the home."""
    uptime_seconds: float
    loops: list[LoopOut]
    """What looks after schedules and runs; empty: another process does it."""
    versions: dict[str, str]


class LookOut(Out):
    """How a state type looks."""

    type: StateType
    fill: str
    ink: str
    icon: str


class VersionOut(Out):
    """What this server is, and the names of states."""

    versions: dict[str, str]
    api: int
    states: dict[StateName, StateType]
    palette: list[LookOut]
