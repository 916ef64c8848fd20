"""Type checkers see what a task takes and gives, and right code has no errors."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[3]

SNIPPET = """
from __future__ import annotations
from typing import reveal_type
from raflow import allow_failure, flow, task, unmapped

@task
def add(a: int, b: int = 1) -> int:
    return a + b

@task(retries=3)
async def fetch(url: str) -> bytes:
    return b""

@task
def total(rows: list[int], note: str = "") -> int:
    return sum(rows)

class Store:
    @task
    def read(self, table: str) -> list[int]:
        return []

@flow
def etl(day: int) -> int:
    one = add(1, b=2)
    reveal_type(add)  # R: Task[[a: int, b: int =], int]
    reveal_type(one)  # R: TaskFuture[int]
    reveal_type(one.result())  # R: int
    reveal_type(one.result(raise_on_failure=False))  # R: int | BaseException
    many = add.map([1, 2], b=unmapped(one))
    reveal_type(many)  # R: MapFuture[int]
    reveal_type(many[0])  # R: TaskFuture[int]
    reveal_type(many.result())  # R: list[int]
    reveal_type(fetch("u"))  # R: TaskFuture[bytes]
    reveal_type(Store().read("t"))  # R: TaskFuture[list[int]]
    total(many)
    total([one, add(one)], note=allow_failure(fetch("u")))
    add("no")  # E: arg-type
    add(1, c=3)  # E: call-arg
    Store().read(3)  # E: arg-type
    add.with_options(retris=3)  # E: call-arg
    return total(Store().read("t"))

@task(retris=3)  # E: call-overload, untyped-decorator
def wrong() -> None: ...

@flow(backend="local")
async def later() -> str:
    reveal_type(await fetch("u"))  # R: bytes
    reveal_type(etl.submit(3))  # R: TaskFuture[int]
    return "x"

@flow
def parent() -> None:
    reveal_type(later.submit())  # R: TaskFuture[str]

async def main() -> None:
    reveal_type(await later())  # R: str

reveal_type(etl(1))  # R: int
etl("x")  # E: arg-type
"""


def test_calls_are_checked_and_futures_stand_for_their_values(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET)
    out, err, _ = api.run(
        [
            *("--strict", "--config-file=", "--no-pretty", "--no-error-summary"),
            *(
                "--python-version=3.11",
                f"--cache-dir={ROOT / '.mypy_cache' / 'typing-test'}",
                str(file),
            ),
        ]
    )
    told: dict[int, str] = {}
    for line, kind, text in re.findall(r"snippet\.py:(\d+): (error|note): (.*)", out):
        revealed = re.search(r'Revealed type is "(.*)"', text)
        if kind == "error":
            code = text.rpartition("[")[2].rstrip("]")
            told[int(line)] = f"{told[int(line)]}, {code}" if int(line) in told else f"E: {code}"
        elif revealed:
            told[int(line)] = "R: " + re.sub(r"[a-z_]+\.", "", revealed[1])
    wanted = {
        number: line.partition("# ")[2]
        for number, line in enumerate(SNIPPET.splitlines(), start=1)
        if "# " in line
    }
    assert told == wanted, out + err
