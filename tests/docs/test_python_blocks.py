"""Every Python block of the README and of docs/ runs as a reader would run it.

The blocks of one page make one script, run in a process of its own, so that a block may use what a
block above it defined. The script keeps the page's line numbers: line 34 of a traceback is line 34
of the page. `<!--- skip: next "why" -->` above a block leaves it out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Document, Example, Region
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SECONDS_PER_PAGE = 100


def _place(example: Example) -> None:
    """Put a block into its page's script, at its own lines."""
    lines: list[str] = example.namespace["lines"]
    fence = example.document.text.count("\n", 0, example.region.start)
    for number, line in enumerate(str(example.parsed).splitlines(), start=fence + 1):
        lines[number] = line


def _parse_python(document: Document) -> Iterable[Region]:
    for block in FencedCodeBlockLexer(language=r"(python|py)\b.*")(document):
        yield Region(block.start, block.end, block.lexemes["source"], _place)


def script_of(page: Path) -> str:
    """Return the Python blocks of a page as one script with the page's line numbers."""
    document = Document.parse(str(page), SkipParser(), _parse_python)
    lines = document.namespace["lines"] = [""] * (document.text.count("\n") + 1)
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest:
            continue
    return "\n".join(lines)


SCRIPTS = {
    page.relative_to(ROOT).as_posix(): script
    for page in PAGES
    if (script := script_of(page)).strip()
}


def test_the_readme_has_an_example() -> None:
    assert "from raflow import" in SCRIPTS["README.md"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS)
def test_blocks_run(page: str, tmp_path: Path) -> None:
    script = tmp_path / Path(page).with_suffix(".py").name
    script.write_text(SCRIPTS[page], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS_PER_PAGE,
        check=False,
    )
    assert done.returncode == 0, f"{page}:\n{done.stdout}\n{done.stderr}"


def test_a_script_keeps_lines_and_leaves_out_what_is_skipped(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```python\na = 1\n```\n\n"
        '<!--- skip: next "needs a cluster" -->\n\n```python\nb = 2\n```\n\n'
        '=== "Tab"\n\n    ```python title="c.py"\n    c = a\n    ```\n\n'
        "```pycon\n>>> d\n```\n",
        encoding="utf-8",
    )
    lines = script_of(page).splitlines()
    assert {number: line for number, line in enumerate(lines, start=1) if line} == {
        4: "a = 1",
        16: "c = a",
    }
