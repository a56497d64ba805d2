"""What the axes of an activation mean, how tokens are pooled and where stages end."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from autoxfer.conventions import calls, channel_axis, pooling, stage_ends
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


def test_stages_end_where_a_librarys_stages_end_or_a_maps_size_changes() -> None:
    names = ["stem", "a.0", "a.1", "b.0", "b.1", "last"]
    shapes = [(4, 8, 8), (4, 8, 8), (4, 8, 8), (8, 4, 4), (8, 4, 4), (8,)]
    assert stage_ends(names, shapes) == ["a.1", "b.1", "last"]
    assert stage_ends(names, shapes, ["stem", "b.1"]) == ["stem", "b.1", "last"]
    assert stage_ends(names, [(5, 4)] * 5 + [(4,)]) == names


def test_of_a_hundred_blocks_a_dozen_are_offered_evenly() -> None:
    names = [*(f"blocks.{k}" for k in range(100)), "last"]
    ends = stage_ends(names, [(5, 4)] * 100 + [(4,)])
    assert len(ends) == 12
    assert ends[-1] == "last"
    places = [names.index(name) for name in ends]
    assert {b - a for a, b in pairwise(places)} <= {8, 9}
