"""What a whole run takes, beside a plain loop over the same trials and beside the bound that caching allows.

    python examples/benchmarks/whole_run.py [--short | --smoke] [--trials 20] [--naive-trials 3] [--digits]

All strategies, ResNet-20 with its published weights on cifar10_jpeg, 20 trials each; from the call of ``autoxfer.run``
to its result, reading, diagnostics, guard, export and logging to MLflow included; nothing cached on disk before.

- naive: the same trials (parameters, and the step at which each was stopped) in a plain Optuna loop, everything before
  the trained module live, a DataLoader, plain AdamW (rivals.py). Of every study ``--naive-trials`` are run, the others
  are scaled by their steps: marked ~.
- bound: the frozen forward once, every trial's bare steps and forwards over the tune split (rivals.py; a few steps of
  each trial are timed), and the forwards with which the run itself answered for its finalists.
- share: bound / autoxfer. overhead_share: of the run, what was neither forward, backward nor a step of the optimiser,
  nor the solution of a trial's linear model; timed within the run.
- images_per_s: through training steps, all trials together; bare_images_per_s: through the bare loop's.

The command fails where the share is below 80 % or the overhead above 10 %. ``--smoke`` takes autoxfer's example of
digits, with three strategies, whose trials are too short for either.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import optuna
import rivals
import strategies
from common import finish, parser, seconds, wait_for

import autoxfer
from autoxfer import linear, logistic
from autoxfer.composed import Composed, Reader
from autoxfer.config import load_config
from autoxfer.events import Event, TrialFinished
from autoxfer.optimising import Optimiser
from autoxfer.setting import Setting, prepare
from autoxfer.taps import Extractor
from autoxfer.training import GradientTrainer
from autoxfer.trials import Bench

SHARE, OVERHEAD = 0.8, 0.1
BARE_STEPS = 10  # of each trial that are timed
TRAINED = ("scratch", "partial_transfer", "residual", "adapters", "lora", "fine_tune")
SHORT_STEPS = 40  # of each trial in short; a network's own number would take an hour


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--trials", type=int, help="of each study: 20, 6 in short")
    made.add_argument("--digits", action="store_true", help="autoxfer's example of digits instead of cifar10_jpeg")
    made.add_argument("--naive-trials", type=int, help="of each study that the plain loop runs: 3, 1 in short")
    arguments = made.parse_args()
    quick = arguments.smoke or arguments.short
    n_trials = arguments.trials or (2 if arguments.smoke else 6 if arguments.short else 20)
    n_naive = min(arguments.naive_trials or (1 if quick else 3), n_trials)
    config = configure(arguments, n_trials)
    watch, ours = measure(config)
    print(f"  autoxfer: {ours.seconds:.1f} s", file=sys.stderr, flush=True)
    setting = prepare(load_config(config))
    trials = [(event.study, event.trial) for event in ours.finished if event.trial.outcome.state != "failed"]
    bound_s, bare_rate = bound(setting, trials)
    bound_s += watch.seconds["finalists"]
    print(f"  bound: {bound_s:.1f} s", file=sys.stderr, flush=True)
    naive_s = naive(setting, trials, n_naive)
    row = {
        "run": "digits" if arguments.smoke or arguments.digits else "cifar10_jpeg",
        "naive_s": naive_s if n_naive >= n_trials else f"~{naive_s:.0f}",
        "autoxfer_s": ours.seconds,
        "speedup": naive_s / ours.seconds,
        "bound_s": bound_s,
        "share": bound_s / ours.seconds,
        "overhead_share": 1 - sum(watch.seconds.values()) / ours.seconds,
        "test": ours.result.record.winner.test,
        "images_per_s": ours.images / watch.loop_s,
        "bare_images_per_s": bare_rate,
    }
    holds = {"share": row["share"] >= SHARE, "overhead": row["overhead_share"] <= OVERHEAD}
    finish(
        arguments,
        [row],
        trials=len(trials),
        naive_trials=n_naive * len(setting.studies),
        computing={name: round(value, 2) for name, value in watch.seconds.items()},
        stages={name: round(value, 2) for name, value in ours.result.record.timings.items()},
        holds=holds,
    )
    return int(not arguments.smoke and not all(holds.values()))


def configure(arguments: Namespace, n_trials: int) -> dict[str, Any]:
    """Write the run file: that of strategies.py with a budget, and a test split where there are examples for it."""
    config = strategies.configure(arguments)
    if arguments.short:
        config["task"]["splits"] |= {"train": 100, "tune": 100}
        config["strategies"] = ["linear_probe", *({name: {"steps": SHORT_STEPS}} for name in TRAINED)]
    elif arguments.smoke:
        config["strategies"] = [{"scratch": {"steps": 12}}, "linear_probe", {"residual": {"steps": 12}}]
    else:
        config["task"]["splits"] |= {"train": 300, "tune": 200}
    return {**config, "budget": {"trials": n_trials}}


class Ours:
    """What a run told, and what it took."""

    def __init__(self) -> None:
        self.finished: list[TrialFinished] = []
        self.seconds = 0.0
        self.images = 0
        self.result: Any = None

    def notify(self, event: Event) -> None:
        """Keep every trial (events.Observer)."""
        if isinstance(event, TrialFinished):
            self.finished.append(event)
            self.images += event.trial.outcome.steps * int(event.trial.params.get("batch", 0))


class Watch:
    """Adds up the time within the run's own functions that compute; of nested ones the outer alone counts."""

    def __init__(self, device: str) -> None:
        import torch  # noqa: PLC0415

        self.device = torch.device(device)
        self.seconds = dict.fromkeys(("gradients", "optimiser", "tune", "frozen", "finalists", "solving"), 0.0)
        self.loop_s = 0.0
        self._busy = self._in_trial = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count within the block."""
        with ExitStack() as stack:
            for place, name, kind in (
                (GradientTrainer, "_gradient", "gradients"),
                (Optimiser, "step", "optimiser"),
                (GradientTrainer, "_outputs", "tune"),
                (Reader, "forward", "frozen"),
                (Extractor, "forward", "frozen"),
                (Composed, "forward", "finalists"),
                (linear, "principal_axes", "solving"),
                (logistic, "minimise", "solving"),
            ):
                stack.enter_context(mock.patch.object(place, name, self._timed(getattr(place, name), kind)))
            stack.enter_context(mock.patch.object(Bench, "execute", self._trial(Bench.execute)))
            stack.enter_context(mock.patch.object(GradientTrainer, "run", self._loop(GradientTrainer.run)))
            yield

    def _timed(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(function)  # torch.export reads a forward's signature
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._busy or (kind == "solving" and not self._in_trial):
                return function(*args, **kwargs)
            self._busy = True
            wait_for(self.device)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                wait_for(self.device)
                self.seconds[kind] += time.perf_counter() - started
                self._busy = False

        return timed

    def _trial(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def trial(*args: Any, **kwargs: Any) -> Any:
            self._in_trial = True
            try:
                return function(*args, **kwargs)
            finally:
                self._in_trial = False

        return trial

    def _loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(trainer: GradientTrainer, candidate: Any) -> Any:
            before = trainer.clock.steps_s
            try:
                return function(trainer, candidate)
            finally:
                self.loop_s += trainer.clock.steps_s - before

        return run


def measure(config: dict[str, Any]) -> tuple[Watch, Ours]:
    """Run autoxfer, nothing cached."""
    watch, ours = Watch(config["device"]), Ours()

    def run() -> None:
        ours.result = autoxfer.run(config, runs=Path(folder) / "runs", observers=[ours])

    with TemporaryDirectory() as folder:
        empty = {"AUTOXFER_CACHE": str(Path(folder) / "cache")}
        with mock.patch.dict(os.environ, empty), watch.watching():
            ours.seconds = seconds(run, watch.device)
    return watch, ours


def bound(setting: Setting, trials: Sequence[tuple[str, Any]]) -> tuple[float, float]:
    """Give the bound without the finalists' forwards, and the images a second of its steps."""
    total = images = steps_s = 0.0
    for name in setting.studies:
        first = rivals.first_trial(setting, name, None, 0)
        forward = rivals.frozen_forward(setting, name, first.params)
        if forward is not None and name.startswith(
            "residual"
        ):  # once, through the whole source: the others read on the way
            total += seconds(forward, setting.features.device)
    for study, trial in trials:
        steps = trial.outcome.steps
        few = rivals.Trial(study, trial.params, 0, min(BARE_STEPS, steps) if steps else None)
        rivals.bound(setting, few) if not steps else None  # what is cached is not computed again
        cost = rivals.bound(setting, few)
        if not steps:
            total += cost.seconds
            continue
        whole = cost.steps_s / cost.n_steps * steps
        total += whole + cost.scores_s / cost.n_scores * len(trial.outcome.curve)
        steps_s += whole
        images += steps * int(trial.params["batch"])
    return total, images / steps_s


def naive(setting: Setting, trials: Sequence[tuple[str, Any]], n_each: int) -> float:
    """Run ``n_each`` trials of every study, evenly spread, in a plain Optuna loop; scale to all of them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    total = 0.0
    for name in setting.studies:
        own = [trial for study, trial in trials if study == name]
        picked = own[:: max(1, len(own) // n_each)][:n_each]
        study = optuna.create_study(direction="maximize")

        replay = functools.partial(_replay, setting, name, picked)
        optimise = functools.partial(study.optimize, replay, n_trials=len(picked))
        spent = seconds(optimise, setting.features.device)
        total += spent * _size(own) / _size(picked)
    return total


def _replay(setting: Setting, study: str, trials: Sequence[Any], begun: optuna.Trial) -> float:
    """Run what autoxfer ran as an Optuna trial; its score."""
    trial = trials[begun.number]
    return rivals.run(setting, rivals.Trial(study, trial.params, 0, trial.outcome.steps or None), rivals.Naive).score


def _size(trials: Sequence[Any]) -> float:
    """Count what a plain loop's time is in proportion to: images through steps; of solved ones, trials."""
    return sum(trial.outcome.steps * int(trial.params.get("batch", 0)) for trial in trials) or float(len(trials))


if __name__ == "__main__":
    sys.exit(main())
