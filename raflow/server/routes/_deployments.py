"""Deployments: what they are, their versions, and runs of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Response
from pydantic import Field

from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import (
    DeployedOut,
    DeploymentIn,
    DeploymentOut,
    DeploymentVersionOut,
    DiffOut,
    FileDiffOut,
    In,
    OrderedOut,
    Page,
    RemovedDeploymentOut,
    RollbackIn,
    RunIn,
    SettingDiffOut,
)

routes = Routes("deployments")
_INT32 = 2**31 - 1

IfMatch = Annotated[str | None, Header(alias="If-Match", pattern=r'^(W/)?"r[0-9]{1,9}"$')]
"""`"r3"`: only if the deployment has this revision still."""
Key = Annotated[str, Header(alias="Idempotency-Key", max_length=255, pattern=r"^[\x20-\x7e]*$")]
"""Sent again with the same key it is the same order."""


def _revision(match: str | None) -> int | None:
    return None if match is None else int(match.strip('W/"r'))


def _shown(deployment: DeploymentOut, response: Response) -> DeploymentOut:
    response.headers["ETag"] = f'"r{deployment.revision}"'
    return deployment


class DeploymentsQuery(In):
    """Which deployments."""

    flow: str | None = None
    pool: str | None = None


@routes.get("/deployments", Permission.READ)
def list_deployments(
    query: Annotated[DeploymentsQuery, Query()], verbs: Verbs
) -> Page[DeploymentOut]:
    """List deployments, sorted by name."""
    found = verbs.deployments.all(flow=query.flow, pool=query.pool)
    return Page(items=[DeploymentOut.of(one) for one in found])


@routes.get("/deployments/{name}", Permission.READ)
def get_deployment(name: str, verbs: Verbs, response: Response) -> DeploymentOut:
    """Return a deployment; its `ETag` is what `If-Match` takes."""
    return _shown(DeploymentOut.of(verbs.deployments.get(name)), response)


@routes.put("/deployments/{name}", Permission.AUTHOR)
def put_deployment(
    name: str, wanted: DeploymentIn, verbs: Verbs, response: Response, if_match: IfMatch = None
) -> DeployedOut:
    """Have a deployment use a version: make it, or a new version of it; nothing if it equals that.

    Send the bundle first. 201 if a version was made.
    """
    deployment, is_new = verbs.deployments.put(
        name, wanted.version(), wanted.code(), if_match=_revision(if_match)
    )
    response.status_code = 201 if is_new else 200
    shown = _shown(DeploymentOut.of(deployment), response)
    return DeployedOut(deployment=shown, made_version=is_new)


@routes.delete("/deployments/{name}", Permission.AUTHOR)
def remove_deployment(name: str, verbs: Verbs, if_match: IfMatch = None) -> RemovedDeploymentOut:
    """Remove a deployment: runs that wait are cancelled, others go on."""
    cancelled = verbs.deployments.remove(name, if_match=_revision(if_match))
    return RemovedDeploymentOut(cancelled=cancelled)


@routes.post("/deployments/{name}/pause", Permission.OPERATE)
def pause_deployment(name: str, verbs: Verbs, response: Response) -> DeploymentOut:
    """Let no run of a deployment begin, nor its schedules start any. What has begun goes on."""
    return _shown(DeploymentOut.of(verbs.deployments.pause(name)), response)


@routes.post("/deployments/{name}/resume", Permission.OPERATE)
def resume_deployment(name: str, verbs: Verbs, response: Response) -> DeploymentOut:
    """Let runs of a deployment begin again."""
    return _shown(DeploymentOut.of(verbs.deployments.resume(name)), response)


# --- Versions -------------------------------------------------------------------------------------


@routes.get("/deployments/{name}/versions", Permission.READ)
def list_deployment_versions(name: str, verbs: Verbs) -> Page[DeploymentVersionOut]:
    """List the versions of a deployment, the newest first."""
    return Page(items=[DeploymentVersionOut.of(one) for one in verbs.deployments.versions(name)])


@routes.get("/deployments/{name}/versions/{number}", Permission.READ)
def get_deployment_version(
    name: str, number: Annotated[int, Field(ge=0, le=_INT32)], verbs: Verbs
) -> DeploymentVersionOut:
    """Return a version of a deployment."""
    return DeploymentVersionOut.of(verbs.deployments.version(name, number))


class DiffQuery(In):
    """Which versions."""

    before: Annotated[int, Field(ge=1, le=_INT32)] | None = None
    """Default: the one before the later."""
    after: Annotated[int, Field(ge=1, le=_INT32)] | None = None
    """Default: the one that new runs use."""


@routes.get("/deployments/{name}/diff", Permission.READ)
def diff_deployment(name: str, query: Annotated[DiffQuery, Query()], verbs: Verbs) -> DiffOut:
    """Return what is different between two versions: settings and files."""
    found = verbs.deployments.diff(name, before=query.before, after=query.after)
    return DiffOut(
        before=found.before,
        after=found.after,
        settings=[SettingDiffOut.of(one) for one in found.settings],
        files=[FileDiffOut(path=one.path, change=one.change) for one in found.files],
    )


@routes.post("/deployments/{name}/rollback", Permission.AUTHOR)
def roll_back_deployment(
    name: str, wanted: RollbackIn, verbs: Verbs, response: Response, if_match: IfMatch = None
) -> DeploymentOut:
    """Have new runs of a deployment use an earlier version, or a later one, again."""
    found = verbs.deployments.use(name, wanted.version, if_match=_revision(if_match))
    return _shown(DeploymentOut.of(found), response)


# --- Runs -----------------------------------------------------------------------------------------


@routes.post("/deployments/{name}/runs", Permission.OPERATE, status_code=201)
def run_deployment(
    name: str, wanted: RunIn, verbs: Verbs, response: Response, idempotency_key: Key = ""
) -> OrderedOut:
    """Order a run; a worker of the deployment's pool takes it. 200 if its key was used for it."""
    ordered = verbs.runs.start(
        name,
        wanted.parameters,
        begins_at=None if wanted.begins_at is None else wanted.begins_at.timestamp(),
        name=wanted.name,
        tags=wanted.tags,
        key=idempotency_key,
    )
    if not ordered.is_new:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/api/v1/runs/{ordered.flow_run_id}"
    return OrderedOut(id=ordered.flow_run_id, is_new=ordered.is_new)
