"""Card D-2: what a two-layer linear network learns from its source: a kernel with one spike.

    python examples/papers/card_d2.py --plot d2.png

After Lauditi, Bordelon and Pehlevan, arXiv 2507.04448, ICLR 2026; the notation is in spiked_kernel.py. A network of
infinite width follows its order parameters, M = W'W / N, C = W'z / N, B = z'z / N, from I, 0, 1:

    dM = gamma (C g' + g C'),   dC = gamma (M g + B g),   dB = 2 gamma C'g,   g = X'(y - X C / gamma) / P

First table: the largest eigenvalue of M after training on nu_1 D examples, in brackets sqrt(1 + nu gamma^2), and its
direction's cosine with b_s, in brackets sqrt(nu); nu = min(nu_1, 1). What must hold: the eigenvalue within 2% where
nu_1 = 4; where nu_1 < 1 the eigenvalue within 10% and the cosine within .06, as D = 200 and the draw of X decides.
Second table: the gain of regression with that kernel over one without it, on a target without noise, in brackets by
card D-1's formula with a sqrt(nu) for a. Nothing is lost where nothing is shared (a = 0), within .022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from card_d1 import formula
from cards import beside, finish, options, table
from linear_tasks import Floats
from spiked_kernel import directions, loss

D = 200
GAMMAS = (0.3, 1.0, 3.0, 10.0, 100.0)
SOURCES = (4.0, 0.3, 0.8)  # nu_1
SHARES: Floats = np.array([0.0, 0.5, 0.9])
NUS = (0.1, 0.5, 0.8)  # nu_2
RICH = 10.0  # the gamma whose kernel meets a target
STEP = 0.1  # of the fastest rate
LARGE, SMALL, COSINE, HARMLESS = 0.02, 0.10, 0.06, 0.022  # tolerances


def main() -> None:
    arguments = options(__doc__, seeds=6)
    value = summarise([simulate(seed, 30 if arguments.smoke else D) for seed in range(arguments.seeds)])
    if not arguments.json:
        show(value, arguments.seeds)
    finish(arguments, value, lambda figure: draw(figure, value))


def trained(inputs: Floats, y: Floats, gamma: float) -> Floats:
    """Follow the order parameters until the source's examples are learned: M, (D, D)."""
    X, (n, d) = inputs, inputs.shape
    M, C, B = np.eye(d), np.zeros(d), 1.0
    covariance, wanted = X.T @ X / n, X.T @ y / n
    steepest = float(np.linalg.eigvalsh(covariance)[-1])
    for _ in range(20_000):
        g = wanted - covariance @ C / gamma
        if np.linalg.norm(g) < 1e-3 * np.linalg.norm(wanted):
            break
        size = STEP / steepest / (2 * B)  # M's spike grows as B does
        half = C + size / 2 * gamma * (M @ g + B * g)  # the midpoint rule: Euler's alone drifts by percents
        g_half = wanted - covariance @ half / gamma
        B_half = B + size * gamma * C @ g
        pushed = M @ g_half + size / 2 * gamma * (C * (g @ g_half) + g * (C @ g_half))  # M g there
        C = C + size * gamma * (pushed + B_half * g_half)
        outer = size * gamma * np.outer(half, g_half)
        M += outer + outer.T
        B = B + size * 2 * gamma * half @ g_half
    return M


def simulate(seed: int, d: int = D) -> dict[str, Any]:
    """Train every source on one draw; let the kernels of the rich ones meet targets."""
    rng = np.random.default_rng(seed)
    b_s, b_t = directions(SHARES, d)
    tops: dict[float, list[tuple[float, float]]] = {}
    gains: dict[float, dict[float, list[float]]] = {}
    targets = {nu: rng.standard_normal((round(nu * d), d)) for nu in NUS}
    for nu in SOURCES:
        X = rng.standard_normal((round(nu * d), d))
        tops[nu], gains[nu] = [], {}
        for gamma in GAMMAS:
            M = trained(X, X @ b_s / np.sqrt(d), gamma)
            values, vectors = np.linalg.eigh(M)
            tops[nu].append((float(values[-1]), float(abs(vectors[0, -1]))))
            if gamma == RICH:
                gains[nu] = {at: (loss(x, b_t, np.eye(d)) - loss(x, b_t, M)).tolist() for at, x in targets.items()}
    return {"tops": tops, "gains": gains}


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average over seeds, and see what must hold."""
    tops = {nu: np.mean([run["tops"][nu] for run in runs], 0) for nu in SOURCES}
    gains = {nu: {at: np.mean([run["gains"][nu][at] for run in runs], 0).tolist() for at in NUS} for nu in SOURCES}
    told = {nu: [(1 + min(nu, 1) * gamma**2) ** 0.5 for gamma in GAMMAS] for nu in SOURCES}
    told_gains = {
        nu: {at: (1 - at - formula(at, RICH * min(nu, 1) ** 0.5, SHARES * min(nu, 1) ** 0.5)).tolist() for at in NUS}
        for nu in SOURCES
    }
    off = {nu: np.abs(tops[nu][:, 0] / told[nu] - 1) for nu in SOURCES}
    turned = [abs(cosine - nu**0.5) for nu in SOURCES if nu < 1 for cosine in tops[nu][:, 1]]
    nothing = [abs(gains[nu][at][0]) for nu in SOURCES for at in NUS]
    return {
        "card": "D-2",
        "gammas": GAMMAS,
        "top": {nu: each[:, 0].tolist() for nu, each in tops.items()},
        "cosine": {nu: each[:, 1].tolist() for nu, each in tops.items()},
        "expected": told,
        "gains": gains,
        "expected_gains": told_gains,
        "holds": {
            f"nu_1 = 4: the eigenvalue within {LARGE:.0%}": bool(off[4.0].max() <= LARGE),
            f"nu_1 < 1: the eigenvalue within {SMALL:.0%}": max(off[nu].max() for nu in SOURCES if nu < 1) <= SMALL,
            f"nu_1 < 1: the cosine within {COSINE}": max(turned) <= COSINE,
            f"nothing shared: no gain and no loss, within {HARMLESS}": max(nothing) <= HARMLESS,
            "a = .9: transfer gains": min(g[-1] for nu in SOURCES for g in gains[nu].values()) > 0,
        },
    }


def show(value: dict[str, Any], n_seeds: int) -> None:
    columns = [f"gamma {gamma:g}" for gamma in GAMMAS]
    rows = {}
    for nu in SOURCES:
        pairs = zip(value["top"][nu], value["expected"][nu], strict=True)
        rows[f"{nu:g}: eigenvalue"] = [beside(*pair, ".2f") for pair in pairs]
        rows[f"{nu:g}: cosine"] = [beside(cosine, min(nu, 1) ** 0.5, ".2f") for cosine in value["cosine"][nu]]
    table("nu_1", columns, rows)
    print(f"\ngain over no transfer, gamma = {RICH:g}; {n_seeds} seeds, D = {D}\n")
    rows = {
        f"{nu:g}, {at}": [
            beside(*pair, "+.3f") for pair in zip(value["gains"][nu][at], value["expected_gains"][nu][at], strict=True)
        ]
        for nu in SOURCES
        for at in NUS
    }
    table("nu_1, nu_2", [f"a = {share:g}" for share in SHARES], rows)
    print()


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw eigenvalue and cosine over gamma."""
    figure.set_size_inches(9, 4)
    left, right = figure.subplots(1, 2)
    fine = np.logspace(-0.6, 2.1, 100)
    for nu in SOURCES:
        (dots,) = left.loglog(GAMMAS, value["top"][nu], "o")
        left.loglog(fine, np.sqrt(1 + min(nu, 1) * fine**2), color=dots.get_color(), label=f"nu_1 = {nu:g}")
        right.semilogx(GAMMAS, value["cosine"][nu], "o", color=dots.get_color())
        right.axhline(min(nu, 1) ** 0.5, color=dots.get_color())
    left.set(xlabel="gamma", ylabel="largest eigenvalue of the kernel")
    right.set(xlabel="gamma", ylabel="cosine of its direction with b_s", ylim=(0, 1.05))
    left.legend()
    figure.suptitle("Card D-2 (dots: measured, lines: expected)")


if __name__ == "__main__":
    main()
