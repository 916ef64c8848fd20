"""Runs flows: wires definitions, engine, backend and recorder together.

The parts, in the order in which a run meets them; each facade lists its modules:

- `_entry`: `run_flow`, `resume_flow`, `rerun_flow`: open what a run needs, have it run, close.
- `_claimed`: `run_claimed`, `end_claimed`: the same for runs that a worker has taken.
- `recall`: going on from the record: what a resumed run has done, what a rerun may reuse.
- `attempts`: one flow run from its creation to its end: its attempts, its subflows, its lease.
- `body`: what the body talks to: it makes calls, and waits for values, for slots, for people.
- `calls`: what the body has called: arguments and items, and what has become of each call.
- `driver`: one thread per run, which feeds the engine and carries out its commands.
- `desk`: where a run asks others: for slots of limits, for values computed before, for input.
- `record`: the record as it grows: from history by the recorder to the store; observers, hooks.
- `ending`: the final state, and what is undone and removed; also of runs whose process is gone.
- `leases`: who drives a run, and whether that process is still there.
- `_ports`: what all of them ask of the record, whoever keeps it.

Beside them: `deploying`, which keeps flows with their code for others to run, and has them run.

They import each other in one direction only, which the contract "runtime" of import-linter checks.
"""

from __future__ import annotations

from raflow.runtime._backends import open_backend, shutdown
from raflow.runtime._claimed import end_claimed, resume_claimed, run_claimed
from raflow.runtime._deploy import deploy_flow
from raflow.runtime._entry import rerun_flow, resume_flow, run_flow, run_flow_async
from raflow.runtime._run_deployment import run_deployment, run_deployment_async
from raflow.runtime.attempts import FlowOutcome
from raflow.runtime.ending import Reaped, cancel_on_record, reap
from raflow.runtime.leases import Fate, Sighting, abandoned, needs_a_process, sight
from raflow.runtime.recall import Choice
from raflow.runtime.record import Observer

__all__ = [
    "Choice",
    "Fate",
    "FlowOutcome",
    "Observer",
    "Reaped",
    "Sighting",
    "abandoned",
    "cancel_on_record",
    "deploy_flow",
    "end_claimed",
    "needs_a_process",
    "open_backend",
    "reap",
    "rerun_flow",
    "resume_claimed",
    "resume_flow",
    "run_claimed",
    "run_deployment",
    "run_deployment_async",
    "run_flow",
    "run_flow_async",
    "shutdown",
    "sight",
]
