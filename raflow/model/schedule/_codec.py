"""Rules and policies as JSON: the same text for what is the same."""

from __future__ import annotations

import dataclasses
import functools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar
from zoneinfo import ZoneInfo

from raflow import errors
from raflow.model.schedule._due import Policy
from raflow.model.schedule._rules import Cron, Interval, Once, RRule, Rule

if TYPE_CHECKING:
    import pydantic


_T = TypeVar("_T")


def encode_rule(rule: Rule) -> str:
    """Return the JSON of a rule. Times with a zone stand in it as what they are in UTC."""
    if isinstance(rule, Interval) and rule.anchor is not None:
        rule = dataclasses.replace(rule, anchor=_plain(rule.anchor, rule.timezone))
    elif isinstance(rule, Once):
        rule = dataclasses.replace(rule, at=_plain(rule.at, rule.timezone))
    return _canonical(_rules().dump_python(rule, mode="json"))


def decode_rule(text: str) -> Rule:
    """Return the rule that a JSON text stands for.

    Raises:
        ScheduleError: It is none, or its time zone is not known here.
    """
    return _decode(_rules(), text, "rule")


def encode_policy(policy: Policy) -> str:
    """Return the JSON of a policy."""
    return _canonical(_policies().dump_python(policy, mode="json"))


def decode_policy(text: str) -> Policy:
    """Return the policy that a JSON text stands for.

    Raises:
        ScheduleError: It is none.
    """
    return _decode(_policies(), text, "policy")


def _plain(at: datetime, timezone: str) -> datetime:
    """Return the same time as JSON can hold it: which of two equal ones is meant it cannot."""
    if at.tzinfo is None and at.fold:
        at = at.replace(tzinfo=ZoneInfo(timezone))
    return at if at.tzinfo is None else at.astimezone(UTC)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _decode(form: pydantic.TypeAdapter[_T], text: str, what: str) -> _T:
    try:
        return form.validate_json(text)
    except ValueError as error:
        raise errors.ScheduleError(f"{text!r} is no {what} of a schedule: {error}") from error


# What only declares flows needs none of it.


@functools.cache
def _rules() -> pydantic.TypeAdapter[Rule]:
    import pydantic  # noqa: PLC0415

    kinds = Annotated[Cron | Interval | RRule | Once, pydantic.Discriminator("kind")]
    return pydantic.TypeAdapter(kinds)


@functools.cache
def _policies() -> pydantic.TypeAdapter[Policy]:
    import pydantic  # noqa: PLC0415

    return pydantic.TypeAdapter(Policy)
