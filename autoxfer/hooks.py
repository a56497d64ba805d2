"""What a plugin may offer: pluggy's hook specifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from autoxfer.dataset import DatasetReader
    from autoxfer.source import SourceLoader
    from autoxfer.strategy import Strategy

GROUP = "autoxfer"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def autoxfer_strategies() -> list[type[Strategy]]:  # type: ignore[empty-body]
    """Offer strategies. Stable: the classes say ``api = 1``."""


@hookspec
def autoxfer_sources() -> list[type[SourceLoader]]:  # type: ignore[empty-body]
    """Offer loaders of sources. Provisional in 0.1."""


@hookspec
def autoxfer_datasets() -> list[type[DatasetReader]]:  # type: ignore[empty-body]
    """Offer readers of data sets. Provisional in 0.1."""
