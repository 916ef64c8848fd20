"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


class BackendName(StrEnum):
    """Where tasks run."""

    RAY = "ray"
    LOCAL = "local"


Target: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="FILE[:FLOW]",
        help="A Python file, or a module, and the flow in it if there are several.",
        show_default=False,
    ),
]
Params: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="A parameter of the flow, as JSON or as text. May be repeated.",
        show_default=False,
    ),
]
ParamsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A JSON file with parameters; --param wins over it.",
        show_default=False,
    ),
]
RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Ray cluster to join. Default: a local Ray, started here."
    ),
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress and no log lines.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
RunName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The id of a flow run, its name, the beginning or end of its id, or `latest`.",
        show_default=False,
    ),
]
