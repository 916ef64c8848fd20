"""Tasks in another module, for flows that refer to them in every way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from raflow.define import task


@task
def first(x: int) -> int:
    return x


@task
def second(x: int) -> int:
    return x


@task
def unused_here(x: int) -> int:
    return x


nested: Any = ModuleType("nested")
nested.third = first.with_options(name="third")


class Steps:
    @task
    def method(self, x: int) -> int:
        return x

    @staticmethod
    @task
    def shared(x: int) -> int:
        return x
