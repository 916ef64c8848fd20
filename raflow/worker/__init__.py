"""A worker: takes flow runs of deployments out of a pool, and has them run.

- `_worker`: one loop that takes runs, hands them to runners, hears how they end, and drains.
- `_runners`: the runners of a worker, each a process of its own with one version of code.
- `_runner_main`: what such a process does.
- `_messages`: what the two say to each other.
- `_process`, `__main__`: a worker as a process, with signals and a log.
- `_serve`: deployments that a program serves itself.
- `_ports`, `_local`, `_remote`: where runs and code come from: a port, the database of this
  machine, and a service.
"""

from __future__ import annotations

from raflow.worker._local import LocalWork
from raflow.worker._ports import Work
from raflow.worker._serve import serve
from raflow.worker._worker import Worker

__all__ = ["LocalWork", "Work", "Worker", "serve"]
