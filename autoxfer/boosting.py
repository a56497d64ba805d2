r"""Gradient-boosted trees, scikit-learn's HistGradientBoosting, as a torch module: the baseline to beat on tables.

Ke et al., "LightGBM: A highly efficient gradient boosting decision tree", NeurIPS 2017, whose method scikit-learn
follows. Fitted, the trees are tensors that a batch walks down in a fixed number of steps:

    raw(x) = baseline + sum over trees t of values[leaf of x in t]

| symbol       | meaning                                                          | shape             |
|--------------|------------------------------------------------------------------|-------------------|
| feature      | which column a node asks for                                     | (trees, nodes)    |
| threshold    | go left where x <= threshold                                     | (trees, nodes)    |
| missing_left | whether a NaN goes left                                          | (trees, nodes)    |
| branches     | left and right, counted over all trees; a leaf is its own child  | (trees, nodes, 2) |
| values       | a leaf's contribution, the learning rate included                | (trees, nodes)    |
| baseline     | raw score before the first tree                                  | (slots,)          |

Trees stand in the order (iteration, slot); there is a slot for each class, or one for two classes and for regression.
Several labels, or several numbers, are ``separate``: each is boosted by itself, in a slot of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoxfer.linear import kind_of
from autoxfer.strategy import Candidate, Fitted, Input, Raw, TrainData, Trainer

CHECKPOINTS = (0, 2, 4, 8, 12, 18, 25, 35, 50, 70, 100, 125, 150)  # iterations that the tune split chooses among
N_DRAWS = 1  # settings drawn in every trial beside the architecture's own, so that no trial repeats another
MAX_DEPTH = 8


@final
@dataclass(frozen=True)
class Boosting:
    """Trees of at most ``n_leaves`` leaves on the target's own examples."""

    width: int  # columns of an example
    n_leaves: int = 31
    min_leaf: int = 20  # examples that a leaf holds at least
    penalty: float = 0.0  # L2, on the leaves' values
    learning_rate: float = 0.1
    columns: float = 1.0  # share of the columns that each node may choose from
    separate: bool = False  # outputs that are no classes which exclude each other

    @property
    def input(self) -> Input:
        """It reads the target's own examples."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """With one output."""
        return self(1).values.numel()

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> Trees:
        """Make room for the trees; ``dropout`` means nothing to them."""
        return Trees(self, n_outputs)

    def draw(self) -> Boosting:
        """Draw other settings that need no more room, from torch's random state."""
        leaves, least, penalty, rate, columns = torch.rand(5, dtype=torch.float64).tolist()
        return replace(
            self,
            n_leaves=_between(3, self.n_leaves, leaves),
            min_leaf=_between(2, 30, least),
            penalty=0.1 * 300**penalty,
            learning_rate=0.03 * 5**rate,
            columns=0.3 + 0.7 * columns,
        )


@final
class Trees(nn.Module):
    """Boosted trees as tensors, whose shapes are known before they are fitted (strategy.Solvable)."""

    feature: Tensor
    threshold: Tensor
    missing_left: Tensor
    branches: Tensor
    baseline: Tensor

    def __init__(self, settings: Boosting, n_outputs: int) -> None:
        super().__init__()
        self.settings, self.n_outputs = settings, n_outputs
        self.counted = CHECKPOINTS[-1]  # iterations; those beyond are known to add nothing
        self.n_slots = n_outputs if n_outputs > 2 or settings.separate else 1
        self.depth = min(MAX_DEPTH, settings.n_leaves - 1)
        trees, nodes = CHECKPOINTS[-1] * self.n_slots, 2 * settings.n_leaves - 1
        self.register_buffer("feature", torch.zeros(trees, nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(trees, nodes))
        self.register_buffer("missing_left", torch.zeros(trees, nodes, dtype=torch.bool))
        self.register_buffer("branches", _leaves(trees, nodes))
        self.register_buffer("baseline", torch.zeros(self.n_slots, dtype=torch.float64))
        self.values = nn.Parameter(torch.zeros(trees, nodes))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) -> logits (batch, classes or labels), or predictions (batch, outputs)."""
        nodes = self.values.shape[1]
        feature, threshold, missing_left = self.feature.flatten(), self.threshold.flatten(), self.missing_left.flatten()
        left, right = self.branches.flatten(0, 1).unbind(1)
        first = torch.arange(0, self.counted * self.n_slots * nodes, nodes, device=x.device)
        node = first.expand(x.shape[0], -1)
        for _ in range(self.depth):
            cell = x.gather(1, feature[node])
            goes_left = (cell <= threshold[node]) | (cell.isnan() & missing_left[node])
            node = torch.where(goes_left, left[node], right[node])
        # In float64, as scikit-learn adds them up: float32 would lose a digit over hundreds of trees.
        leaves = self.values.flatten()[node].double().view(x.shape[0], self.counted, self.n_slots)
        raw = (self.baseline + leaves.sum(1)).to(x.dtype)
        return torch.cat([-raw / 2, raw / 2], 1) if self.n_outputs > self.n_slots else raw

    def solve(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Boost with the architecture's own settings and with some drawn ones; the tune split chooses when to stop."""
        data = data.sample(Raw())
        x = data[Raw()].double().cpu().numpy()
        weights = None if data.weights is None else data.weights.cpu().numpy()
        try:
            return trainer.choose(candidate, self.states(x, data.labels.cpu().numpy(), weights))
        finally:
            self.counted = CHECKPOINTS[-1]

    def states(
        self, x: NDArray[np.float64], y: NDArray[Any], weights: NDArray[np.float32] | None = None
    ) -> Iterator[tuple[dict[str, Any], Mapping[str, Tensor]]]:
        """Boost on x (n, width), the train split's labels and weights; give the trees after each of ``CHECKPOINTS``."""
        y = y if self.settings.separate else y.ravel()
        for settings in (self.settings, *(self.settings.draw() for _ in range(N_DRAWS))):
            state = self.read(boost(settings, x, y, self.n_outputs, weights))
            values = state["values"]
            for iterations in CHECKPOINTS:
                kept = torch.zeros_like(values)
                kept[: iterations * self.n_slots] = values[: iterations * self.n_slots]
                self.counted = iterations  # scoring so many checkpoints would cost more than boosting
                yield _describe(settings, iterations), {**state, "values": kept}

    def read(self, models: Sequence[Any]) -> dict[str, Tensor]:
        """Turn fitted scikit-learn models, one or as many as slots, into this module's state."""
        # scikit-learn has no public way to its trees; the comparison with its predictions is in the tests.
        trees = {
            number * self.n_slots + first + slot: tree.nodes
            for first, model in enumerate(models)
            for number, iteration in enumerate(model._predictors)
            for slot, tree in enumerate(iteration)
        }
        state = {
            name: tensor.detach().clone().cpu()
            for name, tensor in Trees(self.settings, self.n_outputs).state_dict().items()
        }
        for k, nodes in trees.items():
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            first, rows = k * self.values.shape[1], torch.from_numpy(inner)
            for name, field in (("feature", "feature_idx"), ("missing_left", "missing_go_to_left")):
                state[name][k, rows] = torch.from_numpy(nodes[field][inner].astype(np.int64)).to(state[name].dtype)
            state["threshold"][k, rows] = torch.from_numpy(_round_down(nodes["num_threshold"][inner]))
            pairs = np.stack([nodes["left"][inner], nodes["right"][inner]], 1).astype(np.int64)
            state["branches"][k, rows] = first + torch.from_numpy(pairs)
            state["values"][k, : len(nodes)] = torch.from_numpy(nodes["value"].astype(np.float32))
        baselines = [np.ravel(model._baseline_prediction) for model in models]
        state["baseline"].copy_(torch.from_numpy(np.concatenate(baselines)))
        return state


@dataclass(frozen=True)
class _Constant:
    """A label that is always or never true among the train examples, as scikit-learn's models are read."""

    _baseline_prediction: float
    _predictors: tuple[()] = ()


def boost(
    settings: Boosting,
    x: NDArray[np.float64],
    y: NDArray[Any],
    n_outputs: int,
    weights: NDArray[np.float32] | None = None,
) -> list[Any]:
    """Fit scikit-learn's model to x (n, width) and y (n,): classes, or numbers where there is one output.

    To y (n, k), several labels 0/1 or numbers, k models. Examples count by weights (n,).
    """
    if n_outputs > 1 and y.ndim == 1 and len(np.unique(y)) != n_outputs:
        raise ValueError(f"every one of {n_outputs} classes needs a train example; got {len(np.unique(y))} classes")
    if y.ndim == 1:
        return [_boost(settings, x, y, weights, classify=n_outputs > 1)]
    classify = kind_of(torch.from_numpy(y)) == "sigmoid"
    columns: list[NDArray[Any]] = list(y.T)
    return [
        _boost(settings, x, column, weights, classify=classify)
        if not classify or len(np.unique(column)) == 2
        else _Constant(float(np.log((column.sum() + 0.5) / (len(column) - column.sum() + 0.5))))
        for column in columns
    ]


def _boost(
    settings: Boosting, x: NDArray[np.float64], y: NDArray[Any], weights: NDArray[np.float32] | None, *, classify: bool
) -> Any:
    from sklearn import ensemble  # noqa: PLC0415  (heavy)
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    kind = ensemble.HistGradientBoostingClassifier if classify else ensemble.HistGradientBoostingRegressor
    model = kind(
        learning_rate=settings.learning_rate,
        max_iter=CHECKPOINTS[-1],
        max_leaf_nodes=settings.n_leaves,
        max_depth=MAX_DEPTH,
        min_samples_leaf=settings.min_leaf,
        l2_regularization=settings.penalty,
        max_features=settings.columns,
        early_stopping=False,
        random_state=int(torch.randint(2**31, ())),
    )
    with threadpool_limits(torch.get_num_threads()):  # as many as the rest of the run computes with
        return model.fit(x, y, weights)


def _describe(settings: Boosting, iterations: int) -> dict[str, Any]:
    found = {name: getattr(settings, name) for name in ("n_leaves", "min_leaf", "penalty", "learning_rate", "columns")}
    return {"iterations": iterations, **found}


def _leaves(trees: int, nodes: int) -> Tensor:
    """Make every node its own child: (trees, nodes, 2)."""
    return torch.arange(trees * nodes).view(trees, nodes, 1).repeat(1, 1, 2)


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Take the largest float32 that is not above: a float32 number goes the same way as with the float64 threshold."""
    single: NDArray[np.float32] = thresholds.astype(np.float32)
    return np.where(single > thresholds, np.nextafter(single, np.float32(-np.inf)), single)


def _between(low: int, high: int, share: float) -> int:
    """Go ``share`` of the way from ``low`` to ``high``, by ratios."""
    return round(float(low * (high / low) ** share))
