"""What the promises look at: corners of a search space, weights before and after, global state."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor, nn

from autoxfer.source import Source
from autoxfer.strategy import Candidate
from autoxfer.tuning.spaces import clip

MANY = 16  # corners that are tried


def combinations(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Draw parameters: the corners of the space, or some of them where it has many, and four points inside."""
    rng = np.random.default_rng(0)
    ends = [_ends(distribution) for distribution in space.values()]
    corners = list(itertools.islice(itertools.product(*ends), 4096))
    if len(corners) > MANY:
        corners = [corners[0], corners[-1], *(corners[i] for i in rng.permutation(len(corners))[: MANY - 2])]
    for values in corners:
        yield dict(zip(space, values, strict=True))
    for _ in range(4 if space else 0):
        yield {name: _draw(distribution, rng) for name, distribution in space.items()}


def _ends(distribution: Any) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return (distribution.low, distribution.high)


def _draw(distribution: Any, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    if isinstance(distribution, FloatDistribution):
        low, high = float(distribution.low), float(distribution.high)
        drawn = np.exp(rng.uniform(np.log(low), np.log(high))) if distribution.log else rng.uniform(low, high)
        return clip({"x": float(drawn)}, {"x": distribution})["x"]
    return clip({"x": int(rng.integers(distribution.low, distribution.high + 1))}, {"x": distribution})["x"]


def state(candidate: Candidate) -> dict[str, Tensor]:
    """Copy the module's weights."""
    return {name: tensor.detach().clone() for name, tensor in candidate.module.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are bit-equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def declared_fixed(module: nn.Module) -> set[str]:
    """Name what training must not change: parameters without gradient, and statistics of layers that have only such."""
    fixed = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for path, part in module.named_modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            fixed |= {f"{path}.{name}".lstrip(".") for name, _ in part.named_buffers(recurse=False)}
    return fixed


def digest(source: Source) -> str:
    """Hash every weight that a source hands out."""
    hashed = hashlib.sha256()
    parts: list[nn.Module] = [source.suffix("input"), source.extract([tap.name for tap in source.taps])]
    for part in parts + ([source.head] if source.head is not None else []):
        for tensor in part.state_dict().values():
            hashed.update(tensor.detach().numpy().tobytes())
    return hashed.hexdigest()


def global_state() -> tuple[Any, ...]:
    """Read everything global that a strategy could touch."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the state that must not change
    return (
        torch.get_rng_state().numpy().tobytes(),
        (kind, np.asarray(keys).tobytes(), *rest),
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )


@contextmanager
def other_generators(seed: int) -> Iterator[None]:
    """Put numpy's and Python's global generators into another state, and back."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])
