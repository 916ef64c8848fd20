"""Settings, read from `RAFLOW_*` environment variables."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import pydantic
import pydantic_settings

from raflow import errors

__all__ = ["Settings", "load"]


class Settings(pydantic_settings.BaseSettings):
    """Every setting of raflow; the environment variable is `RAFLOW_` and the name in capitals."""

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix="RAFLOW_", frozen=True, extra="ignore"
    )

    home: Path = Path("~/.raflow")
    """Directory of the embedded database, logs, results and keys."""
    database_url: str = ""
    """SQLAlchemy URL of the database. Default: SQLite in `home`."""
    api_url: str = ""
    """A service that keeps the record of what runs here. Default: the database."""
    api_token: pydantic.SecretStr = pydantic.SecretStr("")
    """The token for it, of somebody with the role author."""
    spool_bytes: pydantic.PositiveInt = 2 << 30
    """How much of a run waits on disk at most while the service is away; then the run waits."""
    backend: Literal["ray", "local"] = "ray"
    """Where task runs execute unless the flow or the call says otherwise."""
    ray_address: str = ""
    """Address of a Ray cluster to join. Default: a local Ray, started when it is needed."""
    result_storage: str = ""
    """fsspec URL or path for values too large for the database. Default: `results` in `home`."""
    bundle_storage: str = ""
    """fsspec URL or path for the code of deployments. Default: `bundles` in `home`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Lowest level of `logging` records that are kept."""
    cancel_grace_seconds: float = 10.0
    """How long running tasks may take to stop after a cancel before they are killed."""
    ray_stay: bool | None = None
    """Whether a worker process that has ended a batch of calls stays for a moment to take the next
    one. Without, each batch is a Ray task of its own. Default: on a Ray that raflow has started."""
    worker_start_seconds: pydantic.PositiveFloat = 90.0
    """How long a run waits while Ray can start no worker process; then it ends (see `resume`)."""
    reap: bool = True
    """Whether a process that runs a flow looks for runs whose process has died on this machine, and
    starts `raflow reap` for them in the background."""
    server_host: str = "127.0.0.1"
    """Address that `raflow server` listens on."""
    server_port: int = 8484
    """Port that `raflow server` listens on."""
    allowed_hosts: list[str] = []
    """Names by which the server may be reached, besides those of this machine alone, as JSON:
    `["raflow.example.org"]`."""
    local_resources: dict[str, float] = {}
    """What the local backend should claim to have besides this machine's CPUs and memory, as JSON:
    `{"GPU": 1}`."""

    @pydantic.field_validator("home")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    def check_local(self, what: str) -> None:
        """Refuse what knows the database of this machine only, where a service keeps the record.

        Args:
            what: As a sentence begins with it.

        Raises:
            ConfigError: `api_url` names a service.
        """
        if self.api_url:
            raise errors.ConfigError(
                f"{what} knows the database of this machine only, and RAFLOW_API_URL names the "
                f"service at {self.api_url}, which has another record. Do it where the service "
                "runs, ask its API, or unset RAFLOW_API_URL to mean this machine's database."
            )

    @property
    def database(self) -> str:
        """URL of the database in use."""
        path = str(self.home / "raflow.db").replace("%", "%25").replace("?", "%3F")
        return self.database_url or f"sqlite:///{path}"

    @property
    def results(self) -> str:
        """Where large results go."""
        return self.result_storage or str(self.home / "results")

    @property
    def bundles(self) -> str:
        """Where the code of deployments goes."""
        return self.bundle_storage or str(self.home / "bundles")

    @property
    def log_number(self) -> int:
        """The log level as `logging` numbers it."""
        return logging.getLevelNamesMapping()[self.log_level]

    @property
    def logs(self) -> Path:
        """Directory of log segments."""
        return self.home / "logs"


def load(**overrides: object) -> Settings:
    """Read the settings.

    Args:
        **overrides: Values that win over the environment; None means "not given".

    Raises:
        ConfigError: A variable has a value that its setting cannot take.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks the values
    except (pydantic.ValidationError, pydantic_settings.SettingsError) as error:
        raise errors.ConfigError(_explain(error)) from error


def _explain(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return f"A RAFLOW_* environment variable cannot be read: {error}"
    first = error.errors()[0]
    name = f"RAFLOW_{'_'.join(str(part) for part in first['loc'])}".upper()
    return f"{name}={first['input']!r} cannot be used: {first['msg']}."
