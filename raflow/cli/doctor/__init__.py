"""`raflow doctor`: whether everything that a run needs is there.

- `_command`: the command, and the order of the checks.
- `_machine`: versions, disk, storage, Ray; `_record`: the database, schedules, workers;
  `_service`: what stands for the database where `RAFLOW_API_URL` is set.
- `_finding`: what a check has found.
- `_probe`: the flow that `--ray` runs.
"""

from __future__ import annotations

from raflow.cli.doctor._command import doctor, run_checks
from raflow.cli.doctor._finding import Check, Finding, Health

__all__ = ["Check", "Finding", "Health", "doctor", "run_checks"]
