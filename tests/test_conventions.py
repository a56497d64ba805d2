"""What the axes of an activation mean, how tokens are pooled and where stages end."""

from __future__ import annotations

from itertools import pairwise

import networks
import pytest
import torch
from torch import Tensor, nn

from autoxfer.conventions import calls, channel_axis, chosen, pooling, stage_ends, working_size
from autoxfer.cutting import cut


class Last(nn.Module):
    """Blocks over maps whose channels come last, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.norm(x))


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


def test_maps_with_channels_last_are_turned_and_the_network_is_the_same() -> None:
    """All axes are of one size: only what the layers read tells them apart."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Turn(), Last(), Last(), Mean(), nn.Linear(8, 5)).eval()
    chain = cut(network, (3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        own = network[2](network[:2](x))
        tap = chain.segments[1](chain.segments[0](x))
        assert torch.equal(tap, own.permute(0, 3, 1, 2))
        assert chain.head is not None
        torch.testing.assert_close(chain.head(nn.Sequential(*chain.segments)(x)), network(x))


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (nn.Conv2d(6, 4, 3), 1),
        (nn.BatchNorm2d(6), 1),
        (nn.GroupNorm(2, 6), 1),
        (nn.Linear(6, 4), -1),
        (nn.LayerNorm(6), -1),
        (nn.ReLU(), None),
    ],
)
def test_the_layer_that_reads_an_activation_tells_where_its_channels_are(layer: nn.Module, axis: int | None) -> None:
    x = torch.randn(2, 6, 6, 6)
    assert channel_axis(x, [], calls(layer.eval(), x)) == axis


class Head(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.norm, self.how = nn.LayerNorm(4), how

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        pooled = {"first": x[:, 0], "mean": x.mean(1), "rest": x[:, 2:].mean(1), "flat": x.flatten(1)[:, :4] * 2}
        return pooled[self.how]


@pytest.mark.parametrize(
    ("how", "expected"), [("first", ("first", 0)), ("mean", ("mean", 0)), ("rest", ("mean", 2)), ("flat", ("mean", 0))]
)
def test_the_heads_own_pooling_of_tokens_is_recognised(how: str, expected: tuple[str, int]) -> None:
    torch.manual_seed(0)
    head = Head(how)
    nn.init.normal_(head.norm.bias)  # or the mean over everything would be zero
    assert pooling(head, torch.randn(3, 7, 4), 7) == expected


def test_stages_end_where_the_next_layers_work_on_another_size() -> None:
    names = ["stem", "a.0", "a.1", "b.0", "last"]
    assert stage_ends(names, [(8, 8), (8, 8), (8, 8), (4, 4), (4, 4)]) == ("a.1", "last")
    assert stage_ends(names, [(8, 8), (8, 8), (4, 4), (4, 4), (2, 2)]) == ("a.0", "b.0", "last")
    assert stage_ends(names, [(8, 8), (8, 8), None, None, None]) == ("a.0", "a.1", "b.0", "last")
    assert stage_ends(names, [None] * 5) == tuple(names)


def test_pooling_belongs_to_the_stage_before_it() -> None:
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.MaxPool2d(2)]
    chain = cut(nn.Sequential(*layers, nn.Conv2d(5, 6, 1), nn.ReLU()), (3, 8, 8))
    assert chain.names == ("0", "2", "last")
    assert chain.shapes[0] == (4, 4, 4)
    assert working_size(chain.segments[0], torch.zeros(2, 3, 8, 8)) == (8, 8)
    assert chain.stages == ("0", "2", "last")


@pytest.mark.parametrize(
    ("network", "shape", "stages"),
    [
        (networks.CifarResNet(3), (3, 32, 32), "layer1.2 layer2.2 last"),
        (networks.SqueezeNet(5), (3, 96, 96), "features.0 features.5 features.10 last"),
        (networks.MobileNet(), (3, 96, 96), "pw.0 pw.2 pw.4 pw.10 last"),
        (networks.LeNet(), (1, 28, 28), "conv1 conv2 last"),
        (networks.ResNet8(), (3, 32, 32), "b1_conv2 b2_short last"),
    ],
)
def test_published_networks_have_the_stages_of_their_papers(
    network: nn.Module, shape: tuple[int, ...], stages: str
) -> None:
    assert " ".join(cut(network, shape).stages) == stages


def test_of_a_hundred_blocks_a_dozen_are_offered_evenly() -> None:
    names = [*(f"blocks.{k}" for k in range(100)), "last"]
    ends = chosen(names)
    assert len(ends) == 12
    assert ends[-1] == "last"
    assert {b - a for a, b in pairwise(names.index(name) for name in ends)} <= {8, 9}
