"""How well do the diagnostics foretell what a linear probe gains? Sources of six qualities, on handwritten digits.

    python examples/evidence/diagnostics.py [--pair other|same] [--draws 8] [--examples 60] [--json] [--smoke]

``other``: of scikit-learn's digits one half of the classes trains the sources, the other half is the target (0-4 -> 5-9
and the other way round, in turn). ``same``: 600 digits train the sources, the target is the rest, of the same ten
classes. The sources: a clean one, 40% and 80% of its labels drawn at random, never trained, trained on pixels in
another order, trained on 20 examples. The target has few training examples; the true gain is the accuracy of a linear
probe less that of a small network trained from scratch, on all the remaining ones. Each diagnostic sees the training
examples alone. The table gives Spearman's correlation of each with the gain: over all sources of all draws, and as a
mean over draws, which is what an order of sources needs; and the accuracy lost by trying first the source that it puts
first, in place of the best one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.diagnostics import (
    Assessment,
    Case,
    Head,
    Labels,
    examine,
    rank_sources,
    scratch_error,
    standardised,
    stratified,
)
from autoxfer.diagnostics.centroids import alignment, class_means
from autoxfer.linear import fit_head
from autoxfer.metrics import get_metric

QUALITIES = ("clean", "noise 40%", "noise 80%", "untrained", "permuted pixels", "20 examples")
MEASURES = (
    *("logme", "h_score", "leep", "nce", "probe_score", "overlap", "predicted_gain", "effective_rank"),
    *("alignment", "alignment_centred"),  # with the rows of the source's head
    *("true_alignment", "true_alignment_centred"),  # with the mean features of the source's own examples
    "rule",  # by which runs order their sources
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=("other", "same"), default="other")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--examples", type=int, default=60, help="training examples of the target")
    parser.add_argument("--steps", type=int, default=600, help="of training a source; scratch takes half of them")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="one draw, sources hardly trained")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.draws, arguments.steps = 1, 30
    torch.set_num_threads(1)
    rows = [
        row
        for number in range(arguments.draws)
        for row in draw(number, arguments.pair, arguments.examples, arguments.steps)
    ]
    table = {name: summary(rows, name) for name in MEASURES}
    if arguments.json:
        print(json.dumps({"table": table, "rows": rows}))
        return
    print(f"{'source':16} scratch  probe  gain   predicted")
    for quality in QUALITIES:
        own = [row for row in rows if row["source"] == quality]
        scratch, probe, gain, predicted = (
            np.mean([row[key] for row in own]) for key in ("scratch", "probe", "gain", "predicted_gain")
        )
        print(f"{quality:16} {scratch:7.3f} {probe:6.3f} {gain:+.3f}  {predicted:+.3f}")
    agree = np.mean([(row["predicted_gain"] > 0) == (row["gain"] > 0) for row in rows])
    print(f"the predicted gain has the true sign for {agree:.0%} of the sources")
    print(f"\n{'diagnostic':24} Spearman, all  within a draw  points lost by its first source")
    for name, line in table.items():
        print(f"{name:24} {line['pooled']:13.2f} {line['within']:14.2f} {100 * line['lost']:10.1f}")


def draw(number: int, pair: str, n: int, steps: int) -> list[dict[str, Any]]:
    """Train six sources on one part of the digits, and measure them on ``n`` examples of the other."""
    rng = np.random.default_rng(number)
    torch.manual_seed(number)
    digits = load_digits()
    images = ((digits.data - digits.data.mean()) / digits.data.std()).astype(np.float32)
    order = rng.permutation(len(images))
    ours = (digits.target[order] < 5) == (number % 2 == 0) if pair == "other" else np.arange(len(order)) < 600
    n_classes = 5 if pair == "other" else 10
    source, target = order[ours], order[~ours]
    source_x, source_y = torch.from_numpy(images[source]), torch.from_numpy(digits.target[source] % n_classes)
    x, y = torch.from_numpy(images[target]), torch.from_numpy(digits.target[target] % n_classes)
    values, names = y[:n].numpy(), tuple("abcdefghij"[:n_classes])
    labels = Labels(values, names, get_metric("accuracy", "classification"), stratified(values, rng))
    pixels = scratch_error(standardised(x[:n].double().numpy()), labels.columns, labels.fold)
    scratch = accuracy(fit(network(n_classes), x[:n], y[:n], steps // 2), x[n:], y[n:])
    rows: list[dict[str, Any]] = []
    found: dict[str, Assessment] = {}
    for quality in QUALITIES:
        made = make_source(quality, source_x, source_y, steps, rng)
        body, head = made[:-1], made[-1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            features, base = body(x), body(source_x)
        weight, bias = fit_head(features[:n], y[:n], n_classes)
        probe = float(((features[n:] @ weight.T + bias).argmax(1) == y[n:]).float().mean())
        logits = (features[:n] @ head.weight.T + head.bias).detach().double().numpy()
        own = Head(logits, head.weight.detach().double().numpy(), ())
        known = features[:n].double().numpy()
        found[quality] = assessed = examine(Case(known, labels, own, pixels))
        raw, centred = alignment(class_means(known, values), class_means(base.double().numpy(), source_y.numpy()))
        rows.append(
            {"draw": number, "source": quality, "scratch": scratch, "probe": probe, "gain": probe - scratch}
            | {"true_alignment": raw, "true_alignment_centred": centred}
            | {key: value for key, value in asdict(assessed).items() if key in MEASURES}
        )
    places = rank_sources(found)
    for row in rows:
        row["rule"] = -places.index(str(row["source"]))
    return rows


def make_source(quality: str, x: Tensor, y: Tensor, steps: int, rng: np.random.Generator) -> nn.Sequential:
    """Train a source of some quality."""
    n_classes = int(y.max()) + 1
    made = network(n_classes)
    if quality == "untrained":
        return made
    if quality.startswith("noise"):
        wrong = torch.from_numpy(rng.random(len(y)) < float(quality[-3:-1]) / 100)
        y = torch.where(wrong, torch.from_numpy(rng.integers(0, n_classes, len(y))), y)
    if quality == "permuted pixels":
        x = x[:, torch.from_numpy(rng.permutation(x.shape[1]))]
    if quality == "20 examples":
        x, y = x[:20], y[:20]
    return fit(made, x, y, steps)


def network(n_classes: int) -> nn.Sequential:
    """Make a small perceptron whose last layer is its head."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, n_classes))


def fit(made: nn.Sequential, x: Tensor, y: Tensor, steps: int) -> nn.Sequential:
    """Train by AdamW."""
    optimiser = torch.optim.AdamW(made.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(steps):
        rows = torch.randint(len(x), (32,))
        optimiser.zero_grad()
        functional.cross_entropy(made(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return made.eval()


@torch.no_grad()
def accuracy(made: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((made(x).argmax(1) == y).float().mean())


def summary(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Correlate one diagnostic with the gain, and say what its first choice costs."""
    draws: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        draws.setdefault(row["draw"], []).append(row)
    within = [correlation(values(own, name), values(own, "gain")) for own in draws.values()]
    lost = [values(own, "gain").max() - values(own, "gain")[values(own, name).argmax()] for own in draws.values()]
    pooled = correlation(values(rows, name), values(rows, "gain"))
    return {"pooled": pooled, "within": float(np.mean(within)), "lost": float(np.mean(lost))}


def values(rows: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], dtype=np.float64)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(spearmanr(one, other).statistic)


if __name__ == "__main__":
    main()
