"""Card D-4: a source that learned an easy task helps with a hard one; the other way round it hardly matters.

    python examples/papers/card_d4.py --plot d4.png

After Lauditi, Bordelon and Pehlevan, arXiv 2507.04448, ICLR 2026, where both tasks are learned richly. A two-layer ReLU
network in the mean-field scaling learns a Hermite polynomial of one direction by 300 full-batch steps, from 1,000
examples; then, its hidden layer kept and its readout new, another polynomial of the same direction from 100. Scratch
learns those with a hidden layer that is new too.

    f(x) = 1 / (gamma N) sum_i z_i relu(w_i'x / sqrt(D)),   y = He_k(u'x),   D = 20, N = 500, rate gamma^2 N

Shown is the mean squared error on 4,000 new examples, scratch -> transfer, over gamma_2, the richness of the second
training (that of the first is 1); in brackets what is expected, for two seeds and two values of gamma_2. The card
leaves the rate and gamma_1 open; both are 1 here, and figures differ from the card's by up to .22, what varies from
draw to draw included.

What must hold, on means of 40 seeds: easy to hard gains 15% and more, and more where gamma_2 is small, as scratch,
nearly lazy, does not find the direction; hard to easy gains less than 20%. That the latter is near to neutral, as two
seeds said, holds up to gamma_2 = .5 (-4% and 0%) and no further: transfer costs 11% at 1 and 31% at 2, there in 35 of
40 seeds. Its source knows nothing of its own task, with an error above 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from math import factorial
from typing import Any

import numpy as np
from cards import finish, options, table
from numpy.polynomial.hermite_e import hermeval
from numpy.typing import NDArray

D, WIDTH = 20, 500  # WIDTH is N
N_SOURCE, N_TARGET, N_TEST = 1000, 100, 4000
STEPS, RATE, RICH = 300, 1.0, 1.0  # RICH is gamma_1
PAIRS = {"easy to hard": (1, 2), "hard to easy": (3, 1)}  # degrees of source and target
GAMMAS = (0.2, 0.5, 1.0, 2.0)  # gamma_2
EXPECTED: Mapping[str, Mapping[float, tuple[float, float]]] = {  # pair -> gamma_2 -> scratch, transfer
    "easy to hard": {0.2: (0.961, 0.406), 1.0: (0.535, 0.414)},
    "hard to easy": {0.2: (0.039, 0.032), 1.0: (0.018, 0.017)},
}
Floats = NDArray[np.floating[Any]]  # float32
Layers = tuple[Floats, Floats]  # W (N, D), z (N,)
Errors = NDArray[np.float64]


def main() -> None:
    arguments = options(__doc__, seeds=40)
    steps = 5 if arguments.smoke else STEPS
    found = {
        pair: [simulate(*degrees, seed, steps) for seed in range(arguments.seeds)] for pair, degrees in PAIRS.items()
    }
    value = summarise(found)
    if not arguments.json:
        show(value, arguments)
    finish(arguments, value, lambda figure: draw(figure, value))


def hermite(degree: int, u: Floats) -> Floats:
    """Evaluate the normalised Hermite polynomial."""
    found: Floats = hermeval(u, np.eye(degree + 1)[degree] / factorial(degree) ** 0.5).astype(np.float32)
    return found


def train(layers: Layers, examples: Floats, y: Floats, gamma: float, steps: int) -> Layers:
    """Descend half the mean squared error by its full gradient, at the rate RATE gamma^2 N."""
    (W, z), inputs = layers, examples / np.float32(D**0.5)
    for _ in range(steps):
        before = inputs @ W.T
        after = np.maximum(before, 0)
        missing = (RATE * gamma * (y - after @ z / (gamma * WIDTH)) / len(y)).astype(np.float32)
        W, z = W + ((before > 0) * missing[:, None] * z).T @ inputs, z + after.T @ missing
    return W, z


def error(layers: Layers, examples: Floats, y: Floats, gamma: float) -> float:
    """Give the mean squared error."""
    W, z = layers
    return float(((y - np.maximum(examples @ W.T / D**0.5, 0) @ z / (gamma * WIDTH)) ** 2).mean())


def simulate(source_degree: int, degree: int, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train source, scratch and transfer on one draw: errors (scratch, transfer) for each gamma_2."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Floats:
        return rng.standard_normal(shape, dtype=np.float32)

    X_1, X_2, X_test = (normal(n, D) for n in (N_SOURCE, N_TARGET, N_TEST))
    source = train((normal(WIDTH, D), normal(WIDTH)), X_1, hermite(source_degree, X_1[:, 0]), RICH, steps)
    fresh, readout = normal(WIDTH, D), normal(WIDTH)
    labels, test = hermite(degree, X_2[:, 0]), hermite(degree, X_test[:, 0])
    errors = []
    for gamma in GAMMAS:
        trained = [train((hidden, readout), X_2, labels, gamma, steps) for hidden in (fresh, source[0])]
        errors.append([error(layers, X_test, test, gamma) for layers in trained])
    return {"source": error(source, X_test, hermite(source_degree, X_test[:, 0]), RICH), "errors": errors}


def summarise(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Average over seeds, and see what must hold."""
    means = {pair: np.mean([run["errors"] for run in runs], 0) for pair, runs in found.items()}  # (gammas, 2)
    gains = {pair: 1 - each[:, 1] / each[:, 0] for pair, each in means.items()}
    seeds = {  # in how many seeds transfer is better
        pair: np.mean([np.subtract(*np.array(run["errors"]).T) > 0 for run in runs], 0).tolist()
        for pair, runs in found.items()
    }
    up, down = gains["easy to hard"], gains["hard to easy"]
    return {
        "card": "D-4",
        "gammas": GAMMAS,
        "errors": {pair: each.tolist() for pair, each in means.items()},
        "source_errors": {pair: float(np.mean([run["source"] for run in runs])) for pair, runs in found.items()},
        "gains": {pair: each.tolist() for pair, each in gains.items()},
        "share_of_seeds_better": seeds,
        "expected": EXPECTED,
        "holds": {
            "easy to hard: at least 15% gained at every gamma_2": bool((up >= 0.15).all()),
            "easy to hard: more gained at gamma_2 = .2 than at 1": bool(up[0] > up[GAMMAS.index(1.0)]),
            "hard to easy: less than 20% gained": bool((down < 0.2).all()),
        },
    }


def show(value: dict[str, Any], arguments: argparse.Namespace) -> None:
    rows = {}
    for pair, errors in value["errors"].items():
        told = EXPECTED[pair]
        rows[pair] = [
            f"{scratch:.3f} -> {transfer:.3f}"
            + (f" ({told[gamma][0]:.3f} -> {told[gamma][1]:.3f})" if gamma in told else "")
            for gamma, (scratch, transfer) in zip(GAMMAS, errors, strict=True)
        ]
        rows[f"{pair}, gained"] = [f"{gain:.0%}" for gain in value["gains"][pair]]
        rows[f"{pair}, seeds better"] = [f"{share:.0%}" for share in value["share_of_seeds_better"][pair]]
    table("", [f"gamma_2 = {gamma:g}" for gamma in GAMMAS], rows)
    sources = ", ".join(f"{pair} {error:.3f}" for pair, error in value["source_errors"].items())
    print(f"{arguments.seeds} seeds; the source's own error: {sources}")


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw errors over gamma_2; crosses what is expected."""
    figure.set_size_inches(9, 4)
    for place, (pair, errors) in enumerate(value["errors"].items(), 1):
        axes = figure.add_subplot(1, len(PAIRS), place)
        for k, name in enumerate(("scratch", "transfer")):
            (line,) = axes.plot(GAMMAS, np.array(errors)[:, k], marker="o", label=name)
            told = EXPECTED[pair]
            axes.plot(list(told), [each[k] for each in told.values()], "x", color=line.get_color(), markersize=9)
        axes.set_xscale("log")
        axes.set_xticks(GAMMAS, [f"{gamma:g}" for gamma in GAMMAS])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set(title=pair, xlabel="gamma_2: richness of the second training")
    axes.legend()
    figure.supylabel("mean squared error")
    figure.suptitle("Card D-4 (crosses: expected)")


if __name__ == "__main__":
    main()
