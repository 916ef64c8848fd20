"""Deploying a flow from Python."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from raflow import config
from raflow._util import person
from raflow.define import Flow

if TYPE_CHECKING:
    from pathlib import Path

    from raflow.model import Deployment, DeploymentSpec, ScheduleSpec

_log: Final = logging.getLogger("raflow")


def deploy_flow(
    flow: Flow[..., Any],
    spec: DeploymentSpec,
    *,
    name: str,
    schedules: Sequence[ScheduleSpec],
    root: Path | None,
    include: Sequence[str],
    exclude: Sequence[str],
    note: str,
) -> Deployment:
    """Keep a flow with its code under a name, in the database that the settings name.

    Files that are left out because they look like secrets are logged as warnings. For the arguments
    and errors see `deploying.deploy`.

    Raises:
        StoreError: The database cannot be opened or written.
        BundleStorageError: Storage of bundles cannot be written.
    """
    # Neither is needed to run a flow, and both take a while to load.
    from raflow.runtime.deploying import LocalDeploys, deploy  # noqa: PLC0415
    from raflow.store import Store  # noqa: PLC0415

    settings = config.load()
    settings.check_local("flow.deploy()")
    with Store.open(settings.database, log_dir=settings.logs) as store:
        deployed = deploy(
            flow,
            spec,
            LocalDeploys(store, settings.bundles),
            name=name or flow.name.lower(),
            schedules=schedules,
            root=root,
            include=include,
            exclude=exclude,
            actor=person(),
            note=note,
        )
    for sentence in deployed.packed.left_out:
        _log.warning("%s", sentence)
    return deployed.deployment
