"""How runs come to an end: by themselves, or because their process is gone.

- `_ending`: from what happened in a run to its final state.
- `_rollback`, `_litter`: what is undone, and removed, before that is on record.
- `_reaper`: brings runs to an end whose process is gone, or that are cancelled without one.
- `_background`: starts `raflow reap` for such runs.
"""

from __future__ import annotations

from raflow.runtime.ending._background import reap_in_background
from raflow.runtime.ending._ending import TIME_IS_UP, Ending, ending
from raflow.runtime.ending._litter import remove_litter
from raflow.runtime.ending._reaper import Reaped, cancel_on_record, reap
from raflow.runtime.ending._rollback import UNDOING, roll_back, rolled_back

__all__ = [
    "TIME_IS_UP",
    "UNDOING",
    "Ending",
    "Reaped",
    "cancel_on_record",
    "ending",
    "reap",
    "reap_in_background",
    "remove_litter",
    "roll_back",
    "rolled_back",
]
