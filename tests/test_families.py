"""Every built-in strategy on networks of many families, and the taps that each family gets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import families
import pytest
import torch
from autoxfer_builtins.linear_probe import LinearProbe
from autoxfer_builtins.lora import LoRA
from torch import nn

from autoxfer.errors import Unsupported
from autoxfer.export import merged, trace
from autoxfer.plugins import load_plugins
from autoxfer.strategy import Strategy, Tap
from autoxfer.testing.scenes import Scene
from autoxfer.tuning.spaces import clip

STRATEGIES = {
    name: strategy
    for name, strategy in sorted(load_plugins().strategies.items())
    if strategy.__module__.startswith("autoxfer_builtins.")
}
EXPORTED = ["resnet", "convnext", "vit", "swin", "mixer", "bert", "gpt2", "cnn", "awkward", "mlp"]
SERVED = ["maxvit", "xcit", "distilbert", "torchvision_vit"]  # but not exported here
COSTLY = "kernel_readout"  # to export, some seconds
QUICK = ("awkward", "mlp")
HEADLESS = (*families.TEXT, "mlp")  # zero_shot needs the source's own head

TAPS = {
    "resnet": "conv1 layer1* layer2.0 layer2* layer3* last*",
    "densenet": "features.conv0 features.denseblock1* features.transition1 features.denseblock2* "
    "features.transition2 last*",
    "efficientnet": "conv_stem blocks.0* blocks.1* blocks.2* blocks.3* blocks.4* last*",
    "convnext": "stem stages.0* stages.1.downsample stages.1.blocks.0 stages.1* "
    "stages.2.downsample stages.2* stages.3.downsample last*",
    "vit": "patch_embed blocks.0* last*",
    "vit_registers": "patch_embed blocks.0* last*",
    "vit_averaged": "patch_embed blocks.0* last*",
    "eva": "patch_embed blocks.0* last*",
    "swin": "patch_embed layers.0* layers.1.downsample layers.1.blocks.0 last*",
    "xcit": "pos_embed blocks.0* blocks.1* last*",
    "maxvit": "stem.conv1 stem* stages.0.blocks.0.conv stages.0.blocks.0.attn_block stages.0* "
    "stages.1.blocks.0.conv stages.1.blocks.0.attn_block last*",
    "mixer": "stem* blocks.0* last*",
    "bert": "embeddings* layer0* last*",
    "roberta": "embeddings* layer0* last*",
    "distilbert": "embeddings* layer0* last*",
    "gpt2": "embeddings* layer0* last*",
    "llama": "embeddings* layer0* last*",
    "cnn": "features.0* features.3* features.6* last*",
    "resnet_cifar": "conv1 layer1* layer2* last*",
    "awkward": "right* weight* last*",
    "torch_encoder": "patches* encoder.layers.0* last*",
    "torchvision_swin": "features.0 features.1* features.2 features.3.0 last*",
    "torchvision_vit": "conv_proj* encoder.layers.encoder_layer_0* last*",
    "mlp": "0* 2* last*",
    "conv1d": "1* last*",
}

Member = Callable[[str], Scene]


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Member:
    folder: Path = tmp_path_factory.mktemp("families")

    @cache
    def make(family: str) -> Scene:
        return families.make(family, folder)

    return make


FIRST = ("vit", "swin", "bert", "gpt2", "cnn", "awkward", "torch_encoder", "mlp", "conv1d")
EACH = [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.slow]) for name in families.FAMILIES]


@pytest.mark.parametrize("family", EACH)
def test_taps_are_what_one_would_name_and_what_follows_them_gives_the_features(member: Member, family: str) -> None:
    source = member(family).problem.source
    assert " ".join(tap.name + "*" * tap.stage for tap in source.taps[1:]) == TAPS[family]
    names = [tap.name for tap in source.taps]
    (example,) = member(family).features.batch((Tap("input", source.name),), "tune", torch.arange(4))
    with torch.no_grad():
        values = source.extract(names)(example)
        for tap, value in zip(source.taps, values, strict=True):
            assert value.shape[1:] == tap.shape
            torch.testing.assert_close(source.suffix(tap.name).eval()(value), values[-1], rtol=1e-4, atol=1e-5)


def fitted(where: Scene, strategy: type[Strategy]) -> nn.Module:
    """Build the default, train it for a few steps, and compose it, which must answer as the candidate does."""
    space = strategy.space(where.problem_for(strategy))
    instance = strategy(**clip({name: getattr(strategy(), name) for name in space}, space))
    candidate, _ = where.fit(instance)
    composed = where.features.compose(candidate, where.problem_for(strategy))
    stored = where.features.stored("tune")
    with torch.no_grad():
        torch.testing.assert_close(composed(stored), where.answer(candidate, len(stored)), rtol=1e-5, atol=1e-5)
    return composed.requires_grad_(False)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("family", QUICK)
def test_every_strategy_serves_vectors_and_an_awkward_network(member: Member, family: str, name: str) -> None:
    if name == "zero_shot" and family in HEADLESS:
        with pytest.raises(Unsupported, match="no head of its own"):
            fitted(member(family), STRATEGIES[name])
    else:
        fitted(member(family), STRATEGIES[name])


@pytest.mark.slow
@pytest.mark.parametrize("family", SERVED)
def test_every_strategy_serves_further_families(member: Member, family: str) -> None:
    for name, strategy in STRATEGIES.items():
        if name != "zero_shot" or family not in HEADLESS:
            fitted(member(family), strategy)


@pytest.mark.slow
@pytest.mark.parametrize("family", EXPORTED)
def test_every_strategy_serves_every_family_and_exports_with_any_batch_size(member: Member, family: str) -> None:
    """Networks of the same modules are exported once."""
    where, exported = member(family), set()
    for name, strategy in STRATEGIES.items():
        if name == "zero_shot" and family in HEADLESS:
            continue
        composed = fitted(where, strategy)
        if str(composed) not in exported and (name != COSTLY or family in ("vit", "cnn", "awkward")):
            trace(composed, where.features.stored("tune")[:2])  # raises where the numbers differ
            exported.add(str(composed))
    assert exported


@pytest.mark.parametrize("family", EACH)
def test_lora_changes_weights_in_every_block(member: Member, family: str) -> None:
    """Embeddings left out, and a block whose only weight is a bare parameter."""
    candidate = member(family).build(LoRA())
    for name, block in candidate.module.get_submodule("body").named_children():
        changed = any(parameter.requires_grad for parameter in block.parameters())
        assert changed or name == ("weight" if family == "awkward" else "embeddings"), name


@pytest.mark.parametrize("family", EACH)
def test_what_lora_ships_has_the_sources_own_layers_and_gives_the_same(member: Member, family: str) -> None:
    where = member(family)
    composed = fitted(where, LoRA)
    stored = where.features.stored("tune")
    with torch.no_grad():
        expected = composed(stored)
        shipped = merged(copy.deepcopy(composed))
        torch.testing.assert_close(shipped(stored), expected, rtol=1e-4, atol=1e-5)
    names = {name for name, _ in shipped.get_submodule("module.body").named_parameters()}
    assert names == {name for name, _ in where.problem.source.suffix().named_parameters()}


@pytest.mark.parametrize(("family", "own"), [("vit", ("first", 0)), ("swin", ("mean", 0)), ("bert", ("mean", 0))])
def test_tokens_are_pooled_as_the_networks_own_head_pools_them(
    member: Member, family: str, own: tuple[str, int]
) -> None:
    source = member(family).problem.source
    assert {tap.pooling for tap in source.stages[:-1]} == {own}
    assert ("pooling" in LinearProbe.space(member(family).problem)) == (own != ("mean", 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "own"),
    [("vit_registers", ("first", 0)), ("vit_averaged", ("mean", 0)), ("eva", ("mean", 1)), ("mixer", ("mean", 0))],
)
def test_class_tokens_and_registers_are_told_from_patches(member: Member, family: str, own: tuple[str, int]) -> None:
    assert member(family).problem.source.stages[0].pooling == own


def test_the_probe_reads_the_class_token_where_the_network_does(member: Member) -> None:
    where = member("vit")
    tap = where.problem.source.stages[0]
    candidate = where.build(LinearProbe(tap=tap.name, normalisation="none"))
    (tokens,) = where.features.batch((Tap(tap.name, "vit"),), "tune", torch.arange(5))
    assert torch.equal(candidate.module.joined(tokens), tokens[:, 0])
    mean = where.build(LinearProbe(tap=tap.name, normalisation="none", pooling="mean"))
    assert torch.equal(mean.module.joined(tokens), tokens.mean(1))


def test_channels_come_first_whatever_order_the_network_keeps_them_in(member: Member) -> None:
    """Swin's own maps are (batch, height, width, channels)."""
    where = member("swin")
    source = where.problem.source
    assert [tap.width for tap in source.taps[1:]] == [8, 8, 16, 16, 16]
