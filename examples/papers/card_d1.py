"""Card D-1: what a rich source's kernel gains over a lazy one, by Monte Carlo against the closed form.

    python examples/papers/card_d1.py --plot d1.png

After Lauditi, Bordelon and Pehlevan, arXiv 2507.04448, ICLR 2026; the model and its notation are in spiked_kernel.py.
The source saw the whole population and kept b_s; the target has nu_2 D examples without noise. In brackets:

    (1 - nu_2) (1 - 2 a^2 q + a^2 q^2),   q = chi nu_2 / (1 + chi nu_2)

Transfer is never worse than 1 - nu_2, what a kernel without a spike leaves. Tolerance .03 at D = 400, for means of 20
draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cards import beside, finish, options, table
from linear_tasks import Floats
from spiked_kernel import directions, loss, spike

D = 400
GAMMAS = (0.5, 2.0, 10.0)
SHARES: Floats = np.array([0.0, 0.5, 0.9, 1.0])
NUS = (0.1, 0.5, 0.8)
TOLERANCE = 0.03
Losses = Mapping[float, Mapping[float, list[float]]]  # nu_2 -> gamma, 0 for no transfer -> the loss for each share


def main() -> None:
    arguments = options(__doc__, seeds=20)
    value = summarise(simulate(arguments.seeds, 50 if arguments.smoke else D))
    if not arguments.json:
        for nu in NUS:
            told, seen = value["expected"][nu], value["losses"][nu]
            rows = {
                f"gamma {gamma:g}" if gamma else "none": [
                    beside(*pair, ".3f") for pair in zip(seen[gamma], told[gamma], strict=True)
                ]
                for gamma in seen
            }
            table(f"nu_2 = {nu}", [f"a = {a:g}" for a in SHARES], rows)
            print()
        print(f"{arguments.seeds} draws, D = {D}; largest error {value['error']:.3f}")
    finish(arguments, value, lambda figure: draw(figure, value))


def simulate(n_draws: int, d: int = D) -> Losses:
    """Average the losses over draws."""
    rng = np.random.default_rng(0)
    b_s, b_t = directions(SHARES, d)
    found = {}
    for nu in NUS:
        draws = [rng.standard_normal((round(nu * d), d)) for _ in range(n_draws)]
        metrics = {gamma: np.eye(d) + spike(gamma) / d * np.outer(b_s, b_s) for gamma in (0.0, *GAMMAS)}
        found[nu] = {
            gamma: np.mean([loss(X, b_t, metric) for X in draws], 0).tolist() for gamma, metric in metrics.items()
        }
    return found


def formula(nu: float, gamma: float, share: Floats) -> Floats:
    """Give the loss that is expected."""
    q = spike(gamma) * nu / (1 + spike(gamma) * nu)
    expected: Floats = (1 - nu) * (1 - 2 * share**2 * q + share**2 * q**2)
    return expected


def summarise(losses: Losses) -> dict[str, Any]:
    """Hold the losses against the formula."""
    told = {nu: {gamma: formula(nu, gamma, SHARES).tolist() for gamma in each} for nu, each in losses.items()}
    cells = [(nu, gamma) for nu in losses for gamma in GAMMAS]
    error = max(float(np.abs(np.subtract(losses[nu][g], told[nu][g])).max()) for nu, g in cells)
    harm = max(float(np.subtract(losses[nu][g], losses[nu][0.0]).max()) for nu, g in cells)
    return {
        "card": "D-1",
        "shares": SHARES.tolist(),
        "losses": losses,
        "expected": told,
        "error": error,
        "holds": {
            f"every loss within {TOLERANCE} of the formula": error <= TOLERANCE,
            f"transfer is nowhere worse, by more than {TOLERANCE}, than none": harm <= TOLERANCE,
        },
    }


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw losses over what is shared, a panel for each nu_2."""
    figure.set_size_inches(10, 4)
    fine = np.linspace(0, 1, 100)
    for place, nu in enumerate(NUS, 1):
        axes = figure.add_subplot(1, len(NUS), place)
        for gamma, losses in value["losses"][nu].items():
            (dots,) = axes.plot(SHARES, losses, "o")
            label = f"gamma = {gamma:g}" if gamma else "no transfer"
            axes.plot(fine, formula(nu, gamma, fine), color=dots.get_color(), label=label)
        axes.set(title=f"nu_2 = {nu}", ylim=(0, 1))
    axes.legend()
    figure.supxlabel("a: what source and target share")
    figure.supylabel("loss on the target")
    figure.suptitle("Card D-1 (dots: measured, lines: formula)")


if __name__ == "__main__":
    main()
