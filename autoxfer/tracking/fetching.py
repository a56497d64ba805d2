"""Models that were registered before: found by their names, fetched as files. None of them is opened here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from autoxfer.errors import InputError, TrackingError
from autoxfer.tracking.session import open_client, probe
from autoxfer.tracking.settings import TrackingSettings

IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
EXPECTED = "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH"
DESCRIPTION = "model.json"  # of what autoxfer has shipped


def resolve(settings: TrackingSettings, uri: str, where: str) -> str:
    """Turn an alias into the version that it names now. Raises InputError: no such model, alias or version."""
    alias = re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri)
    version = re.fullmatch(r"models:/([^/@]+)/(\d+)", uri)
    if not alias and not version and not re.fullmatch(r"models:/m-\w+|runs:/\w+/.+", uri):
        raise InputError(EXPECTED, uri, where)
    _check_store(settings, where)
    if not alias and not version:
        return uri
    name = (alias or version)[1]  # type: ignore[index]
    try:
        with open_client(settings, IMPATIENT) as client:
            aliases = {key: str(value) for key, value in _registered(client, name, where).aliases.items()}
            versions = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
    except TrackingError as error:
        raise InputError("a registry that answers", str(error), where) from error
    if alias and alias[2] not in aliases:
        raise InputError(f"an alias of {name!r} ({', '.join(sorted(aliases)) or 'it has none'})", alias[2], where)
    number = aliases[alias[2]] if alias else version[2]  # type: ignore[index]
    if int(number) not in versions:
        raise InputError(f"a version of {name!r} ({', '.join(map(str, versions)) or 'none'})", number, where)
    return f"models:/{name}/{number}"


def download(settings: TrackingSettings, uri: str, place: Path, where: str) -> Path:
    """Fetch a model's files into ``place``, and find the winner among them. Raises InputError where there is none."""
    _check_store(settings, where)
    try:
        with open_client(settings, IMPATIENT):
            from mlflow import artifacts  # noqa: PLC0415

            artifacts.download_artifacts(artifact_uri=uri, dst_path=str(place))
    except TrackingError as error:
        raise InputError("a model that can be fetched", str(error), where) from error
    found = sorted(path.parent for path in place.rglob(DESCRIPTION))
    if not found:
        files = sorted(path.name for path in place.rglob("*") if path.is_file())
        expected = f"a model that autoxfer registered ({DESCRIPTION}, safetensors, a program); others are not opened"
        raise InputError(expected, ", ".join(files[:5]) or "nothing", where)
    return found[0]


def _registered(client: Any, name: str, where: str) -> Any:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = ", ".join(sorted(each.name for each in client.search_registered_models(max_results=20)))
        raise InputError(f"a registered model ({known or 'there is none'})", name, where) from error


def _check_store(settings: TrackingSettings, where: str) -> None:
    """Make sure, quickly, that there is a registry; none is made for the asking."""
    uri = settings.registry_uri or settings.uri
    if uri.startswith(("http://", "https://")):
        probe(uri, where)
    elif uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise InputError("a registry that holds models", f"no database {uri.removeprefix('sqlite:///')}", where)
