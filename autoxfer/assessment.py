"""How well each source fits the target, from the train split alone; and the order in which studies are searched.

Nothing is accepted or rejected here. The order decides what is seen first, what is there when a run is stopped
half-way, and which sources are finished when another is held against them (``rivals``). Results are reported in the
order of the run file, whatever was searched first.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autoxfer.diagnostics import (
    WIDEST,
    Case,
    Head,
    Labels,
    Turned,
    arrange,
    examine,
    scratch_error,
    standardised,
    stratified,
)
from autoxfer.records import derive_seed
from autoxfer.runfolder import RunFolder, write_json
from autoxfer.strategy import Input, Raw, Tap

if TYPE_CHECKING:
    from autoxfer.setting import Setting
    from autoxfer.source import Source

Floats = NDArray[np.float64]

ENOUGH = 2000  # train examples that are looked at
PART = 256  # of them at a time
SIDE = 16  # pixels to which pictures are averaged for the stand-in of scratch
MOST_COLUMNS = 2048  # that the stand-in reads: the most frequent words, or evenly chosen ones


def assess(setting: Setting, folder: RunFolder) -> tuple[str, ...]:
    """Examine every source, write ``diagnostics.json`` and give the order of the studies; a resumed run keeps both."""
    if known := _known(setting, folder):
        return known
    started = time.monotonic()
    sample = _Sample(setting)
    scratch = sample.scratch_error() if setting.sources else None
    found = {name: examine(sample.case(source, scratch)) for name, source in setting.sources.items()}
    order = arrange({name: (plan.strategy.name, plan.source) for name, plan in setting.studies.items()}, found)
    sources = {name: asdict(assessment) for name, assessment in found.items()}
    write_json(folder.diagnostics, {"sources": sources, "order": order, "seconds": time.monotonic() - started})
    return order


def _known(setting: Setting, folder: RunFolder) -> tuple[str, ...]:
    """Read the order of an earlier sitting; empty where there is none that fits."""
    try:
        order = tuple(json.loads(folder.diagnostics.read_text(encoding="utf-8"))["order"])
        return order if sorted(order) == sorted(setting.studies) else ()
    except (OSError, ValueError, LookupError, TypeError):
        return ()


@final
class _Sample:
    """The examples of the train split that are looked at."""

    def __init__(self, setting: Setting) -> None:
        rng = np.random.default_rng(derive_seed(setting.config.seed, "diagnostics"))
        train = setting.rows("train")
        chosen = np.sort(rng.permutation(len(train))[:ENOUGH])
        values = setting.dataset.labels[train[chosen]]
        self.setting, self.n_train = setting, len(train)
        self.rows = torch.from_numpy(chosen)
        self.labels = Labels(values, setting.dataset.schema.classes, setting.metric, stratified(values, rng))

    def case(self, source: Source, scratch: float | None) -> Case:
        """Put together what is examined of a source."""
        features = self._columns(Tap("last", source.name))
        return Case(features.double().numpy(), self.labels, _head(source, features), scratch, self.n_train)

    def scratch_error(self) -> float | None:
        """Predict the squared error of a linear model of the inputs, scratch's stand-in; None where it fails."""
        try:
            inputs = standardised(self._columns(Raw()).double().numpy())
            return scratch_error(Turned.of(inputs).widest(WIDEST), self.labels.columns, self.labels.fold)
        except Exception:  # the gains that need it are not known then
            return None

    def _columns(self, name: Input) -> Tensor:
        """Compute one input, part by part: (n, columns), on the CPU."""
        features, flat = self.setting.features, self._flat_raw if isinstance(name, Raw) else _flat
        if isinstance(name, Tap) and len(self.rows) == self.n_train:
            features.whole(name, "train")  # which the first trials need too
        return torch.cat([flat(features.some(name, "train", part)) for part in torch.split(self.rows, PART)])

    def _flat_raw(self, values: Tensor) -> Tensor:
        """Turn examples into not too many columns: counts of the frequent words, small pictures, what else there is."""
        if n_words := self.setting.features.preparation.n_words:
            known = [ids[(ids >= 0) & (ids < MOST_COLUMNS)] for ids in values[:, :n_words].int()]
            counts = torch.stack([torch.bincount(ids, minlength=MOST_COLUMNS) for ids in known])
            return torch.cat([counts, values[:, n_words:]], 1).float().cpu()
        if values.dim() == 4 and min(values.shape[2:]) > SIDE:
            values = functional.adaptive_avg_pool2d(values, SIDE)
        flat = _flat(values)
        return flat[:, :: math.ceil(flat.shape[1] / MOST_COLUMNS)]


def _flat(values: Tensor) -> Tensor:
    return values.flatten(1).float().cpu()


def _head(source: Source, features: Tensor) -> Head | None:
    """Ask the source's own head about features (n, p); None where it has none, or none that is a linear layer."""
    weight = getattr(source.head, "weight", None)
    if source.head is None or not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    with torch.no_grad():
        logits = source.head(features.to(weight)).double()
    return Head(logits.cpu().numpy(), weight.detach().double().cpu().numpy(), source.classes)
