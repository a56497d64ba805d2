"""Channels last: faster on a CPU, the same numbers, and never forced on a network that cannot read it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoxfer.architectures import Compact
from autoxfer.cutting import cut
from autoxfer.features import at_once
from autoxfer.layout import ChannelsLast, channels_last


class Viewing(nn.Module):
    """A network that reads its maps as vectors, in the order in which they lie in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(x.shape[0], -1))


class Flattening(Viewing):
    """The same numbers, whatever the order in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).flatten(1))


def test_maps_are_laid_out_anew_and_keep_their_numbers():
    x = torch.randn(2, 3, 4, 5)
    laid_out = channels_last(x)
    assert torch.equal(laid_out, x)
    assert laid_out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 7), (2, 7, 3)])
def test_what_has_no_channels_to_order_is_left_alone(shape: tuple[int, ...]):
    x = torch.randn(shape)
    assert channels_last(x) is x


def test_a_network_that_views_its_maps_as_vectors_is_not_given_another_layout():
    torch.manual_seed(0)
    assert not cut(Viewing(), (3, 8, 8)).channels_last
    assert cut(Flattening(), (3, 8, 8)).channels_last
    assert not cut(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,)).channels_last


@pytest.mark.parametrize("channels", [1, 3])
def test_the_compact_network_answers_as_it_would_without(channels: int):
    torch.manual_seed(0)
    network = Compact((channels, 16, 16), 8)(3).eval()
    plain = nn.Sequential(*(layer for layer in network.body if not isinstance(layer, ChannelsLast)))
    x = torch.randn(5, channels, 16, 16)
    torch.testing.assert_close(network(x), network.head(plain(x)), rtol=1e-4, atol=1e-5)
    inside = network.body[:3](x)
    assert inside.is_contiguous(memory_format=torch.channels_last)


def test_a_cpu_is_given_fewer_examples_at_a_time():
    assert at_once(torch.device("cpu")) < at_once(torch.device("cuda"))
