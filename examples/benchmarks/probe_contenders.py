"""The contenders of probe_search.py: autoxfer's own study, and the loops that people write."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import optuna
import torch
from opponents import Rungs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from autoxfer import runfolder, tuning
from autoxfer.config import load_config
from autoxfer.engines import open_engine
from autoxfer.linear import strength_grid
from autoxfer.searching import job_maker
from autoxfer.setting import assemble, prepare

BATCH = 64  # of the loops
AT_ONCE = 256  # where nothing is trained
LR, MOMENTUM = 0.05, 0.9  # under a cosine decay

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]  # one epoch of them


@dataclass
class Found:
    """The best linear model of a search, and what the search did."""

    tune: float  # accuracy
    right: Tensor  # (n held out,) bool
    epochs: int = 0
    first: list[float] = field(default_factory=list)  # tune accuracy of the first trial after each of its epochs

    @property
    def accuracy(self) -> dict[str, float]:
        """Where the choice was made, and elsewhere."""
        return {"tune": round(self.tune, 4), "held_out": round(float(self.right.double().mean()), 4)}


class Probe:
    """A frozen network with a linear model on top, and penalties to choose from; images and weights are in memory."""

    def __init__(self, config: Mapping[str, Any], n_settings: int, n_epochs: int) -> None:
        self.n_settings, self.n_epochs = n_settings, n_epochs
        probe = {"tap": "last", "normalisation": "standardise", "n_strengths": n_settings}
        self.setting = prepare(load_config({**config, "strategies": [{"linear_probe": probe}]}))
        self.study = f"linear_probe@{config['sources'][0]['name']}"
        self.device, rows = self.setting.features.device, self.setting.splits.rows
        self.images = {split: self.setting.features.stored(split) for split in rows}
        self.labels = {
            split: torch.from_numpy(self.setting.dataset.labels[rows[split]]).to(self.device) for split in rows
        }
        plan = self.setting.studies[self.study]
        candidate = plan.strategy().build(plan.problem)
        self.whole = self.setting.features.compose(candidate, plan.problem)  # images -> logits
        self.train, self.held_out = self.forward("train", "test")
        normalise = self.whole.module.get_submodule("parts.0.normalise")
        normalise.fit(self.train)  # type: ignore[operator]
        self.strengths = strength_grid(normalise(self.train), n_settings).cpu().numpy()

    @torch.no_grad()
    def forward(self, *splits: str) -> list[Tensor]:
        """Compute the features of whole splits, once."""
        return [
            torch.cat(
                [self.whole.reader(self.whole.unpack(part))[0] for part in torch.split(self.images[split], AT_ONCE)]
            )
            for split in splits
        ]

    def autoxfer(self) -> Found:
        """Search as a run does, with an empty cache."""
        with TemporaryDirectory() as place, mock.patch.dict(os.environ, AUTOXFER_CACHE=f"{place}/cache"):
            setting = assemble(
                self.setting.config, self.setting.material, self.setting.splits, rehearsed=self.setting.studies
            )
            folder, plan = runfolder.create(Path(place), "run"), setting.studies[self.study]
            bench, make_job = setting.bench(folder), job_maker(setting, self.study)
            study = tuning.Study(
                tuning.Journal(folder.journal), self.study, plan.space, plan.defaults, seed=0, n_trials=self.n_settings
            )
            with open_engine(setting.config.engine) as engine:
                (trial,) = tuning.tune(study, make_job, bench.execute, engine)
            best = bench.rebuild(make_job(trial.number, trial.params, ())).module
        assert trial.outcome.score is not None, trial.outcome.reason
        return Found(trial.outcome.score.value, self._right(best))

    def naive(self, n_trials: int) -> Found:
        """Search with every image going through the network in every epoch of every trial."""

        @torch.no_grad()
        def features(images: Tensor) -> Tensor:
            return self.whole.reader(self.whole.unpack(images))[0]

        train = DataLoader(TensorDataset(self.images["train"], self.labels["train"]), BATCH, shuffle=True)
        tune = DataLoader(TensorDataset(self.images["tune"], self.labels["tune"]), AT_ONCE)
        return self._search(lambda: train, lambda: tune, n_trials, features)

    def hand_cached(self) -> Found:
        """Search over features that were computed once, from a DataLoader."""
        train, tune = self.forward("train", "tune")
        batches = DataLoader(TensorDataset(train, self.labels["train"]), BATCH, shuffle=True)
        held = DataLoader(TensorDataset(tune, self.labels["tune"]), AT_ONCE)
        return self._search(lambda: batches, lambda: held, self.n_settings)

    def hand_indexed(self) -> Found:
        """Search over features that were computed once, batches by index."""
        train, tune = self.forward("train", "tune")

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in torch.split(torch.randperm(len(train)).to(self.device), BATCH):
                yield train[rows], self.labels["train"][rows]

        return self._search(batches, lambda: [(tune, self.labels["tune"])], self.n_settings)

    def scikit_learn(self) -> Found:
        """Let scikit-learn choose by accuracy on the tune split, from features that were computed once."""
        from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415
        from sklearn.model_selection import PredefinedSplit  # noqa: PLC0415

        train, tune = self.forward("train", "tune")
        normalise = self.whole.module.get_submodule("parts.0.normalise")
        X, held_out = normalise(torch.cat([train, tune])).cpu().numpy(), normalise(self.held_out).cpu().numpy()
        y = torch.cat([self.labels["train"], self.labels["tune"]]).cpu().numpy()
        folds = PredefinedSplit(np.repeat([-1, 0], [len(train), len(tune)]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegressionCV(Cs=1 / self.strengths, cv=folds, refit=False, max_iter=1000).fit(X, y)
        answers = torch.from_numpy(model.predict(held_out)).to(self.device)
        return Found(float(model.score(X[len(train) :], y[len(train) :])), answers == self.labels["test"])

    def _search(
        self, train: Batches, tune: Batches, n_trials: int, features: Callable[[Tensor], Tensor] = lambda batch: batch
    ) -> Found:
        """Let Optuna choose the penalty; what a trial draws depends on its number alone."""
        best, curves = (-1.0, self.whole.module), list[list[float]]()

        def objective(trial: optuna.Trial) -> float:
            nonlocal best
            low, high = float(self.strengths.min()), float(self.strengths.max())
            decay = trial.suggest_float("strength", low, high, log=True) / len(self.train)  # beside the mean loss
            torch.manual_seed(trial.number)
            module = copy.deepcopy(self.whole.module)
            curves.append([])
            for reached in self._train(module, decay, train, tune, features):
                curves[-1].append(reached)
                trial.report(reached, len(curves[-1]))
                if trial.should_prune():
                    raise optuna.TrialPruned
            best = max(best, (curves[-1][-1], module), key=lambda pair: pair[0])
            return curves[-1][-1]

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=Rungs(self.n_epochs)
        )
        study.optimize(objective, n_trials)
        return Found(best[0], self._right(best[1]), sum(map(len, curves)), curves[0])

    def _train(
        self,
        module: nn.Module,
        decay: float,
        train: Batches,
        tune: Batches,
        features: Callable[[Tensor], Tensor],
    ) -> Iterator[float]:
        """Train a linear layer; the accuracy on the tune split after each epoch."""
        head = module.get_submodule("head")
        groups = [{"params": [head.weight], "weight_decay": decay}, {"params": [head.bias], "weight_decay": 0.0}]
        optimiser = torch.optim.SGD(groups, LR, MOMENTUM)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.n_epochs)
        for _ in range(self.n_epochs):
            module.train()
            for batch, labels in train():
                optimiser.zero_grad()
                functional.cross_entropy(module(features(batch)), labels).backward()
                optimiser.step()
            schedule.step()
            module.eval()
            with torch.no_grad():
                right = sum(int((module(features(batch)).argmax(1) == labels).sum()) for batch, labels in tune())
            yield right / len(self.labels["tune"])

    @torch.no_grad()
    def _right(self, module: nn.Module) -> Tensor:
        answers: Tensor = module.eval()(self.held_out)
        return answers.argmax(1) == self.labels["test"]
