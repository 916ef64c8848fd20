"""Deploying a directory of code: naming its bundle, storing the archive, unpacking it.

A directory of 1,000 files in 50 folders, with a .gitignore of 20 patterns. Before the rounds,
everything has been read once, so the files are in the file cache, as they are for somebody who has
just edited them. "Unchanged" is a deploy that finds its bundle in storage. Beside it: the same
files found and hashed by Python alone, which is the least that naming them can cost.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks._harness import Bench, Figure, Goal, Size
from raflow.bundles import BundleStore, pack, unpack

SIZES: Mapping[str, Size] = {"files": Size(1_000, 100, "files of the directory")}
IGNORED = "\n".join(f"/ignored-{n}/\n*.ignored{n}" for n in range(10))
LINE = "def step_{n}(rows: list[int]) -> int:\n    return sum(rows) + {n}\n\n\n"


def write_code(root: Path, files: int) -> None:
    """Write files of 8 KiB, as source code is: 50 folders of them."""
    for n in range(files):
        folder = root / f"package_{n % 50}"
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(LINE.format(n=n * 1_000 + line) for line in range(115))
        (folder / f"module_{n}.py").write_text(text, encoding="utf-8")
    (root / ".gitignore").write_text(IGNORED, encoding="utf-8")


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    with tempfile.TemporaryDirectory() as folder:
        root, code = Path(folder, "root"), Path(folder, "code")
        write_code(root, bench.size("files"))
        store = BundleStore(str(Path(folder, "store")))
        packed = pack(root)
        digest = packed.manifest.digest
        store.put(digest, packed.chunks())
        archive = b"".join(packed.chunks())
        numbers = itertools.count()

        def least() -> None:
            for file in root.rglob("*"):
                if file.is_file():
                    hashlib.sha256(file.read_bytes()).digest()

        def unchanged() -> None:
            assert store.have(pack(root).manifest.digest)

        def changed() -> None:
            (root / "changed.py").write_text(f"value = {next(numbers)}\n", encoding="utf-8")
            new = pack(root)
            store.put(new.manifest.digest, new.chunks())
            (root / "changed.py").unlink()

        def unpacked() -> None:
            unpack(io.BytesIO(archive), digest, code / str(next(numbers)))

        def checked() -> None:
            unpack(io.BytesIO(archive), digest, code / "checked")

        checked()
        sides = {
            "read and hashed": least,
            "unchanged": unchanged,
            "changed and stored": changed,
            "unpacked": unpacked,
            "unpacked already": checked,
        }
        for side, values in bench.take_turns(sides).items():
            bench.add(
                Figure(
                    workload=f"{bench.size('files'):,} files",
                    side=side,
                    unit="s",
                    values=values,
                    goal=Goal(at_most=0.5) if side == "unchanged" else None,
                )
            )
        bench.finish(packages=("raflow", "pathspec", "zstandard"), archive_bytes=len(archive))


if __name__ == "__main__":
    main()
