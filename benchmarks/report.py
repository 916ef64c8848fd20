"""Write the tables of RESULTS.md, and of docs/reliability.md, anew from results/*.json.

What stands between `<!-- figures: NAME -->` and `<!-- end -->` is replaced; the rest is left alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks._harness import RESULTS, number

HERE = Path(__file__).parent
PAGES = (HERE / "RESULTS.md", HERE.parent / "docs" / "reliability.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(report: dict[str, Any]) -> str:
    """Return the figures of a script as a table, with what they were taken on."""
    heads = ["workload", "side", "median", "least, most", report["ratio"], "goal", "note"]
    rows = [cells(figure) for figure in report["figures"]]
    used = [at for at, head in enumerate(heads) if head and any(row[at] for row in rows)]
    lines = [[heads[at] for at in used], ["---"] * len(used)]
    lines += [[row[at] for at in used] for row in rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{taken_on(report)}\n"


def cells(figure: dict[str, Any]) -> list[str]:
    mark = {None: "", True: " ✓", False: " ✗"}[figure["reached"]]
    return [
        figure["workload"],
        figure["side"],
        f"{number(figure['median'])} {figure['unit']}",
        f"{number(figure['least'])}, {number(figure['most'])}",
        "" if figure["ratio"] is None else f"**{number(figure['ratio'])}**",
        f"{figure['goal']}{mark}" if figure["goal"] else "",
        figure["note"],
    ]


def taken_on(report: dict[str, Any]) -> str:
    machine = report["machine"]
    versions = machine["versions"] | report.get("versions_of_peers", {})
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"`{report['command']}`, {report['rounds']} rounds, {report['taken_on']}, load before "
        f"{machine['load_before']}: {machine['cpus']} x {machine['processor']}, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, {named}."
    )


def filled(match: re.Match[str]) -> str:
    path = RESULTS / f"{match[2]}.json"
    if not path.exists():
        return match[0]
    return match[1] + table(json.loads(path.read_text(encoding="utf-8"))) + match[3]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(BLOCK.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")
