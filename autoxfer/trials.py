"""One trial, from its frozen parameters to its outcome; and the way back from the best weights on disk to a model."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoxfer.calibration import at_temperature, fit_temperature
from autoxfer.composed import Composed
from autoxfer.features import Features, at_once, resolve
from autoxfer.limits import Portion, limited
from autoxfer.losses import Precision
from autoxfer.records import Job, Outcome, Recipe, Score, derive_seed
from autoxfer.runfolder import RunFolder, write_whole
from autoxfer.scoring import Choice, Target, probabilities
from autoxfer.strategy import Candidate, Fitted, Problem, Strategy
from autoxfer.streaming import batches
from autoxfer.traindata import TrainTensors
from autoxfer.training import CHECKS, GradientTrainer, count_trained

if TYPE_CHECKING:
    from collections.abc import Callable


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Fork torch's random state, seed the fork, and put the old state back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def separate(strategy: type[Strategy], params: Mapping[str, Any], default_steps: int) -> tuple[Strategy, Recipe]:
    """Split a trial's flat parameters into the strategy's own and the recipe's."""
    own = {field.name for field in dataclasses.fields(strategy)}  # type: ignore[arg-type]
    recipe = dataclasses.replace(
        strategy.recipe or Recipe(), **{name: value for name, value in params.items() if name not in own}
    )
    if recipe.steps is None:
        recipe = dataclasses.replace(recipe, steps=default_steps)
    return strategy(**{name: value for name, value in params.items() if name in own}), recipe


@final
@dataclasses.dataclass(frozen=True)
class Price:
    """What a trial costs, in seconds."""

    warm_up_s: float  # once: the activations that it reads
    rest_s: float  # whatever is no step and no check on the tune split
    step_s: float = 0.0
    score_s: float = 0.0
    n_extra: int = 0  # scores beside the loop's checks

    def seconds(self, n_steps: float, share: float = 1.0) -> float:
        """Of a trial of ``n_steps`` steps that is stopped after a share of them; what comes once is left out."""
        if not self.step_s:
            return self.rest_s
        n_scores = share * min(CHECKS, n_steps) + self.n_extra
        return self.rest_s + share * n_steps * self.step_s + n_scores * self.score_s


@final
class Bench:
    """What every trial needs, loaded once: problems, tensors, labels."""

    def __init__(
        self,
        *,
        folder: RunFolder,
        strategies: Mapping[str, type[Strategy]],  # by study
        problems: Mapping[str, Problem],  # by study
        features: Features,
        labels: Tensor,  # train: (n,) int64, (n, k) float32 0/1, or (n, outputs) float32 standardised
        targets: Mapping[str, Target],  # by split, the train split left out
        default_steps: Callable[[int], int],  # batch -> steps
        choice: Choice | None = None,  # what to repeat where there is no tune split
        scale: tuple[Any, Any] | None = None,  # mean and deviation of the labels; None = as of the tune split
        calibrates: bool = True,  # whether finalists' probabilities are
        smoothing: float = 0.0,
        precision: Precision = "auto",
        weights: Tensor | None = None,  # of the train split's examples
    ) -> None:
        self._folder = folder
        self._strategies = strategies
        self._problems = problems
        self._features = features
        self._labels = labels
        self._targets = targets
        self._default_steps = default_steps
        self._choice = choice
        self._calibrates = calibrates
        self._smoothing, self._precision, self._weights = smoothing, precision, weights
        self._scale = (targets["tune"].center, targets["tune"].spread) if scale is None else scale

    def execute(self, job: Job) -> Outcome:
        """Run one trial; its weights are on disk, if they are the study's best, before this returns."""
        started = time.monotonic()
        with limited(job.seconds):
            candidate, trainer, fitted = self._train(job)
            fitted = trainer.verified(candidate, fitted)
        if not trainer.pruned and math.isfinite(fitted.score.rank):
            self._keep(job, fitted.state, fitted.score)
        return Outcome(
            "pruned" if trainer.pruned else "complete",
            fitted.score,
            fitted.curve,
            time.monotonic() - started,
            fitted.steps,
            count_trained(candidate),
            fitted.stopped,
            dict(fitted.notes),
        )

    def price(self, job: Job) -> Price:
        """Say what a trial costs, from one of a few steps; keeps nothing but the activations that it reads."""
        warm_up_s = self._warm_up(job)
        if self._strategies[job.study].recipe is None:
            started = time.perf_counter()
            self._train(job)
            return Price(warm_up_s, time.perf_counter() - started)
        for n in (1, 3):  # the first is slow: kernels are chosen, memory is taken
            started = time.perf_counter()
            clock = self._train(dataclasses.replace(job, params={**job.params, "steps": n}))[1].clock
            elapsed = time.perf_counter() - started
            if not clock.n_steps:  # it was solved
                return Price(warm_up_s, elapsed)
        return Price(
            warm_up_s,
            elapsed - clock.steps_s - clock.scores_s,
            clock.steps_s / clock.n_steps,
            clock.scores_s / clock.n_scores,
            clock.n_scores - 3,
        )

    def _warm_up(self, job: Job) -> float:
        """Compute the activations that a trial reads, as far as nothing has yet; the seconds that it took."""
        problem = self._problems[job.study]
        strategy, _ = self._separate(job.study, job.params)
        with seeded(derive_seed(job.seed, "build"), self._features.device):
            candidate = strategy.build(problem)
        started = time.perf_counter()
        row = torch.zeros(1, dtype=torch.int64, device=self._features.device)
        for split in ("train", "tune"):
            self._features.batch(tuple(resolve(name, problem) for name in candidate.inputs), split, row)
        return time.perf_counter() - started

    def answer_s(self, job: Job, n: int = 64) -> float:
        """Time how long a trial's composed model takes for one example, over ``n`` of them."""
        strategy, _ = self._separate(job.study, job.params)
        with seeded(derive_seed(job.seed, "build"), self._features.device), torch.no_grad():
            composed = self.compose(job.study, strategy.build(self._problems[job.study]))
            examples = self._features.stored("tune")[:n]
            started = time.perf_counter()
            composed(examples).cpu()
        return (time.perf_counter() - started) / len(examples)

    def train(self, job: Job) -> Candidate:
        """Train a candidate and keep it here, not on disk."""
        candidate, _, fitted = self._train(job)
        candidate.module.load_state_dict(fitted.state)
        return candidate

    def _train(self, job: Job) -> tuple[Candidate, GradientTrainer, Fitted]:
        problem, device = self._problems[job.study], self._features.device
        strategy, recipe = self._separate(job.study, job.params)
        with seeded(derive_seed(job.seed, "build"), device):
            candidate = strategy.build(problem)
        trainer = GradientTrainer(
            self._features,
            problem,
            self._labels,
            self._choice or self._targets["tune"],
            recipe,
            seed=job.seed,
            floors=job.floors,
            bars=job.bars,
            deadline=job.deadline,
            smoothing=self._smoothing,
            precision=self._precision,
            weights=self._weights,
        )
        data = TrainTensors(self._features, problem, self._labels, *self._scale, weights=self._weights)
        with seeded(derive_seed(job.seed, "fit"), device):
            fitted = strategy.fit(candidate, data, trainer)
        return candidate, trainer, fitted

    def rebuild(self, job: Job) -> Candidate:
        """Make a study's best candidate again, with the weights that were kept; train it again if they are lost."""
        path = self._folder.best(job.study)
        if not path.exists() or _read(path, weights=False)[0]["trial"] != str(job.number):
            path.unlink(missing_ok=True)
            self.execute(dataclasses.replace(job, floors=(), bars=(), deadline=None, seconds=None))
        strategy, _ = self._separate(job.study, job.params)
        with seeded(derive_seed(job.seed, "build"), self._features.device):
            candidate = strategy.build(self._problems[job.study])
        candidate.module.load_state_dict(_read(path)[1])
        return candidate

    def compose(self, study: str, candidate: Candidate) -> Composed:
        """Join a candidate with everything before it."""
        target = self._targets["tune"]
        return self._features.compose(candidate, self._problems[study], target.center, target.spread)

    def answers(self, job: Job) -> NDArray[np.float64]:
        """Predict the tune split with a study's best candidate, from the inputs that its trials have read."""
        problem, target, device = self._problems[job.study], self._targets["tune"], self._features.device
        candidate = self.rebuild(job)
        module = candidate.module.to(device).eval()
        inputs = tuple(resolve(name, problem) for name in candidate.inputs)
        rows = torch.arange(len(target.labels), device=device)

        def compute(size: int) -> Tensor:
            parts = torch.split(rows, size)
            return torch.cat([module(*self._features.batch(inputs, "tune", part)).float() for part in parts])

        with torch.no_grad():
            return probabilities(Portion(at_once(device)).attempt(compute), target)

    def calibrated(self, study: str, candidate: Candidate) -> tuple[Composed, NDArray[np.float64]]:
        """Compose a finalist, its probabilities calibrated on the tune split; with its predictions there."""
        composed, target = self.compose(study, candidate), self._targets["tune"]
        predictions = self.predict(composed, "tune")
        if not self._calibrates or target.metric.task == "regression":
            return composed, predictions
        composed.temperature = fit_temperature(predictions, target.labels)
        several = target.metric.task == "multilabel"
        return composed, at_temperature(predictions, composed.temperature, multilabel=several)

    def predict(self, composed: Composed, split: str) -> NDArray[np.float64]:
        """Predict a split with the composed float32 model: what ``scoring.probabilities`` gives."""
        # The composed model answers in the label's own units already.
        target = dataclasses.replace(self._targets[split], center=0.0, spread=1.0)
        stored = self._features.stored(split)
        with torch.no_grad():
            outputs = Portion(at_once(stored.device)).attempt(
                lambda size: torch.cat([composed(part).float() for part in batches(stored, size)])
            )
        return probabilities(outputs, target)

    def _separate(self, study: str, params: Mapping[str, Any]) -> tuple[Strategy, Recipe]:
        problem = self._problems[study]
        strategy = self._strategies[study]
        batch = int(params.get("batch", (strategy.recipe or Recipe()).batch))
        instance, recipe = separate(strategy, params, self._default_steps(batch))
        if problem.modality != "image":
            recipe = dataclasses.replace(recipe, augment="none")
        return instance, recipe

    def _keep(self, job: Job, state: Mapping[str, Tensor], score: Score) -> None:
        path = self._folder.best(job.study)
        if path.exists():
            header, _ = _read(path, weights=False)
            kept = Score(float(header["value"]), float(header["rank"]), float(header["loss"]))
            # A trial that was killed between writing and telling runs again and finds itself here.
            if header["trial"] != str(job.number) and not score.beats(kept):
                return
        numbers = {"value": score.value, "rank": score.rank, "loss": score.loss}
        metadata = {"trial": str(job.number)} | {name: float(value).hex() for name, value in numbers.items()}
        write_whole(path, lambda temporary: _write(temporary, state, metadata))


def _write(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        save_file(tensors, os.fspath(path), metadata)
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # a full disk, said in Rust
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def _read(path: Path, *, weights: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(os.fspath(path), framework="pt") as handle:
        header = dict(handle.metadata() or {})
        state = {name: handle.get_tensor(name) for name in handle.keys()} if weights else {}  # noqa: SIM118
    for name in ("value", "rank", "loss"):
        header[name] = str(float.fromhex(header[name]))
    return header, state
