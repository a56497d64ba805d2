"""Before the search: does each study's first candidate run, and can each source be shipped? Seconds, not hours."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autoxfer.errors import AutoxferError, InputError, Unsupported, describe
from autoxfer.export import trace
from autoxfer.records import Recipe
from autoxfer.strategy import Candidate, Tap
from autoxfer.trials import seeded, separate

if TYPE_CHECKING:
    from autoxfer.features import Features
    from autoxfer.strategy import Problem, Strategy

N = 2  # examples: a batch of 1 hides what mixes them up


def fault(strategy: type[Strategy], params: Mapping[str, Any], problem: Problem, features: Features) -> str:
    """Build the candidate that ``params`` ask for and run it untrained: why that fails; empty where it works."""
    try:
        instance, _ = separate(strategy, params, (strategy.recipe or Recipe()).steps or 1)
        with seeded(0, features.device), torch.no_grad():
            composed = features.compose(instance.build(problem), problem)
            shape = tuple(composed(features.stored("train")[:N]).shape)
    except Unsupported as reason:
        return str(reason)
    except (Exception, SystemExit) as error:  # whatever a strategy's own code, or torch under it, raises
        return describe(error)
    expected = (min(N, problem.n_train), problem.n_outputs)
    return "" if shape == expected else f"its first candidate gives outputs of shape {shape}, not {expected}"


def check_shippable(source: str, problem: Problem, features: Features) -> None:
    """Trace a source as the winner will be. Raises InputError where torch.export cannot follow the network's code."""
    network = features.compose(Candidate(nn.Identity(), (Tap("last", source),)), problem)
    example = features.stored("train")[:1].cpu()
    try:
        trace(copy.deepcopy(network).cpu().eval(), torch.cat([example] * N))
    except AutoxferError as error:
        expected = "a network that torch.export can follow, as every winner has to be exported"
        raise InputError(expected, str(error), f"sources.{source}.model") from error
