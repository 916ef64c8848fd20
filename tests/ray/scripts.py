"""Runs Python programs that need a process, or a Ray, of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.ray.harness import ROOT

PRELUDE = """
import sys, time, os, pathlib
from tests.ray import user_tasks as user
from tests.ray.harness import Run
from raflow.execute.ray import RayBackend
home = pathlib.Path(sys.argv[1])
"""


def run_script(
    body: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
