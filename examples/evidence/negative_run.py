"""One run of negative_transfer.py: search and judge as ever, then ask every finalist for the truth."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from corrupted import PAIRS, write_whole
from negative_summary import POWER
from numpy.typing import NDArray

import autoxfer
from autoxfer.config import load_config
from autoxfer.events import Event, TrialFinished
from autoxfer.guard import paired
from autoxfer.records import StudyResult, Trial, derive_seed
from autoxfer.runfolder import RunFolder
from autoxfer.searching import job_of
from autoxfer.setting import prepare

ALPHA = 0.05
QUICK = [{"scratch": {"steps": 20}}, "linear_probe", {"fine_tune": {"steps": 20}}]  # of the smoke test


@dataclass(frozen=True)
class Plan:
    """One run to be done."""

    pair: str
    n: int
    seed: int
    trials: int
    quick: bool = False  # few strategies and steps, for a smoke test

    @property
    def file(self) -> str:
        return f"{self.pair}-{self.n}-{self.seed}.json"


@dataclass
class Watcher:
    """Remembers the trials, of which the best are the finalists."""

    trials: dict[str, list[Trial]] = field(default_factory=dict)

    def notify(self, event: Event) -> None:
        if isinstance(event, TrialFinished):
            self.trials.setdefault(event.study, []).append(event.trial)


def perform(plan: Plan, place: Path, shared: Path) -> dict[str, Any]:
    """Do one run in this process, and ask every finalist for the truth."""
    started = time.monotonic()
    pair = PAIRS[plan.pair]
    made, splits = pair.make(place / "material", shared), pair.splits(plan.n)
    config = {
        **made,
        "task": {**made["task"], "splits": splits},
        "budget": {"trials": plan.trials},
        "guard": {"alpha": ALPHA},
        "device": "cpu",
        "seed": derive_seed(plan.pair, plan.n, plan.seed),  # draws of its own: one lucky baseline must not count often
    }
    if plan.quick:
        config["strategies"] = QUICK
    watcher = Watcher()
    with TemporaryDirectory() as runs, contextlib.redirect_stdout(sys.stderr):
        result = autoxfer.run(config, runs=runs, mlflow=place / "material" / "mlflow.yaml", observers=[watcher])
        losses, scale = answers(config, result, watcher)
    run = describe(plan, result, losses, scale) | {"splits": splits, "seconds": time.monotonic() - started}
    write_whole(place / plan.file, lambda path: path.write_text(json.dumps(run)))
    return run


def answers(
    config: dict[str, Any], result: autoxfer.Result, watcher: Watcher
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Let every finalist, as it was judged, answer the test split: losses by study, and what a gain is divided by."""
    setting = prepare(load_config(config))
    bench = setting.bench(RunFolder(result.folder))
    labels = setting.targets["test"].labels
    losses = {}
    for entry in result.record.entries:
        best = StudyResult(entry.study, entry.strategy, entry.source, tuple(watcher.trials[entry.study]), 0.0).best
        if best is None:
            continue
        job = job_of(setting, entry.study, best)
        predictions = bench.predict(bench.compose(entry.study, bench.rebuild(job)), "test")
        value = setting.metric.value(predictions, labels)
        if entry.test is None or abs(value - entry.test) > 1e-9:
            raise RuntimeError(f"{entry.study} scored {entry.test} on test in the run, and {value} afterwards")
        losses[entry.study] = setting.metric.losses(predictions, labels)
    return losses, 1.0 if setting.metric.kind == "zero_one" else float(np.var(labels))


def describe(
    plan: Plan, result: autoxfer.Result, losses: dict[str, NDArray[np.float64]], scale: float
) -> dict[str, Any]:
    """Set what the guard said beside the truth."""
    entries = {entry.study: entry for entry in result.record.entries}
    scratch, winner = entries["scratch"], result.record.winner
    transfers = [study for study in losses if study != "scratch"]
    level = ALPHA / 2 if len(transfers) > 1 else ALPHA
    finalists = {}
    for study in transfers:
        entry, verdict = entries[study], entries[study].verdict
        assert verdict is not None
        finalists[entry.strategy] = {
            "decision": verdict.decision,
            "level": verdict.level,
            "seen": 100 * verdict.effect / scale,
            "p_value": verdict.p_value,
            **{name: getattr(entry, name) for name in ("tune", "guard", "test", "params", "n_complete")},
            **truth(losses["scratch"] - losses[study], verdict.n, level, scale),
        }
    harmful = [found for found in finalists.values() if found["high"] < 0]
    helpful = any(found["power"] >= POWER for found in finalists.values())
    accepted = any(found["decision"] == "accepted" for found in finalists.values())
    return {
        "pair": plan.pair,
        "n": plan.n,
        "seed": plan.seed,
        "plan": asdict(plan),
        "metric": result.record.task["metric"],
        "scratch": {name: getattr(scratch, name) for name in ("tune", "guard", "test", "params")},
        "finalists": finalists,
        "winner": winner.strategy,
        "harmful_total": len(harmful),
        "harmful_accepted": sum(found["decision"] == "accepted" for found in harmful),
        "helpful_total": int(helpful),
        "helpful_accepted": int(helpful and accepted),
    }


def truth(differences: NDArray[np.float64], n_guard: int, level: float, scale: float) -> dict[str, float]:
    """Give the true gain and its 95% interval in points, and the power that the guard had to find it."""
    n, gain = len(differences), float(differences.mean())
    if np.isin(differences, (-1, 0, 1)).all():
        fixed, broken = int((differences > 0).sum()), int((differences < 0).sum())
        low, high = paired.score_bound(fixed, broken, n, 0.025), -paired.score_bound(broken, fixed, n, 0.025)
        spread = (fixed + broken) / n
        power = paired.zero_one_power(n_guard, spread, gain, 0.0, level)
    else:
        from scipy.stats import nct  # noqa: PLC0415

        spread = float(differences.std(ddof=1))
        half = paired.student_quantile(n, 0.975) * spread / n**0.5
        low, high = gain - half, gain + half
        power = float(nct.sf(paired.student_quantile(n_guard, 1 - level), n_guard - 1, gain * n_guard**0.5 / spread))
    return {
        "gain": 100 * gain / scale,
        "low": 100 * low / scale,
        "high": 100 * high / scale,
        "power": power,
        "spread": spread,
        "n_test": n,
    }
