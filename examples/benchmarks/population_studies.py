"""Whole studies for ``populations.py``: trials one by one and together, asked one by one and in generations."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from common import wait_for
from stacking import Member, Stack

from autoxfer import tuning
from autoxfer.config import load_config
from autoxfer.engines import Engine, InlineExecutor
from autoxfer.records import Job, Outcome, StudyResult, TrialState, derive_seed
from autoxfer.runfolder import RunFolder
from autoxfer.searching import JobMaker, job_maker
from autoxfer.setting import Setting, prepare
from autoxfer.strategy import Candidate, Fitted
from autoxfer.traindata import TrainTensors
from autoxfer.training import GradientTrainer
from autoxfer.trials import Bench, seeded

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tables"))
import transfer  # type: ignore[import-not-found]

CPU = torch.device("cpu")
STRATEGIES = ("fine_tune", "partial_transfer", "residual", "adapters", "lora")
TABLES = {"wine": 50, "adult": 300}  # rows to learn from


def studies(arguments: argparse.Namespace, n_trials: int) -> Iterator[dict[str, Any]]:
    """Compare whole studies, trial by trial and with what can be trained together."""
    for name in ["made up"] if arguments.smoke else TABLES:
        with TemporaryDirectory() as folder:
            bench, searches = begin(arguments, name, n_trials, arguments.seed, Path(folder))
            for study, make in searches:
                yield {"table": name, **compare(bench, study, make)}


def compare(bench: Bench, study: tuning.Study, make: JobMaker) -> dict[str, Any]:
    """Train every generation of a study both ways, and tell what came of its trials alone."""
    device, seconds, sizes, off = bench._features.device, defaultdict[str, float](float), list[int](), list[float]()
    while generation := study.ask(together_at_most(study.n_trials)):
        jobs = [replace(make(each.number, each.params, each.floors), bars=each.bars) for each in generation]
        found: dict[str, Any] = {}

        def alone(jobs: Sequence[Job] = jobs, found: dict[str, Any] = found) -> None:
            found["alone"] = [bench._train(job) for job in jobs]

        def joint(jobs: Sequence[Job] = jobs, found: dict[str, Any] = found) -> None:
            found["joint"] = together(bench, jobs, sizes)

        for work in [alone, joint][:: 1 if len(off) % 2 else -1]:
            seconds[work.__name__] += clocked(work, device)
        for begun, (_, trainer, fitted), other in zip(generation, found["alone"], found["joint"], strict=True):
            off.append(abs(fitted.score.value - other.score.value) / max(abs(fitted.score.value), 1e-9))
            state: TrialState = "pruned" if trainer.pruned else "complete"
            study.tell(begun.number, Outcome(state, fitted.score, fitted.curve, steps=fitted.steps))
    return {
        "study": study.id,
        "trials": len(off),
        "stacks": " ".join(map(str, sorted(sizes))) or "none",
        "alone_s": seconds["alone"],
        "joint_s": seconds["joint"],
        "joint_times": seconds["alone"] / seconds["joint"],
        "score_off": max(off),  # as a share of the score
    }


def asking(arguments: argparse.Namespace, n_trials: int) -> Iterator[dict[str, Any]]:
    """Compare studies asked one trial after the other and in generations; all trials are trained alone."""
    for name in ["made up"] if arguments.smoke else TABLES:
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for seed in range(arguments.seeds):
            pairs: dict[str, list[tuple[float, int]]] = defaultdict(list)
            for n in (1, together_at_most(n_trials)):
                with TemporaryDirectory() as folder:
                    bench, searches = begin(arguments, name, n_trials, seed, Path(folder))
                    for study, make in searches:
                        trials = tuning.tune(study, make, bench.execute, Engine(InlineExecutor(), n))
                        best = StudyResult("", "", None, trials, 0.0).best
                        rank = float("nan") if best is None or best.outcome.score is None else best.outcome.score.rank
                        pairs[study.id].append((rank, sum(trial.outcome.steps for trial in trials)))
            for study_id, ((rank, steps), (rank_joint, steps_joint)) in pairs.items():
                found[study_id].append((rank_joint - rank, steps_joint / steps))
        for study_id, values in found.items():
            gains, steps_times = np.array(values).T
            yield {
                "table": name,
                "study": study_id,
                "searches": len(gains),
                "rank_gain": gains.mean(),
                "standard_error": gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else None,
                "better": int((gains > 0).sum()),
                "worse": int((gains < 0).sum()),
                "steps_times": steps_times.mean(),
            }


def together_at_most(n_trials: int | None) -> int:
    """Say how many trials a generation has: a quarter of all, at most 8."""
    return max(1, min(8, (n_trials or 1) // 4))


def together(bench: Bench, jobs: Sequence[Job], sizes: list[int]) -> list[Fitted]:
    """Train jobs, those of one structure as one program where that computes the same; note the programs' sizes."""
    members = [_prepared(bench, job) for job in jobs]
    alike: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        if member.fitted is None:
            alike[structure(member.candidate)].append(member)
    for group in alike.values():
        stack = Stack(group)
        if len(group) > 1 and stack.fits():
            stack.run()
            sizes.append(len(group))
            continue
        for member in group:
            with seeded(0, CPU):
                torch.set_rng_state(member.generator.get_state())
                member.fitted = member.trainer.run(member.candidate)
    return [member.fitted for member in members if member.fitted is not None]


def structure(candidate: Candidate) -> str:
    """Name what two candidates must share to be trained together."""
    module = candidate.module
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in module.named_parameters()]
    kinds = [type(part).__name__ for part in module.modules()]
    return repr((kinds, shapes, candidate.inputs, sorted(candidate.frozen), candidate.penalty is None))


class _BegunError(Exception):
    """Ends a strategy's ``fit`` where training by gradient would begin."""


class _UpToTraining:
    """A trainer that ends ``fit`` there; what follows it is left out, in favour of training together."""

    def __init__(self, trainer: GradientTrainer) -> None:
        self.recipe, self.score, self.choose = trainer.recipe, trainer.score, trainer.choose

    def run(self, candidate: Candidate) -> Fitted:
        raise _BegunError


def _prepared(bench: Bench, job: Job) -> Member:
    """Build a job's candidate and do what its strategy does before training; all of it, where it solves it."""
    problem, features, labels = bench._problems[job.study], bench._features, bench._labels
    strategy, recipe = bench._separate(job.study, job.params)
    with seeded(derive_seed(job.seed, "build"), features.device):
        candidate = strategy.build(problem)
    settings = {"seed": job.seed, "floors": job.floors, "bars": job.bars}
    trainer = GradientTrainer(features, problem, labels, bench._targets["tune"], recipe, **settings)  # type: ignore[arg-type]
    generator, fitted = torch.Generator(), None
    with seeded(derive_seed(job.seed, "fit"), features.device):
        try:
            fitted = strategy.fit(candidate, TrainTensors(features, problem, labels), _UpToTraining(trainer))
        except _BegunError:
            candidate.module.to(features.device)
        generator.set_state(torch.get_rng_state())
    member = Member(candidate, trainer, generator)
    member.fitted = fitted
    return member


def begin(
    arguments: argparse.Namespace, name: str, n_trials: int, seed: int, folder: Path
) -> tuple[Bench, list[tuple[tuning.Study, JobMaker]]]:
    """Prepare a table, its source and its studies."""
    setting = table_setting(arguments, name, n_trials, seed, folder)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    bench = Bench(
        folder=run,
        strategies={study: plan.strategy for study, plan in setting.studies.items()},
        problems={study: plan.problem for study, plan in setting.studies.items()},
        features=setting.features,
        labels=setting.labels,
        targets=setting.targets,
        default_steps=lambda batch: tuning.default_steps(len(setting.labels), batch),
    )
    journal = tuning.Journal(run.journal)
    return bench, [
        (
            tuning.Study(journal, study, plan.space, plan.defaults, seed=seed, n_trials=n_trials),
            job_maker(setting, study),
        )
        for study, plan in setting.studies.items()
        if plan.source is not None
    ]


def table_setting(arguments: argparse.Namespace, name: str, n_trials: int, seed: int, folder: Path) -> Setting:
    """Train the source of ``examples/tables``, write its run file with our sizes, and read it."""
    pair = made_up() if name == "made up" else getattr(transfer, name)(arguments.data / "tabular")
    n_train = TABLES.get(name, 40)
    stem = name.replace(" ", "_")
    transfer.write_source(pair, folder / f"{stem}_source.safetensors", 30 if arguments.smoke else 500)
    pair.target.to_csv(folder / f"{stem}.csv", index=False)
    file = transfer.write_run(stem, pair, folder, n_trials, seed)
    run = yaml.safe_load(file.read_text())
    run["task"]["splits"] = {"train": n_train, "tune": max(n_train // 2, 60 if arguments.smoke else 150), "guard": 100}
    run["strategies"] = [{each: {"steps": [12, 24]}} if arguments.smoke else each for each in arguments.strategies]
    run["device"] = arguments.device
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    return prepare(load_config(file))


def made_up() -> transfer.Pair:
    """Make a table of three columns that decide between two classes, for where no data are at hand."""
    rng = np.random.default_rng(0)
    columns = pd.DataFrame(rng.normal(size=(600, 3)), columns=["a", "b", "c"])
    columns["kind"] = np.where(columns["a"] + columns["b"] ** 2 > 0.5, "high", "low")
    return transfer.Pair(columns[:300], columns[300:], "kind", {})


def clocked(work: Callable[[], object], device: torch.device) -> float:
    """Time one call: CPU seconds, which others on the machine hardly change; on a GPU seconds."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    wait_for(device)
    started = clock()
    work()
    wait_for(device)
    return clock() - started
