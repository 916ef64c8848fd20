"""Settings from the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raflow import config, errors

ROOT = Path(__file__).parents[2]


def test_defaults(raflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load()
    assert settings.home == raflow_home
    assert settings.database == f"sqlite:///{raflow_home}/raflow.db"
    assert settings.results == str(raflow_home / "results")
    assert settings.bundles == str(raflow_home / "bundles")
    assert settings.logs == raflow_home / "logs"
    assert (settings.backend, settings.ray_address) == ("ray", "")
    monkeypatch.delenv("RAFLOW_HOME")
    assert config.load().home == Path("~/.raflow").expanduser()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("RAFLOW_BACKEND", "local", "local"),
        ("RAFLOW_LOG_LEVEL", "DEBUG", "DEBUG"),
        ("RAFLOW_RAY_ADDRESS", "10.0.0.1:6379", "10.0.0.1:6379"),
        ("RAFLOW_CANCEL_GRACE_SECONDS", "2.5", 2.5),
        ("RAFLOW_REAP", "0", False),
        ("RAFLOW_LOCAL_RESOURCES", '{"GPU": 2}', {"GPU": 2.0}),
        ("RAFLOW_HOME", "~/elsewhere", Path("~/elsewhere").expanduser()),
        ("RAFLOW_HOME", "relative", Path("relative").absolute()),
    ],
)
def test_variables(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(config.load(), variable.removeprefix("RAFLOW_").lower()) == value


def test_what_is_given_wins_and_none_means_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    assert config.load(backend="ray").backend == "ray"
    assert config.load(backend=None).backend == "local"


def test_database_and_results_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFLOW_DATABASE_URL", "postgresql://db/raflow")
    monkeypatch.setenv("RAFLOW_RESULT_STORAGE", "s3://bucket/results")
    settings = config.load()
    assert (settings.database, settings.results) == (
        "postgresql://db/raflow",
        "s3://bucket/results",
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RAFLOW_BACKEND", "dask"),
        ("RAFLOW_LOG_LEVEL", "loud"),
        ("RAFLOW_CANCEL_GRACE_SECONDS", "soon"),
        ("RAFLOW_WORKER_START_SECONDS", "0"),
        ("RAFLOW_LOCAL_RESOURCES", "not json"),
        ("RAFLOW_LOCAL_RESOURCES", '{"GPU": "many"}'),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(errors.ConfigError) as caught:
        config.load()
    assert variable.rpartition("_")[2] in caught.value.message.upper()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.load().backend = "local"  # type: ignore[misc]  # what the test is about


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `RAFLOW_(\w+)`", page, re.MULTILINE))
    assert documented == {name.upper() for name in config.Settings.model_fields}
