"""Card C-1: when half of a source's filters help: over its examples, its noise, and what it shares with the target.

    python examples/papers/card_c1.py --plot c1.png

After Yuan et al., "Theory of parameter transfer", arXiv 2509.22056; network, data and notation are card C-2's, in
two_patches.py. Half of the filters are copied; 20 target examples, |u + v| = 2.2 for both tasks. Swept, one at a time:
the source's examples (else 200), its noise (else 1), the overlap |u| (else 1.5). Shown is the gain over scratch in
points of accuracy on 1,000 new examples, with its standard error; in brackets what is expected.

What is expected are means of 3 seeds, and one seed differs from the next by 2 to 4 points; so each figure has a
tolerance of 3 standard errors of such a mean, 3.5 to 7 points, and the rules of order have one of 1 point. 60 seeds
know better than 3 (standard error .5 and less): at an overlap of 0 the loss is 6.5 points and not 2.4, at .5 it is 3.9
and not .8, at 1 the gain is 2.8 and not 4.9, from a source of noise 3 it is 3.4 and not 6. No rule of order changes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cards import finish, options, table
from two_patches import inherit, mistakes, new, sample, shuffled, tasks, train

ALPHA = 0.5
LENGTH = 2.2  # |u + v|
EXPECTED: Mapping[str, Mapping[float, float]] = {  # what is swept -> its value -> gain in points
    "n_source": {20: 4.0, 50: 7.0, 100: 10.2, 200: 12.9, 400: 13.3},
    "noise": {0.5: 15.9, 1: 12.9, 2: 8.2, 3: 6.0},
    "overlap": {0: -2.4, 0.5: -0.8, 1: 4.9, 1.5: 12.9, 2: 19.6},
}
TITLES = {"n_source": "examples of the source", "noise": "noise of the source", "overlap": "overlap |u|"}
SCRATCH = 0.79  # accuracy expected
TOLERANCE = 1.0  # points
SEEDS_EXPECTED, ERRORS = 3, 3.0


@dataclass(frozen=True)
class Setting:
    """One experiment."""

    n_source: int = 200
    noise: float = 1.0
    overlap: float = 1.5
    d: int = 1000
    n_target: int = 20
    n_test: int = 1000


def main() -> None:
    arguments = options(__doc__, seeds=60)
    setting = Setting(d=200, n_test=200) if arguments.smoke else Setting()
    value = summarise(sweep(arguments.seeds, setting))
    if not arguments.json:
        show(value, arguments)
    finish(arguments, value, lambda figure: draw(figure, value))


Found = Mapping[str, Mapping[float, Sequence[tuple[float, float]]]]  # swept -> value -> (gain, scratch) of each seed


def sweep(n_seeds: int, setting: Setting) -> Found:
    """Simulate every setting of the three sweeps; those that are alike only once."""
    done: dict[Setting, list[tuple[float, float]]] = {}
    found: dict[str, dict[float, Sequence[tuple[float, float]]]] = {}
    for name, values in EXPECTED.items():
        found[name] = {}
        for value in values:
            changed = replace(setting, **{name: type(getattr(setting, name))(value)})
            if changed not in done:
                done[changed] = [simulate(changed, seed) for seed in range(n_seeds)]
            found[name][value] = done[changed]
    return found


def simulate(setting: Setting, seed: int) -> tuple[float, float]:
    """Train scratch and half a source on one draw: the gain in points, and scratch's accuracy."""
    rng = np.random.default_rng(seed)
    source_task, target_task = tasks(setting.overlap, LENGTH, setting.d)
    source = train(new(rng, setting.d), sample(rng, setting.n_source, source_task, setting.noise))
    target, test = sample(rng, setting.n_target, target_task), sample(rng, setting.n_test, target_task)
    fresh, order = new(rng, setting.d), shuffled(rng)
    networks = [train(inherit(fresh, source, order, alpha), target) for alpha in (0.0, ALPHA)]
    scratch, transfer = mistakes(networks, test).mean(1)
    return float(100 * (scratch - transfer)), float(1 - scratch)


def summarise(found: Found) -> dict[str, Any]:
    """Average over seeds, and see what must hold."""
    gains = {
        name: {value: float(np.mean(runs, 0)[0]) for value, runs in settings.items()}
        for name, settings in found.items()
    }
    spreads = {
        name: {value: float(np.std(runs, 0, ddof=min(1, len(runs) - 1))[0]) for value, runs in settings.items()}
        for name, settings in found.items()
    }
    n_seeds = len(found["overlap"][0])
    return {
        "card": "C-1",
        "seeds": n_seeds,
        "scratch": float(
            np.mean([accuracy for each in found.values() for runs in each.values() for _, accuracy in runs])
        ),
        "gains": gains,
        "errors": {name: {at: sd / n_seeds**0.5 for at, sd in each.items()} for name, each in spreads.items()},
        "expected": EXPECTED,
        "holds": holds(gains, spreads, n_seeds),
    }


def holds(
    gains: Mapping[str, Mapping[float, float]], spreads: Mapping[str, Mapping[float, float]], n_seeds: int
) -> dict[str, bool]:
    """Hold the figures against what the card asks of them."""
    rising = {name: np.diff(list(each.values())) for name, each in gains.items()}
    overlap = gains["overlap"]
    near = [
        abs(gains[name][at] - told) <= ERRORS * spreads[name][at] * (1 / SEEDS_EXPECTED + 1 / n_seeds) ** 0.5
        for name, each in EXPECTED.items()
        for at, told in each.items()
    ]
    return {
        "more examples of the source: ever better": bool((rising["n_source"] > -TOLERANCE).all()),
        "more noise in the source: ever worse": bool((rising["noise"] < TOLERANCE).all()),
        "more overlap: ever better": bool((rising["overlap"] > -TOLERANCE).all()),
        "harm turns into help between overlaps of .5 and 1": overlap[0.5] < 0 < overlap[1],
        "overlap 2: 15 points gained": overlap[2] >= 15,
        "every figure within 3 standard errors of a mean of 3 seeds": all(near),
    }


def show(value: dict[str, Any], arguments: argparse.Namespace) -> None:
    for name, gains in value["gains"].items():
        errors = value["errors"][name]
        cells = [f"{gain:+.1f}+-{errors[at]:.1f} ({EXPECTED[name][at]:+.1f})" for at, gain in gains.items()]
        table(TITLES[name], [f"{at:g}" for at in gains], {"gain, points": cells})
        print()
    print(f"scratch {value['scratch']:.3f} ({SCRATCH}); {arguments.seeds} seeds")


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw the gains of each sweep; dotted what is expected."""
    figure.set_size_inches(11, 4)
    for place, (name, gains) in enumerate(value["gains"].items(), 1):
        axes = figure.add_subplot(1, len(value["gains"]), place)
        errors = [2 * each for each in value["errors"][name].values()]
        axes.errorbar(list(gains), list(gains.values()), errors, marker="o", capsize=3, label="seen, +- 2 errors")
        axes.plot(list(gains), list(EXPECTED[name].values()), ":", marker="x", color="black", label="expected")
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(xlabel=TITLES[name], ylim=(-10, 23))
    axes.legend(loc="lower right")
    figure.supylabel("gain over scratch, points")
    figure.suptitle("Card C-1: half of a source's filters are copied")


if __name__ == "__main__":
    main()
