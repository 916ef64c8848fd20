"""Runs flows: wires definitions, engine, backend and recorder together."""

from __future__ import annotations

from raflow.runtime._backends import open_backend, shutdown
from raflow.runtime._entry import run_flow, run_flow_async
from raflow.runtime._observer import Observer
from raflow.runtime._scope import FlowOutcome

__all__ = ["FlowOutcome", "Observer", "open_backend", "run_flow", "run_flow_async", "shutdown"]
