"""Each built-in strategy against a naive twin; what all strategies promise is in test_promises.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.adapters import MOST, Adapter, Adapters, places as adapted
from autoxfer_builtins.fine_tune import FREE, FROZEN, FineTune
from autoxfer_builtins.linear_probe import LinearProbe
from autoxfer_builtins.lora import LoRA, LowRank, LowRankMatrix, adaptable, projections
from autoxfer_builtins.partial_transfer import PartialTransfer
from autoxfer_builtins.residual import Integrated, Residual
from autoxfer_builtins.scratch import Scratch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from autoxfer.building import start_head
from autoxfer.linear import fit_head, strength_grid
from autoxfer.scoring import Choice
from autoxfer.source import Source
from autoxfer.strategy import Candidate, Group, Strategy, Tap
from autoxfer.testing.scenes import N_TUNE, Scene, scene
from autoxfer.traindata import TrainTensors
from autoxfer.training import GradientTrainer

IMAGES = scene("image", "classification")
VECTORS = scene("vector", "classification")
NUMBERS = scene("vector", "regression")


def whole(where: Scene, tap: str, split: str) -> Tensor:
    return where.features.whole(Tap(tap, where.problem.source.name), split)


def suffix(candidate: Candidate) -> Tensor:
    """What the candidate's body makes of the train split."""
    (tap,) = candidate.inputs
    assert isinstance(tap, Tap)
    with torch.no_grad():
        features: Tensor = candidate.module.eval().get_submodule("body")(whole(IMAGES, tap.name, "train"))
    return features


def states_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_probe_is_the_best_of_the_ridge_regressions_one_by_one() -> None:
    candidate, fitted = NUMBERS.fit(LinearProbe(normalisation="none"))
    F, Y = whole(NUMBERS, "last", "train").double(), NUMBERS.labels.double()
    center, level = F.mean(0), Y.mean(0)
    errors, answers = [], []
    for strength in strength_grid(F):
        W = torch.linalg.solve((F - center).T @ (F - center) + strength * torch.eye(8), (F - center).T @ (Y - level))
        answers.append(((whole(NUMBERS, "last", "tune").double() - center) @ W + level)[:, 0].numpy())
        wanted = (NUMBERS.tune.labels - NUMBERS.tune.center) / NUMBERS.tune.spread
        errors.append(np.square(answers[-1] - wanted).mean())
    best = int(np.argmin(errors))
    assert fitted.notes["strength"] == pytest.approx(float(strength_grid(F)[best]))
    np.testing.assert_allclose(NUMBERS.answer(candidate, N_TUNE)[:, 0], answers[best], atol=1e-4)


def test_the_probe_chooses_among_as_many_strengths_as_were_asked_for() -> None:
    strengths = strength_grid(whole(NUMBERS, "last", "train"), 64)
    fine = NUMBERS.fit(LinearProbe(normalisation="none", n_strengths=64))[1]
    assert min(abs(np.log(strengths.numpy() / fine.notes["strength"]))) < 1e-6
    assert not fine.score.loss > NUMBERS.fit(LinearProbe(normalisation="none", n_strengths=2))[1].score.loss


def test_the_probe_of_a_map_reads_its_average_over_space() -> None:
    earlier = IMAGES.problem.source.taps[1]
    assert len(earlier.shape) == 3
    candidate, fitted = IMAGES.fit(LinearProbe(tap=earlier.name, normalisation="standardise"))
    pooled = whole(IMAGES, earlier.name, "train").mean((2, 3))
    tuned = (whole(IMAGES, earlier.name, "tune").mean((2, 3)) - pooled.mean(0)) / pooled.std(0, correction=0)
    expected = tuned @ fitted.state["head.weight"].T + fitted.state["head.bias"]
    torch.testing.assert_close(IMAGES.answer(candidate, N_TUNE), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("by", ["depth", "channels"])
@pytest.mark.parametrize("where", [IMAGES, NUMBERS], ids=str)
def test_nothing_inherited_is_scratch_bit_for_bit(by: str, where: Scene) -> None:
    partial = where.build(PartialTransfer(fraction=0.0, by=by))
    scratch = where.build(Scratch(architecture=where.problem.source.name))
    assert states_equal(partial.module.state_dict(), scratch.module.state_dict())
    trained = where.train(PartialTransfer(fraction=0.0), partial, where.trainer(Scratch))
    assert states_equal(trained.state, where.train(Scratch(), scratch, where.trainer(Scratch)).state)


def test_by_depth_the_first_segments_are_the_sources_and_the_rest_is_what_scratch_draws() -> None:
    source = IMAGES.problem.source
    given = source.suffix().state_dict()
    fresh = IMAGES.build(Scratch(architecture=source.name)).module.state_dict()
    partial = IMAGES.build(PartialTransfer(fraction=0.1, train_inherited=True)).module.state_dict()
    first = next(name for name, _ in source.suffix().named_children())
    for name, tensor in partial.items():
        inherited = name.startswith(f"body.{first}.")
        assert torch.equal(tensor, given[name.removeprefix("body.")] if inherited else fresh[name])


def test_a_frozen_prefix_read_from_its_tap_is_the_whole_network_with_that_prefix() -> None:
    frozen = IMAGES.build(PartialTransfer(fraction=0.1, train_inherited=False))
    trained = IMAGES.build(PartialTransfer(fraction=0.1, train_inherited=True))
    assert frozen.inputs[0] == Tap(IMAGES.problem.source.taps[1].name)
    torch.testing.assert_close(IMAGES.answer(frozen, 9), IMAGES.answer(trained, 9))


def test_by_channels_the_share_that_is_asked_for_is_copied_and_stays_if_frozen() -> None:
    given = IMAGES.problem.source.suffix().state_dict()
    candidate = IMAGES.build(PartialTransfer(fraction=0.5, by="channels", train_inherited=False))
    before = {name: tensor.clone() for name, tensor in candidate.module.state_dict().items()}
    masks = {name.removeprefix("body."): mask for name, mask in candidate.frozen.items()}
    assert masks.keys() == {name for name, _ in IMAGES.problem.source.suffix().named_parameters()}
    for name, mask in masks.items():
        assert mask.flatten(1).all(1).sum() == mask.flatten(1).any(1).sum() if mask.dim() > 1 else True
        assert mask.float().mean() == pytest.approx(0.5, abs=0.01)
        assert torch.equal(before[f"body.{name}"][mask], given[name][mask])
        assert not torch.equal(before[f"body.{name}"][~mask], given[name][~mask])
    after = IMAGES.train(PartialTransfer(), candidate).state
    for name, mask in masks.items():
        assert torch.equal(after[f"body.{name}"][mask], given[name][mask])
    assert any(not torch.equal(after[f"body.{name}"], before[f"body.{name}"]) for name in masks)


def test_residual_is_one_linear_head_over_both_features() -> None:
    settings = Residual(normalisation="standardise", scale=0.5, width=5, head_first=False)
    candidate, fitted = IMAGES.fit(settings)
    module = candidate.module.eval()
    assert isinstance(module, Integrated)
    train, tune = whole(IMAGES, "last", "train"), whole(IMAGES, "last", "tune")
    spread = train.std(0, correction=0)
    f = 0.5 * (tune - train.mean(0)) / spread.maximum(0.01 * spread.amax())  # no feature is scaled up a hundredfold
    with torch.no_grad():
        h = module.body(IMAGES.features.whole(candidate.inputs[0], "tune")).relu()
        weight = torch.cat([module.source_head.weight, module.head.weight], 1)
        expected = torch.cat([f, h], 1) @ weight.T + module.head.bias
    torch.testing.assert_close(IMAGES.answer(candidate, N_TUNE), expected, rtol=1e-4, atol=1e-5)
    assert fitted.notes["source_share"] > 0
    assert fitted.notes["encoder_share"] > 0


def test_residual_may_start_at_the_probe() -> None:
    candidate = IMAGES.build(Residual(normalisation="none"))
    IMAGES.train(Residual(normalisation="none"), candidate, _still(Residual))
    weight, bias = fit_head(whole(IMAGES, "last", "train"), IMAGES.labels, 3)
    expected = whole(IMAGES, "last", "tune") @ weight.T + bias
    torch.testing.assert_close(IMAGES.answer(candidate, N_TUNE), expected, rtol=1e-4, atol=1e-4)


def _still(strategy: type[Strategy]) -> GradientTrainer:
    """A trainer that makes no step worth keeping."""
    trainer = IMAGES.trainer(strategy)
    trainer.recipe = replace(trainer.recipe, lr=0.0)
    return trainer


def test_the_decay_of_residuals_source_head_reaches_nothing_else() -> None:
    candidate = IMAGES.build(Residual(head_decay=0.7))
    decays = {
        name: next(group.decay for group in candidate.groups if name.startswith(group.match))
        for name, _ in candidate.module.named_parameters()
    }
    assert {name for name, decay in decays.items() if decay == 0.7} == {"source_head.weight"}


@pytest.mark.parametrize("strategy", [Adapters, LoRA])
@pytest.mark.parametrize("blocks", ["all", "late"])
def test_before_the_first_step_the_features_are_the_sources_own(strategy: type[Adapters | LoRA], blocks: str) -> None:
    candidate = IMAGES.build(strategy(blocks=blocks))
    torch.testing.assert_close(suffix(candidate), whole(IMAGES, "last", "train"), rtol=1e-4, atol=1e-5)
    late = candidate.inputs != IMAGES.build(strategy(blocks="all")).inputs
    assert late == (blocks == "late")


@pytest.mark.parametrize(("depth", "n"), [(9, 10), (16, MOST), (50, MOST)])
def test_a_deep_network_gets_some_adapters_evenly(depth: int, n: int) -> None:
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(depth)]
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    source = Source.from_network("deep", lambda: network, network, input_shape=(3, 8, 8))
    assert len(source.taps) == depth + 2
    candidate = Adapters().build(replace(IMAGES.problem, sources=(source,)))
    assert sum(isinstance(part, Adapter) for part in candidate.module.modules()) == n
    places = [source.taps.index(tap) for tap in adapted(source)]
    assert (places[-1], len(places)) == (depth + 1, n)
    assert np.ptp(np.diff(places[:-1])) <= 1  # the last is a stage's end


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stages"), [("resnet152", 4), ("vit_tiny_patch16_224", 11)])
def test_a_published_deep_network_is_adapted_where_its_stages_end(name: str, stages: int) -> None:
    timm = pytest.importorskip("timm")
    deep = {"depth": 32, "img_size": 64} if name.startswith("vit") else {}
    network = timm.create_model(name, pretrained=False, num_classes=0, **deep)
    source = Source.from_network("deep", lambda: network, network, input_shape=(3, 64, 64))
    places = adapted(source)
    assert len(source.taps) > 2 * len(places)
    assert len(places) == MOST
    assert set(source.stages) <= set(places)
    assert len(source.stages) > stages


@pytest.mark.parametrize("strategy", [Adapters, LoRA])
def test_training_moves_the_added_weights_and_leaves_the_sources(strategy: type[Strategy]) -> None:
    candidate = IMAGES.build(strategy())
    before = {name: tensor.clone() for name, tensor in candidate.module.state_dict().items()}
    trained = {name for name, parameter in candidate.module.named_parameters() if parameter.requires_grad}
    IMAGES.train(strategy(), candidate)
    after = candidate.module.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == trained


def test_a_low_rank_change_can_be_merged_into_its_layer() -> None:
    torch.manual_seed(0)
    for base, x in (
        (nn.Linear(6, 5), torch.randn(4, 6)),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=2), torch.randn(4, 3, 9, 9)),
        (nn.Conv2d(3, 5, 3, padding="same", bias=False), torch.randn(4, 3, 9, 9)),
    ):
        assert isinstance(base, nn.Linear | nn.Conv2d)
        layer = LowRank(base, rank=2, scale=1.5)
        assert torch.equal(layer(x), base(x))
        nn.init.normal_(layer.up.weight)
        changed = layer(x)
        update = torch.einsum("or,ri...->oi...", layer.up.weight.flatten(1), layer.down.weight)
        with torch.no_grad():
            base.weight += 1.5 * update
        torch.testing.assert_close(changed, base(x), rtol=1e-4, atol=1e-5)


def test_what_reads_a_layers_weight_reads_the_changed_one() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(6, 5), torch.randn(4, 6)
    layer = LowRank(base, rank=2, scale=1.5)
    nn.init.normal_(layer.get_submodule("up").weight)  # type: ignore[arg-type]
    torch.testing.assert_close(nn.functional.linear(x, layer.weight, layer.bias), layer(x))
    assert (layer.in_features, layer.out_features) == (6, 5)


def test_gpt2s_transposed_linear_layer_changes_as_a_linear_layer_does() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    base, x = pytorch_utils.Conv1D(5, 6), torch.randn(4, 3, 6)
    assert [name for name, _ in adaptable(nn.ModuleDict({"a": base}))] == ["a"]
    layer = LowRank(base, rank=2, scale=1.5)
    assert torch.equal(layer(x), base(x))
    nn.init.normal_(layer.get_submodule("up").weight)  # type: ignore[arg-type]
    torch.testing.assert_close(x @ layer.weight + base.bias, layer(x))


def test_attention_uses_its_changed_projections() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(6, 2, batch_first=True).eval()
    x = torch.randn(4, 3, 6)
    before = attention(x, x, x)[0]
    (part, name), *others = projections(nn.Sequential(attention))
    assert (part, name, others) == (attention, "in_proj_weight", [])
    weight = attention.in_proj_weight.detach().clone()
    change = LowRankMatrix(weight, rank=2, scale=1.5)
    register_parametrization(attention, "in_proj_weight", change)
    assert torch.equal(attention(x, x, x)[0], before)
    nn.init.normal_(change.up.weight)
    changed = attention(x, x, x)[0]
    remove_parametrizations(attention, "in_proj_weight", leave_parametrized=True)
    torch.testing.assert_close(attention.in_proj_weight, weight + 1.5 * change.up.weight @ change.down.weight)
    torch.testing.assert_close(attention(x, x, x)[0], changed)
    assert not torch.allclose(changed, before)


def test_fine_tuning_starts_at_the_fitted_head_and_trains_everything() -> None:
    candidate = IMAGES.build(FineTune())
    IMAGES.train(FineTune(), candidate, _still(FineTune))
    weight, _ = fit_head(whole(IMAGES, "last", "train"), IMAGES.labels, 3)
    torch.testing.assert_close(candidate.module.state_dict()["head.weight"], weight)
    assert all(parameter.requires_grad for parameter in candidate.module.parameters())


def test_layers_near_the_input_learn_more_slowly_and_the_head_at_its_own_rate() -> None:
    candidate = IMAGES.build(FineTune(layer_decay=0.5, head_lr=7.0, anchor=0.3))
    rates = [
        next((group.lr, group.anchor) for group in candidate.groups if name.startswith(group.match))
        for name, _ in candidate.module.named_parameters()
    ]
    assert rates == sorted(rates)
    n = len(IMAGES.problem.source.taps) - 1
    assert rates[0] == (0.5 ** (4 * (n - 1) / n), 0.3)  # a factor for every quarter of the depth
    assert rates[-1] == (7.0, 0.0)


def test_scratch_reads_what_its_architecture_reads() -> None:
    for name, architecture in IMAGES.problem.architectures.items():
        candidate = IMAGES.build(Scratch(architecture=name, dropout=0.5))
        assert candidate.inputs == (architecture.input,)
        assert any(isinstance(part, nn.Dropout) and part.p == 0.5 for part in candidate.module.modules())


def test_fine_tuning_at_its_frozen_end_trains_the_probes_head_and_nothing_else() -> None:
    candidate, fitted = IMAGES.fit(FineTune(anchor=1e6))
    assert candidate.inputs == (Tap("last"),)
    head = IMAGES.build(FineTune(anchor=FROZEN)).module.get_submodule("head")
    naive = Candidate(nn.Sequential(OrderedDict(head=head)), (Tap("last"),))
    start_head(naive, _data(IMAGES))
    expected = IMAGES.trainer(FineTune).run(naive)
    assert torch.equal(fitted.state["head.weight"], expected.state["head.weight"])
    assert fitted.curve == expected.curve


def test_fine_tuning_at_its_free_end_is_bound_to_nothing() -> None:
    free, bound, anchored = (_last(VECTORS, FineTune(anchor=anchor)) for anchor in (0.0, FREE, 0.01))
    assert states_equal(free.module.state_dict(), bound.module.state_dict())
    assert not states_equal(free.module.state_dict(), anchored.module.state_dict())


def test_between_its_ends_a_stronger_anchor_keeps_fine_tuning_nearer_to_the_frozen_end() -> None:
    answers = {}
    for anchor in (0.0, 0.01, 0.1, 1.0, 10.0, 0.99 * FROZEN, FROZEN):
        answers[anchor] = VECTORS.answer(_last(VECTORS, FineTune(anchor=anchor), steps=100), N_TUNE)
    apart = [float((answers[anchor] - answers[FROZEN]).norm() / answers[FROZEN].norm()) for anchor in answers]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0.5
    assert apart[-2] < 0.05


def test_an_output_that_is_multiplied_is_a_head_that_learns_faster() -> None:
    """So ``head_lr`` is the inverse of a network's richness."""
    factor, ends = 8.0, []
    for multiplied in (True, False):
        candidate = VECTORS.build(FineTune(anchor=0.0, head_lr=1.0 if multiplied else factor))
        start_head(candidate, _data(VECTORS))
        if multiplied:
            head = candidate.module.get_submodule("head")
            with torch.no_grad():
                for parameter in head.parameters():
                    parameter.div_(factor)
            candidate = replace(candidate, module=Multiplied(candidate.module, factor), groups=_inside(candidate))
        _to_the_end(VECTORS, FineTune, decay=0.0).run(candidate)
        ends.append(VECTORS.answer(candidate, N_TUNE))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-3)


class Multiplied(nn.Module):
    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.inner(x)


def _inside(candidate: Candidate) -> tuple[Group, ...]:
    return tuple(replace(group, match=f"inner.{group.match}") for group in candidate.groups)


def _last(where: Scene, instance: Strategy, **recipe: Any) -> Candidate:
    """Fit to the last step, whatever the tune split says of the steps before."""
    candidate = where.build(instance)
    where.train(instance, candidate, _to_the_end(where, type(instance), **recipe))
    return candidate


def _to_the_end(where: Scene, strategy: type[Strategy], **recipe: Any) -> GradientTrainer:
    recipe = replace(where.trainer(strategy).recipe, **recipe)
    return GradientTrainer(where.features, where.problem, where.labels, Choice(kept=1.0), recipe, seed=1)


def _data(where: Scene) -> TrainTensors:
    return TrainTensors(where.features, where.problem, where.labels, where.tune.center, where.tune.spread)
