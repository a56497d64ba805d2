"""The one training loop: AdamW, a warm-up, a cosine decay, checkpoints chosen on the tune split."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from autoxfer.checkpoints import Keeper, load_part, state_of
from autoxfer.errors import Unsupported
from autoxfer.features import Features, at_once, resolve
from autoxfer.limits import Portion
from autoxfer.losses import Precision, TaskLoss, autocast
from autoxfer.optimising import Optimiser
from autoxfer.records import Bars, Floors, Recipe, Score, derive_seed
from autoxfer.scoring import UNKNOWN, Choice, Clock, Target, measure, probabilities
from autoxfer.strategy import Candidate, Fitted, Input, Problem

CHECKS = 12  # times that the tune split is scored while training


@final
class GradientTrainer:
    """Implements strategy.Trainer for one trial."""

    def __init__(
        self,
        features: Features,
        problem: Problem,
        labels: Tensor,  # of the train split: (n,) int64, (n, k) float32 0/1, or (n, outputs) float32 standardised
        tune: Target | Choice,  # what to choose on, or what was chosen already
        recipe: Recipe,
        *,
        seed: int,
        floors: Floors = (),
        bars: Bars = (),
        deadline: float | None = None,
        smoothing: float = 0.0,  # of the labels, for all alike
        precision: Precision = "auto",  # of a step's forward pass
        weights: Tensor | None = None,  # (n,) of the train split's examples, of mean 1
    ) -> None:
        self.recipe = recipe
        self._features = features
        self._problem = problem
        self._labels, self._weights = labels, weights
        self._tune = tune if isinstance(tune, Target) else None
        self._choice = tune if isinstance(tune, Choice) else Choice()  # taken once
        self._seed = seed
        self._floors, self._bars = floors, bars
        self._deadline = deadline
        self._task_loss = TaskLoss(problem.task, smoothing)
        self._autocast = autocast(features.device, precision)
        self._at_once = Portion(min(recipe.batch, len(labels)))
        self._scored_at_once = Portion(at_once(features.device))
        self.pruned = False
        self.clock = Clock()
        self._made: list[Fitted] = []
        self._n_runs, self._done = 0, 0.0  # the share of the recipe's steps that earlier runs have made
        self._curve: list[tuple[float, float]] = []

    def run(self, candidate: Candidate, share: float = 1.0) -> Fitted:
        """Train by gradient; keep the best checkpoint on the tune split, the state before the first step included.

        With ``share`` for that share of the recipe's steps, a whole schedule; what a trial's runs reached stands in
        one curve, by which it may be stopped. Where memory runs out, the recipe's batch is computed in parts whose
        gradients add up to the same; only batch normalisation then sees the statistics of the parts, and dropout draws
        other masks.

        Raises FloatingPointError where the loss or the tune score is not finite, MemoryError where one example at a
        time is too much.
        """
        module = candidate.module.to(self._features.device)
        keeper = Keeper(module, candidate)
        optimiser = Optimiser(module, candidate.groups, self.recipe)
        inputs = self._inputs(candidate)
        start = self._begin(share)
        n_steps = max(1, round((self.recipe.steps or 1) * share))
        batches = self._batches(n_steps if self._tune else round(n_steps * self._take("kept")))
        draws = torch.Generator().manual_seed(self._seed_of("augment"))
        n_checks = max(1, round(CHECKS * share)) if self._tune else 0
        checks = sorted({max(1, round(n_steps * (i + 1) / n_checks)) for i in range(n_checks)})
        if self._tune:
            self._check(candidate, keeper, 0.0, start)
        stopped, step = "", 0
        set_modes(module)
        started = time.perf_counter()
        for step, rows in enumerate(batches, start=1):
            tensors = self._features.batch(inputs, "train", rows, self.recipe.augment, draws)
            loss = self._gradient(candidate, tensors, rows, optimiser)
            keeper.pull()
            optimiser.step(step, n_steps)
            keeper.hold()
            if step in checks:
                if not math.isfinite(loss.item()):
                    raise FloatingPointError(f"the loss became {loss.item()} at step {step} of {n_steps}")
                self.clock.steps_s += time.perf_counter() - started
                stopped = self._check(candidate, keeper, step / n_steps, start + share * step / n_steps)
                started = time.perf_counter()
                if stopped:
                    break
        self.clock.n_steps += step
        optimiser.release()
        fitted = keeper.fitted(self._curve, step, stopped)
        if step and self._at_once.size < len(rows):
            fitted = replace(fitted, notes={**fitted.notes, "examples_at_once": self._at_once.size})
        self._made.append(fitted)
        return fitted

    def _begin(self, share: float) -> float:
        """Begin another run; the share of the trial's steps at which it starts."""
        if share >= 1.0 or self._done >= 1.0 - 1e-9:  # not one of several that make up the trial together
            self._curve, self._done = [], 0.0
        start = self._done
        self._done, self._n_runs = start + share, self._n_runs + 1
        return start

    def _check(self, candidate: Candidate, keeper: Keeper, at: float, done: float) -> str:
        """Score the tune split at a share of the run's steps, and of the trial's; why to stop now, empty = go on."""
        score = self.score(candidate)
        keeper.offer(score, at)
        self._curve.append((min(done, 1.0), score.rank))
        set_modes(candidate.module)
        return self._stops(self._curve, done) if at > 0 and done < 1 - 1e-9 else ""

    def _seed_of(self, purpose: str) -> int:
        """Make the seed of a run's batches or of its augmentation; a trial's runs differ."""
        return derive_seed(self._seed, purpose, *([self._n_runs] if self._n_runs > 1 else []))

    def _gradient(
        self, candidate: Candidate, tensors: tuple[Tensor, ...], rows: Tensor, optimiser: Optimiser
    ) -> Tensor:
        """Leave the gradient of the batch's loss in the parameters, in as many parts as memory asks for; the loss."""
        module = candidate.module

        def work(size: int) -> Tensor:
            optimiser.zero_grad()
            n_parts = math.ceil(len(rows) / size)
            losses: list[Tensor] = []
            for part, *inputs in zip(*(tensor.tensor_split(n_parts) for tensor in (rows, *tensors)), strict=True):
                with self._autocast():
                    outputs = module(*inputs)
                loss = self._loss(candidate, outputs.float(), part)
                if n_parts > 1:
                    loss = loss * (len(part) / len(rows))
                if candidate.penalty is not None and not losses:
                    loss = loss + candidate.penalty(module)
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
            return losses[0] if n_parts == 1 else torch.stack(losses).sum()

        return self._at_once.attempt(work)

    def score(self, candidate: Candidate) -> Score:
        """Score the candidate as it stands on the tune split. Raises FloatingPointError if it is not finite."""
        if self._tune is None:
            raise Unsupported("it scores the tune split by itself, which is trained on now")
        started = time.perf_counter()
        outputs = self._outputs(candidate)
        if not torch.isfinite(outputs).all():
            raise FloatingPointError("the candidate's outputs on the tune split are not finite")
        score = measure(probabilities(outputs, self._tune), self._tune)
        self.clock.scores_s += time.perf_counter() - started
        self.clock.n_scores += 1
        return score

    def choose(self, candidate: Candidate, states: Iterable[tuple[Any, Mapping[str, Tensor]]]) -> Fitted:
        """Score each (label, partial state dict) on the tune split and keep the best. Raises ValueError for none."""
        candidate.module.to(self._features.device)
        if self._tune is None:
            return self._choose_again(candidate, states)
        best: tuple[Score, Any, Mapping[str, Tensor]] | None = None
        for label, state in states:
            load_part(candidate.module, state)
            score = self.score(candidate)
            if best is None or score.beats(best[0]):
                best = score, label, {name: tensor.clone() for name, tensor in state.items()}
        if best is None:
            raise ValueError("choose needs at least one state; got none")
        score, label, state = best
        load_part(candidate.module, state)
        fitted = Fitted(state_of(candidate.module), score, ((1.0, score.rank),), notes={"chosen": label})
        self._made.append(fitted)
        return fitted

    def verified(self, candidate: Candidate, fitted: Fitted) -> Fitted:
        """Score what a strategy's ``fit`` gives, unless weights and score are this trainer's own: none is believed."""
        if any(fitted.state is made.state and fitted.score is made.score for made in self._made):
            return fitted
        candidate.module.load_state_dict(fitted.state)
        return replace(fitted, score=self.score(candidate))

    def _choose_again(self, candidate: Candidate, states: Iterable[tuple[Any, Mapping[str, Tensor]]]) -> Fitted:
        """Keep the state of the chosen label; of strengths, which depend on the examples, the nearest."""
        wanted = self._take("chosen")
        label, state = min(states, key=lambda pair: _distance(pair[0], wanted))
        if _distance(label, wanted) == math.inf:
            raise Unsupported(f"nothing like {wanted!r}, which was chosen, is among its states now")
        load_part(candidate.module, state)
        return Fitted(state_of(candidate.module), UNKNOWN, notes={"chosen": label})

    def _take(self, name: str) -> Any:
        """Give what was chosen, once: of a second choice nothing is known."""
        value, rest = getattr(self._choice, name), None
        if name == "kept" and isinstance(value, list | tuple):  # of a trial's runs, one by one
            value, *rest = value or [None]
        if value is None:
            raise Unsupported("it chooses on the tune split in a way that was not recorded")
        self._choice = replace(self._choice, **{name: rest})
        return value

    def _inputs(self, candidate: Candidate) -> tuple[Input, ...]:
        return tuple(resolve(name, self._problem) for name in candidate.inputs)

    def _loss(self, candidate: Candidate, outputs: Tensor, rows: Tensor) -> Tensor:
        weights = None if self._weights is None else self._weights[rows]
        loss = self._task_loss(outputs, self._labels[rows], weights)
        return loss if candidate.objective is None else candidate.objective(outputs, loss, rows)

    def _batches(self, n_steps: int) -> Iterator[Tensor]:
        """Full batches from one permutation of the train split after the other."""
        n = len(self._labels)
        size = min(self.recipe.batch, n)
        generator = torch.Generator().manual_seed(self._seed_of("batches"))
        waiting = torch.empty(0, dtype=torch.int64)
        for _ in range(n_steps):
            while len(waiting) < size:
                waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
            yield waiting[:size].to(self._features.device)
            waiting = waiting[size:]

    @torch.no_grad()
    def _outputs(self, candidate: Candidate) -> Tensor:
        assert self._tune is not None
        candidate.module.eval()
        inputs, n = self._inputs(candidate), len(self._tune.labels)
        every = torch.arange(n, device=self._features.device)
        return self._scored_at_once.attempt(
            lambda size: torch.cat(
                [candidate.module(*self._features.batch(inputs, "tune", rows)) for rows in torch.split(every, size)]
            ).float()
        )

    def _stops(self, curve: Sequence[tuple[float, float]], share: float) -> str:
        """Say why to stop now: the closed history, the baseline, or the study's time; empty = go on."""
        best = max(rank for _, rank in curve)
        if any(share >= rung and best < floor for rung, floor in self._floors):
            self.pruned = True
            return "pruned: behind what completed trials had reached by then"
        if reason := self._beaten(best, share):
            self.pruned = True
            return reason
        if self._deadline is not None and time.monotonic() > self._deadline:
            return "the study's time was up"
        return ""

    def _beaten(self, best: float, share: float) -> str:
        """Say by how much this is behind the baseline; empty = it is not, or not by enough."""
        assert self._tune is not None
        sign = 1.0 if self._tune.metric.greater_is_better else -1.0
        for rung, bar, theirs in self._bars:
            if share >= rung and best < bar:
                mine = f"{sign * best:.3g}"
                return f"pruned: at {share:.0%} of its steps {mine}, scratch had {sign * theirs:.3g} at {rung:.0%}"
        return ""


def set_modes(module: nn.Module) -> None:
    """Put a module in training mode, except what owns parameters of which none is trained: its statistics stay too."""
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()


def count_trained(candidate: Candidate) -> int:
    """Count the numbers that training can change."""
    held = sum(int(mask.sum()) for mask in candidate.frozen.values())
    return sum(p.numel() for p in candidate.module.parameters() if p.requires_grad) - held


def _distance(label: Any, wanted: Any) -> float:
    """How far two labels are apart: numbers by their ratio, all else not at all or infinitely; mappings key by key."""
    if label == wanted:
        return 0.0
    if isinstance(label, Mapping) and isinstance(wanted, Mapping) and label.keys() == wanted.keys():
        return sum(_distance(label[key], wanted[key]) for key in label)
    numbers = all(isinstance(value, int | float) and value > 0 for value in (label, wanted))
    return abs(math.log(label / wanted)) if numbers else math.inf
