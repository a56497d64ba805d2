r"""Zero-shot: the source's own head answers, without any training on the target.

The floor of every comparison of sources, as in Cherti et al., "Reproducible scaling laws for contrastive language-image
learning", CVPR 2023, https://arxiv.org/abs/2212.07143, for a head with fixed classes:

    classes:     logit_c(x) = log sum over z in S_c of exp(w_z' f(x) + b_z)
    numbers:     y(x) = a (w' f(x) + b) + a_0,   a = 1, a_0 = 0 or, with ``affine``, by least squares on train

| symbol | meaning                                             |
|--------|-----------------------------------------------------|
| f      | features of the frozen source                       |
| w, b   | the source's own head                               |
| S_c    | the source's classes that mean the target's class c |

Differs from the paper: classes come from the head's names, not from prompts; several of them may mean one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import Tensor, nn

from autoxfer import (
    Candidate,
    Fitted,
    Problem,
    Recipe,
    Source,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    Unsupported,
    hookimpl,
    match_classes,
    weighted_mean,
)


class Restricted(nn.Module):
    """A frozen head of which only what means something to the target is left."""

    places: Tensor  # (classes, most): the head's outputs that mean a class, the first again where there are fewer
    there: Tensor  # (classes, most): whether it is no repetition

    def __init__(self, head: nn.Module, meanings: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).requires_grad_(False)
        most = max(map(len, meanings))
        padded = [[*each, *[each[0]] * (most - len(each))] for each in meanings]
        self.register_buffer("places", torch.tensor(padded))
        self.register_buffer("there", torch.tensor([[k < len(each) for k in range(most)] for each in meanings]))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, n_features) -> logits (batch, classes)."""
        logits = self.head(features)[:, self.places]
        answer: Tensor = logits.masked_fill(~self.there, -torch.inf).logsumexp(-1)
        return answer


class Rescaled(nn.Module):
    """A frozen head whose numbers are brought into the target's standardised units."""

    factor: Tensor  # (n_outputs,)
    shift: Tensor

    def __init__(self, head: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.register_buffer("factor", torch.ones(n_outputs))
        self.register_buffer("shift", torch.zeros(n_outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, n_features) -> (batch, n_outputs)."""
        answer: Tensor = self.head(features) * self.factor + self.shift
        return answer


@final
@dataclass(frozen=True)
class ZeroShot(Strategy):
    """Ask the source's own head; nothing is trained.

    ``mapping`` says which of its classes are meant: "names", those of the target's names; "order", as they stand; or
    pairs, "pet = cat | dog; car = taxi", for what is called otherwise. ``affine`` fits numbers by a line on train.
    """

    name: ClassVar[str] = "zero_shot"
    recipe: ClassVar[Recipe | None] = None
    mapping: str = "names"
    affine: bool = False

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose the line. Raises Unsupported for a source whose head cannot answer."""
        n = n_answers(problem.source)
        if problem.task == "regression":
            if n != problem.n_outputs or problem.source.classes:
                raise Unsupported(f"the source's own head gives {n} answers that are no values of the target")
            return {"affine": CategoricalDistribution([False, True])}
        if not problem.source.classes and n != problem.n_outputs:
            unnamed = f"of the {n} answers of the source's own head nothing says which classes they mean"
            raise Unsupported(f"{unnamed} (classes: ... on its card)")
        return {}

    def build(self, problem: Problem) -> Candidate:
        """Put the source's head on its features. Raises Unsupported where a class of the target means nothing to it."""
        head = problem.source.head
        assert head is not None
        if problem.task == "regression":
            return Candidate(Rescaled(head, problem.n_outputs), (Tap("last"),))
        return Candidate(Restricted(head, meanings(self.mapping, problem)), (Tap("last"),))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Give numbers the target's units; that is all."""
        module = candidate.module.to(data.labels.device)
        if isinstance(module, Rescaled):
            with torch.no_grad():
                found = module.head(data[Tap("last")]).double()
                for buffer, value in zip((module.factor, module.shift), self._line(found, data), strict=True):
                    buffer.copy_(value)
        return trainer.choose(candidate, [("as it is", module.state_dict())])

    def _line(self, found: Tensor, data: TrainData) -> tuple[Tensor, Tensor]:
        """Slope and intercept from the head's numbers (n, n_outputs) to the standardised labels."""
        if not self.affine:
            center, spread = data.scale
            return 1 / spread, -center / spread
        y, center = data.labels.double(), weighted_mean(found, data.weights)
        x = (found - center) * (1.0 if data.weights is None else data.weights.double()[:, None])
        slope = (x * y).sum(0) / (x * (found - center)).sum(0).clamp(min=1e-12)
        return slope, weighted_mean(y, data.weights) - slope * center


def n_answers(source: Source) -> int:
    """Count the outputs of a source's own head. Raises Unsupported where it has none."""
    weight = getattr(source.head, "weight", None)
    if weight is None:
        raise Unsupported(f"source {source.name!r} has no head of its own")
    return int(weight.shape[0])


def meanings(mapping: str, problem: Problem) -> list[list[int]]:
    """Give the source's classes that mean each of the target's. Raises Unsupported where there is none."""
    target, source = problem.classes, problem.source.classes
    if mapping == "order":
        if (n := n_answers(problem.source)) != len(target):
            raise Unsupported(f"mapping: order needs as many classes; the source has {n}, the target {len(target)}")
        return [[index] for index in range(n)]
    if mapping != "names" and "=" not in mapping:
        raise Unsupported(
            f"mapping has to be names, order or pairs such as 'pet = cat | dog; car = taxi', not {mapping!r}"
        )
    if not source:
        raise Unsupported("nothing says what the source's classes are called; mapping: order takes them as they stand")
    words = [[name] for name in target]
    for pair in mapping.split(";") if mapping != "names" else ():
        own, _, theirs = pair.partition(" = " if " = " in pair else "=")
        (place,) = match_classes([own], target)
        if place is None:
            raise Unsupported(f"mapping names {own.strip()!r}, which is no class of the target")
        words[place] = theirs.split("|")
    found = [match_classes(each, source) for each in words]
    if None in sum(found, ()):
        pairs = (pair for each in zip(words, found, strict=True) for pair in zip(*each, strict=True))
        missing = ", ".join(word.strip() for word, place in pairs if place is None)
        raise Unsupported(f"the source has no class called {missing}")
    return [[place for place in each if place is not None] for each in found]


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer the source's own head."""
    return [ZeroShot]
