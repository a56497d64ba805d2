"""Learning curves: each study's best recipe on an eighth, a quarter, a half and all of the train split.

The parts are nested and hold every class in proportion; the tune split chooses the checkpoint, as in the search; guard
and test are not looked at. At the full size stands the run's own model. A recipe keeps its share of the core's
default number of steps: what trained for twice the default does so at every size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoxfer import multilabel, tuning
from autoxfer.explaining.diagnosis import Curve
from autoxfer.features import Features
from autoxfer.labelling import train_labels, train_weights
from autoxfer.preparation import prepare
from autoxfer.records import Job, Trial, derive_seed
from autoxfer.scoring import Target, measure
from autoxfer.searching import job_of
from autoxfer.streaming import pick, plain
from autoxfer.trials import Bench

if TYPE_CHECKING:
    from autoxfer.runfolder import RunFolder
    from autoxfer.setting import Setting

PARTS = (8, 4, 2, 1)  # the train split is divided by these
FEWEST = 4  # examples below which a part says nothing

Points = dict[int, tuple[float, float]]  # size -> mean loss on these train examples, on tune; NaN where it failed


def sizes(n_train: int, n_classes: int) -> tuple[int, ...]:
    """Give the sizes of a curve; a part that could not show every class once is left out."""
    wanted = sorted({n_train // part for part in PARTS})
    return tuple(size for size in wanted if size >= max(FEWEST, n_classes) or size == n_train)


def nested(labels: NDArray[Any], *, classes: bool, seed: int) -> NDArray[np.int64]:
    """Order examples so that any first part holds each class in proportion, and as soon as possible once.

    Labels are (n,), or of several for each example (n, k), whose every combination counts as a class.
    """
    rng = np.random.default_rng(seed)
    if classes and labels.ndim == 2:
        labels = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    if not classes:
        return rng.permutation(len(labels))
    place = np.empty(len(labels))
    for value in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == value))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
        place[members[0]] = -rng.random()
    return np.argsort(place, kind="stable")


def chance_loss(setting: Setting) -> float:
    """Give the loss on tune of a constant prediction: the train split's class shares, or its mean."""
    train, tune = (setting.dataset.labels[setting.rows(name)] for name in ("train", "tune"))
    if setting.dataset.schema.targets:
        mean, spread = train.mean(axis=0, dtype=np.float64), setting.targets["tune"].spread
        return float(np.square((tune - mean) / spread).mean())
    if setting.dataset.schema.task == "regression":
        return float(np.square(tune - train.mean(dtype=np.float64)).mean(dtype=np.float64))
    if setting.dataset.schema.task == "multilabel":
        shares = (train.sum(axis=0, dtype=np.float64) + 1) / (len(train) + 2)
        return float(multilabel.cross_entropies(np.broadcast_to(shares, tune.shape), tune).mean())
    counts = np.bincount(train, minlength=len(setting.dataset.schema.classes)) + 1  # none is ruled out
    return float(-np.log(counts / counts.sum())[tune].mean())


def trace(
    setting: Setting,
    folder: RunFolder,
    best: Mapping[str, Trial],  # by study
    known: Mapping[str, Curve],  # what an earlier call measured
    *,
    say: Callable[[str], object],
    keep: Callable[[Mapping[str, Curve]], object],  # is given all that is known, after each size
) -> dict[str, Curve]:
    """Measure what is missing of every study's curve, the smallest part first."""
    points = {study: curve.points() for study, curve in known.items()}
    train = setting.rows("train")
    wanted = sizes(len(train), len(setting.dataset.schema.classes))
    order = nested(
        setting.dataset.labels[train],
        classes=setting.dataset.schema.task != "regression",
        seed=derive_seed(setting.config.seed, "curves"),
    )
    for size in wanted:
        missing = [study for study in best if size not in points.setdefault(study, {})]
        if not missing:
            continue
        bench, targets = _bench(setting, folder, np.sort(order[:size]))
        for study in missing:
            say(f"{study} on {size} of {len(train)} train examples")
            job = _job(setting, study, best[study], size)
            points[study][size] = _losses(bench, targets, job, whole=size == len(train), folder=folder)
        keep(_curves(points, best))
    return _curves(points, best)


def _curves(points: Mapping[str, Points], studies: Sequence[str] | Mapping[str, Any]) -> dict[str, Curve]:
    return {study: Curve.of(points[study]) for study in studies}


def _bench(setting: Setting, folder: RunFolder, part: NDArray[np.int64]) -> tuple[Bench, dict[str, Target]]:
    """Set up what trains on a part of the train split; its statistics come from that part alone."""
    device, rows = setting.features.device, setting.rows("train")[part]
    stored = {
        "train": pick(setting.features.stored("train").cpu(), part),
        "tune": setting.features.stored("tune").cpu(),
    }
    preparation = prepare(setting.stored, plain(stored["train"]))
    labels, center, spread = train_labels(setting.dataset, rows, setting.config.task.class_weight)
    targets = {
        name: Target(setting.dataset.labels[of], setting.metric, center, spread)
        for name, of in (("train", rows), ("tune", setting.rows("tune")))
    }
    bench = Bench(
        folder=folder,
        strategies={name: plan.strategy for name, plan in setting.studies.items()},
        problems={name: plan.problem for name, plan in setting.studies.items()},  # a module's shapes may hang on them
        features=Features(preparation, setting.sources, stored, device),
        labels=labels.to(device),
        targets=targets,
        default_steps=lambda batch: tuning.default_steps(len(part), batch),
        weights=train_weights(setting.dataset, rows, device),
    )
    # The losses of several numbers are in units of their deviation, which has to be the same at every size.
    spread = setting.targets["tune"].spread
    return bench, {name: dataclasses.replace(target, spread=spread) for name, target in targets.items()}


def _job(setting: Setting, study: str, trial: Trial, size: int) -> Job:
    """Make the best trial's job again, for ``size`` examples."""
    job = job_of(setting, study, trial)
    if "steps" not in job.params:
        return job
    batch, n_train = int(job.params.get("batch", 1)), len(setting.rows("train"))
    share = tuning.default_steps(size, batch) / tuning.default_steps(n_train, batch)
    return dataclasses.replace(job, params={**job.params, "steps": max(1, round(job.params["steps"] * share))})


def _losses(
    bench: Bench, targets: Mapping[str, Target], job: Job, *, whole: bool, folder: RunFolder
) -> tuple[float, float]:
    """Train, or take the run's own model, and give the mean loss on train and on tune."""
    try:
        kept = whole and folder.best(job.study).exists()
        composed = bench.compose(job.study, bench.rebuild(job) if kept else bench.train(job))
        scores = [measure(bench.predict(composed, name), targets[name]).loss for name in ("train", "tune")]
    except (RuntimeError, ValueError, ArithmeticError, MemoryError, TimeoutError):
        return math.nan, math.nan  # a recipe need not bear every size: more components than examples, say
    return scores[0], scores[1]
