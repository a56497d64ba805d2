"""Sources that earlier runs have registered: pinned to a version, and fetched for as long as they are loaded."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autoxfer.tracking import TrackingSettings, read_settings
from autoxfer.tracking.fetching import download, resolve

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.records import SourceSpec

SCHEME = "mlflow:"
DEFAULT_RUNS = Path("runs")


def pinned(config: RunConfig, settings: TrackingSettings) -> RunConfig:
    """Replace aliases by the versions that they name now, so that a run goes on with what it began with.

    Raises InputError: no such model, alias or version, a registry that does not answer.
    """
    sources = tuple(
        item.model_copy(update={"model": SCHEME + resolve(settings, uri, f"sources.{item.name}.model")})
        if (uri := _uri(item.model))
        else item
        for item in config.sources
    )
    return config.model_copy(update={"sources": sources})


@contextmanager
def fetched(specs: Sequence[SourceSpec], settings: TrackingSettings | None = None) -> Iterator[tuple[SourceSpec, ...]]:
    """Put registered models' files where their loader finds them, in a folder that is gone afterwards."""
    if not any(_uri(spec.model) for spec in specs):
        yield tuple(specs)
        return
    settings = settings or read_settings(None, DEFAULT_RUNS)
    with tempfile.TemporaryDirectory(prefix="autoxfer-source-") as temporary:
        found = []
        for number, spec in enumerate(specs):
            if uri := _uri(spec.model):
                place, where = Path(temporary) / str(number), f"sources.{spec.name}.model"
                place.mkdir()
                folder = download(settings, resolve(settings, uri, where), place, where)
                spec = dataclasses.replace(spec, weights=folder)  # noqa: PLW2901
            found.append(spec)
        yield tuple(found)


def _uri(model: str) -> str:
    """Give the address in MLflow; empty for every other kind of source."""
    return model.removeprefix(SCHEME) if model.startswith(SCHEME) else ""
