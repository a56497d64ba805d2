"""Count how often the guard accepts what is not better, from real losses and from made-up ones.

    python examples/evidence/false_acceptance.py [--short | --smoke] [--json] [--plot FILE]

Every draw is a whole run but for the training: each study tries trials and keeps the one that tunes best, those above
the baseline or near it compete in the order of their tune scores, and the guard judges them as one family. All
candidates are exactly as good as the baseline ("zero gain"), or worse by exactly the margin that is tolerated
("harm"). The promise: in no setting is anything accepted in more than alpha of the draws, plus three standard errors
(for tests marked approximate, "~", 1.5 alpha). Rows marked "limit" are outside it. They show what the guard cannot
see, or was not told: losses so rare that few splits hold one (2% of errors four times larger; classifiers that give
the truth a probability of zero), and examples in groups without their group column.
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
import wholes
from pools import Coins, Errors, Pool, Population
from procedure import ALPHA, TUNE

from autoxfer.metrics import get_metric

MARGIN = 0.02  # points of accuracy, or a share of the baseline's loss
FINALISTS = (1, 6, 20)
N_TRIALS = 20  # of all studies together
ZERO_ONE = (40, 100, 300, 1000, 5000)  # guard examples
REAL = (50, 100, 300, 1000)
LEAST = get_metric("log_loss", "classification").least
GROUPS = (30, 100)
IMPOSSIBLE = 30.0  # log loss of a truth that was given a probability of zero, or nearly so


@dataclass(frozen=True)
class Row:
    """One setting, and what came of it."""

    name: str
    guard: int
    finalists: int
    accepted: float  # share of the draws in which anything was accepted that is not better
    n: int  # draws
    margin: float = 0.0
    approximate: bool = False
    limit: bool = False
    discordance: float | None = None
    alpha: float = ALPHA

    @property
    def allowed(self) -> float:
        """The promise, with its allowance for chance."""
        promised = 1.5 * self.alpha if self.approximate else self.alpha
        return promised + 3 * float(np.sqrt(promised * (1 - promised) / self.n))

    @property
    def kept(self) -> bool:
        """Whether the promise is."""
        return self.limit or self.accepted <= self.allowed

    @property
    def se(self) -> float:
        """Standard error of the share accepted."""
        return float(np.sqrt(self.accepted * (1 - self.accepted) / self.n))

    def as_dict(self) -> dict[str, Any]:
        """Write it as JSON has it."""
        return {**vars(self), "se": self.se, "allowed": self.allowed, "kept": self.kept}

    def line(self) -> str:
        """Write it as a line of the table."""
        mark = "limit" if self.limit else "ok" if self.kept else "BROKEN"
        about = "~" if self.approximate else " "
        return (
            f"{self.name:52} {self.guard:5} {self.finalists:3}  {self.accepted:.4f} +- {self.se:.4f}  "
            f"{about}{self.allowed:.4f}  {mark}"
        )


HEAD = f"{'setting':52} {'guard':>5} {'of':>3}  {'accepted':16}   allowed"


@dataclass(frozen=True)
class Case:
    """A population, what is asked of it, and how many of its first candidates are truly better."""

    name: str
    population: Population
    margin: float
    sizes: tuple[int, ...]
    discordance: float | None = None
    limit: bool = False
    n_better: int = 0  # with these, each candidate is a finalist

    def rows(self, rng: np.random.Generator, draws: int) -> Iterator[Row]:
        """Draw splits of each size; families of every size share them."""
        n_candidates = self.population.n_candidates
        families = [n_candidates] if self.n_better else [k for k in FINALISTS if k <= n_candidates]
        for n in self.sizes:
            tune = self.population.look(rng, min(n // 2, TUNE), draws)
            seen = self.population.look(rng, n, draws, self.margin)
            values = tune.gain, seen.p_values(), tune.error
            for k in families:
                best = procedure.search(tune, k)
                accepted = procedure.judge(*(np.take_along_axis(one, best, 1) for one in values))
                share = float(accepted[:, self.n_better :].any(axis=1).mean())
                flags = (seen.approximate, self.limit, self.discordance)
                yield Row(self.name, n, k, share, draws, self.margin, *flags)


def made_up(*, smoke: bool) -> Iterator[Case]:
    """Losses drawn from formulas."""
    for margin, what in ((0.0, "zero gain"), (MARGIN, "harm")):
        gains = (-margin,) * N_TRIALS
        for rho in (0.12,) if smoke else (0.05, 0.12, 0.3):
            name, mixed = f"0/1, made up, differ {rho:.0%}", (0.08,) * 3 + (-margin,) * 3
            sizes = (40, 300) if smoke else ZERO_ONE[: 4 if margin else 5]
            yield Case(f"{name}, {what}", Coins(rho, gains), margin, sizes, rho)
            yield Case(f"{name}, {what} beside 3 that gain 8", Coins(rho, mixed), margin, sizes[:4], rho, n_better=3)
        if not smoke and margin:  # Tango's sums are long at this size
            yield Case(f"0/1, made up, differ 12%, {what}", Coins(0.12, gains[:6]), margin, (5000,), 0.12)
        for tail in ("gaussian", "t3"):
            name = f"squared error, made up, {tail}, {what}"
            yield Case(name, Errors(tail, gains), margin, (100,) if smoke else REAL)
            if not smoke:
                yield Case(name, Errors(tail, gains[:6]), margin, (5000,))
        if not smoke:
            rare = Errors("gaussian", gains, blow_ups=0.02)
            yield Case(f"squared error, 2% four times larger, {what}", rare, margin, REAL, limit=True)


def from_pools(data: Path | None, rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Losses of real models on real data; without a folder of data, of scikit-learn's digits."""
    import real_losses  # noqa: PLC0415  (torch and scikit-learn)

    for found in real_losses.collect(data, rng, N_TRIALS):
        for metric in ("accuracy", "log_loss") if found.task == "classification" else ("rmse", "mae"):
            for case in _level(f"{metric}, {found.name}", found.pool(metric), rng, smoke=data is None):
                yield from case.rows(rng, draws)
        n_slow = draws if data else draws // 5
        for margin, what in ((0.0, "zero gain"), (MARGIN, "harm"))[: 2 if data else 1]:
            for name, n, k, share in wholes.of_all_examples(found, margin, rng, n_slow):
                yield Row(f"{name}, {what}", n, k, share, n_slow, margin, approximate=True)


def _level(name: str, pool: Pool, rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]:
    """Make all candidates equal; those that rule out what is true stand apart."""
    for margin, what in ((0.0, "zero gain"), (MARGIN, "harm")):
        level = pool.recentred(-margin, rng)
        if pool.kind == "zero_one":
            sizes = (40, 300) if smoke else ZERO_ONE[: 4 if margin else 5]
            yield Case(f"{name}, {what}", level, margin, sizes, level.discordance)
            continue
        rash = pool.candidates.max(axis=1) > IMPOSSIBLE if name.startswith("log_loss") else np.zeros(N_TRIALS, bool)
        for chosen, about in ((~rash, ""), (rash, ", zeros")):
            if chosen.any():
                part = Pool("real", level.baseline, level.candidates[chosen])
                sizes = (100,) if smoke else (LEAST, *REAL[1:]) if name.startswith("log_loss") else REAL
                yield Case(f"{name}{about}, {what}", part, margin, sizes, limit=bool(about))


def everything(data: Path | None, rng: np.random.Generator, draws: int, *, smoke: bool) -> Iterator[Row]:
    """Yield all rows."""
    for case in made_up(smoke=smoke):
        yield from case.rows(rng, draws)
    yield from from_pools(data, rng, draws)
    for (name, n, k, share), untold in wholes.in_groups(GROUPS[: 1 if smoke else 2], rng, draws):
        yield Row(name, n, k, share, draws, approximate=True, limit=untold)
    for name, n, k, share in folded.settings(smoke, rng, draws):
        yield Row(name, n, k, share, draws, approximate=name.startswith("5 folds"))


def main() -> int:
    arguments = reporting.options(__doc__)
    rng, rows = np.random.default_rng(arguments.seed), []
    reporting.show(arguments, HEAD)
    for row in everything(arguments.data, rng, arguments.draws, smoke=arguments.smoke):
        rows.append(row)
        reporting.show(arguments, row.line())
    broken = sum(not row.kept for row in rows)
    judged = [row for row in rows if not row.limit]
    worst = max(judged, key=lambda row: row.accepted - row.allowed)
    where = f"{worst.name}, guard {worst.guard}, of {worst.finalists}"
    sentence = (
        f"{len(judged)} settings of {arguments.draws:,} draws: the promise is broken in {broken}. "
        f"Nearest to its bound: {where}: {worst.accepted:.4f} where {worst.allowed:.4f} is allowed"
    )
    value = {"settings": [row.as_dict() for row in rows], "summary": {"broken": broken, "sentence": sentence}}
    reporting.finish(arguments, value, sentence, lambda figure: pictures.false_acceptance(figure, rows))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
