"""Going on from the record: what is known of the past, and the runs that begin with it.

- `_resume`: takes over a run whose process is gone, or that is suspended.
- `_rerun`: what a new run takes from an earlier one, and whether it may.
- `_recall`: what the record knows of each call.
- `_reuse`: which of that still counts, call by call: for a rerun, or with changed code.
"""

from __future__ import annotations

from raflow.runtime.recall._recall import Known, Piece, Recall
from raflow.runtime.recall._rerun import Choice, check_rerun, new_parameters, reuse_again, reuse_of
from raflow.runtime.recall._resume import (
    Resumed,
    check_resumable,
    parameters_of,
    recall_of,
    resume_child,
    resume_root,
)
from raflow.runtime.recall._reuse import RerunRecall, Reuse

__all__ = [
    "Choice",
    "Known",
    "Piece",
    "Recall",
    "RerunRecall",
    "Resumed",
    "Reuse",
    "check_rerun",
    "check_resumable",
    "new_parameters",
    "parameters_of",
    "recall_of",
    "resume_child",
    "resume_root",
    "reuse_again",
    "reuse_of",
]
