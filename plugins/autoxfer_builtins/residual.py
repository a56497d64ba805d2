r"""Residual feature integration (REFINE): a new encoder learns what the frozen source's features lack.

Xu, Nakada, Zhang and Li, "Residual feature integration is sufficient to prevent negative transfer", ICLR 2026,
https://arxiv.org/abs/2505.11771:

    prediction = v' f(x) + w' h(x) + b

| symbol | meaning                                                  | shape         |
|--------|----------------------------------------------------------|---------------|
| f      | features of the frozen sources, normalised and scaled    | (batch, p)    |
| h      | a new encoder of the raw example, after a ReLU           | (batch, q)    |
| v, w   | one linear head, in two parts                            | (p + q, k)    |

Differs from the paper: ``scale``, ``dropout`` and ``head_decay`` act on v' f, since carrying p source features costs
about p / n; the head may start at the linear probe. The paper's guarantee is about rates, so the guard still judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor, nn

from autoxfer import (
    Candidate,
    Fitted,
    Group,
    Normalise,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    fit_head,
    hookimpl,
)


class Integrated(nn.Module):
    """The example through the new encoder, the sources' features beside it, and a linear head over both."""

    def __init__(self, encoder: nn.Module, normalise: Sequence[Normalise], n_outputs: int, settings: Residual) -> None:
        super().__init__()
        width, n_features = settings.width, sum(part.n_features for part in normalise)
        self.body = encoder
        self.normalise = nn.ModuleList(normalise)
        self.dropout = nn.Dropout(settings.dropout)
        self.scale = settings.scale
        self.head = nn.Linear(width, n_outputs)
        self.source_head = nn.Linear(n_features, n_outputs, bias=False)
        joint = nn.Linear(width + n_features, n_outputs)  # one head's initial values, in two parts
        with torch.no_grad():
            self.head.weight.copy_(joint.weight[:, :width])
            self.source_head.weight.copy_(joint.weight[:, width:])
            self.head.bias.copy_(joint.bias)

    def joined(self, *features: Tensor) -> Tensor:
        """Make the sources' features comparable and join them: (batch, p), before they are scaled."""
        return torch.cat([part(f) for part, f in zip(self.normalise, features, strict=True)], 1)

    def parts(self, example: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Give v' f and w' h + b, (batch, n_outputs) each."""
        joined = self.joined(*features) * self.scale
        return self.source_head(self.dropout(joined)), self.head(self.body(example).relu())

    def forward(self, example: Tensor, *features: Tensor) -> Tensor:
        """(batch, ...), one (batch, n_features) per source -> (batch, n_outputs)."""
        source, own = self.parts(example, *features)
        return source + own


@final
@dataclass(frozen=True)
class Residual(Strategy):
    """Train an encoder of ``width`` features and one linear head over them and the source's."""

    name: ClassVar[str] = "residual"
    many_sources: ClassVar[bool] = True
    recipe: ClassVar[Recipe | None] = Recipe(lr=3e-3)
    encoder: str = "compact"  # compact, compact_wide, source: the (first) source's architecture, newly made
    normalisation: str = "standardise"
    scale: float = 1.0
    dropout: float = 0.0  # on the source's features
    head_decay: float = 1e-2  # weight decay of v
    head_first: bool = True
    width: int = 64
    pca: int = 0  # principal components of each source's features that are kept; 0 = all, unturned

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Trade what the source gives against what it costs."""
        lowest = sum(source.n_features for source in problem.sources) ** -0.5
        return {
            "encoder": CategoricalDistribution(["compact", "compact_wide", "source"]),
            "normalisation": CategoricalDistribution(["none", "standardise", "l2"]),
            "scale": FloatDistribution(min(lowest, 0.5), 1.0, log=True),
            "dropout": FloatDistribution(0.0, 0.7),
            "head_decay": FloatDistribution(1e-4, 3.0, log=True),
            "head_first": CategoricalDistribution([True, False]),
            "pca": CategoricalDistribution(_components(problem)),
        }

    def build(self, problem: Problem) -> Candidate:
        """Make the encoder and the head."""
        encoder = problem.architectures[problem.source.name if self.encoder == "source" else self.encoder]
        normalise = [Normalise(source.n_features, self.normalisation, self.pca) for source in problem.sources]
        module = Integrated(encoder(self.width), normalise, problem.n_outputs, self)
        taps = tuple(Tap("last", index) for index in range(len(problem.sources)))
        return Candidate(module, (encoder.input, *taps), (Group("source_head", decay=self.head_decay), Group()))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Take the features' statistics, start the head at the probe, train; report each part's share."""
        module = candidate.module.to(data.labels.device)
        assert isinstance(module, Integrated)
        features = [data[tap] for tap in candidate.inputs[1:]]
        for part, f in zip(module.normalise, features, strict=True):
            assert isinstance(part, Normalise)
            part.fit(f, data.weights)
        with torch.no_grad():
            if self.head_first:
                # Unscaled, the features are those of other trials too; as they grow, the solution shrinks.
                joined = module.joined(*features)
                weight, bias = fit_head(joined, data.labels, module.head.out_features, data.weights)
                module.source_head.weight.copy_(weight / module.scale)
                module.head.bias.copy_(bias)
                module.head.weight.zero_()
        fitted, some = trainer.run(candidate), data.sample(*candidate.inputs)
        return replace(fitted, notes={**fitted.notes, **_shares(module, [some[name] for name in candidate.inputs])})


def _components(problem: Problem) -> list[int]:
    """Offer no rotation, and numbers of components of each source that the examples bear: about ten for each of all."""
    n_features = min(source.n_features for source in problem.sources)
    most = min(n_features - 1, problem.n_train - 1, max(16, problem.n_train // (10 * len(problem.sources))))
    return [0, *(k for k in (16, 64, 256) if k <= most)]


@torch.no_grad()
def _shares(module: Integrated, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Mean length of v' f and of w' h over the train split, or over what memory bears of it."""
    module.eval()
    lengths = []
    for batch in zip(*(torch.split(tensor, 256) for tensor in inputs), strict=True):
        source, own = module.parts(*batch)
        lengths.append(torch.stack([source.norm(dim=1), (own - module.head.bias).norm(dim=1)], 1))
    source_share, own_share = torch.cat(lengths).mean(0).tolist()
    return {"source_share": source_share, "encoder_share": own_share}


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer residual feature integration."""
    return [Residual]
