"""What a trial of each strategy takes, beside a plain loop and beside the bound that caching allows.

    python examples/benchmarks/strategies.py [--short | --smoke] [--steps N] [--digits] [--device cuda] [--json]

ResNet-20 with its published weights on cifar10_jpeg; every strategy's own defaults. Seconds per trial, in a study of 20
that share what is computed once; medians of rounds in alternating order.

- naive: the same candidate with everything before it live in every step, a DataLoader and plain AdamW (rivals.py).
- bound: the frozen part's forward over train and tune, a twentieth of it, and the bare loop's steps and forwards over
  the tune split, as many as a trial has; for what is solved in closed form, the solution on cached features.
- autoxfer: a trial as a run does it, its weights written to disk, and a twentieth of what computing the cached
  activations took.
- share: bound / autoxfer. same: whether the tune scores differ by less than three standard errors; the batches' order
  and dropout's masks are others.

The command fails where a share is below 80 % or scores differ. ``--digits`` needs no other data; ``--smoke`` neither.
"""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rivals
import torch
from common import alternate, finish, medians, parser

from autoxfer.config import load_config
from autoxfer.features import Features, resolve
from autoxfer.records import Job
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.strategy import Input
from autoxfer.trials import Bench, seeded, separate

EXAMPLES = Path(__file__).resolve().parents[1]
SHARE = 0.8  # of the bound, at least
N_TRIALS = 20  # of a study, which share what is computed once


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--digits", action="store_true", help="a small network on small pictures, from this repository")
    made.add_argument("--steps", type=int, help="of a trial; the product's default in full, 60 in short")
    made.add_argument("--strategy", action="append", help="only this one; may be repeated")
    arguments = made.parse_args()
    n_steps = arguments.steps or (12 if arguments.smoke else 60 if arguments.short else None)
    setting = prepare(load_config(configure(arguments)))
    rows = []
    with TemporaryDirectory() as folder:
        bench = setting.bench(RunFolder(Path(folder)))
        for study, plan in setting.studies.items():
            if arguments.strategy is None or plan.strategy.name in arguments.strategy:
                trial = rivals.first_trial(setting, study, n_steps, arguments.seed)
                rows.append(compare(setting, bench, trial, 1 if arguments.smoke else 3))
                if not arguments.json:
                    print(f"{study}: {rows[-1]['share']:.0%} of the bound", file=sys.stderr, flush=True)
    holds = {"share": all(row["share"] >= SHARE for row in rows), "same_score": all(row["same"] for row in rows)}
    sizes = {name: len(setting.rows(name)) for name in ("train", "tune")}
    finish(arguments, rows, sizes=sizes, steps=n_steps or "the product's default", holds=holds)
    return int(not arguments.smoke and not all(holds.values()))


def configure(arguments: Namespace) -> dict[str, Any]:
    """Write the run file; the guard split is drawn, and nobody looks at it."""
    if arguments.smoke or arguments.digits:
        digits = EXAMPLES / "digits"
        splits = (
            {"train": 60, "tune": 40, "guard": 300, "test": 297}
            if arguments.smoke
            else {"train": 400, "tune": 200, "guard": 300}
        )
        data, model, weights = digits / "digits.npz", digits / "nets.py:SmallCNN", digits / "digits_source.safetensors"
    else:
        n = (300, 100) if arguments.short else (2000, 500)
        splits = {"train": n[0], "tune": n[1], "guard": 300}
        data, model = arguments.data / "vision" / "cifar10_jpeg.npz", EXAMPLES / "networks.py:CifarResNet"
        weights = arguments.data / "weights" / "resnet20_cifar10.safetensors"
    return {
        "task": {"data": str(data), "splits": splits},
        "sources": [{"name": "source", "model": str(model), "weights": str(weights)}],
        "device": arguments.device,
        "seed": arguments.seed,
    }


def compare(setting: Setting, bench: Bench, trial: rivals.Trial, n_rounds: int) -> dict[str, Any]:
    """Time the three in turn: one row of the table."""
    plan, device = setting.studies[trial.study], setting.features.device
    job = Job(trial.study, 0, plan.strategy.name, plan.source, trial.params, trial.seed)
    found: dict[str, Any] = {}

    def naive() -> None:
        found["naive"] = rivals.run(setting, trial, rivals.Naive)

    def bare() -> None:
        found.setdefault("bare", []).append(rivals.bound(setting, trial))

    def autoxfer() -> None:
        found["autoxfer"] = bench.execute(job)

    autoxfer()  # the first use of anything is slow, and fills the cache
    forward = rivals.frozen_forward(setting, trial.study, trial.params)
    works = {"naive": naive, "bare": bare, "autoxfer": autoxfer}
    works |= {} if forward is None else {"forward": forward, "filling": lambda: fill(setting, trial)}
    times = medians(alternate(works, n_rounds, device))
    costs = sorted(found["bare"], key=lambda cost: cost.seconds)
    cost = costs[len(costs) // 2]
    least = cost.seconds + times.get("forward", 0.0) / N_TRIALS
    ours = times["autoxfer"] + times.get("filling", 0.0) / N_TRIALS
    scores = found["autoxfer"].score.value, found["naive"].score
    n = len(setting.rows("tune"))
    error = math.sqrt(sum((p * n + 1) / (n + 2) * (1 - (p * n + 1) / (n + 2)) / n for p in scores))
    steps_s = seconds_of_steps(bench, job)
    return {
        "strategy": plan.strategy.name,
        "naive_s": times["naive"],
        "bound_s": least,
        "autoxfer_s": ours,
        "share": least / ours,
        "speedup": times["naive"] / ours,
        "forward_s": times.get("forward"),
        "score": scores[0],
        "naive_score": scores[1],
        "same": abs(scores[0] - scores[1]) <= 3 * error,
        "images_per_s": cost.n_steps * int(trial.params["batch"]) / steps_s if steps_s else None,
        "bare_images_per_s": cost.n_steps * int(trial.params["batch"]) / cost.steps_s if steps_s else None,
    }


def seconds_of_steps(bench: Bench, job: Job) -> float:
    """Say how long autoxfer's steps took, by its own clock; 0 for what is solved."""
    _, trainer, _ = bench._train(job)
    return trainer.clock.steps_s


def fill(setting: Setting, trial: rivals.Trial) -> None:
    """Compute what a trial's module reads, as the first trial of a run does where nothing is on disk."""
    plan, old = setting.studies[trial.study], setting.features
    stored = {split: old.stored(split) for split in ("train", "tune")}
    features = Features(setting.features.preparation, setting.features.sources, stored, old.device)
    strategy, _ = separate(plan.strategy, trial.params, 1)
    with seeded(0, old.device):
        candidate = strategy.build(plan.problem)
    inputs: tuple[Input, ...] = tuple(resolve(name, plan.problem) for name in candidate.inputs)
    for split in stored:
        features.batch(inputs, split, torch.zeros(1, dtype=torch.int64, device=old.device))


if __name__ == "__main__":
    sys.exit(main())
