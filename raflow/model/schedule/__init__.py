"""Schedules: which instants a rule stands for, in which time zone. Pure; reads no clock."""

from __future__ import annotations

from raflow.model.schedule._codec import (
    decode_policy,
    decode_rule,
    encode_policy,
    encode_rule,
)
from raflow.model.schedule._cron import CronTimes, parse_cron
from raflow.model.schedule._due import (
    Action,
    CatchUp,
    Due,
    Overlap,
    Policy,
    SlotPlan,
    due,
    due_on_time,
)
from raflow.model.schedule._fill import MARK, fill_slot
from raflow.model.schedule._recurrence import Recurrence
from raflow.model.schedule._rules import Cron, Interval, Once, RRule, Rule
from raflow.model.schedule._schedule import Schedule
from raflow.model.schedule._words import explain
from raflow.model.schedule._written import (
    WrittenSchedule,
    describe,
    parse_duration,
    show_duration,
)
from raflow.model.schedule._zones import Dst, zone, zones_version

__all__ = [
    "MARK",
    "Action",
    "CatchUp",
    "Cron",
    "CronTimes",
    "Dst",
    "Due",
    "Interval",
    "Once",
    "Overlap",
    "Policy",
    "RRule",
    "Recurrence",
    "Rule",
    "Schedule",
    "SlotPlan",
    "WrittenSchedule",
    "decode_policy",
    "decode_rule",
    "describe",
    "due",
    "due_on_time",
    "encode_policy",
    "encode_rule",
    "explain",
    "fill_slot",
    "parse_cron",
    "parse_duration",
    "show_duration",
    "zone",
    "zones_version",
]
