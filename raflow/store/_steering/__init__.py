"""Who drives flow runs, and what is asked of them.

- `_leases`: which process drives a run, and whether it is still there.
- `_requests`: asked by others, to cancel or pause a run; asked by a run, of people.
"""

from __future__ import annotations
