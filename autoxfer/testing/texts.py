"""Tiny texts, and a tiny network that reads them: a chain whose activations carry their mask."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoxfer.cutting import Chain, origins, tensors
from autoxfer.heads import OnTokens, Pool
from autoxfer.source import Source, fingerprint
from autoxfer.tokens import PADDING, Tokenizer, Vocabulary

FILLERS = ("it", "was", "the", "of", "and", "a", "so", "on")
TELLING = ("red", "green", "blue")
WIDTH, LENGTH = 6, 12


def sentences(kinds: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """Draw sentences of three to nine words, one or two of which tell the kind."""
    drawn = []
    for kind in kinds:
        words = [*rng.choice(FILLERS, rng.integers(2, 8)), *[TELLING[kind]] * rng.integers(1, 3)]
        drawn.append(" ".join(rng.permutation(words)))
    return drawn


class Look(nn.Module):
    """Ids -> word vectors with their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(len(FILLERS) + len(TELLING) + 1, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) -> (batch, tokens, WIDTH + 1)."""
        there = (ids != PADDING)[:, :, None].to(self.vectors.weight.dtype)
        return torch.cat([self.vectors(ids.long().clamp(min=0)), there], -1)


def network() -> nn.Sequential:
    """Make the network: word vectors, a layer on each, their mean and a layer on it."""
    layer = OnTokens(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()))
    last = nn.Sequential(Pool(masked=True), nn.Linear(WIDTH, 5), nn.ReLU())
    return nn.Sequential(OrderedDict(look=Look(), layer=layer, last=last))


def source(name: str, made: nn.Sequential) -> Source:
    """Make a source of what ``network`` made."""
    names = {id(tensor): key for key, tensor in tensors(made).items()}
    segments = [child.eval() for child in made]
    chain = Chain(
        names=("look", "layer", "last"),
        segments=tuple(segments),
        shapes=((LENGTH, WIDTH + 1), (LENGTH, WIDTH + 1), (5,)),
        head=None,
        aliases={},
        origins=tuple(origins(segment, names) for segment in segments),
    )
    tokenizer = Tokenizer("words", Vocabulary((*FILLERS, *TELLING), ()).content, LENGTH, name)
    reading = {"words": len(FILLERS) + len(TELLING)}
    return Source(
        name,
        chain,
        network,
        input_shape=(LENGTH,),
        mean=(0.0,),
        std=(1.0,),
        tokenizer=tokenizer,
        card={"input": reading, "segments": list(chain.names)},
        fingerprint=fingerprint(made, reading),
    )
