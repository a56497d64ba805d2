"""Card A-1: residual integration (REFINE) on digits, when the source's labels were good and when they were not.

    python examples/papers/card_a1.py --plot a1.png

After Xu, Nakada, Zhang and Li, "Residual feature integration is sufficient to prevent negative transfer", ICLR 2026,
https://arxiv.org/abs/2505.11771, with scikit-learn's digits in the place of CIFAR. A source of two hidden layers learns
600 digits, of whose labels a share was changed once and for all; strategies learn n others, by the paper's recipe (SGD,
a fixed number of epochs, the last weights, nothing tuned), scratch by the same; all are scored on the rest.

The candidates are the project's own, built by its strategies; the loop is the card's. In brackets what is expected. The
guard holds each candidate against scratch, alone, on 400 of the rest (300 where n is 400). What the card leaves open is
taken from the paper's own source: dropout .5 before its last layer, batches of 64, pixels in [-1, 1].
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from autoxfer_builtins.fine_tune import FineTune
from autoxfer_builtins.linear_probe import LinearProbe
from autoxfer_builtins.residual import Residual
from autoxfer_builtins.scratch import Scratch
from cards import finish, options, table
from deep_residual import DeepResidual
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import Candidate, Problem, Raw, Source, Strategy, Tap, guard

N_SOURCE = 600
STRATEGIES: Mapping[str, Strategy] = {
    "scratch": Scratch(architecture="mlp"),
    "probe": LinearProbe(normalisation="none"),
    "residual": Residual(encoder="trunk", normalisation="none", head_decay=0.0, head_first=False),
    "deep": DeepResidual(encoder="trunk"),
    "fine_tune": FineTune(head_first=False, layer_decay=1.0, anchor=0.0),
}
EXPECTED = {  # n, share of labels changed -> accuracy in percent, in the order of the strategies
    (100, 0.0): (87.3, 96.6, 96.7, 96.3, 96.3),
    (100, 0.4): (87.3, 85.5, 89.0, 85.7, 90.7),
    (100, 0.8): (87.3, 72.6, 82.5, 75.7, 83.7),
    (400, 0.8): (96.0, 88.1, 95.6, 94.2, 95.8),
}
EPOCHS = 60
Row = tuple[int, float]


@dataclass(frozen=True)
class Plain:
    """An architecture of the card's: one hidden layer of 64 and as many outputs as asked for, or a head over 64 more.

    Dropout stands before the ReLU of what reads it; the two commute.
    """

    with_head: bool
    input: ClassVar[Raw] = Raw()
    n_parameters: ClassVar[int] = 0

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Sequential:
        """Make it newly initialised; its dropout is the card's."""
        width = 64 if self.with_head else n_outputs
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, width), nn.Dropout(0.5)]
        return nn.Sequential(*layers, *([nn.ReLU(), nn.Linear(64, n_outputs)] if self.with_head else []))


def main() -> None:
    arguments = options(__doc__)
    rows = [(100, 0.0), (100, 0.8)] if arguments.smoke else list(EXPECTED)
    epochs = 10 if arguments.smoke else EPOCHS
    value = summarise({row: [learn(*row, seed, epochs) for seed in range(arguments.seeds)] for row in rows})
    if not arguments.json:
        show(value, arguments)
    finish(arguments, value, lambda figure: draw(figure, value))


def network() -> nn.Sequential:
    """Make the source's network."""
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)]
    return nn.Sequential(*layers)


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """Read the digits in an order of the seed's: pixels in [-1, 1], (1797, 64), and labels."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    return torch.tensor(pixels[order] / 8 - 1, dtype=torch.float32), torch.tensor(labels[order])


@lru_cache(maxsize=16)
def source(changed: float, seed: int, epochs: int = EPOCHS) -> Source:
    """Train a source on the first digits, a share of whose labels is another one."""
    examples, labels = (whole[:N_SOURCE] for whole in digits(seed))
    rng = np.random.default_rng((seed, 1))
    shift = np.where(rng.random(N_SOURCE) < changed, rng.integers(1, 10, N_SOURCE), 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trained = network()
        descend(trained, (examples,), (labels + torch.tensor(shift)) % 10, rate=0.05, batch=64, epochs=epochs)
    return Source.from_network("card", network, trained.eval(), input_shape=(64,))


def descend(
    module: nn.Module, inputs: Sequence[Tensor], labels: Tensor, *, rate: float, batch: int, epochs: int
) -> None:
    """Train by SGD with momentum .9 and keep the last weights."""
    optimiser = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(batch):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            loss = functional.cross_entropy(module(*(each[rows] for each in inputs)), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def learn(n: int, changed: float, seed: int, epochs: int = EPOCHS) -> dict[str, NDArray[np.bool_]]:
    """Train every strategy on n digits; their mistakes on the rest, by strategy."""
    examples, labels = (whole[N_SOURCE:] for whole in digits(seed))
    donor = source(changed, seed, epochs)
    problem = Problem(
        task="classification",
        modality="vector",
        shape=(64,),
        n_outputs=10,
        n_train=n,
        sources=(donor,),
        architectures={"mlp": Plain(with_head=True), "trunk": Plain(with_head=False)},
    )
    with torch.no_grad():
        (features,) = donor.extract(["last"])(examples)
    tensors = {Raw(): examples, Tap("input"): examples, Tap("last"): features}
    mistakes = {}
    for number, (name, strategy) in enumerate(STRATEGIES.items()):
        with torch.random.fork_rng():
            torch.manual_seed(1000 * seed + number)
            candidate = strategy.build(problem)
            inputs = [tensors[name] for name in candidate.inputs]
            descend(candidate.module, [each[:n] for each in inputs], labels[:n], rate=0.01, batch=16, epochs=epochs)
        mistakes[name] = _wrong(candidate, [each[n:] for each in inputs], labels[n:])
    return mistakes


@torch.no_grad()
def _wrong(candidate: Candidate, inputs: Sequence[Tensor], labels: Tensor) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = (candidate.module.eval()(*inputs).argmax(1) != labels).numpy()
    return wrong


def judge(mistakes: Mapping[str, NDArray[np.bool_]], name: str) -> str:
    """Let the guard hold a strategy against scratch."""
    n = min(400, 100 * (len(mistakes["scratch"]) // 200))
    candidate, scratch = (mistakes[each][:n].astype(float) for each in (name, "scratch"))
    return guard.decide(candidate, scratch, kind="zero_one").decision


def summarise(found: Mapping[Row, Sequence[Mapping[str, NDArray[np.bool_]]]]) -> dict[str, Any]:
    """Average over seeds, and see what must hold."""
    accuracy = {
        row: {name: [100 * (1 - float(each[name].mean())) for each in runs] for name in STRATEGIES}
        for row, runs in found.items()
    }
    decisions = {
        row: {name: [judge(each, name) for each in runs] for name in STRATEGIES if name != "scratch"}
        for row, runs in found.items()
    }
    rows = [
        {
            "n": n,
            "changed": changed,
            "accuracy": seen,
            "expected": dict(zip(STRATEGIES, EXPECTED[n, changed], strict=True)),
            "guard": decisions[n, changed],
        }
        for (n, changed), seen in accuracy.items()
    ]
    return {"card": "A-1", "rows": rows, "holds": holds(accuracy, decisions)}


def holds(
    accuracy: Mapping[Row, Mapping[str, Sequence[float]]], decisions: Mapping[Row, Mapping[str, Sequence[str]]]
) -> dict[str, bool]:
    """Hold the figures against what the card asks of them."""
    clean, spoilt, more = accuracy[100, 0.0], accuracy[100, 0.8], accuracy.get((400, 0.8))
    mean = {name: float(np.mean(values)) for name, values in spoilt.items()}
    accepted = [{"accepted"} & set(names) for names in zip(*decisions[100, 0.0].values(), strict=True)]
    refused = [decisions[100, 0.8][name] for name in ("probe", "residual", "deep")]
    rules = {
        "clean, n = 100: residual at least 6 points above scratch, every seed": min(
            np.subtract(clean["residual"], clean["scratch"])
        )
        >= 6,
        "80% changed, n = 100: probe < deep head < residual": mean["probe"] < mean["deep"] < mean["residual"],
        "80% changed, n = 100: residual below scratch": mean["residual"] < mean["scratch"],
        "clean, n = 100: the guard accepts a transfer, 4 seeds of 5": bool(np.mean(list(map(bool, accepted))) >= 0.8),
        "80% changed, n = 100: the guard accepts none of the three": "accepted"
        not in {d for each in refused for d in each},
    }
    if more:
        residual, probe = (np.mean(np.subtract(more[name], more["scratch"])) for name in ("residual", "probe"))
        rules["80% changed, n = 400: residual within 1 point of scratch"] = bool(abs(residual) <= 1)
        rules["80% changed, n = 400: probe at least 5 points below scratch"] = bool(probe <= -5)
    return {rule: bool(kept) for rule, kept in rules.items()}


def show(value: dict[str, Any], arguments: argparse.Namespace) -> None:
    rows: dict[str, list[str]] = {}
    said: dict[str, list[str]] = {}
    for row in value["rows"]:
        label = f"{row['n']}, {row['changed']:.0%}"
        rows[label] = [
            f"{np.mean(seen):.1f}+-{np.std(seen):.1f} ({row['expected'][name]})"
            for name, seen in row["accuracy"].items()
        ]
        said[label] = ["", *("/".join(str(d.count(k)) for k in DECISIONS) for d in row["guard"].values())]
    table("n, changed", list(STRATEGIES), rows)
    print(f"\nhow often {', '.join(DECISIONS)} in {arguments.seeds} seeds:")
    table("n, changed", list(STRATEGIES), said)


DECISIONS = ("accepted", "undecided", "harmful")


def draw(figure: Any, value: dict[str, Any]) -> None:
    """Draw the accuracy of each seed, and bars where it is expected."""
    for place, row in enumerate(value["rows"], 1):
        axes = figure.add_subplot(1, len(value["rows"]), place)
        for x, (name, seen) in enumerate(row["accuracy"].items()):
            axes.plot([x] * len(seen), seen, "o", alpha=0.6)
            axes.plot([x - 0.3, x + 0.3], [row["expected"][name]] * 2, color="black")
        axes.set_xticks(range(len(STRATEGIES)), list(STRATEGIES), rotation=90)
        axes.set(title=f"{row['n']}, {row['changed']:.0%}", ylim=(60, 100))
    figure.suptitle("Card A-1: digits to learn from, labels changed (bars: expected)")
    figure.supylabel("accuracy, %")


if __name__ == "__main__":
    main()
