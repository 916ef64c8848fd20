"""What is written of flow runs, and what changes with it in the same transaction.

- `_writes`: one batch of records.
- `_applying`: many of them at once.
- `_driving`: which process drives a run: what every write checks, and what ends with the run.
- `_dropping`: calls in whose place the body makes others now.
- `_moves`: the place of a run of a deployment, when the run's state changes.
- `_tallies`: how many runs are over.
- `_logs`: log lines, in files beside the database.
"""

from __future__ import annotations
