"""Show what the guard accepts of what is really better, beside theory and beside three habits that look like a test.

    python examples/evidence/power.py [--short | --smoke] [--json] [--plot FILE]

Part one: one finalist, made-up losses and real ones; the share accepted must lie within 2 points and three standard
errors of the power that ``autoxfer.guard`` computes (and plans with). Part two: whole runs with six finalists, chosen
and ordered on a tune split, judged on a guard split, the winner chosen as the product chooses; on the same draws

    guard        what autoxfer does: weighted fallback over the finalists that tuned above the baseline or near it
    top alone    the guard's test, for the finalist that tuned best and for no other
    point        that finalist, if it makes fewer mistakes on the guard split
    unpaired     that finalist, if a test of two independent shares rejects on the guard split
    same split   that finalist, if the guard's test rejects on the split that chose it

For each: the share of runs that ship something better, the share that ship something that is not, and the mean gain.
Part three: folds beside one split of the same examples, ridge regressions of which one has the better features.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folded
import numpy as np
import pictures
import procedure
import reporting
from numpy.typing import NDArray
from pools import Coins, Pool
from procedure import ALPHA, Floats, Seen

from autoxfer.guard import paired

GAINS = (0.01, 0.02, 0.05, 0.10, 0.20)
SIZES = (40, 100, 300, 1000, 5000)
N_TRAINED = np.array([300, 200, 100, 30, 10, 3])  # thousands of parameters; the winner's rule asks for them
KNOWN = (0.08, 0.07, 0.02, -0.02, -0.05, -0.10)  # found before in .95 of the runs, by the top alone in .81
SHAPE = np.array([1.0, 0.9, 0.25, 0.0, -0.5, -1.0])  # the six gains, as shares of the best


@dataclass(frozen=True)
class Single:
    """One finalist of known gain, many times."""

    name: str
    guard: int
    gain: float
    discordance: float
    accepted: float
    theory: float
    n: int
    margin: float = 0.0
    finalists: int = 1
    alpha: float = ALPHA

    @property
    def se(self) -> float:
        """Standard error of the share accepted, if theory is right."""
        return float(np.sqrt(self.theory * (1 - self.theory) / self.n))

    @property
    def kept(self) -> bool:
        """Whether it is what theory says."""
        return abs(self.accepted - self.theory) <= 0.02 + 3 * self.se

    def as_dict(self) -> dict[str, Any]:
        """Write it as JSON has it."""
        return {"part": "single", **vars(self), "se": self.se, "kept": self.kept}

    def line(self) -> str:
        """Write it as a line of the table."""
        return (
            f"{self.name:24} {100 * self.gain:5.0f} {self.discordance:6.2f} {self.guard:6}   "
            f"{self.accepted:.3f}    {self.theory:.3f}  {'ok' if self.kept else 'OFF'}"
        )


@dataclass(frozen=True)
class Run:
    """Whole runs with six finalists of known gains, many times."""

    name: str
    gains: tuple[float, ...]
    discordance: float
    tune: int
    guard: int
    n: int
    ways: dict[str, dict[str, float]]  # way -> share that ships better, share that ships what is not, mean gain
    finalists: int = 6
    alpha: float = ALPHA

    @property
    def kept(self) -> bool:
        """Whether the guard ships what is not better no more often than it promises."""
        return self.ways["guard"]["worse"] <= self.alpha + 3 * np.sqrt(self.alpha * (1 - self.alpha) / self.n)

    def as_dict(self) -> dict[str, Any]:
        """Write it as JSON has it."""
        accepted = self.ways["guard"]["better"]
        se = float(np.sqrt(accepted * (1 - accepted) / self.n))
        return {"part": "procedure", **vars(self), "accepted": accepted, "se": se, "kept": bool(self.kept)}

    def line(self) -> str:
        """Write it as a line of the table."""
        shown = "   ".join(
            f"{way['better']:.2f} {way['worse']:.3f} {100 * way['gain']:+5.1f}" for way in self.ways.values()
        )
        return f"{self.name:26} {self.guard:5}   {shown}{'' if self.kept else '  BROKEN'}"


def single(smoke: bool, rng: np.random.Generator, draws: int) -> Iterator[Single]:
    """One finalist, made up."""
    for rho in (0.12,) if smoke else (0.05, 0.12, 0.3):
        for gain in (0.05,) if smoke else [gain for gain in GAINS if gain <= rho]:
            for margin in (0.0, 0.02) if rho == 0.12 else (0.0,):
                name = f"made up{', margin 2' if margin else ''}"
                for n in (40, 300) if smoke else SIZES[:4] if margin else SIZES:
                    seen = Coins(rho, (gain,)).look(rng, n, draws, margin)
                    yield _compared(name, seen, gain, rho, draws)


def from_pools(data: Path | None, rng: np.random.Generator, draws: int) -> Iterator[Single]:
    """One finalist and its baseline, real models on real data; of each pool three that differ by little and by much."""
    import real_losses  # noqa: PLC0415  (torch and scikit-learn)

    for found in real_losses.collect(data, rng, 6):
        if found.task == "regression":
            continue
        pool = found.pool()
        differ = (pool.candidates != pool.baseline).mean(axis=1)
        for column in np.argsort(differ)[[0, 2, 5]]:
            alone = Pool("zero_one", pool.baseline, pool.candidates[[column]])
            for gain in GAINS:
                level = alone.recentred(gain, rng)
                for n in (100, 300, 1000):
                    yield _compared(found.name, level.look(rng, n, draws), gain, level.discordance, draws)


def _compared(name: str, seen: Seen, gain: float, discordance: float, draws: int) -> Single:
    accepted = float((seen.p_values() <= ALPHA).mean())
    theory = min(1.0, paired.zero_one_power(seen.n, discordance, gain, seen.bound, ALPHA))  # a sum, rounded
    return Single(name, seen.n, gain, discordance, accepted, theory, draws, -seen.bound)


def runs(smoke: bool, rng: np.random.Generator, draws: int) -> Iterator[Run]:
    """Six finalists; the discordance is .12 where not said otherwise, or as large as the gain."""
    for rho in (0.15,) if smoke else (0.12, 0.15, 0.2):
        name = f"8 7 2 -2 -5 -10, differ {100 * rho:.0f}%"
        yield whole(name, Coins(rho, KNOWN), (100, 300), rng, draws)
    families = {
        "all equal to scratch": (0.0,) * 6,
        "all 2 points worse": (-0.02,) * 6,
        **{f"best {100 * gain:.0f}, worst {-100 * gain:.0f}": tuple(gain * SHAPE) for gain in GAINS},
    }
    for name, gains in list(families.items())[: 1 if smoke else None]:
        for n in (300,) if smoke else (100, 300, 1000):
            yield whole(name, Coins(0.12, gains), (max(50, n // 3), n), rng, draws)


def of_folds(smoke: bool, rng: np.random.Generator, draws: int) -> Iterator[dict[str, Any]]:
    """One finalist whose features count for more than scratch's."""
    for kind, what in folded.KINDS:
        for strength in (1.5,) if smoke else (1.25, 1.5, 2.0):
            for n in (100,) if smoke else (60, 100, 200, 500):
                found = folded.simulate(kind, n, np.array([1.0, strength]), rng, draws)
                accepted, split = (float(one.mean()) for one in (found.folds, found.split))
                gain = float(found.shipped_gain.mean())
                named = {"part": "folds", "name": f"ridge, {what}", "examples": n, "gain": gain, "n": draws}
                yield {**named, "accepted": accepted, "one_split": split, "alpha": ALPHA}


def whole(name: str, population: Coins, sizes: tuple[int, int], rng: np.random.Generator, draws: int) -> Run:
    """Run the procedure and the naive ways on the same draws of a tune and a guard split."""
    gains, worth = population.gains, np.array([*population.gains, 0.0])  # the last one is scratch, column -1
    tuned, seen = (population.look(rng, size, draws) for size in sizes)
    accepted = procedure.judge(tuned.gain, seen.p_values(), tuned.error)
    top = tuned.gain.argmax(axis=1)
    competes = tuned.gain.max(axis=1) > 0
    unpaired = _unpaired(seen)
    passes = {
        "top alone": seen.p_values() <= ALPHA,
        "point": seen.gain > 0,
        "unpaired": unpaired <= ALPHA,
        "same split": tuned.p_values() <= ALPHA,
    }
    shipped = {"guard": procedure.choose(tuned, procedure.unlike(tuned), accepted, N_TRAINED)}
    for way, passed in passes.items():
        shipped[way] = np.where(competes & passed[np.arange(draws), top], top, -1)
    ways = {way: _outcome(columns, worth) for way, columns in shipped.items()}
    return Run(name, gains, population.discordance, *sizes, draws, ways)


def _outcome(columns: NDArray[np.int64], worth: Floats) -> dict[str, float]:
    gain, transfer = worth[columns], columns >= 0
    better, worse = transfer & (gain > 0), transfer & (gain <= 0)
    return {"better": float(better.mean()), "worse": float(worse.mean()), "gain": float(gain.mean())}


def _unpaired(seen: Seen) -> Floats:
    """P-values of the usual test that two independent shares of mistakes are equal."""
    from scipy.special import ndtr  # noqa: PLC0415

    ours = seen.baseline / seen.n
    mine = ours - seen.gain
    together = (mine + ours) / 2
    return ndtr(-seen.gain / np.sqrt(np.maximum(2 * together * (1 - together) / seen.n, 1e-12)))


def main() -> int:
    arguments = reporting.options(__doc__)
    rng = np.random.default_rng(arguments.seed)
    singles: list[Single] = []
    reporting.show(arguments, f"{'one finalist':24} {'gain':>5} {'differ':>6} {'guard':>6}   accepted theory")
    pools = from_pools(arguments.data, rng, arguments.draws)
    for source in (single(arguments.smoke, rng, arguments.draws), pools):
        for one in source:
            singles.append(one)
            reporting.show(arguments, one.line())
    reporting.show(arguments, "\nsix finalists: ships better, ships what is not better, mean gain in points")
    reporting.show(
        arguments, f"{'true gains':26} {'guard':>5}   {'guard':17}{'top alone':18}{'point':18}{'unpaired':18}same split"
    )
    families: list[Run] = []
    for family in runs(arguments.smoke, rng, arguments.draws):
        families.append(family)
        reporting.show(arguments, family.line())
    reporting.show(arguments, f"\n{'folds or a split':24} {'gain':>6} {'examples':>8}   5 folds  one split of 40/20/40")
    folds = []
    for one in of_folds(arguments.smoke, rng, arguments.draws):
        folds.append(one)
        line = (
            f"{one['name']:24} {one['gain']:6.3f} {one['examples']:8}   {one['accepted']:.3f}    {one['one_split']:.3f}"
        )
        reporting.show(arguments, line)
    summary = _sum(singles, families)
    settings = [one.as_dict() for one in (*singles, *families)] + folds
    value = {"settings": settings, "summary": summary}
    sentences = "\n".join(f"{key.replace('_', ' ')}: {item}" for key, item in summary.items())
    reporting.finish(arguments, value, sentences, lambda figure: pictures.power(figure, singles, families))
    return int(bool(summary["off_theory"] or summary["broken"]))


def _sum(singles: list[Single], families: list[Run]) -> dict[str, Any]:
    known = next(run for run in families if run.gains == KNOWN and run.discordance == 0.15)
    nothing = [run for run in families if max(run.gains) <= 0]
    ways = families[0].ways
    return {
        "off_theory": sum(not one.kept for one in singles),
        "largest_distance_from_theory": round(max(abs(one.accepted - one.theory) for one in singles), 4),
        "broken": sum(not run.kept for run in families),
        "known_run_accepted": round(known.ways["guard"]["better"], 3),
        "known_run_top_alone": round(known.ways["top alone"]["better"], 3),
        "worst_false_acceptance": {way: round(max(run.ways[way]["worse"] for run in nothing), 3) for way in ways},
    }


if __name__ == "__main__":
    sys.exit(main())
