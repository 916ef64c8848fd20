"""When to try again, how long to wait before, and when to let it be."""

from __future__ import annotations

import time
from typing import TypedDict

from raflow import allow_failure, exponential_backoff, flow, get_run_context, task


class Locked(Exception):
    """No use in knocking again."""


class Story(TypedDict):
    stuck: str
    busy: str
    locked: str
    slow: str


def may_open(_task: str, error: BaseException) -> bool:
    """Decide after a failure whether another attempt makes sense."""
    return not isinstance(error, Locked)


@task(retries=3, retry_delay_seconds=[0.1, 0.2, 0.5])
def stuck() -> str:
    """Fails twice and ends Recovered. Waits 0.1 s, then 0.2 s; the last of a list repeats."""
    attempt = get_run_context().attempt
    if attempt <= 2:
        raise ConnectionError(f"attempt {attempt}: the door is stuck")
    return f"opened at attempt {attempt}"


@task(retries=4, retry_delay_seconds=exponential_backoff(0.1), retry_jitter_factor=0.5)
def busy() -> str:
    """Waits twice as long each time, and up to half of that more, so that not all come at once."""
    attempt = get_run_context().attempt
    if attempt <= 3:
        raise ConnectionError(f"attempt {attempt}: someone is in the doorway")
    return f"went through at attempt {attempt}"


@task(retries=5, retry_delay_seconds=60, retry_condition_fn=may_open)
def locked() -> str:
    """Fails at once and for good, although five more attempts would be left."""
    raise Locked("the door is locked")


@task(timeout_seconds=0.5, retries=1)
def slow() -> str:
    """Takes too long the first time. The time-out ends the attempt, and the next one is quick."""
    if get_run_context().attempt == 1:
        for _ in range(600):  # in small steps: a thread of the local backend stops between two
            time.sleep(0.1)
    return "opened in time"


@task
def tell(stuck: str, busy: str, locked: str | Exception, slow: str) -> Story:
    return Story(stuck=stuck, busy=busy, locked=f"{locked}", slow=slow)


@flow
def doors() -> Story:
    """Try four doors."""
    return tell(stuck(), busy(), allow_failure(locked()), slow())


if __name__ == "__main__":
    print(doors())
