"""Deploying flows: what is said of them and their code go to the service.

- `_deploy`: a deployment from a flow and the directory that it is in.
- `_local`: the service is the database of this machine.
- `_project`: a file that describes deployments, read with `_yaml`.
- `_order`: a run of a deployment, and waiting for its end.
"""

from __future__ import annotations

from raflow.runtime.deploying._deploy import Deployed, Deploys, Prepared, deploy, prepare, send
from raflow.runtime.deploying._local import LocalDeploys
from raflow.runtime.deploying._order import order_run, until_final
from raflow.runtime.deploying._project import (
    PROJECT_FILE,
    Project,
    Wanted,
    project_schema,
    read_project,
    refused,
)

__all__ = [
    "PROJECT_FILE",
    "Deployed",
    "Deploys",
    "LocalDeploys",
    "Prepared",
    "Project",
    "Wanted",
    "deploy",
    "order_run",
    "prepare",
    "project_schema",
    "read_project",
    "refused",
    "send",
    "until_final",
]
