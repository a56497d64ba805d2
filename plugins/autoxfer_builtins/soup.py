r"""Soup: fine-tune a few times from one start and average the weights, all the way or part of it.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022, https://arxiv.org/abs/2203.05482; Wortsman et al., "Robust fine-tuning of zero-shot models"
(WiSE-FT), CVPR 2022, https://arxiv.org/abs/2109.01903:

    w = w0 + reach / |S| * sum over k in S of (w_k - w0)

| symbol | meaning                                                                       |
|--------|-------------------------------------------------------------------------------|
| w0     | the pretrained body under a head that was fitted first                        |
| w_k    | where the k-th fine-tuning ended, its best checkpoint on the tune split       |
| S      | the best of them and any of the others: a greedy soup is one of these choices |
| reach  | 0: the start, 1: the soup itself                                              |

Differs from the papers: the members share one trial's steps, so that a soup costs what a fine-tuning costs; they differ
in their batches and, by ``spread``, in their learning rates. Running statistics of normalisation layers are averaged
as the weights are: nothing has to be computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isfinite
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor

from autoxfer import (
    Candidate,
    Fitted,
    Group,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    hookimpl,
    start_head,
    with_head,
)

State = Mapping[str, Tensor]
REACHES = (0.5, 1.0)


@final
@dataclass(frozen=True)
class Soup(Strategy):
    """Average ``members`` fine-tunings, the last of which learns ``spread`` times as fast as the first."""

    name: ClassVar[str] = "soup"
    recipe: ClassVar[Recipe | None] = Recipe(lr=2e-3, augment="shift")
    members: int = 3
    spread: float = 3.0
    head_lr: float = 1.0
    layer_decay: float = 0.8
    dropout: float = 0.0

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose how many, how different, and as fine-tuning does how fast each part learns."""
        return {
            "members": CategoricalDistribution([2, 3, 4]),
            "spread": FloatDistribution(1.0, 10.0, log=True),
            "head_lr": FloatDistribution(0.3, 30.0, log=True),
            "layer_decay": FloatDistribution(0.3, 1.0),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Put a new head on the pretrained body."""
        body = problem.source.suffix("input")
        names = [name for name, _ in body.named_children()]
        groups = tuple(
            Group(f"body.{name}.", lr=self.layer_decay ** (4 * (len(names) - 1 - k) / len(names)))
            for k, name in enumerate(names)
        )
        module = with_head(body, problem.source.n_features, problem.n_outputs, dropout=self.dropout)
        return Candidate(module, (Tap("input"),), (*groups, Group("head", lr=self.head_lr)))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Fit the head, fine-tune each member from there, choose what to average and how far to go."""
        start_head(candidate, data)
        start = _copy(candidate.module.state_dict())
        found: list[Fitted] = []
        for number in range(self.members):
            candidate.module.load_state_dict(start)
            rate = self.spread ** (number / (self.members - 1) - 0.5)
            groups = tuple(replace(group, lr=group.lr * rate) for group in candidate.groups)
            found.append(trainer.run(replace(candidate, groups=groups), share=1 / self.members))
            if found[-1].stopped:
                break
        chosen = trainer.choose(candidate, mixtures(start, [each.state for each in found], _best(found)))
        kept = [each.notes.get("kept") for each in found]
        return replace(
            chosen,
            curve=(*found[-1].curve, *chosen.curve),
            steps=sum(each.steps for each in found),
            stopped=found[-1].stopped,
            notes={**chosen.notes, "kept": kept},
        )


def mixtures(start: State, members: Sequence[State], best: int | None) -> Iterator[tuple[str, State]]:
    """Give the start, and every average that holds the best member at every reach; without a best one all averages."""
    yield "0", start
    for size in range(1, len(members) + 1):
        for chosen in combinations(range(len(members)), size):
            if best is not None and best not in chosen:
                continue
            for reach in REACHES:
                label = f"{'+'.join(str(number + 1) for number in chosen)} x {reach:g}"
                yield label, mixed(start, [members[number] for number in chosen], reach)


def mixed(start: State, members: Sequence[State], reach: float) -> dict[str, Tensor]:
    """Go from the start towards the mean of the members; what is no number with a fraction is the last one's."""
    return {
        name: value + reach * (sum(each[name] - value for each in members) / len(members))
        if value.is_floating_point()
        else members[-1][name].clone()
        for name, value in start.items()
    }


def _best(found: Sequence[Fitted]) -> int | None:
    """Give the number of the member with the best tune score; None where there is no tune split to tell."""
    best = 0
    for number, each in enumerate(found):
        if not isfinite(each.score.rank):
            return None
        if each.score.beats(found[best].score):
            best = number
    return best


def _copy(state: State) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer soups."""
    return [Soup]
