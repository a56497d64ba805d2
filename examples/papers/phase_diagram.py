"""The phase diagram of "Features are fate": where transfer gains and where it loses, measured and by the formula.

    python examples/papers/phase_diagram.py --plot diagram.png

After Tahir, Ganguli and Rotskoff, ICML 2025, https://arxiv.org/abs/2410.08194; the model is in linear_tasks.py. Over
the angle between the tasks and the examples for each dimension (gamma), the colour is the measured gain over scratch in
risk: blue where transfer gains, red where it loses. A line is where the formula turns from gain to loss, a dashed one
where the measurement does. A probe loses where examples are many, and in a wedge below gamma = 1; above gamma = 1
fine-tuning forgets its start and neither gains nor loses. With the head fitted first, fine-tuning loses almost nowhere.

What must hold: a cell has the formula's sign unless the formula changes sign in one of the eight cells around it. Of
fine-tuning and of the head first this is asked below gamma = 1. The latter's formula is given what fitting the head to
n examples costs, since without that it knows no loss at all, and is asked only where it says more than .02.

The size is the paper's, d = 500. At d = 200 the probe's line fails at gamma = .1 and below: that formula is of many
examples, and there are 20.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cards import finish, options, table
from linear_tasks import METHODS, Floats, measure, theory

NOISE = 0.2
D = 500
TITLES = {"probe": "probe", "fine_tune": "fine-tuning", "head_first": "head first, then fine-tuning"}
CLEAR = 0.02


def main() -> None:
    arguments = options(__doc__, seeds=20)
    step = 0.25 if arguments.smoke else 0.05
    gammas = np.arange(max(step, 0.1), 2 + step / 2, step).round(2)
    angles = np.linspace(0.05, 1, 20) * np.pi / 2
    d = 100 if arguments.smoke else D
    value = summarise(angles, gammas, arguments.seeds, d)
    if not arguments.json:
        show(value, arguments.seeds)
    finish(arguments, value, lambda figure: draw(figure, value))


def summarise(angles: Floats, gammas: Floats, n_draws: int, d: int) -> dict[str, Any]:
    """Measure every cell, and count the cells whose sign is not the formula's."""
    rng = np.random.default_rng(0)
    draws = [[measure(angles, gamma, NOISE, d, rng) for _ in range(n_draws)] for gamma in gammas]
    seen = {name: np.array([np.mean([one[name] for one in row], 0) for row in draws]) for name in METHODS}
    paper = [theory(angles, gamma, NOISE) for gamma in gammas]
    paid = [theory(angles, gamma, NOISE, round(gamma * d)) for gamma in gammas]
    told = {name: np.array([gains[name] for gains in (paid if name == "head_first" else paper)]) for name in METHODS}
    below = np.broadcast_to((gammas < 1)[:, None], told["probe"].shape)
    asked = {
        "probe": np.ones_like(below),
        "fine_tune": below,
        "head_first": below & (np.abs(told["head_first"]) > CLEAR),
    }
    wrong = {name: asked[name] & ~near_turn(told[name]) & (seen[name] * told[name] < 0) for name in METHODS}
    lost = {name: float(-seen[name][gammas < 1].min()) for name in METHODS}
    return {
        "card": "B-1, diagram",
        "angles": np.degrees(angles).tolist(),
        "gammas": gammas.tolist(),
        "gains": {name: gains.round(4).tolist() for name, gains in seen.items()},
        "share_lost": {name: float((gains[gammas < 1] < -CLEAR).mean()) for name, gains in seen.items()},
        "expected_share_lost": {name: float((gains[gammas < 1] < -CLEAR).mean()) for name, gains in told.items()},
        "most_lost": lost,
        "holds": {
            f"{TITLES[name]}: measured and predicted contour at most one cell apart": not wrong[name].any()
            for name in METHODS
        },
    }


def near_turn(told: Floats) -> Any:
    """Whether a cell, or one of the eight around it, has another sign than the cell itself: (gammas, angles)."""
    padded = np.pad(np.sign(told), 1, mode="edge")
    rows, columns = told.shape
    around = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.any(np.stack(around) != np.sign(told), 0)


def show(value: dict[str, Any], n_draws: int) -> None:
    print(f"below gamma = 1, by {n_draws} draws a cell and d = {D}; in brackets by the formula\n")
    rows = {
        TITLES[name]: [
            f"{value['share_lost'][name]:.0%} ({value['expected_share_lost'][name]:.0%})",
            f"{value['most_lost'][name]:.2f}",
        ]
        for name in METHODS
    }
    table("", [f"cells with a loss > {CLEAR}", "largest loss"], rows)
    print()


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Colour the gains; draw where they turn into losses."""
    figure.set_size_inches(12, 4.5)
    angles, gammas = np.array(value["angles"]), np.array(value["gammas"])
    fine_angles, fine_gammas = np.linspace(angles[0], angles[-1], 300), np.linspace(gammas[0], gammas[-1], 399)
    for place, name in enumerate(METHODS, 1):
        axes = figure.add_subplot(1, len(METHODS), place)
        gains = np.clip(value["gains"][name], -1, 1)
        mesh = axes.pcolormesh(angles, gammas, gains, cmap="RdBu", vmin=-1, vmax=1, shading="nearest")
        told = np.array([theory(np.radians(fine_angles), gamma, NOISE)[name] for gamma in fine_gammas])
        known = fine_gammas < (np.inf if name == "probe" else 1)
        measured = gammas < (np.inf if name == "probe" else 0.99)
        axes.contour(fine_angles, fine_gammas[known], np.clip(told[known], -1, 1), [0], colors="black")
        if name != "head_first":  # near zero by the formula: its contour would be noise
            axes.contour(angles, gammas[measured], gains[measured], [0], colors="black", linestyles="--")
        axes.set(title=TITLES[name], xlabel="angle between the tasks, degrees")
    figure.axes[0].set_ylabel("examples for each dimension (gamma)")
    figure.colorbar(mesh, ax=figure.axes, label="gain over scratch, risk")
    figure.suptitle("Where transfer gains (blue) and loses (red); line: formula, dashed: measured")


if __name__ == "__main__":
    main()
