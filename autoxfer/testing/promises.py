"""What every strategy promises, one function a promise; each raises AssertionError, or whatever the strategy raises."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from torch import Tensor

from autoxfer.plugins.admission import RECIPE_FIELDS
from autoxfer.strategy import Candidate, Fitted, Raw, Strategy, Tap
from autoxfer.testing.probes import combinations, declared_fixed, digest, global_state, other_generators, same, state
from autoxfer.testing.scenes import CPU, Scene
from autoxfer.trials import seeded
from autoxfer.tuning.spaces import clip

Promise = Callable[[type[Strategy], Scene], None]
CLOSE = 1e-5  # for sums in another order, relative to the largest output


def its_space_is_plain_data_and_always_the_same(strategy: type[Strategy], scene: Scene) -> None:
    """Distributions of its own fields, which survive being written down."""
    problem = scene.problem_for(strategy)
    space = strategy.space(problem)
    assert space == strategy.space(problem), "two calls of space gave two answers"
    fields = {field.name for field in dataclasses.fields(strategy)}  # type: ignore[arg-type]
    assert set(space) <= fields, f"space names what is no field: {sorted(set(space) - fields)}"
    assert not RECIPE_FIELDS & set(space), f"space searches what is the recipe's: {sorted(RECIPE_FIELDS & set(space))}"
    for name, distribution in space.items():
        assert isinstance(distribution, BaseDistribution), f"{name}: expected a distribution; got {distribution!r}"
        assert json_to_distribution(distribution_to_json(distribution)) == distribution, name


def its_defaults_lie_in_its_space(strategy: type[Strategy], scene: Scene) -> None:
    """The first trial of every study is the strategy as its author meant it."""
    space = strategy.space(scene.problem_for(strategy))
    defaults = {name: getattr(strategy(), name) for name in space}
    assert clip(defaults, space) == defaults, (
        f"defaults {defaults} lie outside the space; the nearest: {clip(defaults, space)}"
    )


def every_corner_of_its_space_builds(strategy: type[Strategy], scene: Scene) -> None:
    """Lowest and highest values together, and some drawn between them."""
    space = strategy.space(scene.problem_for(strategy))
    for params in combinations(space):
        candidate = scene.build(strategy(**params))
        _check_outputs(scene.answer(candidate, 2), scene, 2, params)


def it_names_real_parameters_and_inputs(strategy: type[Strategy], scene: Scene) -> None:
    """Inputs that the core can compute, groups that match something, masks that fit."""
    candidate = scene.build(strategy())
    assert isinstance(candidate, Candidate), f"build must return a Candidate; got {type(candidate).__name__}"
    assert candidate.inputs, "a candidate needs at least one input"
    for consumed in candidate.inputs:
        assert isinstance(consumed, Raw | Tap), f"inputs are Raw() or Tap(...); got {consumed!r}"
    parameters = dict(candidate.module.named_parameters())
    for group in candidate.groups:
        assert any(name.startswith(group.match) for name in parameters), f"no parameter starts with {group.match!r}"
    for name, mask in candidate.frozen.items():
        assert name in parameters, f"frozen names {name!r}, which is no parameter"
        assert mask.dtype == torch.bool, f"the mask of {name} must be bool; got {mask.dtype}"
        assert mask.shape == parameters[name].shape, f"the mask of {name} has shape {tuple(mask.shape)}"
    if candidate.penalty is not None:
        penalty = candidate.penalty(candidate.module)
        assert penalty.shape == (), f"the penalty must be a scalar; got shape {tuple(penalty.shape)}"
        assert torch.isfinite(penalty), "the penalty must be finite"


def it_answers_batches_of_any_size_alike(strategy: type[Strategy], scene: Scene) -> None:
    """One example alone gets the answer that it gets among others: also the last, smaller batch."""
    candidate = scene.build(strategy())
    together = scene.answer(candidate, 5)
    _check_outputs(together, scene, 5)
    for n in (1, 3):
        _assert_close(scene.answer(candidate, n), together[:n], f"a batch of {n} is answered differently")


def the_same_seed_gives_the_same_weights(strategy: type[Strategy], scene: Scene) -> None:
    """Whatever the state of numpy's and Python's own generators; and another seed is another draw."""
    with other_generators(1):
        first = scene.fit(strategy())
    with other_generators(2):
        second = scene.fit(strategy())
    assert same(state(first[0]), state(second[0])), "two fits with one seed gave different weights"
    assert (first[1].score, first[1].curve) == (second[1].score, second[1].curve)
    states = []
    for seed in (1, 2):
        with seeded(seed, CPU):
            strategy().build(scene.problem_for(strategy))
            states.append(torch.get_rng_state())
    assert not torch.equal(*states), "build sets torch's seed, which is the core's to set"


def it_leaves_the_global_state_alone(strategy: type[Strategy], scene: Scene) -> None:
    """Generators, threads, default type and gradient mode are as before, and so is the strategy itself."""
    strategy_before, before = strategy(), global_state()
    strategy.space(scene.problem_for(strategy))
    instance = strategy()
    scene.fit(instance)
    assert global_state() == before, "random state, threads, default type or gradient mode changed"
    assert instance == strategy_before, "the instance changed"


def it_leaves_its_sources_alone(strategy: type[Strategy], scene: Scene) -> None:
    """What a source hands out are copies; training them does not reach the source."""
    before = [digest(source) for source in scene.problem.sources]
    scene.fit(strategy())
    assert [digest(source) for source in scene.problem.sources] == before, "a source's weights changed"


def it_trains_only_what_it_declares(strategy: type[Strategy], scene: Scene) -> None:
    """What needs no gradient stays, masked entries stay exactly, and so do the statistics of frozen layers."""
    candidate = scene.build(strategy())
    before = state(candidate)
    fixed = declared_fixed(candidate.module)
    scene.train(strategy(), candidate)
    after = candidate.module.state_dict()
    for name in fixed & set(after):
        assert torch.equal(before[name], after[name]), f"{name} is declared frozen and changed"
    for name, mask in candidate.frozen.items():
        assert torch.equal(before[name][mask], after[name][mask]), f"masked entries of {name} changed"


def it_uses_nothing_but_the_contract(strategy: type[Strategy], scene: Scene) -> None:
    """A trainer and data that have only what the contract names serve it: it cannot have read a tune label."""
    candidate, fitted = scene.fit(strategy())
    assert isinstance(fitted, Fitted), f"fit must return a Fitted; got {type(fitted).__name__}"
    assert all(0.0 <= share <= 1.0 for share, _ in fitted.curve), "a curve's shares lie between 0 and 1"
    assert np.isfinite([fitted.score.value, fitted.score.rank, fitted.score.loss]).all(), fitted.score
    _check_outputs(scene.answer(candidate, 5), scene, 5)


def what_has_no_weight_teaches_it_nothing(strategy: type[Strategy], scene: Scene) -> None:
    """Where the user has weighed the examples, other labels on those of weight 0 change nothing."""
    weights = torch.ones(len(scene.labels))
    weights[::4] = 0
    labels = scene.labels.clone()
    labels[::4] = {
        "classification": (labels + 1) % scene.problem.n_outputs,
        "multilabel": 1 - labels,
        "regression": labels + 3,
    }[scene.problem.task][::4]
    answers = []
    for given in (scene.labels, labels):
        weighed = dataclasses.replace(scene, labels=given, weights=weights / weights.mean())
        answers.append(weighed.answer(weighed.fit(strategy())[0], len(scene.tune.labels)))
    honest, spoilt = answers
    _assert_close(spoilt, honest, "labels of examples that count nothing were learned; data.weights says what counts")


def it_stops_when_it_is_told(strategy: type[Strategy], scene: Scene) -> None:
    """A trial that is behind is pruned, and its strategy does not train on."""
    trainer = scene.trainer(strategy, floors=((0.01, float("inf")),))
    fitted = scene.train(strategy(), scene.build(strategy()), trainer)
    assert trainer.pruned or not fitted.steps, "told to stop, it went on to the end"


def its_state_survives_a_file(strategy: type[Strategy], scene: Scene) -> None:
    """Saved as safetensors and loaded into a newly built module, it gives bit-equal answers."""
    from safetensors.torch import load, save  # noqa: PLC0415

    candidate, fitted = scene.fit(strategy())
    expected = set(candidate.module.state_dict())
    assert set(fitted.state) == expected, f"the kept state differs from the module's by {expected ^ set(fitted.state)}"
    state = load(save({name: tensor.detach().cpu().contiguous() for name, tensor in fitted.state.items()}))
    assert same(state, fitted.state), "a tensor changed on its way through the file"
    again = scene.build(strategy())
    candidate.module.load_state_dict(fitted.state)
    again.module.load_state_dict(state)
    assert torch.equal(scene.answer(again, 5), scene.answer(candidate, 5)), "the loaded model answers differently"


def one_network_answers_as_the_cached_inputs_do(strategy: type[Strategy], scene: Scene) -> None:
    """What serves is what was trained: from the stored example on, the composed network gives the same outputs."""
    candidate, _ = scene.fit(strategy())
    problem = scene.problem_for(strategy)
    composed = scene.features.compose(candidate, problem)
    with torch.no_grad():
        served = composed(scene.features.stored("tune"))
    _assert_close(served, scene.answer(candidate, len(served)), "the composed network differs", CLOSE / 10)


def it_exports_with_any_batch_size(strategy: type[Strategy], scene: Scene) -> None:
    """torch.export accepts the composed network, saves it, and answers batches of 1 and 3 as before."""
    candidate = scene.build(strategy())
    composed = scene.features.compose(candidate, scene.problem_for(strategy))
    stored = scene.features.stored("tune")
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(composed, (stored[:2],), dynamic_shapes=({0: batch},), strict=False)
    torch.export.save(program, file := io.BytesIO())
    file.seek(0)
    loaded = torch.export.load(file).module()
    with torch.no_grad():
        for n in (1, 3):
            _assert_close(loaded(stored[:n]), composed(stored[:n]), f"exported, a batch of {n} is answered differently")


PROMISES: tuple[Promise, ...] = (
    its_space_is_plain_data_and_always_the_same,
    its_defaults_lie_in_its_space,
    every_corner_of_its_space_builds,
    it_names_real_parameters_and_inputs,
    it_answers_batches_of_any_size_alike,
    the_same_seed_gives_the_same_weights,
    it_leaves_the_global_state_alone,
    it_leaves_its_sources_alone,
    it_trains_only_what_it_declares,
    it_uses_nothing_but_the_contract,
    what_has_no_weight_teaches_it_nothing,
    it_stops_when_it_is_told,
    its_state_survives_a_file,
    one_network_answers_as_the_cached_inputs_do,
    it_exports_with_any_batch_size,
)


def _check_outputs(outputs: Tensor, scene: Scene, n: int, params: Mapping[str, Any] | None = None) -> None:
    expected = (n, scene.problem.n_outputs)
    of = f" with {dict(params)}" if params else ""
    assert outputs.shape == expected, f"outputs must have shape {expected}; got {tuple(outputs.shape)}{of}"
    assert outputs.dtype == torch.float32, f"outputs must be float32; got {outputs.dtype}{of}"
    assert torch.isfinite(outputs).all(), f"outputs must be finite{of}"


def _assert_close(found: Tensor, expected: Tensor, message: str, tolerance: float = CLOSE) -> None:
    difference = float((found - expected).abs().max() / (1 + expected.abs().max()))
    assert difference <= tolerance, f"{message}: by {difference:.1e}"
