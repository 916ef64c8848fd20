"""The use cases of the service, over a store: what the server and the command line both call.

No user code, no Ray and no pickle is anywhere below it.
"""

from __future__ import annotations

from raflow.service._diff import Change, FileChange, changes, file_changes
from raflow.service._explain import explain
from raflow.service._families import Families
from raflow.service._ingest import Ingest
from raflow.service._janitor import Janitor
from raflow.service._logs import LogFilter, LogPage, PlacedLine, Position, parse_position
from raflow.service._loops import SILENT_SECONDS, Loop, LoopState, Upkeep
from raflow.service._pool_work import PoolWork
from raflow.service._reaper import Reaper
from raflow.service._record import Recorded, begin_record
from raflow.service._scheduler import Scheduler
from raflow.service._schedules import NextSlot
from raflow.service._service import Service
from raflow.service._signals import Signals, Waiter
from raflow.service._tokens import (
    SESSION_SECONDS,
    SIGNIN_SECONDS,
    Made,
    Tokens,
    permissions,
    signed_as,
)
from raflow.service._why import waits

__all__ = [
    "SESSION_SECONDS",
    "SIGNIN_SECONDS",
    "SILENT_SECONDS",
    "Change",
    "Families",
    "FileChange",
    "Ingest",
    "Janitor",
    "LogFilter",
    "LogPage",
    "Loop",
    "LoopState",
    "Made",
    "NextSlot",
    "PlacedLine",
    "PoolWork",
    "Position",
    "Reaper",
    "Recorded",
    "Scheduler",
    "Service",
    "Signals",
    "Tokens",
    "Upkeep",
    "Waiter",
    "begin_record",
    "changes",
    "explain",
    "file_changes",
    "parse_position",
    "permissions",
    "signed_as",
    "waits",
]
