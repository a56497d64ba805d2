"""Everything that is known before the search: data, splits, sources, studies. Whatever is wrong is found here."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoxfer import datacheck, seen, tokens, tuning
from autoxfer.activations import open_store
from autoxfer.architectures import architectures
from autoxfer.earlier import EarlierRun
from autoxfer.encoding import beside, encode
from autoxfer.features import Features
from autoxfer.labelling import ClassWeight, scale_warning, skew_warning, train_labels, train_weights
from autoxfer.material import Material, read
from autoxfer.metrics import Metric
from autoxfer.partitioning import partition
from autoxfer.preparation import prepare as prepare_examples
from autoxfer.prospects import too_few_groups, too_small
from autoxfer.records import SPLITS, derive_seed
from autoxfer.runfolder import RunFolder
from autoxfer.scoring import Target
from autoxfer.splitting import Splits, split
from autoxfer.strategy import Problem
from autoxfer.streaming import plain, take
from autoxfer.studies import TOGETHER, StudyPlan, crowded, plan_studies
from autoxfer.trials import Bench

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.dataset import Dataset, Schema
    from autoxfer.source import Source
    from autoxfer.tracking import TrackingSettings


@final
@dataclass(frozen=True)
class Setting:
    """A checked run: nothing expensive has happened, nothing is left to be found wrong."""

    config: RunConfig
    dataset: Dataset
    stored: Schema  # of the examples as they are kept and as the winner takes them: texts as ids
    splits: Splits
    metric: Metric
    sources: Mapping[str, Source]
    studies: Mapping[str, StudyPlan]  # the baseline first
    unavailable: Mapping[str, str]  # study -> why it cannot serve this problem
    features: Features
    labels: Tensor  # train: (n,) int64, (n, k) float32 0/1, or (n, outputs) float32 standardised
    targets: Mapping[str, Target]  # tune, guard and test, as far as there are such splits
    warnings: tuple[str, ...]
    material: Material
    earlier: EarlierRun = field(default_factory=EarlierRun)  # whose best trials are tried among others
    folds: tuple[Splits, ...] = ()  # where these are the guard, one by one, the splits above have none

    @property
    def seconds(self) -> float | None:
        """What one search may take: of the run's, where it searches once per fold and once more, an equal share."""
        seconds = self.config.budget.seconds
        return None if seconds is None else seconds / (1 + (self.config.guard.folds or 0))

    @property
    def name(self) -> str:
        """The task's name: what the model is registered under."""
        return self.config.task.name or self.dataset.name

    @cached_property
    def fingerprint(self) -> str:
        """The data set's, hashed once."""
        return self.dataset.fingerprint()

    def rows(self, split_name: str) -> NDArray[np.int64]:
        """Rows of the data set that stand in a split."""
        return self.splits.rows[split_name]

    @property
    def judged(self) -> NDArray[np.int64]:
        """Rows of the data set that the guard sees: those of its split, or of every fold in turn."""
        return np.concatenate([splits.rows["guard"] for splits in self.folds or (self.splits,)])

    def groups(self, split_name: str) -> NDArray[np.int64] | None:
        """Which examples of a split belong together: (n,) numbers, or None where each stands alone."""
        return None if self.dataset.groups is None else self.dataset.groups[self.rows(split_name)]

    def learned(self, source: str | None) -> list[dict[str, Any]]:
        """Sketch what a model of this run has learned from or was chosen by, and what its sources had before."""
        before = [sketch for name in (source or "").split(TOGETHER) if name for sketch in self.sources[name].learned]
        parts = [splits.rows[name] for splits in (self.splits, *self.folds) for name in splits.rows if name != "test"]
        return seen.trained_on(self.dataset, np.unique(np.concatenate(parts)), before)

    def task(self) -> dict[str, Any]:
        """Say for the record what the task is."""
        schema = self.dataset.schema
        return {
            "name": self.name,
            "kind": schema.task,
            "modality": schema.modality,
            "metric": self.metric.name,
            "direction": "maximize" if self.metric.greater_is_better else "minimize",
            "classes": list(schema.classes),
            "targets": list(schema.targets),
            "sizes": {name: len(self.splits.rows.get(name, ())) for name in SPLITS} | {"guard": len(self.judged)},
            "folds": len(self.folds) or None,
            "data_fingerprint": self.fingerprint,
            "warnings": list(self.warnings),
        }

    def fold(self, number: int) -> Setting:
        """Set up the search of a fold, counted from 1, which is the guard; seeds of its own, nothing read again."""
        config = self.config.model_copy(update={"seed": derive_seed(self.config.seed, "fold", number)})
        fold = assemble(config, self.material, self.folds[number - 1], rehearsed=self.studies)
        return dataclasses.replace(fold, earlier=self.earlier)

    def bench(self, folder: RunFolder) -> Bench:
        """Set up what runs trials and keeps their weights in ``folder``."""
        n_train = len(self.rows("train"))
        return Bench(
            folder=folder,
            strategies={name: plan.strategy for name, plan in self.studies.items()},
            problems={name: plan.problem for name, plan in self.studies.items()},
            features=self.features,
            labels=self.labels,
            targets=self.targets,
            default_steps=lambda batch: tuning.default_steps(n_train, batch),
            calibrates=self.config.calibration == "temperature",
            smoothing=self.config.task.label_smoothing,
            precision=self.config.precision,
            weights=train_weights(self.dataset, self.rows("train"), self.features.device),
        )


def prepare(config: RunConfig, settings: TrackingSettings | None = None) -> Setting:
    """Read and check everything; ``settings`` say where registered sources are. Raises InputError."""
    material = read(config, settings)
    dataset, sizes, seed, n_folds = material.dataset, config.task.splits, config.seed, config.guard.folds
    if n_folds is None:
        splits = split(dataset, sizes, seed)
        known = _known(material, splits)
        setting = assemble(config, material, splits)
    else:
        parts = partition(dataset, sizes, seed, n_folds)
        known = _known(material, parts.last, parts.folds)
        setting = dataclasses.replace(assemble(config, material, parts.last), folds=parts.folds)
    leaks = datacheck.leak_warnings(dataset, setting.splits, seed)  # once, not for every fold
    return dataclasses.replace(setting, warnings=(*setting.warnings, *known, *leaks, *_guard_warnings(setting)))


def assemble(
    config: RunConfig, material: Material, splits: Splits, *, rehearsed: Collection[str] | None = None
) -> Setting:
    """Put together what a search on these splits needs; ``rehearsed`` as in ``plan_studies``. Raises InputError."""
    dataset, metric, device = material.dataset, material.metric, material.device
    schema, examples, sources, cut = _stored(dataset, splits, dict(material.sources))
    stored = {name: take(examples, rows) for name, rows in splits.rows.items() if len(rows)}
    preparation = prepare_examples(schema, plain(stored["train"]))
    for source in sources.values():
        preparation.adapt(source)  # says at once where the data do not fit the source
    features = Features(preparation, sources, stored, device, open_store())
    labels, targets = _labels(dataset, splits, metric, device, config.task.class_weight)
    general = Problem(
        task=schema.task,
        modality=schema.modality,
        shape=preparation.raw_shape,
        n_outputs=schema.n_outputs,
        n_train=len(splits.rows["train"]),
        sources=(),
        architectures=architectures(
            schema.modality,
            preparation.raw_shape,
            list(sources.values()),
            preparation.vocabulary,
            preparation.n_words,
            separate=schema.task == "multilabel" or bool(schema.targets),
        ),
        classes=schema.classes,
    )
    studies, unavailable = plan_studies(config, material.strategies, general, features, rehearsed)
    warnings = (
        *_budget_warnings(config),
        *filter(None, [skew_warning(dataset, metric.name, config.task.class_weight)]),
        *filter(None, [scale_warning(dataset, splits.rows["train"], metric.name)]),
        *dataset.warnings,
        *splits.warnings,
        *cut,
        *crowded(studies),
        *(f"{name}: {why}" for name, why in unavailable.items()),
    )
    return Setting(
        config=config,
        dataset=dataset,
        stored=schema,
        splits=splits,
        metric=metric,
        sources=sources,
        studies=studies,
        unavailable=unavailable,
        features=features,
        labels=labels,
        targets=targets,
        warnings=warnings,
        material=material,
    )


def _known(material: Material, splits: Splits, folds: Sequence[Splits] = ()) -> list[str]:
    """Warn of examples that a source has learned from. Raises InputError for more than a few that choose or judge."""
    guards = [("guard", fold.rows["guard"]) for fold in folds]
    own = [(name, rows) for name, rows in splits.rows.items() if not folds or name == "test"]
    return seen.check(material.dataset, [*guards, *own], {name: s.learned for name, s in material.sources.items()})


def _budget_warnings(config: RunConfig) -> list[str]:
    budget = config.budget
    if budget.trials >= budget.min_trials:
        return []
    return [
        f"nothing can be accepted: an honest baseline needs {budget.min_trials} completed trials (budget.min_trials), "
        f"and budget.trials allows {budget.trials}"
    ]


def _guard_warnings(setting: Setting) -> list[str]:
    """Say before the search where the guard is too small for any gain that could be hoped for."""
    config, sizes, groups = setting.config, setting.config.task.splits or {}, setting.dataset.groups
    counted = isinstance(sizes.get("guard"), int) or "guard" in setting.dataset.parts
    small = too_small(
        len(setting.judged),
        setting.metric,
        alpha=config.guard.alpha,
        margin=config.guard.margin,
        n_finalists=len(setting.studies) - 1,
        pooled=bool(setting.folds),
        n_all=None if counted else len(setting.dataset.labels),
    )
    few = "" if groups is None else too_few_groups(len(np.unique(groups[setting.judged])))
    shifting = setting.folds and setting.metric.kind == "auroc"
    pooled = f"over folds {setting.metric.name} ranks scores of different models together: it costs those that shift"
    return [*filter(None, (few, small)), *([pooled] if shifting else [])]


def _stored(
    dataset: Dataset, splits: Splits, sources: dict[str, Source]
) -> tuple[Schema, NDArray[Any], dict[str, Source], tuple[str, ...]]:
    """Turn texts into ids, side by side those of every tokenizer in use; whatever else there is stays as it is.

    Returns the schema, the examples, the sources that fit them, and warnings.
    """
    texts = dataset.examples if dataset.schema.modality == "text" else dataset.texts
    if texts is None:
        return dataset.schema, dataset.examples, sources, ()
    train = texts[splits.rows["train"]].tolist()
    readers = {name: source.tokenizer for name, source in sources.items() if source.tokenizer is not None}
    tokenizers = tokens.fit(train, readers)
    schema = dataclasses.replace(dataset.schema, tokenizers=tokenizers)
    if dataset.texts is None:
        schema = dataclasses.replace(schema, shape=(schema.n_ids,), dtype="int32")
        examples = encode(schema, texts)
    else:
        schema = dataclasses.replace(schema, shape=(schema.n_ids + dataset.examples.shape[1],))
        examples = beside(schema, texts.tolist(), dataset.examples)
    lengths = {each.source: each.length for each in tokenizers}
    fitted = {name: source.of_length(lengths[name]) if name in readers else source for name, source in sources.items()}
    return schema, examples, fitted, tuple(tokens.cut_texts(tokenizers, train))


def _labels(
    dataset: Dataset, splits: Splits, metric: Metric, device: torch.device, class_weight: ClassWeight
) -> tuple[Tensor, dict[str, Target]]:
    """Make the train split's labels for the loss, and the other splits' for the metric."""
    labels, center, spread = train_labels(dataset, splits.rows["train"], class_weight)
    targets = {
        name: Target(dataset.labels[splits.rows[name]], metric, center, spread)
        for name in ("tune", "guard", "test")
        if len(splits.rows.get(name, ()))
    }
    return labels.to(device), targets
