"""The record of a run as it grows: history, observers and hooks, and who writes it.

- `_history`: the flow run, and the graph of its calls; `_task_runs`: its task runs.
- `_rows`: records, made of what the engine decides.
- `_journal`: where both note what happens, for the recorder and for observers.
- `_recorder`: the one writer, on a thread of its own.
- `_steward`: what else is done with the record now and then, on a thread of its own.
- `_stores`: the store of this process, opened when it is needed.
- `_observer`, `_hooks`: who is told of a run; hooks of flows and tasks are.
"""

from __future__ import annotations

from raflow.runtime.record._history import History
from raflow.runtime.record._hooks import Hooks
from raflow.runtime.record._observer import Observer
from raflow.runtime.record._recorder import Recorder
from raflow.runtime.record._steward import Steward
from raflow.runtime.record._stores import LazyStore, lend_store

__all__ = ["History", "Hooks", "LazyStore", "Observer", "Recorder", "Steward", "lend_store"]
