"""Flows, as the wire has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from raflow import model
from raflow.model import StateType
from raflow.server.schemas._base import Out, moment, plain
from raflow.server.schemas._runs import StateOut
from raflow.store import FlowSummary


class LastRunOut(Out):
    """The newest run of a flow."""

    id: str
    name: str
    state: StateOut
    created_at: datetime


class FlowOut(Out):
    """A flow and how its runs went."""

    name: str
    versions: int
    last_run: LastRunOut | None
    counts: dict[StateType, int]

    @classmethod
    def of(cls, summary: FlowSummary) -> Self:
        """Return it as the wire has it."""
        run = summary.last_run
        last = None
        if run is not None:
            last = LastRunOut(
                id=run.id,
                name=run.name,
                state=StateOut.of(run.state),
                created_at=moment(run.created_at),
            )
        return cls(
            name=summary.name,
            versions=summary.versions,
            last_run=last,
            counts=dict(summary.counts),
        )


class FlowVersionOut(Out):
    """A flow as it was declared at one moment."""

    flow: str
    fingerprint: str
    version: str
    description: str
    entrypoint: str
    source: str
    parameter_schema: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, version: model.FlowVersion) -> Self:
        """Return it as the wire has it."""
        return cls(
            flow=version.flow,
            fingerprint=version.fingerprint,
            version=version.version,
            description=version.description,
            entrypoint=version.entrypoint,
            source=version.source,
            parameter_schema=plain(version.parameter_schema),
            created_at=moment(version.created_at),
        )
