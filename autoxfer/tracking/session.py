"""A short conversation with MLflow: alone, in silence, and with every failure under one name."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from autoxfer.errors import InputError, TrackingError
from autoxfer.tracking.settings import TrackingSettings

LOCK_WAIT_S = 300
PROBE_S = 2.0
QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a tool inside a tool does not phone home
}


@contextlib.contextmanager
def open_client(settings: TrackingSettings, environment: Mapping[str, str]) -> Iterator[Any]:
    """Give a client of the settings' store, alone and in silence; whatever fails inside becomes a TrackingError."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - comes with torch

    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(settings.folder / ".mlflow.lock", timeout=LOCK_WAIT_S), _silence(environment):
            import mlflow  # noqa: PLC0415

            with _addressed(mlflow, settings):
                yield mlflow.MlflowClient()
    except (InputError, TrackingError):
        raise
    except Timeout as error:
        raise TrackingError(f"another process has been logging for {LOCK_WAIT_S} s ({error.lock_file})") from error
    except Exception as error:  # MLflow lets requests', SQLAlchemy's and alembic's errors through
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise TrackingError(f"{settings.uri}: {lines[0][:500]}") from error


@contextlib.contextmanager
def _addressed(mlflow: Any, settings: TrackingSettings) -> Iterator[None]:
    """Point MLflow's global addresses at the store, since its registry looks models up there; put them back after."""
    tracking, registry = os.environ.get("MLFLOW_TRACKING_URI"), os.environ.get("MLFLOW_REGISTRY_URI")
    try:
        mlflow.set_tracking_uri(settings.uri)
        mlflow.set_registry_uri(settings.registry_uri or settings.uri)
        yield
    finally:
        mlflow.set_tracking_uri(tracking)  # MLflow keeps the variable and its own state in step
        mlflow.set_registry_uri(registry or "")
        if registry is None:
            os.environ.pop("MLFLOW_REGISTRY_URI", None)


@contextlib.contextmanager
def _silence(environment: Mapping[str, str]) -> Iterator[None]:
    """Keep MLflow and alembic from talking: stdout belongs to ``--json``, stderr to the live view."""
    added = {key: value for key, value in {**environment, **QUIET}.items() if key not in os.environ}
    os.environ.update(added)
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.ERROR)  # all at once: importing MLflow sets its own loggers' levels
            yield
    finally:
        logging.disable(disabled)
        for key in added:
            os.environ.pop(key, None)


def probe(uri: str, origin: str) -> None:
    """Ask a server whether it lives. Any answer but a gateway's excuse will do: access is checked by MLflow itself."""
    url = uri.rstrip("/") + "/health"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_S):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return
        found = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        found = f"no answer ({getattr(error, 'reason', error)})"
    raise InputError(f"an MLflow server at {uri}", found, origin)
