"""Ways to choose what runs: in Python, in the graph, and by what became of other tasks."""

from __future__ import annotations

from collections.abc import Sequence

from raflow import allow_failure, flow, task

ORDERS = {"Berlin": [120, 80, 15], "Paris": [60, 45], "Madrid": []}


def is_busy(amounts: list[int]) -> bool:
    return len(amounts) > 3


def is_quiet(amounts: list[int]) -> bool:
    return not is_busy(amounts)


@task
def fetch(shop: str) -> list[int]:
    """Return the amounts of a shop's orders."""
    if shop not in ORDERS:
        raise ConnectionError(f"the shop in {shop} does not answer")
    return ORDERS[shop]


@task
def merge(answers: Sequence[list[int] | Exception]) -> list[int]:
    """Put together what came. Under `allow_failure` a failed fetch comes as its exception."""
    return [amount for answer in answers if isinstance(answer, list) for amount in answer]


@task(trigger_rule="one_failed")
def warn() -> str:
    """Runs only if something that it waits for has failed."""
    return "not every shop answered"


@task(run_if=is_busy)
def in_brief(amounts: list[int]) -> str:
    """Runs only if its own arguments say so: many orders are summed up."""
    return f"{len(amounts)} orders, {sum(amounts)} € together"


@task(run_if=is_quiet)
def in_full(amounts: list[int]) -> str:
    """The other branch: few orders are listed."""
    return ", ".join(f"{amount} €" for amount in amounts)


@task(trigger_rule="none_failed_min_one_success")
def page(brief: str | None, full: str | None) -> str:
    """Joins the branches again. The one that was skipped comes as None."""
    return brief or full or "nothing"


@task
def send(text: str) -> str:
    """Runs if the flow was asked to send."""
    return f"sent: {text}"


@flow
def shops(names: Sequence[str] = ("Berlin", "Paris", "Rome"), mail: bool = False) -> dict[str, str]:
    """Report on the orders of some shops.

    Args:
        names: Where the shops are. There are some in Berlin, Paris and Madrid.
        mail: Whether to send the report.
    """
    answers = fetch.map(names)
    amounts = merge(allow_failure(answers))
    warning = warn.submit(wait_for=answers)

    if not amounts.result():  # plain Python: the flow waits here for the value
        return {"page": "no orders", "warning": warning}

    report = page(in_brief(amounts), in_full(amounts))
    return {"page": report, "warning": warning, "mail": send.submit(report, run_if=mail)}


if __name__ == "__main__":
    print(shops())
