"""Card B-2: the hidden layer of a linear network, started small, collapses onto the one direction that the task needs.

    python examples/papers/card_b2.py --plot b2.png

After Tahir, Ganguli and Rotskoff, ICML 2025, https://arxiv.org/abs/2410.08194: f(x) = x' W w learns y = b_s' x by
gradient descent on the expected loss from W, w of size alpha. Gradient flow keeps W'W - w w' as it started, small. So W
ends as b_s times a unit vector, and what is left beside it is the start: singular values up to 2 alpha. A target task
sees one feature and no more; that is why features are fate in card B-1.

A step of .01 follows the flow; in brackets what is expected. A step of .1 is shown beside it: W'W - w w' drifts, by the
share of its size that is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cards import finish, options, table
from numpy.typing import NDArray

D = 20  # as wide as the input has dimensions
ALPHA = 0.005
STEPS = (0.01, 0.1)
TIME = 40.0  # steps times their size
EXPECTED = {"first": 1.0, "second": 2 * ALPHA, "cosine": 1.0}


def main() -> None:
    arguments = options(__doc__, seeds=10)
    time = 5.0 if arguments.smoke else TIME
    value = summarise({step: [learn(step, seed, time) for seed in range(arguments.seeds)] for step in STEPS})
    if not arguments.json:
        columns = ["first singular value", "second", "cosine with b_s", "drift"]
        rows = {
            f"step {step:g}": [
                f"{each['first']:.4f} ({EXPECTED['first']:.4f})",
                f"{each['second']:.4f} ({EXPECTED['second']:.4f})",
                f"{each['cosine']:.5f} ({EXPECTED['cosine']:.5f})",
                f"{each['drift']:.1%}",
            ]
            for step, each in value["means"].items()
        }
        table("", columns, rows)
    finish(arguments, value, lambda figure: draw(figure, value))


def learn(step: float, seed: int, time: float = TIME) -> dict[str, Any]:
    """Train one network; the first axis is b_s."""
    rng = np.random.default_rng(seed)
    W = ALPHA * rng.standard_normal((D, D)) / np.sqrt(D)
    w = ALPHA * rng.standard_normal(D) / np.sqrt(D)
    kept = W.T @ W - np.outer(w, w)
    wanted = np.eye(D)[0]
    path: list[NDArray[np.float64]] = []
    for moment in range(round(time / step)):
        if moment % max(1, round(0.5 / step)) == 0:
            path.append(np.linalg.svd(W, compute_uv=False)[:2])
        missing = wanted - W @ w
        W, w = W + step * np.outer(missing, w), w + step * W.T @ missing
    left, values, _ = np.linalg.svd(W)
    return {
        "first": float(values[0]),
        "second": float(values[1]),
        "cosine": float(abs(left[0, 0])),
        "drift": float(np.linalg.norm(W.T @ W - np.outer(w, w) - kept) / np.linalg.norm(kept)),
        "path": np.array(path).tolist(),
    }


def summarise(found: Mapping[float, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Average over seeds, and see what must hold."""
    names = ("first", "second", "cosine", "drift")
    means = {
        step: {name: float(np.mean([run[name] for run in runs])) for name in names} for step, runs in found.items()
    }
    runs = found[STEPS[0]]
    return {
        "card": "B-2",
        "means": means,
        "expected": EXPECTED,
        "paths": {step: runs[0]["path"] for step, runs in found.items()},
        "holds": {
            "step .01: the first singular value is 1, within .005": max(abs(run["first"] - 1) for run in runs) <= 0.005,
            "step .01: the second is at most 3 alpha": max(run["second"] for run in runs) <= 3 * ALPHA,
            "step .01: the cosine with b_s is at least .9999": min(run["cosine"] for run in runs) >= 0.9999,
            "a step of .1 drifts at least 5 times as far": means[STEPS[1]]["drift"] >= 5 * means[STEPS[0]]["drift"],
        },
    }


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw the two largest singular values over time."""
    axes = figure.add_subplot()
    path = np.array(value["paths"][STEPS[0]])
    times = np.arange(len(path)) * 0.5
    axes.semilogy(times, path[:, 0], label="first")
    axes.semilogy(times, path[:, 1], label="second")
    axes.axhline(1, linestyle=":", color="C0")
    axes.axhline(2 * ALPHA, linestyle=":", color="C1")
    axes.set(xlabel="time (steps times their size)", ylabel="singular value of the hidden layer")
    axes.set_title("Card B-2: one direction grows (dotted: expected)")
    axes.legend()


if __name__ == "__main__":
    main()
