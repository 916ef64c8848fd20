"""Flows and the versions of their code."""

from __future__ import annotations

from raflow import errors, model
from raflow.store import FlowSummary, Store


class Flows:
    """Every flow that was recorded."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[FlowSummary]:
        """Return every flow, the one that ran last first."""
        return self._store.flows()

    def get(self, name: str) -> FlowSummary:
        """Return a flow.

        Raises:
            NotFoundError: None of that name was recorded.
        """
        found = {summary.name: summary for summary in self._store.flows()}
        if name not in found:
            raise errors.NotFoundError.of("flow", name, found)
        return found[name]

    def versions(self, name: str) -> list[model.FlowVersion]:
        """Return the versions of a flow's code, newest first.

        Raises:
            NotFoundError: No flow of that name was recorded.
        """
        self.get(name)
        return self._store.flow_versions(name)

    def version(self, fingerprint: str) -> model.FlowVersion:
        """Return a version of a flow's code.

        Raises:
            NotFoundError: No such version was recorded.
        """
        return self._store.flow_version(fingerprint)

    def paces(self, flow: str, fingerprint: str) -> dict[str, model.TaskPace]:
        """Return what earlier runs of a version have learned about its tasks, by task."""
        return self._store.paces(flow, fingerprint)
