"""What autoxfer's trials are held against: the same candidates in a plain loop, and in the barest loop there can be.

Both run a strategy's own ``build`` and ``fit`` and stand in for what ``fit`` is handed: the data and the trainer.

- Naive: what lies before the trainable module runs live in every step, a DataLoader hands out stored examples, plain
  AdamW, one tensor after the other; no activation outlives a trial.
- Bare: cached inputs, a batch by index, forward, backward, a step of AdamW, and as many forwards over the tune split as
  a trial scores; no schedule, no clipping, no metric, no checkpoint. Its seconds are the bound that caching allows.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from common import wait_for
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from autoxfer import Candidate, Fitted, Problem, Recipe
from autoxfer.augmentation import augment
from autoxfer.features import at_once, resolve
from autoxfer.optimising import MAX_NORM, group_of, schedule
from autoxfer.records import Score
from autoxfer.scoring import measure, probabilities
from autoxfer.setting import Setting
from autoxfer.strategy import Input
from autoxfer.traindata import TrainTensors
from autoxfer.training import CHECKS, set_modes
from autoxfer.trials import seeded, separate
from autoxfer.tuning import clip, default_steps


@dataclass(frozen=True)
class Trial:
    """What is to be trained: a study's candidate with parameters, for so many steps."""

    study: str
    params: Mapping[str, Any]
    seed: int
    n_steps: int | None = None  # after which it is stopped; None = it runs to its end


@dataclass
class Cost:
    """What a trial took."""

    seconds: float = 0.0
    n_steps: int = 0
    steps_s: float = 0.0
    scores_s: float = 0.0
    n_scores: int = 0
    score: float = float("nan")


def first_trial(setting: Setting, study: str, n_steps: int | None, seed: int) -> Trial:
    """Make the trial of a study's defaults."""
    plan = setting.studies[study]
    params = clip(plan.defaults[0], plan.space)
    if n_steps is not None and "steps" in params:
        params["steps"] = n_steps
    return Trial(study, params, seed)


def run(setting: Setting, trial: Trial, rival: type[Rival]) -> Cost:
    """Build and fit a trial's candidate with a rival's data and trainer."""
    plan, device = setting.studies[trial.study], setting.features.device
    batch = int(trial.params.get("batch", (plan.strategy.recipe or Recipe()).batch))
    n_train = len(setting.rows("train"))
    strategy, recipe = separate(plan.strategy, trial.params, default_steps(n_train, batch))
    wait_for(device)
    started = time.perf_counter()
    with seeded(trial.seed, device):
        candidate = strategy.build(plan.problem)
        trainer = rival(setting, plan.problem, recipe, trial.n_steps)
        fitted = strategy.fit(candidate, trainer.data, trainer)
    wait_for(device)
    trainer.cost.seconds = time.perf_counter() - started
    trainer.cost.score = fitted.score.value
    return trainer.cost


@dataclass
class Rival:
    """A trainer that a strategy's ``fit`` may be given (strategy.Trainer)."""

    setting: Setting
    problem: Problem
    recipe: Recipe
    n_steps: int | None = None
    cost: Cost = field(default_factory=Cost)

    @property
    def data(self) -> Any:
        """What ``fit`` sees of the train split."""
        raise NotImplementedError

    def inputs(self, candidate: Candidate) -> tuple[Input, ...]:
        """Name what a candidate reads."""
        return tuple(resolve(name, self.problem) for name in candidate.inputs)

    def tune_batches(self, inputs: tuple[Input, ...]) -> Iterable[tuple[Tensor, ...]]:
        """Give the tune split's inputs, in parts."""
        raise NotImplementedError

    @torch.no_grad()
    def outputs(self, module: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> Tensor:
        """Answer the tune split."""
        started = time.perf_counter()
        module.eval()
        found = torch.cat([module(*batch) for batch in batches])
        wait_for(found.device)
        self.cost.scores_s += time.perf_counter() - started
        self.cost.n_scores += 1
        return found

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Compute what is trained on."""
        is_class = self.problem.task == "classification"
        return functional.cross_entropy(outputs, labels) if is_class else functional.mse_loss(outputs, labels)

    def measured(self, outputs: Tensor) -> Score:
        """Score answers on the tune split."""
        target = self.setting.targets["tune"]
        return measure(probabilities(outputs.float(), target), target)

    def run(self, candidate: Candidate) -> Fitted:
        """Train by gradient."""
        raise NotImplementedError

    def score(self, candidate: Candidate) -> Score:
        """Score a candidate on the tune split."""
        return self.measured(self.outputs(candidate.module, self.tune_batches(self.inputs(candidate))))

    def choose(self, candidate: Candidate, states: Iterable[tuple[Any, Mapping[str, Tensor]]]) -> Fitted:
        """Score every state, the inputs computed once; keep the best."""
        batches = list(self.tune_batches(self.inputs(candidate)))
        found = []
        for label, state in states:
            candidate.module.load_state_dict(state, strict=False)
            found.append((self.measured(self.outputs(candidate.module, batches)), label))
        score, label = max(found, key=lambda pair: (pair[0].rank, -pair[0].loss))
        return Fitted({}, score, notes={"chosen": label})


class Naive(Rival):
    """A plain loop: everything live, batches from a DataLoader, the best checkpoint of twelve kept."""

    @property
    def data(self) -> LiveTensors:
        return LiveTensors(self)

    def live(self, inputs: tuple[Input, ...], split: str) -> Iterable[tuple[Tensor, ...]]:
        """Run a split through all that lies before the module."""
        features = self.setting.features
        reader = features.reader(inputs)
        for (stored,) in DataLoader(TensorDataset(features.stored(split)), batch_size=at_once(features.device)):
            with torch.no_grad():
                yield reader(features.preparation.unpack(stored))

    def tune_batches(self, inputs: tuple[Input, ...]) -> Iterable[tuple[Tensor, ...]]:
        return self.live(inputs, "tune")

    def run(self, candidate: Candidate) -> Fitted:
        """Train, score twelve times, go back to the best."""
        features, module = self.setting.features, candidate.module.to(self.setting.features.device)
        inputs, n_steps, draws = self.inputs(candidate), self.recipe.steps or 1, torch.Generator().manual_seed(0)
        reader, initial = features.reader(inputs), {n: p.detach().clone() for n, p in module.named_parameters()}
        groups = [
            {
                "params": [p],
                "lr": g.lr * self.recipe.lr,
                "weight_decay": self.recipe.decay if g.decay is None else g.decay,
            }
            for n, p in module.named_parameters()
            if p.requires_grad and (g := group_of(n, candidate.groups))
        ]
        optimiser = torch.optim.AdamW(groups)
        decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step + 1, n_steps))
        anchored = [
            (p, g.anchor, initial[n])
            for n, p in module.named_parameters()
            if (g := group_of(n, candidate.groups)).anchor
        ]
        loader = DataLoader(
            TensorDataset(features.stored("train"), self.setting.labels),
            batch_size=min(self.recipe.batch, len(self.setting.labels)),
            shuffle=True,
            drop_last=True,
        )
        checks = {max(1, round(n_steps * (i + 1) / CHECKS)) for i in range(CHECKS)}
        best = self.score(candidate)
        set_modes(module)
        started = time.perf_counter()
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        for step, (stored, labels) in enumerate(itertools.islice(epochs, self.n_steps or n_steps), start=1):
            with torch.no_grad():
                tensors = reader(augment(features.preparation.unpack(stored), self.recipe.augment, draws))
            loss = self.loss(module(*tensors), labels)
            if candidate.penalty is not None:
                loss = loss + candidate.penalty(module)
            for parameter, anchor, start in anchored:
                loss = loss + anchor / 2 * (parameter - start).square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], MAX_NORM)
            optimiser.step()
            decay.step()
            with torch.no_grad():
                for name, mask in candidate.frozen.items():
                    parameter = module.get_parameter(name)
                    parameter.copy_(torch.where(mask, initial[name], parameter))
            if step in checks:
                self.cost.steps_s += time.perf_counter() - started
                best = max(best, self.score(candidate), key=lambda score: (score.rank, -score.loss))
                set_modes(module)
                started = time.perf_counter()
        self.cost.n_steps += self.n_steps or n_steps
        return Fitted({}, best)


@dataclass
class LiveTensors:
    """The train split, computed anew whenever it is asked for (strategy.TrainData)."""

    rival: Naive

    def __getitem__(self, name: Input) -> Tensor:
        return torch.cat([part[0] for part in self.rival.live((resolve(name, self.rival.problem),), "train")])

    def sample(self, *names: Input) -> LiveTensors:
        """Give all: memory bears them."""
        return self

    @property
    def labels(self) -> Tensor:
        """As a loss takes them."""
        return self.rival.setting.labels

    @property
    def weights(self) -> None:
        """All count alike."""


class Bare(Rival):
    """The bound: as many bare steps and bare forwards over the tune split as a trial has; its score means nothing."""

    @property
    def data(self) -> TrainTensors:
        return TrainTensors(self.setting.features, self.problem, self.setting.labels)

    def tune_batches(self, inputs: tuple[Input, ...]) -> Iterable[tuple[Tensor, ...]]:
        features = self.setting.features
        every = torch.arange(len(features.stored("tune")), device=features.device)
        return (features.batch(inputs, "tune", rows) for rows in torch.split(every, at_once(features.device)))

    def run(self, candidate: Candidate) -> Fitted:
        """Step, then answer the tune split as often as a trial does."""
        features, n = self.setting.features, len(self.setting.labels)
        module, inputs = candidate.module.to(features.device), self.inputs(candidate)
        optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4, fused=True)
        size, n_steps = min(self.recipe.batch, n), self.n_steps or self.recipe.steps or 1
        rows = torch.randint(n, (n_steps + 1, size)).to(features.device)
        draws = torch.Generator().manual_seed(0)
        set_modes(module)
        for step, part in enumerate(rows):
            if step == 1:  # the first is slow: memory is taken
                wait_for(features.device)
                started = time.perf_counter()
            tensors = features.batch(inputs, "train", part, self.recipe.augment, draws)
            self.loss(module(*tensors), self.setting.labels[part]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
        wait_for(features.device)
        self.cost.steps_s += time.perf_counter() - started
        self.cost.n_steps += n_steps
        parts = list(self.tune_batches(inputs))
        for _ in range(min(CHECKS, n_steps) + 1 if self.n_steps is None else 1):
            outputs = self.outputs(module, parts)
        return Fitted({}, self.measured(outputs))


def bound(setting: Setting, trial: Trial) -> Cost:
    """Take the bare steps and forwards alone; of what is solved, all of it."""
    cost = run(setting, trial, Bare)
    if cost.n_steps:
        cost.seconds = cost.steps_s + cost.scores_s
    return cost


def frozen_forward(setting: Setting, study: str, params: Mapping[str, Any]) -> Callable[[], None] | None:
    """Make the forward of what lies before a candidate, over train and tune; None where no weights lie there."""
    plan, features = setting.studies[study], setting.features
    strategy, _ = separate(plan.strategy, params, 1)
    with seeded(0, features.device):
        candidate = strategy.build(plan.problem)
    reader = features.reader(tuple(resolve(name, plan.problem) for name in candidate.inputs))
    if not any(True for _ in reader.extract.parameters()):
        return None

    @torch.no_grad()
    def forward() -> None:
        for split in ("train", "tune"):
            for stored in torch.split(features.stored(split), at_once(features.device)):
                reader(features.preparation.unpack(stored))

    return forward
