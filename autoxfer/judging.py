"""The finalists answer and are judged: their models predict tune and guard, the guard is asked once, test is last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autoxfer import folding, runfolder
from autoxfer.calibration import honest
from autoxfer.finalists import Finalist, judge
from autoxfer.records import StudyResult, Verdict
from autoxfer.runfolder import RunFolder
from autoxfer.searching import job_of

if TYPE_CHECKING:
    from autoxfer.folding import Pooled
    from autoxfer.setting import Setting
    from autoxfer.trials import Bench


def answer(
    setting: Setting, bench: Bench, results: Sequence[StudyResult], pooled: Pooled | None
) -> dict[str, Finalist]:
    """Let each study's best model, as trained, answer tune and guard; a study without a completed trial has none.

    Of a guard of folds, the folds' own models have answered: ``pooled``.
    """
    return {study.id: _finalist(setting, bench, study, pooled) for study in results if study.best is not None}


def _finalist(setting: Setting, bench: Bench, study: StudyResult, pooled: Pooled | None) -> Finalist:
    assert study.best is not None
    metric = setting.metric
    composed, tuned = bench.calibrated(study.id, bench.rebuild(job_of(setting, study.id, study.best)))
    tune_loss = metric.losses(tuned, setting.targets["tune"].labels)
    if pooled is None:
        predictions = bench.predict(composed, "guard")
    elif study.id in pooled.predictions:
        predictions = pooled.predictions[study.id]
    else:  # it failed in a fold
        return Finalist(study, study.best, composed, math.nan, np.array([]), tune_loss)
    labels = setting.dataset.labels[setting.judged]
    value, losses = metric.value(predictions, labels), metric.losses(predictions, labels)
    honesty = None if pooled or metric.task == "regression" else honest(predictions, labels, composed.temperature)
    return Finalist(study, study.best, composed, float(value), losses, tune_loss, predictions, honesty)


def verdicts(
    setting: Setting,
    results: Sequence[StudyResult],
    finalists: Mapping[str, Finalist],
    pooled: Pooled | None,
    *,
    exploratory: bool,  # the guard was asked before
) -> dict[str, Verdict]:
    """Ask the guard, once."""
    config, rows, groups = setting.config, setting.judged, setting.dataset.groups
    if pooled is not None:
        results = pooled.weakest
        finalists = {name: finalist for name, finalist in finalists.items() if name in pooled.predictions}
    found = judge(
        results,
        finalists,
        setting.metric,
        alpha=config.guard.alpha,
        margin=config.guard.margin,
        min_trials=config.budget.min_trials,
        n_guard=len(rows),
        procedure="fallback" if pooled is None else "holm",
        labels=setting.dataset.labels[rows],
        groups=None if groups is None else groups[rows],
    )
    if pooled is not None:
        found = {name: folding.of_procedure(verdict, len(setting.folds)) for name, verdict in found.items()}
    return {name: replace(verdict, exploratory=exploratory) for name, verdict in found.items()}


def score_on_test(setting: Setting, bench: Bench, finalists: Mapping[str, Finalist]) -> dict[str, float]:
    """Score every finalist once on the test split; nothing reads this back."""
    if "test" not in setting.targets:
        return {}
    labels = setting.targets["test"].labels
    return {
        name: float(setting.metric.value(bench.predict(finalist.composed, "test"), labels))
        for name, finalist in finalists.items()
    }


def write_losses(setting: Setting, folder: RunFolder, finalists: Mapping[str, Finalist], pooled: Pooled | None) -> None:
    """Keep every finalist's loss on every example that the guard saw."""
    import pandas as pd  # noqa: PLC0415

    told = {"example": setting.judged, **({} if pooled is None else {"fold": pooled.number})}
    answered = {name: finalist.loss for name, finalist in finalists.items() if len(finalist.loss)}
    if not answered:  # every study failed in some fold
        return
    parts = [pd.DataFrame({**told, "finalist": name, "loss": loss}) for name, loss in answered.items()]
    table = pd.concat(parts, ignore_index=True)
    runfolder.write_whole(folder.losses, lambda path: table.to_parquet(path, index=False))
