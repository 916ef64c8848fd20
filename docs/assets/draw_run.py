"""Draws run.svg: the first example as `raflow run` shows it, in the middle and at its end.

Run it in the root of the repository: `python docs/assets/draw_run.py`.
"""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from raflow import config, runtime
from raflow.cli import _live, _progress, _show, _target
from raflow.model import NodeKind, TaskRun
from raflow.store import Store

ROOT = Path(__file__).parents[2]
WIDTH = 96
FOLDER = "/home/ada/lab"


class Camera(runtime.Observer):
    """Takes one picture of the progress: when half of the largest map is done."""

    def __init__(self, console: Console, progress: _progress.Progress) -> None:
        """Draw on a console what the progress tells."""
        self._console = console
        self._progress = progress
        self._live = _live.LiveProgress(console, progress=progress)
        self._taken = False

    def task_run_changed(self, run: TaskRun) -> None:  # noqa: ARG002 - an observer takes what it is told
        """See `Observer`."""
        rows = [row for row in self._progress.rows() if row.kind is NodeKind.MAP]
        largest = max(rows, key=lambda row: row.expected or 0, default=None)
        if self._taken or largest is None or largest.done * 2 < (largest.expected or 1):
            return
        self._taken = True
        self._console.print(self._live.draw())
        self._console.print(Text("\n⋮\n", style="dim"))


def main() -> None:
    """Run the example and write the picture."""
    console = Console(record=True, width=WIDTH, height=40, file=io.StringIO(), force_terminal=True)
    console.print("[green]$[/green] [bold]raflow run examples/01_flights/flow.py[/bold]\n")
    flow = _target.find_flow(str(ROOT / "examples" / "01_flights" / "flow.py")).flow
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as folder:
        settings = config.load(home=Path(folder))
        parameters = flow.validate(output=Path(folder, "flights-report"))
        progress = _progress.Progress()
        observers = [progress, Camera(console, progress)]
        outcome = runtime.run_flow(flow, parameters, settings=settings, observers=observers)
        runtime.shutdown()
        with Store.open(settings.database, log_dir=settings.logs) as store:
            _show.print_run(store, outcome.flow_run, out=console, brief=True)
    svg = console.export_svg(title="raflow run", unique_id="raflow-run")
    # Not a folder of this machine; equally long, because the picture fixes the width of each text.
    assert len(FOLDER) == len(folder)
    svg = svg.replace(folder, FOLDER)
    # A picture should not ask another server for its font.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (Path(__file__).parent / "run.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
