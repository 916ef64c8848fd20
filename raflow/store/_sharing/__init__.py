"""What all flow runs of a store share.

- `_limits`: who holds slots of limits, and who waits; `_slots`: who gets some next.
- `_cache`: values that were computed, and who computes one right now.
"""

from __future__ import annotations
