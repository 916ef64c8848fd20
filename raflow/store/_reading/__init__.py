"""What is read of flow runs. Nothing here writes.

- `_queries`: flows, their versions, flow runs, log segments.
- `_run_lists`: lists of flow runs, page by page, and how many there are.
- `_graphs`, `_task_runs`, `_counts`, `_history`: inside a flow run.
- `_blocks`: which block of task runs holds a key.
- `_recall`: what a resumed run reads of its own past.
"""

from __future__ import annotations
