"""Flows and the versions of their code."""

from __future__ import annotations

from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import FlowOut, FlowVersionOut, Page

routes = Routes("flows")


@routes.get("/flows", Permission.READ)
def list_flows(verbs: Verbs) -> Page[FlowOut]:
    """List every flow, the one that ran last first."""
    return Page(items=[FlowOut.of(summary) for summary in verbs.flows.all()])


@routes.get("/flows/{name}", Permission.READ)
def get_flow(name: str, verbs: Verbs) -> FlowOut:
    """Return a flow, its newest run and how its runs went."""
    return FlowOut.of(verbs.flows.get(name))


@routes.get("/flows/{name}/versions", Permission.READ)
def list_flow_versions(name: str, verbs: Verbs) -> Page[FlowVersionOut]:
    """List the versions of a flow's code, newest first."""
    return Page(items=[FlowVersionOut.of(version) for version in verbs.flows.versions(name)])


@routes.get("/flow-versions/{fingerprint}", Permission.READ)
def get_flow_version(fingerprint: str, verbs: Verbs) -> FlowVersionOut:
    """Return a version of a flow's code, with its source."""
    return FlowVersionOut.of(verbs.flows.version(fingerprint))
