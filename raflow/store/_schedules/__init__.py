"""When the service starts which runs by itself.

- `_schedules`: schedules of deployments.
- `_due_slots`: what becomes of a slot that has come: decided once, in one transaction.
- `_schedule_rows`: both as rows, and back.
- `_schedule_events`: what the feed says of both.
- `_backfills`: runs for slots of the past; `_backfill_steps`: how they go on.
"""

from __future__ import annotations
