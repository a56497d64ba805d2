"""The conformance kit bites: a strategy that breaks one promise is caught by that promise."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from autoxfer.errors import InputError, Unsupported
from autoxfer.linear import fit_head
from autoxfer.strategy import Candidate, Fitted, Group, Problem, Raw, Strategy, Tap, TrainData, Trainer
from autoxfer.testing import check_strategy, checks, parametrize, promises, run_checks
from autoxfer.testing.scenes import SCENES, scene


@dataclass(frozen=True)
class Head(Strategy):
    """A linear head on the source's features: keeps every promise."""

    name: ClassVar[str] = "head"
    dropout: float = 0.1
    depth: int = 1

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        return {"dropout": FloatDistribution(0.0, 0.5), "depth": IntDistribution(1, 2)}

    def build(self, problem: Problem) -> Candidate:
        n = problem.source.n_features
        layers = [nn.Linear(n, n) for _ in range(self.depth - 1)]
        module = nn.Sequential(*layers, nn.Dropout(self.dropout), nn.Linear(n, problem.n_outputs))
        return Candidate(module, (Tap("last"),))


Fault = Callable[[Candidate, Problem], Candidate | None]


def broken(fault: Fault) -> type[Strategy]:
    """Make a strategy whose candidate has one fault."""

    @dataclass(frozen=True)
    class Broken(Head):
        def build(self, problem: Problem) -> Candidate:
            candidate = super().build(problem)
            return fault(candidate, problem) or candidate

    return Broken


def spaced(**space: Any) -> type[Strategy]:
    """Make a strategy with another search space."""

    @dataclass(frozen=True)
    class Spaced(Head):
        @classmethod
        def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
            return space

    return Spaced


def fitted_by(fit: Callable[[Candidate, TrainData, Trainer], Fitted]) -> type[Strategy]:
    """Make a strategy that is fitted in another way."""

    @dataclass(frozen=True)
    class Otherwise(Head):
        def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
            return fit(candidate, data, trainer)

    return Otherwise


class Wrapped(nn.Module):
    """Answers through a function of the true answer and the input."""

    def __init__(self, inner: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


def wrap(function: Callable[[Tensor], Tensor]) -> Fault:
    """Make a fault: the outputs changed by ``function``."""
    return lambda candidate, _: replace(candidate, module=Wrapped(candidate.module, function))


def _reads_a_label(candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
    assert len(trainer._tune.labels)  # type: ignore[attr-defined]
    return trainer.run(candidate)


def _trains_the_frozen(candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
    fitted = trainer.run(candidate)
    with torch.no_grad():
        for parameter in candidate.module.parameters():
            parameter.add_(1)
    return fitted


def _solves_without_weights(candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
    head = candidate.module[-1]  # type: ignore[index]
    weight, bias = fit_head(data[Tap("last")], data.labels, head.out_features)
    return trainer.choose(candidate, [("solved", {"1.weight": weight, "1.bias": bias})])


def _goes_on_when_stopped(candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
    return replace(trainer.choose(candidate, [("as built", candidate.module.state_dict())]), steps=12)


def _keeps_half(candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
    fitted = trainer.run(candidate)
    return replace(fitted, state=dict(list(fitted.state.items())[:1]))


def _draws_from_numpy(candidate: Candidate, problem: Problem) -> None:
    with torch.no_grad():
        candidate.module[-1].bias.fill_(np.random.rand())  # type: ignore[index]  # noqa: NPY002


def _freezes(candidate: Candidate, problem: Problem) -> None:
    candidate.module[-1].bias.requires_grad_(False)  # type: ignore[index]


def _trains_the_source(candidate: Candidate, problem: Problem) -> None:
    with torch.no_grad():
        next(problem.source._chain.segments[0].parameters()).add_(1e-3)


def _sets_the_seed(candidate: Candidate, problem: Problem) -> None:
    torch.manual_seed(0)


def _sets_the_type(candidate: Candidate, problem: Problem) -> None:
    random.random()


def _forks_on_data(x: Tensor) -> Tensor:
    return x if x.sum().item() > 0 else x * 2


FAULTS: dict[str, tuple[Callable[[], type[Strategy]], promises.Promise]] = {
    "unknown_field": (
        lambda: spaced(width=IntDistribution(1, 2)),
        promises.its_space_is_plain_data_and_always_the_same,
    ),
    "no_distribution": (lambda: spaced(depth=[1, 2]), promises.its_space_is_plain_data_and_always_the_same),
    "default_outside": (lambda: spaced(depth=IntDistribution(2, 3)), promises.its_defaults_lie_in_its_space),
    "choice_not_offered": (
        lambda: spaced(dropout=CategoricalDistribution([0.0, 0.2])),
        promises.its_defaults_lie_in_its_space,
    ),
    "corner_fails": (lambda: spaced(dropout=FloatDistribution(0.1, 1.5)), promises.every_corner_of_its_space_builds),
    "wrong_shape": (lambda: broken(wrap(lambda y: y[:, :0])), promises.every_corner_of_its_space_builds),
    "not_finite": (lambda: broken(wrap(lambda y: y / 0)), promises.every_corner_of_its_space_builds),
    "unknown_input": (
        lambda: broken(lambda c, _: replace(c, inputs=("last",))),  # type: ignore[arg-type]
        promises.it_names_real_parameters_and_inputs,
    ),
    "misspelt_group": (
        lambda: broken(lambda c, _: replace(c, groups=(Group("haed"), Group()))),
        promises.it_names_real_parameters_and_inputs,
    ),
    "misspelt_mask": (
        lambda: broken(lambda c, _: replace(c, frozen={"x": torch.ones(1, dtype=torch.bool)})),
        promises.it_names_real_parameters_and_inputs,
    ),
    "vector_penalty": (
        lambda: broken(lambda c, _: replace(c, penalty=lambda module: torch.zeros(2))),
        promises.it_names_real_parameters_and_inputs,
    ),
    "looks_at_the_batch": (
        lambda: broken(wrap(lambda y: y - y.mean(dim=0))),
        promises.it_answers_batches_of_any_size_alike,
    ),
    "numpys_generator": (lambda: broken(_draws_from_numpy), promises.the_same_seed_gives_the_same_weights),
    "seeds_globally": (lambda: broken(_sets_the_seed), promises.the_same_seed_gives_the_same_weights),
    "pythons_generator": (lambda: broken(_sets_the_type), promises.it_leaves_the_global_state_alone),
    "changes_the_source": (lambda: broken(_trains_the_source), promises.it_leaves_its_sources_alone),
    "reads_a_tune_label": (lambda: fitted_by(_reads_a_label), promises.it_uses_nothing_but_the_contract),
    "weighs_all_alike": (
        lambda: fitted_by(_solves_without_weights),
        promises.what_has_no_weight_teaches_it_nothing,
    ),
    "goes_on": (lambda: fitted_by(_goes_on_when_stopped), promises.it_stops_when_it_is_told),
    "half_a_state": (lambda: fitted_by(_keeps_half), promises.its_state_survives_a_file),
    "forks_on_data": (lambda: broken(wrap(_forks_on_data)), promises.it_exports_with_any_batch_size),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_caught(fault: str) -> None:
    make, promise = FAULTS[fault]
    place = scene.__wrapped__("vector", "classification")  # a new one, since some faults damage it
    with pytest.raises((AssertionError, AttributeError, ValueError, torch._dynamo.exc.UserError, RuntimeError)):
        promise(make(), place)


def test_weights_declared_frozen_that_move_are_caught() -> None:
    @dataclass(frozen=True)
    class Moving(broken(_freezes)):  # type: ignore[misc]
        def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
            return _trains_the_frozen(candidate, data, trainer)

    with pytest.raises(AssertionError, match="bias is declared frozen and changed"):
        promises.it_trains_only_what_it_declares(Moving, scene("vector", "classification"))


def test_a_network_that_serves_something_else_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    place = scene("vector", "classification")
    answer = type(place).answer
    monkeypatch.setattr(type(place), "answer", lambda *args: answer(*args) + 1e-4)
    with pytest.raises(AssertionError, match="the composed network differs"):
        promises.one_network_answers_as_the_cached_inputs_do(Head, place)


def test_a_strategy_that_keeps_every_promise_passes() -> None:
    reports = check_strategy(Head)
    assert {report.outcome for report in reports} == {"kept"}
    assert len(reports) == len(SCENES) * len(promises.PROMISES)


def test_every_promise_is_shown_to_bite() -> None:
    elsewhere = {promises.it_trains_only_what_it_declares, promises.one_network_answers_as_the_cached_inputs_do}
    assert {promise for _, promise in FAULTS.values()} | elsewhere == set(promises.PROMISES)


def test_an_expected_failure_is_no_failure_until_the_promise_is_kept_after_all() -> None:
    outside = spaced(depth=IntDistribution(2, 3))
    check_strategy(outside, {"its_defaults_lie_in_its_space": "needs two layers"})
    with pytest.raises(AssertionError, match="kept after all: needs two layers"):
        check_strategy(Head, {"its_defaults_lie_in_its_space": "needs two layers"})
    with pytest.raises(InputError, match="expected_failures"):
        list(run_checks(Head, {"its_defaults": "misspelt"}))


def test_a_strategy_is_tried_only_where_it_serves() -> None:
    @dataclass(frozen=True)
    class Choosy(Head):
        @classmethod
        def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
            if problem.modality in ("image", "text", "mixed"):
                raise Unsupported("numbers are for me")
            return {}

    served = {"vector-classification", "vector-regression", "vector-multilabel"}
    assert {str(check.scene) for check in checks(Choosy)} == served


def test_what_is_no_strategy_is_refused_with_the_reason() -> None:
    with pytest.raises(AssertionError, match="must be a frozen dataclass"):
        checks(type("Plain", (Head,), {}))


def test_a_decorator_hands_each_check_to_a_test() -> None:
    mark = parametrize(Head, {"it_exports_with_any_batch_size": "no reason"})
    params = mark.args[1]
    assert len(params) == len(SCENES) * len(promises.PROMISES)
    assert sum(bool(param.marks) for param in params) == len(SCENES)


def test_masked_entries_and_raw_inputs_pass_too() -> None:
    @dataclass(frozen=True)
    class Masked(Head):
        name: ClassVar[str] = "masked"
        needs_source: ClassVar[bool] = False

        def build(self, problem: Problem) -> Candidate:
            width = prod(problem.shape)
            module = nn.Sequential(nn.Flatten(), nn.Linear(width, problem.n_outputs))
            mask = torch.zeros(problem.n_outputs, width, dtype=torch.bool)
            mask[:, 0] = True
            return Candidate(module, (Raw(),), frozen={"1.weight": mask})

        @classmethod
        def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
            if problem.modality == "text":
                raise Unsupported("the ids of words are no numbers")
            return {}

    check_strategy(Masked)
