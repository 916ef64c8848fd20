"""The plots of the benchmarks: small SVG files that read on a light and on a dark page."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter

from benchmarks._harness import Bench, Figure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RAFLOW = "#0d9488"
OTHERS = ("#94a3b8", "#f59e0b", "#8b5cf6", "#ef4444", "#3b82f6", "#ec4899")
INK = "#64748b"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "raflow",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def bars(bench: Bench, figures: Sequence[Figure], *, label: str, log: bool = False) -> None:
    """Draw the median of each figure as a bar and its spread as a whisker, by workload."""
    colors = colors_of(figure.side for figure in figures)
    rows: list[Figure | str] = []
    for figure in figures:
        if not rows or (isinstance(rows[-1], Figure) and rows[-1].workload != figure.workload):
            rows.append(figure.workload)
        rows.append(figure)
    with drawing(bench, bench.name, bench.title, height=1.0 + 0.27 * len(rows)) as canvas:
        axes = canvas.add_subplot()
        for at, row in enumerate(rows):
            if isinstance(row, Figure):
                bar(axes, at, row, colors[row.side])
        names = [row.side if isinstance(row, Figure) else row for row in rows]
        axes.set_yticks(range(len(rows)), names)
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_fontweight("normal" if isinstance(row, Figure) else "bold")
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        least = min(figure.median for figure in figures)
        most = max(max(figure.values) for figure in figures)
        if log:
            axes.set_xscale("log")
            axes.set_xlim(10 ** math.floor(math.log10(least / 1.5)), most * 4)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
            axes.xaxis.set_minor_formatter(lambda *_: "")
        else:
            axes.set_xlim(0, most * 1.25)


def bar(axes: Axes, at: float, figure: Figure, color: str) -> None:
    least, most = min(figure.values), max(figure.values)
    axes.barh(at, figure.median, color=color, height=0.8)
    spread = [[figure.median - least], [most - figure.median]]
    axes.errorbar(figure.median, at, xerr=spread, color=INK, capsize=2, linewidth=1)
    axes.annotate(
        f"{number(figure.median)} {figure.unit}",
        (most, at),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
    )


def curves(
    bench: Bench,
    name: str,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    *,
    title: str,
    labels: tuple[str, str],
    level: float,
) -> None:
    """Draw panels with lines of `(x, y)`, over seconds on a logarithmic x.

    Args:
        bench: Whose plot it is.
        name: Of the file.
        panels: By title of the panel and side.
        title: Above all.
        labels: Of both axes.
        level: Where a dashed line goes across.
    """
    colors = colors_of(side for lines in panels.values() for side in lines)
    columns = 3
    rows = -(-(len(panels) + 1) // columns)
    with drawing(bench, name, title, height=2.4 * rows) as canvas:
        for at, (panel, lines) in enumerate(panels.items(), start=1):
            axes = canvas.add_subplot(rows, columns, at)
            for side, points in lines.items():
                axes.plot(*zip(*points, strict=True), "o-", label=side, color=colors[side], ms=2.5)
            axes.axhline(level, color=INK, linestyle="--", linewidth=1)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(EngFormatter(unit="s"))
            axes.set_ylim(0, 1)
            axes.set_title(panel)
        canvas.supxlabel(labels[0], size=10)
        canvas.supylabel(labels[1], size=10)
        canvas.legend(*axes.get_legend_handles_labels(), loc="lower right", borderaxespad=3)


@contextlib.contextmanager
def drawing(bench: Bench, name: str, title: str, *, height: float) -> Iterator[Canvas]:
    """Offer a new plot, and write it to `<name>.svg`."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(7.5, height), layout="constrained")
        FigureCanvasSVG(canvas)
        canvas.suptitle(title, x=0.01, ha="left", size=11, weight="bold")
        yield canvas
        if bench.out is not None:
            bench.out.mkdir(parents=True, exist_ok=True)
            canvas.savefig(bench.out / f"{name}.svg", transparent=True, metadata={"Date": None})


def colors_of(sides: Iterable[str]) -> dict[str, str]:
    """Give raflow its own colour, and every other side one of the rest."""
    names = list(dict.fromkeys(sides))
    others = iter(OTHERS * (1 + len(names) // len(OTHERS)))
    return {name: RAFLOW if name.startswith("raflow") else next(others) for name in names}
