"""The record of a run, kept by the service: what the process of the run sends and asks.

Bodies and answers are those of `raflow.model.wire`, and batches of records as they are kept. A
token of a run is good for that run and its subflows.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Annotated, Final, TypeAlias

import anyio
import anyio.to_thread
from fastapi import Depends, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from raflow import errors, model
from raflow.model import Permission, StateType, TaskRunKey, wire
from raflow.server import _problems
from raflow.server._bodies import answered, sent
from raflow.server._router import Caller, Routes, Verbs
from raflow.server.schemas import In
from raflow.service import Ingest, Recorded, begin_record

routes = Routes("record")

_LOOK_SECONDS: Final = 0.25
"""How often it is looked for requests that came another way than through this server."""
_BODY_SECONDS: Final = 60.0
"""How long a batch may take to come."""
_FRAME: Final = struct.Struct("<QI")
_Int64 = Annotated[int, Field(ge=-1, lt=2**63)]


# --- What comes, and what goes --------------------------------------------------------------------


def _recorded(run_id: str, request: Request, caller: Caller) -> Recorded:
    state = request.app.state
    return Recorded(
        state.store, state.signals, state.families, root_id=caller.token.scope, run_id=run_id
    )


_Run: TypeAlias = Annotated[Recorded, Depends(_recorded)]


class MailQuery(In):
    """How long to wait for requests."""

    incarnation: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The number of the process that asks."""
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Wait for a request behind this one."""
    wait: Annotated[float, Field(ge=0, le=25)] = 0.0
    """Seconds to wait, if there is none."""


class KeyQuery(In):
    """A task run; default: the flow run itself."""

    node: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    item: _Int64 = -1

    @property
    def key(self) -> TaskRunKey | None:
        """The key of the task run."""
        return None if self.node is None else TaskRunKey(self.node, self.item)


class RowsQuery(KeyQuery):
    """A page of task runs: behind the one with this key."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    state: list[StateType] = Field([], max_length=10)
    """Only those in a state of one of these types."""


class PacesQuery(In):
    """A version of a flow."""

    flow: str
    fingerprint: str


class BlocksQuery(In):
    """Blocks behind this one."""

    after: _Int64 = -1


class InputsQuery(In):
    """Which questions."""

    open_only: bool = False


# --- Beginning, and batches -----------------------------------------------------------------------


@routes.post("/record", Permission.AUTHOR, status_code=201, response_class=Response)
def begin_recording(
    request: Request, caller: Caller, begin: Annotated[wire.RecordBegin, sent(wire.RecordBegin)]
) -> Response:
    """Return a token with which a run, new or old, is recorded."""
    begun = begin_record(request.app.state.store, begin, actor=caller.actor)
    answer = answered(begun)
    answer.status_code = 201
    return answer


@routes.get("/record", Permission.RECORD, response_class=Response)
def get_recorded(caller: Caller) -> Response:
    """Return which run the token is good for that is asked with."""
    run = caller.token.scope
    return answered(wire.RecordBegun(run_id=run, root_id=run, token=""))


@routes.get("/record/paces", Permission.AUTHOR, response_class=Response)
def get_paces(query: Annotated[PacesQuery, Query()], verbs: Verbs) -> Response:
    """Return what earlier runs of the same code have learned about its tasks."""
    return answered(verbs.flows.paces(query.flow, query.fingerprint))


@routes.get("/record/{run_id}/paces", Permission.RECORD, response_class=Response)
def get_paces_for_run(query: Annotated[PacesQuery, Query()], run: _Run) -> Response:
    """Return the same to the process of a run, for its flow and for those of its subflows."""
    return answered(run.paces(query.flow, query.fingerprint))


@routes.post("/record/{run_id}/batches", Permission.RECORD, response_class=Response)
async def send_batch(run_id: str, request: Request, caller: Caller) -> Response:
    """Put a batch of records on record: once, however often it is sent."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != wire.BATCH_MEDIA_TYPE or "content-encoding" in request.headers:
        detail = f"The body is {kind or 'of no kind'!r}. Send {wire.BATCH_MEDIA_TYPE}, not packed."
        return _problems.problem(request.scope, 415, "raflow.unsupported", detail)
    state = request.app.state
    ingest: Ingest = state.ingest
    told = request.headers.get("content-length", "")
    room = int(told) if told.isdecimal() else wire.MOST_BATCH_BYTES
    ingest.enter(room)
    try:
        data = bytearray()
        with anyio.move_on_after(_BODY_SECONDS) as waited:
            async for chunk in request.stream():
                data += chunk
                if len(data) > wire.MOST_BATCH_BYTES:
                    detail = f"The batch is larger than {wire.MOST_BATCH_BYTES:,} bytes."
                    return _problems.problem(request.scope, 413, "raflow.too_large", detail)
        if waited.cancelled_caught:
            detail = f"The batch has not come, not within {_BODY_SECONDS:.0f} s."
            return _problems.problem(request.scope, 408, "raflow.invalid", detail)
        done = await anyio.to_thread.run_sync(
            ingest.take, caller.token.scope, run_id, bytes(data), limiter=state.decoding
        )
        applied = await asyncio.wrap_future(done)
    finally:
        ingest.leave(room)
    return answered(wire.BatchTaken(applied=applied))


# --- Leases and requests --------------------------------------------------------------------------


@routes.get("/record/{run_id}/lease", Permission.RECORD, response_class=Response)
def get_lease(run: _Run) -> Response:
    """Return which process has the run."""
    return answered(run.lease())


@routes.post("/record/{run_id}/lease", Permission.RECORD, response_class=Response)
def renew_lease(run: _Run, wish: Annotated[wire.LeaseRenewal, sent(wire.LeaseRenewal)]) -> Response:
    """Renew the lease of a process; return what others ask of the run."""
    return answered(run.renew(wish))


@routes.post("/record/{run_id}/lease/begin", Permission.RECORD, response_class=Response)
def take_over_run(run: _Run, wish: Annotated[wire.LeaseBegin, sent(wire.LeaseBegin)]) -> Response:
    """Let a process take the run over; from then on nobody else can write for it."""
    return answered(run.take_over(wish))


@routes.post("/record/{run_id}/lease/let-go", Permission.RECORD, response_class=Response)
def let_run_go(run: _Run, which: Annotated[wire.Incarnation, sent(wire.Incarnation)]) -> Response:
    """Give the run back."""
    run.let_go(which)
    return answered(wire.Nothing())


@routes.get("/record/{run_id}/requests", Permission.RECORD, response_class=Response)
async def wait_for_requests(
    run_id: str, query: Annotated[MailQuery, Query()], request: Request, run: _Run, caller: Caller
) -> Response:
    """Return what others ask of the run and its subflows; waits for something new."""
    state = request.app.state
    deadline = anyio.current_time() + query.wait
    with (
        state.crowd.place(caller.token.id),
        state.signals.registered(f"run:{run_id}", "closing") as waiter,
    ):
        while True:
            if await state.directory.find(caller.secret) is None:
                raise errors.UnauthenticatedError("The token counts no more.")
            mail = await anyio.to_thread.run_sync(run.mail, query.incarnation)
            left = deadline - anyio.current_time()
            is_new = any(found.id > query.after for found in mail.requests)
            if is_new or mail.fenced or left <= 0 or state.closing:
                return answered(mail)
            if await request.is_disconnected():
                return answered(mail)
            await waiter.wait(min(left, _LOOK_SECONDS))


@routes.post(
    "/record/{run_id}/requests/{number}/answered", Permission.RECORD, response_class=Response
)
def answer_request(
    run: _Run, number: _Int64, told: Annotated[wire.RequestOutcome, sent(wire.RequestOutcome)]
) -> Response:
    """Tell what became of a request."""
    run.answered(number, told)
    return answered(wire.Nothing())


@routes.get("/record/{run_id}/processes", Permission.RECORD, response_class=Response)
def get_processes(run: _Run) -> Response:
    """Return the processes that were noted for the run."""
    return answered(run.processes())


@routes.post("/record/{run_id}/processes", Permission.RECORD, response_class=Response)
def note_processes(
    run: _Run, note: Annotated[wire.ProcessNote, sent(wire.ProcessNote)]
) -> Response:
    """Note processes that work for the run, and might outlive the one that drives it."""
    run.note_processes(note)
    return answered(wire.Nothing())


# --- Limits, values, people -----------------------------------------------------------------------


@routes.get("/record/{run_id}/limits", Permission.RECORD, response_class=Response)
def get_limits(run: _Run) -> Response:
    """Return every limit, with those who hold its slots and those in line."""
    return answered(run.limits())


@routes.post("/record/{run_id}/limits/acquire", Permission.RECORD, response_class=Response)
def acquire_slots(run: _Run, wish: Annotated[wire.SlotsWish, sent(wire.SlotsWish)]) -> Response:
    """Take slots of limits, or a place in line."""
    return answered(run.acquire(wish))


@routes.post("/record/{run_id}/limits/renew", Permission.RECORD, response_class=Response)
def renew_slots(run: _Run, wish: Annotated[wire.Seconds, sent(wire.Seconds)]) -> Response:
    """Renew the slots that the run holds."""
    return answered(run.renew_slots(wish))


@routes.post("/record/{run_id}/limits/release", Permission.RECORD, response_class=Response)
def release_slots(run: _Run, whose: Annotated[wire.Holder, sent(wire.Holder)]) -> Response:
    """Give back what a holder has, or waits for."""
    run.release(whose)
    return answered(wire.Nothing())


@routes.post("/record/{run_id}/limits/release-all", Permission.RECORD, response_class=Response)
def release_all_slots(run: _Run) -> Response:
    """Give back what the run has, or waits for."""
    run.release_all()
    return answered(wire.Nothing())


@routes.post("/record/{run_id}/cache/find", Permission.RECORD, response_class=Response)
def find_values(run: _Run, wanted: Annotated[wire.CacheKeys, sent(wire.CacheKeys)]) -> Response:
    """Return values that were computed before."""
    return answered(run.find_values(wanted))


@routes.post("/record/{run_id}/cache/keep", Permission.RECORD, response_class=Response)
def keep_values(run: _Run, kept: Annotated[wire.CacheKept, sent(wire.CacheKept)]) -> Response:
    """Keep values that this run has computed, for others to find."""
    run.keep_values(kept)
    return answered(wire.Nothing())


@routes.post("/record/{run_id}/cache/claim", Permission.RECORD, response_class=Response)
def claim_value(run: _Run, claim: Annotated[wire.CacheClaim, sent(wire.CacheClaim)]) -> Response:
    """Let one holder at a time compute a value."""
    return answered(run.claim_value(claim))


@routes.post("/record/{run_id}/cache/withdraw", Permission.RECORD, response_class=Response)
def withdraw_values(
    run: _Run, which: Annotated[wire.Withdrawal, sent(wire.Withdrawal)]
) -> Response:
    """Forget what task runs of this run have computed."""
    return answered(run.withdraw_values(which))


@routes.get("/record/{run_id}/inputs", Permission.RECORD, response_class=Response)
def get_questions(query: Annotated[InputsQuery, Query()], run: _Run) -> Response:
    """Return what the run asks of people."""
    return answered(run.questions(open_only=query.open_only))


@routes.post("/record/{run_id}/inputs", Permission.RECORD, response_class=Response)
def ask_people(
    run: _Run, question: Annotated[model.InputRequest, sent(model.InputRequest)]
) -> Response:
    """Ask people, or find the answer if the run has asked this before."""
    return answered(run.ask_person(question))


@routes.post("/record/{run_id}/inputs/{number}", Permission.RECORD, response_class=Response)
def let_default_count(run: _Run, number: _Int64) -> Response:
    """Answer a question with its default, as nobody has."""
    return answered(run.let_default_count(number))


# --- What is on record ----------------------------------------------------------------------------


@routes.get("/record/{run_id}/run", Permission.RECORD, response_class=Response)
def get_recorded_run(run: _Run) -> Response:
    """Return the run as it is kept."""
    return answered(run.run())


@routes.get("/record/{run_id}/children", Permission.RECORD, response_class=Response)
def get_children(run: _Run) -> Response:
    """Return the runs that the body of this one has started."""
    return answered(run.children())


@routes.get("/record/{run_id}/states", Permission.RECORD, response_class=Response)
def get_recorded_states(run: _Run) -> Response:
    """Return what the run went through."""
    return answered(run.states())


@routes.get("/record/{run_id}/result", Permission.RECORD, response_class=Response)
def get_recorded_result(query: Annotated[KeyQuery, Query()], run: _Run) -> Response:
    """Return what is known about a value; null if there is none."""
    return answered(run.result(query.key))


@routes.get("/record/{run_id}/numbers", Permission.RECORD, response_class=Response)
def get_numbers(run: _Run) -> Response:
    """Return where the record goes on counting."""
    return answered(run.numbers())


@routes.get("/record/{run_id}/rows", Permission.RECORD, response_class=Response)
def get_rows(query: Annotated[RowsQuery, Query()], run: _Run) -> Response:
    """Return task runs that have a row of their own."""
    return answered(run.rows(after=query.key or TaskRunKey(-1, -1), limit=query.limit))


@routes.get("/record/{run_id}/task-runs", Permission.RECORD, response_class=Response)
def get_task_runs(query: Annotated[RowsQuery, Query()], run: _Run) -> Response:
    """Return task runs."""
    types = frozenset(query.state) or None
    return answered(run.task_runs(types=types, after=query.key, limit=query.limit))


@routes.get("/record/{run_id}/nodes", Permission.RECORD, response_class=Response)
def get_nodes(run: _Run) -> Response:
    """Return the calls of the body, as bytes."""
    return Response(run.graph(edges=False), media_type="application/octet-stream")


@routes.get("/record/{run_id}/edges", Permission.RECORD, response_class=Response)
def get_edges(run: _Run) -> Response:
    """Return what the calls depend on, as bytes."""
    return Response(run.graph(edges=True), media_type="application/octet-stream")


@routes.get("/record/{run_id}/blocks", Permission.RECORD, response_class=StreamingResponse)
def get_blocks(query: Annotated[BlocksQuery, Query()], run: _Run) -> StreamingResponse:
    """Return a page of blocks: of each its number, its length and its bytes."""
    frames = (
        _FRAME.pack(number, len(content)) + content
        for number, content in run.blocks(after=query.after)
    )
    return StreamingResponse(frames, media_type="application/octet-stream")
