"""``mlflow.yaml``: where MLflow keeps runs and winners, and what is kept there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoxfer.errors import InputError

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
KEYS = ("enabled", "tracking_uri", "registry_uri", "experiment", "name", "aliases", "log")
TOGGLES = ("trials", "model", "register")
ALIASES = ("champion", "challenger")


@dataclass(frozen=True)
class TrackingSettings:
    """Where MLflow keeps things. ``mlflow.yaml`` at the root of the repository describes every key."""

    uri: str
    runs: Path  # the runs folder: the lock lies there, and the artifacts of a database without a server
    registry_uri: str | None = None  # None = as uri
    experiment: str | None = None  # None = the task's name
    name: str | None = None  # of the registered model; None = the task's name
    champion: str = "champion"
    challenger: str = "challenger"
    trials: bool = True
    model: bool = True
    register: bool = True
    enabled: bool = True
    origin: str = "the embedded default"  # who named the URI, for messages

    @property
    def database(self) -> Path | None:
        """The SQLite file, where there is one."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def has_server(self) -> bool:
        """Whether a server stands between this process and the store."""
        return self.uri.startswith(("http://", "https://", "databricks"))

    @property
    def folder(self) -> Path:
        """The folder of the lock and, without a server, of the artifacts."""
        return self.runs if self.database is None else self.database.parent


def read_settings(path: Path | None, runs: Path) -> TrackingSettings:
    """Read ``path``, or ``mlflow.yaml`` in the working directory if there is one; environment variables win.

    Raises InputError: a file that is not there, an unknown key, a value of the wrong kind.
    """
    if path is not None and not path.is_file():
        raise InputError("a file as described in mlflow.yaml", "no such file", f"--mlflow {path}")
    path = path or Path("mlflow.yaml")
    values = _read(path) if path.is_file() else {}
    where = str(path)
    toggles = _mapping(values.get("log"), TOGGLES, f"{where}: log")
    aliases = _mapping(values.get("aliases"), ALIASES, f"{where}: aliases")
    model = _flag(toggles, "model", True, f"{where}: log.model")
    uri, origin = _uri(values, where, runs)
    champion, challenger = (_alias(aliases.get(key) or key, f"{where}: aliases.{key}") for key in ALIASES)
    if champion == challenger:
        raise InputError("two different aliases", f"{champion!r} twice", f"{where}: aliases")
    return TrackingSettings(
        uri=uri,
        runs=runs,
        registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or _text(values, "registry_uri", where),
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or _text(values, "experiment", where),
        name=_name(os.environ.get("AUTOXFER_MODEL_NAME") or _text(values, "name", where), where),
        champion=champion,
        challenger=challenger,
        trials=_flag(toggles, "trials", True, f"{where}: log.trials"),
        model=model,
        register=_register(toggles, model, where),
        enabled=_flag(values, "enabled", True, f"{where}: enabled"),
        origin=origin,
    )


def _read(path: Path) -> Mapping[str, Any]:
    import yaml  # noqa: PLC0415 - only where there is a file

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError("YAML", " ".join(str(error).split()), str(path)) from error
    return _mapping(values, KEYS, str(path))


def _mapping(value: Any, keys: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"a mapping with the keys {', '.join(keys)}", repr(value), where)
    for key in value:
        if key not in keys:
            raise InputError(f"the keys {', '.join(keys)}", repr(key), where)
    return value


def _flag(values: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError("true or false", repr(value), where)
    return default if value is None else value


def _register(toggles: Mapping[str, Any], model: bool, where: str) -> bool:
    register = _flag(toggles, "register", model, f"{where}: log.register")
    if register and not model:
        raise InputError("model: true beside register: true", "model: false", f"{where}: log")
    return register


def _text(values: Mapping[str, Any], key: str, where: str) -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InputError("text", repr(value), f"{where}: {key}")
    return value


def _uri(values: Mapping[str, Any], where: str, runs: Path) -> tuple[str, str]:
    named, origin = _text(values, "tracking_uri", where), f"{where}: tracking_uri"
    if environment := os.environ.get("MLFLOW_TRACKING_URI"):
        named, origin = environment, "the environment variable MLFLOW_TRACKING_URI"
    if named is None:
        return f"sqlite:///{runs.resolve() / 'mlflow.db'}", "the embedded default"
    scheme = named.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES:
        raise InputError("a server or a database (http://..., sqlite:///...; MLflow refuses folders)", named, origin)
    return named, origin


def _alias(value: Any, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w-]+", value):
        raise InputError("an alias of letters, digits, - and _", repr(value), where)
    if value == "latest" or re.fullmatch(r"[vV]\d+", value):
        raise InputError("an alias that MLflow does not reserve", repr(value), where)
    return value


def _name(value: str | None, where: str) -> str | None:
    if value is not None and re.search(r"[/:.%\"'`]", value):
        raise InputError(
            "a model's name without / : . % or quotes", repr(value), f"{where}: name or AUTOXFER_MODEL_NAME"
        )
    return value
