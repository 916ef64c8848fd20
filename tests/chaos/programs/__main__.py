"""Runs flows one after the other, and keeps a ledger of what it is told.

Its argument is a JSON list of triples: the name of a flow, its parameters, and the run to go on
with; empty: a new one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from raflow import config, runtime
from raflow.define import Flow
from raflow.model import FlowRun, StateName
from tests.chaos.journal import Ack, Promise, acknowledge
from tests.chaos.programs import flows, shapes

LEDGER = "CHAOS_LEDGER"
"""The variable that names the ledger."""


class Client(runtime.Observer):
    """Takes note of what a run promises."""

    def __init__(self, ledger: str, *, at_once: bool) -> None:
        self.ledger = ledger
        self.at_once = at_once

    def flow_run_changed(self, run: FlowRun) -> None:
        if self.at_once and run.state.name is StateName.RUNNING and run.parent_id is None:
            self.tell(run, Promise.ACCEPTED)

    def tell(self, run: FlowRun, promise: Promise) -> None:
        state = run.state.name.value
        acknowledge(self.ledger, Ack(run=run.id, promise=promise, time=time.time(), state=state))


def run(client: Client, name: str, parameters: dict[str, Any], resumed: str) -> None:
    module = next(module for module in (flows, shapes) if hasattr(module, name))
    flow: Flow[..., Any] = getattr(module, name)
    entrypoint = f"{module.__name__}:{name}"
    if resumed:
        outcome = runtime.resume_flow(flow, resumed, observers=[client], entrypoint=entrypoint)
    else:
        outcome = runtime.run_flow(
            flow, flow.validate(**parameters), observers=[client], entrypoint=entrypoint
        )
    client.tell(outcome.flow_run, Promise.ENDED)


def main() -> None:
    # On threads a run may begin before its record is open: it has then not been accepted.
    client = Client(os.environ[LEDGER], at_once=config.load().backend == "ray")
    for name, parameters, resumed in json.loads(sys.argv[1]):
        run(client, name, parameters, resumed)


if __name__ == "__main__":
    main()
