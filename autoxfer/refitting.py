"""The winner's recipe once more, on everything but test: as many steps, the same strength, nothing chosen anew.

The guard has tested other weights: a refit carries no certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from autoxfer import tuning
from autoxfer.errors import AutoxferError
from autoxfer.features import Features
from autoxfer.labelling import train_labels, train_weights
from autoxfer.preparation import prepare
from autoxfer.report import Winner
from autoxfer.scoring import Choice
from autoxfer.streaming import join, plain
from autoxfer.trials import Bench

if TYPE_CHECKING:
    from autoxfer.composed import Composed
    from autoxfer.records import Job
    from autoxfer.runfolder import RunFolder
    from autoxfer.setting import Setting

PARTS = ("train", "tune", "guard")


def refit(setting: Setting, folder: RunFolder, job: Job, notes: Mapping[str, Any]) -> Composed:
    """Train ``job`` again on train, tune and guard together; ``notes`` say what it chose on tune the first time.

    Raises AutoxferError where that cannot be repeated without a split to choose on.
    """
    device = setting.features.device
    parts = [part for part in PARTS if part in setting.targets or part == "train"]  # a guard of folds is no part
    stored = join([setting.features.stored(part).cpu() for part in parts])
    preparation = prepare(setting.stored, plain(stored))
    features = Features(preparation, setting.sources, {"train": stored}, device)
    rows = np.concatenate([setting.rows(part) for part in parts])
    labels, center, spread = train_labels(setting.dataset, rows, setting.config.task.class_weight)
    plan, n_train = setting.studies[job.study], len(setting.rows("train"))
    bench = Bench(
        folder=folder,
        strategies={job.study: plan.strategy},
        problems={job.study: plan.problem},  # of the same size too: a module's shapes may hang on it
        features=features,
        labels=labels.to(device),
        targets={},
        default_steps=lambda batch: tuning.default_steps(n_train, batch),
        choice=Choice.of(notes),
        scale=(center, spread),
        smoothing=setting.config.task.label_smoothing,
        precision=setting.config.precision,
        weights=train_weights(setting.dataset, rows, device),
    )
    try:
        candidate = bench.train(job)
    except Exception as error:  # a strategy's own code, in a place that it has never been in
        reason = str(error) or type(error).__name__
        raise AutoxferError(f"{job.study} cannot be trained again without a tune split: {reason}") from error
    return features.compose(candidate, plan.problem, center, spread)


def uncertified(winner: Winner, test: float | None) -> Winner:
    """Describe the refit: it was trained on tune and guard, so that test alone says anything of it."""
    return dataclasses.replace(winner, tune=None, guard=None, test=test, certified=False)
