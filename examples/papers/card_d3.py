"""Card D-3: an over-rich source, and then a ridge: when the collapsed kernel harms.

    python examples/papers/card_d3.py --plot d3.png

After Lauditi, Bordelon and Pehlevan, arXiv 2507.04448, ICLR 2026; the model and its notation are in spiked_kernel.py.
With gamma towards infinity the kernel, scaled by its spike, is the spike: one direction, in which the target's share is

    A = a^2 min(nu_1, 1);   loss 1 - A with a ridge of .01, and (1 - nu_2) (1 - A) without any; scratch has 1 - nu_2

So a ridge makes the loss independent of the target's examples, and transfer negative exactly where nu_2 > A: any
penalty, or stopping early, after pretraining that was too rich creates the loss. Here chi = 10,000; the tolerance is
.02 with the ridge, .03 without any as in card D-1, for means of 20 draws at D = 1,000. The formulas are of large D: at
D = 400, where nu_2 = .1 is 40 examples, even 100 draws are off by .022 with the ridge, and 20 draws by .035, which
turns the sign in the one cell where nu_2 is within .025 of A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cards import beside, finish, options, table
from linear_tasks import Floats
from spiked_kernel import directions, learned, loss

D = 1000
CHI, RIDGE = 1e4, 1e-2
SOURCES = (0.5, 2.0)  # nu_1
SHARES: Floats = np.array([0.5, 0.9])
NUS = (0.1, 0.5, 0.8)  # nu_2
WAYS = {"ridge": "ridge .01", "no_ridge": "no ridge"}
TOLERANCES = {"ridge": 0.02, "no_ridge": 0.03}
Losses = Mapping[tuple[float, float], Mapping[str, list[float]]]  # nu_1, nu_2 -> way, or "scratch" -> by share


def main() -> None:
    arguments = options(__doc__, seeds=20)
    value = summarise(simulate(arguments.seeds, 50 if arguments.smoke else D))
    if not arguments.json:
        cells = value["cells"]
        rows = {
            f"{cell['nu_1']:g}, {cell['a']:g}, {cell['nu_2']:g}": [
                beside(cell["scratch"], 1 - cell["nu_2"], ".3f"),
                *(beside(cell[way], cell["expected"][way], ".3f") for way in WAYS),
                "worse" if cell["ridge"] > cell["scratch"] else "better",
            ]
            for cell in cells
        }
        table("nu_1, a, nu_2", ["scratch", *WAYS.values(), "with ridge"], rows)
        print(f"\n{arguments.seeds} draws, D = {D}; loss on the target")
    finish(arguments, value, lambda figure: draw(figure, value))


def simulate(n_draws: int, d: int = D) -> Losses:
    """Average the losses over draws of source and target."""
    rng = np.random.default_rng(0)
    b_s, b_t = directions(SHARES, d)
    found = {}
    for nu_1 in SOURCES:
        for nu_2 in NUS:
            runs: dict[str, list[Floats]] = {"scratch": [], **{way: [] for way in WAYS}}
            for _ in range(n_draws):
                s, X = learned(b_s, nu_1, rng), rng.standard_normal((round(nu_2 * d), d))
                collapsed = np.eye(d) / CHI + np.outer(s, s) / d
                runs["scratch"].append(loss(X, b_t, np.eye(d)))
                runs["ridge"].append(loss(X, b_t, collapsed, RIDGE))
                runs["no_ridge"].append(loss(X, b_t, collapsed))
            found[nu_1, nu_2] = {name: np.mean(each, 0).tolist() for name, each in runs.items()}
    return found


def expected(nu_1: float, nu_2: float, share: float) -> dict[str, float]:
    """Give the losses of both ways."""
    kept = 1 - share**2 * min(nu_1, 1)
    return {"ridge": kept, "no_ridge": (1 - nu_2) * kept}


def summarise(losses: Losses) -> dict[str, Any]:
    """Hold the losses against the formulas."""
    cells = [
        {
            "nu_1": nu_1,
            "a": share,
            "nu_2": nu_2,
            **{name: each[k] for name, each in seen.items()},
            "expected": expected(nu_1, nu_2, share),
        }
        for (nu_1, nu_2), seen in losses.items()
        for k, share in enumerate(SHARES.tolist())
    ]
    errors = {way: max(abs(cell[way] - cell["expected"][way]) for cell in cells) for way in WAYS}
    harms = [cell["ridge"] > cell["scratch"] for cell in cells]
    foretold = [cell["nu_2"] > 1 - cell["expected"]["ridge"] for cell in cells]
    return {
        "card": "D-3",
        "cells": cells,
        "errors": errors,
        "holds": {
            **{f"{WAYS[way]}: every loss within {TOLERANCES[way]}": errors[way] <= TOLERANCES[way] for way in WAYS},
            f"ridge: worse than scratch exactly where nu_2 > A, all {len(cells)} cells": harms == foretold,
            "no ridge: nowhere worse than scratch": all(cell["no_ridge"] < cell["scratch"] for cell in cells),
        },
    }


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw losses over nu_2, a panel for each source and share."""
    figure.set_size_inches(11, 4)
    fine = np.linspace(0, 1, 50)
    settings = [(nu_1, share) for nu_1 in SOURCES for share in SHARES.tolist()]
    for place, (nu_1, share) in enumerate(settings, 1):
        axes = figure.add_subplot(1, len(settings), place)
        here = [cell for cell in value["cells"] if (cell["nu_1"], cell["a"]) == (nu_1, share)]
        lines = {"scratch": 1 - fine} | {way: np.array([expected(nu_1, nu, share)[way] for nu in fine]) for way in WAYS}
        for name, line in lines.items():
            (drawn,) = axes.plot(fine, line, label=WAYS.get(name, name))
            axes.plot(NUS, [cell[name] for cell in here], "o", color=drawn.get_color())
        axes.set(title=f"nu_1 = {nu_1:g}, a = {share:g}", ylim=(0, 1))
    axes.legend()
    figure.supxlabel("nu_2: examples of the target for each dimension")
    figure.supylabel("loss on the target")
    figure.suptitle("Card D-3 (dots: measured, lines: expected)")


if __name__ == "__main__":
    main()
