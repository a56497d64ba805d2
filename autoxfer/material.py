"""What a run reads once, however often it is split: the data set, the sources, the strategies, the device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch

from autoxfer.architectures import RESERVED
from autoxfer.errors import InputError
from autoxfer.metrics import Metric, get_metric
from autoxfer.plugins import load_plugins
from autoxfer.plugins.answers import load_source, read_data
from autoxfer.registered import fetched
from autoxfer.studies import chosen_strategies

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.dataset import Dataset
    from autoxfer.source import Source
    from autoxfer.strategy import Strategy
    from autoxfer.tracking import TrackingSettings


@final
@dataclass(frozen=True)
class Material:
    """What is read."""

    dataset: Dataset
    metric: Metric
    sources: Mapping[str, Source]
    strategies: Mapping[type[Strategy], Mapping[str, Any]]  # with what the user narrowed
    device: torch.device


def read(config: RunConfig, settings: TrackingSettings | None = None) -> Material:
    """Read the data set and the sources, and find the plugins. Raises InputError, PluginError."""
    device = _device(config.device)
    plugins = load_plugins(disabled=config.plugins.disable)
    strategies = chosen_strategies(config, plugins)
    specs = config.to_source_specs()
    loaders = [plugins.loader_for(spec) for spec in specs]
    spec = config.to_data_spec()
    dataset = read_data(plugins.reader_for(spec), spec)
    if spec.ignore and dataset.schema.modality == "vector":
        raise InputError("no columns to ignore: these data have none by name", ", ".join(spec.ignore), "task.ignore")
    if spec.group is not None and dataset.groups is None:
        raise InputError(
            "no group: these data do not say which examples belong together", repr(spec.group), "task.group"
        )
    if spec.time is not None and dataset.times is None:
        raise InputError("no time: these data do not say when an example was taken", repr(spec.time), "task.time")
    if spec.weight is not None and dataset.weights is None:
        raise InputError("no weight: these data have none for an example", repr(spec.weight), "task.weight")
    metric = get_metric(config.task.metric, dataset.schema.task, len(dataset.schema.classes))
    with fetched(specs, settings) as local:
        sources = {spec.name: load_source(loader, spec) for spec, loader in zip(local, loaders, strict=True)}
    _check_names(sources)
    return Material(dataset, metric, sources, strategies, device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("a CUDA device, or device: cpu", "a machine (or a torch build) without one", "device")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("auto, cpu, cuda or cuda:N", repr(name), "device") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"one of {torch.cuda.device_count()} CUDA devices", name, "device")
    return device


def _check_names(sources: Mapping[str, Source]) -> None:
    for name in sources:
        if not re.fullmatch(r"[\w.-]+", name) or name in RESERVED:
            raise InputError("letters, digits, dots and dashes, and no built-in network's name", repr(name), "sources")
