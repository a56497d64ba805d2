"""Card B-1: features are fate, by Monte Carlo against the closed form.

    python examples/papers/card_b1.py --plot b1.png

After Tahir, Ganguli and Rotskoff, ICML 2025, https://arxiv.org/abs/2410.08194; the model is in linear_tasks.py. Shown
is the gain over scratch in risk, for a probe and for fine-tuning, over the angle between the tasks (columns) and the
number of examples for each dimension (gamma); in brackets the paper's formula. The same source helps at one number of
examples and harms at another, and no distance between the tasks can know.

The paper's formula for the probe is that of many examples; at 25 of them fitting the head costs about (noise^2 +
sin^2) / (n - 2) more. So the tolerance is .05 at d = 100, and .02 at d = 400 where that term is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cards import beside, finish, options, table
from linear_tasks import Floats, measure, theory

NOISE = 0.2
ANGLES: Floats = np.array([1, 2, 3]) * np.pi / 8
GAMMAS = (0.25, 0.5, 0.75, 1.5, 2.0)
SHOWN = {"probe": "probe", "fine_tune": "fine-tuning"}
NEAR, LARGE_NEAR = 0.05, 0.02  # tolerances at d = 100 and at d = 400
CLEAR = 0.03  # gains larger than this must have the formula's sign
Gains = Mapping[float, Mapping[str, Sequence[float]]]  # gamma -> method -> a gain for each angle


def main() -> None:
    arguments = options(__doc__, seeds=100)
    value = summarise(simulate(100, arguments.seeds), None if arguments.smoke else simulate(400, arguments.seeds))
    if not arguments.json:
        print("gain over scratch in risk, d = 100, by angle\n")
        for method, title in SHOWN.items():
            table(f"{title}: gamma", [f"{angle:.1f} deg" for angle in np.degrees(ANGLES)], cells(value, method))
            print()
        print(f"{arguments.seeds} draws a cell; largest error: {value['errors']}")
    finish(arguments, value, lambda figure: draw(figure, value))


def simulate(d: int, n_draws: int) -> Gains:
    """Average the gains over draws."""
    rng = np.random.default_rng(d)
    found = {gamma: [measure(ANGLES, gamma, NOISE, d, rng) for _ in range(n_draws)] for gamma in GAMMAS}
    return {
        gamma: {method: np.mean([each[method] for each in draws], 0).round(9).tolist() for method in SHOWN}
        for gamma, draws in found.items()
    }


def formula(gamma: float, d: int | None = None) -> dict[str, list[float]]:
    """Give the paper's gains; with ``d`` the costs of fitting the head as well."""
    gains = theory(ANGLES, gamma, NOISE, round(gamma * d) if d else None)
    return {method: (gains[method] + 0.0).tolist() for method in SHOWN}  # no -0


def summarise(small: Gains, large: Gains | None = None) -> dict[str, Any]:
    """Hold the measured gains against the formula's."""
    paper = {gamma: formula(gamma) for gamma in GAMMAS}
    errors = {f"{method}, d = 100": error(small, paper, method) for method in SHOWN}
    rules = {f"d = 100: {SHOWN[m]} within {NEAR} of the formula": errors[f"{m}, d = 100"] <= NEAR for m in SHOWN}
    told = np.array([paper[gamma][method] for gamma in GAMMAS for method in SHOWN])
    seen = np.array([small[gamma][method] for gamma in GAMMAS for method in SHOWN])
    clear = abs(told) > CLEAR
    rules[f"d = 100: no sign is wrong where the formula says more than {CLEAR}"] = bool((seen * told > 0)[clear].all())
    if large:
        whole = {gamma: formula(gamma, 400) for gamma in GAMMAS}
        for method, title in SHOWN.items():
            errors[f"{method}, d = 400"] = error(large, whole, method)
            rule = f"d = 400: {title} within {LARGE_NEAR} of the formula and what fitting the head costs"
            rules[rule] = errors[f"{method}, d = 400"] <= LARGE_NEAR
    return {
        "card": "B-1",
        "angles": np.degrees(ANGLES).tolist(),
        "gains": small,
        "expected": paper,
        "errors": {name: round(value, 3) for name, value in errors.items()},
        "holds": rules,
    }


def error(seen: Gains, told: Gains, method: str) -> float:
    """Give the largest difference over all cells."""
    return float(max(np.abs(np.subtract(seen[gamma][method], told[gamma][method])).max() for gamma in seen))


def cells(value: dict[str, Any], method: str) -> dict[str, list[str]]:
    return {
        f"{gamma:g}": [beside(*pair, "+.3f") for pair in zip(gains[method], told[method], strict=True)]
        for (gamma, gains), told in zip(value["gains"].items(), value["expected"].values(), strict=True)
    }


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw gains over gamma, a line for each angle."""
    figure.set_size_inches(9, 4.5)
    lines = np.linspace(0.05, 2.2, 400)
    lines[np.abs(lines - 1) < 0.02] = np.nan
    for place, (method, title) in enumerate(SHOWN.items(), 1):
        axes = figure.add_subplot(1, 2, place)
        for k, angle in enumerate(ANGLES):
            (dots,) = axes.plot(GAMMAS, [value["gains"][g][method][k] for g in GAMMAS], "o")
            told = [theory(angle, gamma, NOISE)[method] for gamma in lines]
            axes.plot(lines, told, color=dots.get_color(), label=f"{np.degrees(angle):.1f} deg")
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(title=title, xlabel="examples for each dimension (gamma)", ylim=(-1.1, 1.1))
    axes.legend(title="angle")
    figure.supylabel("gain over scratch, risk")
    figure.suptitle("Card B-1 (dots: measured, lines: the paper's formula)")


if __name__ == "__main__":
    main()
