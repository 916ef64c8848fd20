"""Runs of deployments on their way to workers and back.

- `_dispatches`: the door to the others.
- `_orders`: a run is ordered, and gets its place in the line.
- `_claims`: which worker gets which run; `_returns`: given back, left behind, or ended.
- `_places`: where runs stand, and those that nobody looks after; `_waits`: why one does not go on.
- `_workers`: pools and the workers that take runs of them.
"""

from __future__ import annotations
