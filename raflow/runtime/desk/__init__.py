"""Where a run asks others; what it asks is done on the steward's thread.

- `_desk`: holds the three.
- `_slots`: slots of limits, for calls and for the body.
- `_cache`: values that were computed before, and those that this run computes for others.
- `_people`: questions to people.
"""

from __future__ import annotations

from raflow.runtime.desk._cache import Cache, CacheFound
from raflow.runtime.desk._desk import Desk
from raflow.runtime.desk._slots import Slots

__all__ = ["Cache", "CacheFound", "Desk", "Slots"]
