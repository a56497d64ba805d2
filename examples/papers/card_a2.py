"""Card A-2: residual integration (REFINE) in regression, and the price of carrying p features that help or do not.

    python examples/papers/card_a2.py --plot a2.png

After Xu, Nakada, Zhang and Li, ICLR 2026, https://arxiv.org/abs/2505.11771, whose bound holds a term p log n / n. The
target is v' tanh(A x) + .3 sin(3 c'x) of x in R^8, of variance 1.2 and without noise. The source gives p = 64 features:
tanh(A x) themselves, as many of another A, or noise that has nothing to do with x. Scratch is a network of two hidden
layers of 64; residual integration, by the project's own strategy, has the same beside the features; the probe is ridge
regression on them. AdamW (its defaults, batches of 32), a fifth of the examples decides when to stop.

Shown is the mean squared error on 10,000 new examples; in brackets what is expected. What must hold is how the price of
junk falls: residual over scratch 1.5 and more at n = 1.5 p (the card says about 2; 5 seeds here 1.6), 1.1 to 1.6 at 6 p
(about 1.3), at most 1.1 at 25 p, and ever less. How A, v and c are drawn, the rate and the patience are not in the
card; the errors themselves are smaller than expected, by up to a factor of 2.6.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from autoxfer_builtins.residual import Residual
from autoxfer_builtins.scratch import Scratch
from cards import beside, finish, options, table
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import Problem, Raw, Source, Strategy, Tap, fit_head

D, P = 8, 64
VARIANCE, WAVE = 1.155, 0.3  # of v' tanh(A x); the height of the rest, which adds .045
FEATURES = ("aligned", "other", "junk")
COLUMNS = ("scratch", *(f"residual, {name}" for name in FEATURES), *(f"probe, {name}" for name in FEATURES))
EXPECTED: Mapping[int, Sequence[float | None]] = {  # n -> mean squared errors, in the order of the columns
    100: (0.248, 0.240, 0.276, 0.489, 0.13, 0.28, 1.55),
    400: (0.157, 0.125, 0.155, 0.206, None, None, None),
    1600: (0.079, 0.046, 0.072, 0.083, None, None, None),
}
STRATEGIES: Mapping[str, Strategy] = {
    "scratch": Scratch(architecture="mlp"),
    "residual": Residual(encoder="trunk", normalisation="none", head_decay=0.0, head_first=False),
}
MAX_EPOCHS, PATIENCE = 200, 20
N_TEST = 10_000


@dataclass(frozen=True)
class Layers:
    """Two hidden layers of 64, the last ReLU left to who reads them; or with it and a head."""

    with_head: bool
    input: ClassVar[Raw] = Raw()
    n_parameters: ClassVar[int] = 0

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Sequential:
        """Make it newly initialised."""
        layers = [nn.Linear(D, 64), nn.ReLU(), nn.Linear(64, 64)]
        return nn.Sequential(*layers, *([nn.ReLU(), nn.Linear(64, n_outputs)] if self.with_head else []))


def main() -> None:
    arguments = options(__doc__)
    sizes = [100] if arguments.smoke else list(EXPECTED)
    epochs = 3 if arguments.smoke else MAX_EPOCHS
    value = summarise({n: [learn(n, seed, epochs) for seed in range(arguments.seeds)] for n in sizes})
    if not arguments.json:
        show(value, arguments)
    finish(arguments, value, lambda figure: draw(figure, value))


def task(n: int, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Draw a task, n examples and the test's: (n + N_TEST, D), labels (n + N_TEST, 1), features by name."""
    rng = np.random.default_rng(seed)
    A, other = rng.standard_normal((2, P, D)) / D**0.5
    v, c = rng.standard_normal(P), rng.standard_normal(D)
    x = rng.standard_normal((n + N_TEST, D))
    aligned = np.tanh(x @ A.T)
    smooth = aligned @ v
    labels = smooth * (VARIANCE / smooth.var()) ** 0.5 + WAVE * np.sin(3 * x @ c / np.linalg.norm(c))
    features = dict(zip(FEATURES, (aligned, np.tanh(x @ other.T), rng.standard_normal((len(x), P))), strict=True))
    tensors = {name: torch.tensor(each, dtype=torch.float32) for name, each in features.items()}
    return torch.tensor(x, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)[:, None], tensors


def learn(n: int, seed: int, epochs: int = MAX_EPOCHS) -> list[float]:
    """Train everything on one draw: mean squared errors, in the order of the columns."""
    x, labels, features = task(n, seed)
    source = Source.from_network("card", _network, _network(), input_shape=(D,))
    architectures = {"mlp": Layers(with_head=True), "trunk": Layers(with_head=False)}
    problem = Problem("regression", "vector", (D,), 1, n, (source,), architectures)
    errors = []
    for number, name in enumerate(("scratch", *FEATURES)):
        strategy = STRATEGIES["scratch" if name == "scratch" else "residual"]
        with torch.random.fork_rng():
            torch.manual_seed(10 * seed + number)
            candidate = strategy.build(problem)
            tensors = {Raw(): x, Tap("last"): features.get(name, x)}
            inputs = [tensors[each] for each in candidate.inputs]
            descend(candidate.module, [each[:n] for each in inputs], labels[:n], epochs)
            errors.append(_error(candidate.module, [each[n:] for each in inputs], labels[n:]))
    for name in FEATURES:
        weight, bias = fit_head(features[name][:n], labels[:n], 1)
        errors.append(functional.mse_loss(functional.linear(features[name][n:], weight, bias), labels[n:]).item())
    return errors


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, P), nn.Tanh(), nn.Linear(P, 1))


def descend(module: nn.Module, inputs: Sequence[Tensor], labels: Tensor, epochs: int) -> None:
    """Train by AdamW on four fifths and keep the weights that are best on the rest."""
    n_fit = len(labels) * 4 // 5
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
    best, kept, waited = np.inf, deepcopy(module.state_dict()), 0
    for _ in range(epochs):
        module.train()
        for rows in _batches(n_fit):
            optimiser.zero_grad()
            loss = functional.mse_loss(module(*(each[rows] for each in inputs)), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        error = _error(module, [each[n_fit:] for each in inputs], labels[n_fit:])
        waited += 1
        if error < best:
            best, kept, waited = error, deepcopy(module.state_dict()), 0
        if waited == PATIENCE:
            break
    module.load_state_dict(kept)


def _batches(n: int) -> Iterator[Tensor]:
    yield from torch.randperm(n).split(32)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _error(module: nn.Module, inputs: Sequence[Tensor], labels: Tensor) -> float:
    return functional.mse_loss(module.eval()(*inputs), labels).item()


def summarise(found: Mapping[int, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Average over seeds, and see how the price of junk falls."""
    means = {n: np.mean(runs, 0).tolist() for n, runs in found.items()}
    prices = {n: each[COLUMNS.index("residual, junk")] / each[0] for n, each in means.items()}
    helped = {n: each[COLUMNS.index("residual, aligned")] / each[0] for n, each in means.items()}
    rules = {"n = 1.5 p: junk costs a half of the error and more": prices[100] >= 1.5}
    if 1600 in prices:
        rules |= {
            "n = 6 p: junk costs between .1 and .6 of the error": 1.1 <= prices[400] <= 1.6,
            "n = 25 p: junk costs at most .1 of the error": prices[1600] <= 1.1,
            "the price of junk falls": prices[100] > prices[400] > prices[1600],
            "n = 6 p and more: aligned features help": max(helped[400], helped[1600]) < 1,
        }
    return {
        "card": "A-2",
        "columns": COLUMNS,
        "errors": means,
        "spread": {n: np.std(runs, 0).tolist() for n, runs in found.items()},
        "expected": {n: EXPECTED[n] for n in means},
        "price_of_junk": prices,
        "expected_price_of_junk": {n: EXPECTED[n][3] / EXPECTED[n][0] for n in means},  # type: ignore[operator]
        "holds": rules,
    }


def show(value: dict[str, Any], arguments: argparse.Namespace) -> None:
    told = value["expected"]
    rows = {
        f"n = {n}": [
            f"{seen:.3f}" if at is None else beside(seen, at, ".3f") for seen, at in zip(each, told[n], strict=True)
        ]
        for n, each in value["errors"].items()
    }
    table("", COLUMNS, rows)
    print()
    foretold = value["expected_price_of_junk"]
    prices = {"junk": [beside(price, foretold[n], ".2f") for n, price in value["price_of_junk"].items()]}
    table("residual / scratch", [f"n = {n}" for n in value["errors"]], prices)
    print(f"{arguments.seeds} seeds")


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw errors over n; dotted what is expected."""
    axes = figure.add_subplot()
    sizes = list(value["errors"])
    for k, name in enumerate(COLUMNS[:4]):
        (line,) = axes.loglog(sizes, [value["errors"][n][k] for n in sizes], marker="o", label=name)
        axes.loglog(sizes, [EXPECTED[n][k] for n in sizes], ":", color=line.get_color())
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    axes.set(xlabel="target examples", ylabel="mean squared error", title="Card A-2 (dotted: expected)")
    axes.legend()


if __name__ == "__main__":
    main()
