"""The environments of the peers: one each, outside the repository, made when first needed.

`RAFLOW_BENCH_ENVIRONMENTS` says where. Default: `raflow-benchmarks` in the user's cache directory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from rich.console import Console

REQUIREMENTS = {
    "prefect": ("prefect==3.9.*", "prefect-ray==0.6.*", "ray==2.60.*"),
    "dask": ("distributed==2026.8.*",),
    "dagster": ("dagster==1.13.*",),
    "airflow": ("apache-airflow==3.3.*",),
}
PACKAGE = {"dask": "distributed", "airflow": "apache-airflow"}
ANY_VERSION = ("certifi",)
"""Packages of which any version will do: peers ask for one that not every package index has yet."""


def environments() -> Path:
    chosen = os.environ.get("RAFLOW_BENCH_ENVIRONMENTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else cache / "raflow-benchmarks"


def python_of(peer: str) -> Path:
    """Return the Python of a peer's environment, which is made if need be."""
    home = environments() / peer
    ready = home / ".ready"
    asked = "\n".join(REQUIREMENTS[peer])
    if not ready.exists() or ready.read_text(encoding="utf-8") != asked:
        Console(stderr=True).print(f"Installing {', '.join(REQUIREMENTS[peer])} into {home}")
        install(peer, home)
        ready.write_text(asked, encoding="utf-8")
    return home / "bin" / "python"


def install(peer: str, home: Path) -> None:
    venv.create(home, with_pip=True, clear=True)
    python = str(home / "bin" / "python")
    overrides = home / "overrides.txt"
    overrides.write_text("\n".join(ANY_VERSION), encoding="utf-8")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    asked = REQUIREMENTS[peer]
    if subprocess.run([*uv, "--override", str(overrides), *asked], check=False).returncode != 0:
        subprocess.run([*pip, *asked], check=True)


def version_of(peer: str) -> str:
    package = PACKAGE.get(peer, peer)
    script = f"from importlib.metadata import version; print(version({package!r}))"
    command = [str(python_of(peer)), "-c", script]
    return subprocess.check_output(command, text=True).strip()
