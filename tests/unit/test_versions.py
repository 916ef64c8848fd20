"""What is installed in an environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raflow._util import installed_packages


def test_what_a_package_carries_along_for_itself_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "carried-1.0.dist-info"
    carried.mkdir()
    (carried / "METADATA").write_text("Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(tmp_path) in sys.path
    found = installed_packages()
    assert "carried" not in found
    assert found["pytest"] == pytest.__version__
    assert "typing-extensions" in found
