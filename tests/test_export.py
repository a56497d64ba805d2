"""The winner's files hold what was trained, and nothing half-written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autoxfer.dataset import Schema
from autoxfer.errors import AutoxferError
from autoxfer.export import Served, save_winner

IMAGES = Schema("image", "classification", (6, 5), "uint8", ("cat", "dog", "owl"))
EXAMPLE = np.random.default_rng(0).integers(0, 256, (2, 6, 5), dtype=np.uint8)


class Net(nn.Module):
    def __init__(self, shape: tuple[int, ...] = (6, 5), outputs: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(int(np.prod(shape)))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(int(np.prod(shape)), outputs)

    def forward(self, stored: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(stored.float().flatten(1) / 255)))


def test_the_program_takes_any_batch_and_gives_the_networks_probabilities(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    save_winner(tmp_path / "winner", net, IMAGES, EXAMPLE, {"strategy": "scratch"})
    program = torch.export.load(tmp_path / "winner" / "model.pt2").module()
    net.eval()
    for n in (1, 2, 100):
        batch = torch.randint(0, 256, (n, 6, 5), dtype=torch.uint8)
        torch.testing.assert_close(program(batch), torch.softmax(net(batch), 1), rtol=0, atol=1e-7)


def test_the_weights_are_the_networks_state(tmp_path: Path) -> None:
    net = Net()
    save_winner(tmp_path, net, IMAGES, EXAMPLE, {})
    state = load_file(tmp_path / "model.safetensors")
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_the_description_says_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    save_winner(tmp_path, Net(), IMAGES, EXAMPLE, {"strategy": "residual", "params": {"width": np.int64(32)}})
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["input"] == {"dtype": "uint8", "shape": [-1, 6, 5]}
    assert description["output"] == {"kind": "probabilities", "dtype": "float32", "shape": [-1, 3]}
    assert description["schema"]["classes"] == ["cat", "dog", "owl"]
    assert description["winner"] == {"strategy": "residual", "params": {"width": 32}}


def test_a_regression_is_served_as_it_is(tmp_path: Path) -> None:
    schema = Schema("vector", "regression", (4,), "float32")
    net = Net((4,), 1)
    save_winner(tmp_path, net, schema, np.zeros((3, 4), np.float32), {})
    program = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.randn(5, 4)
    torch.testing.assert_close(program(x), net.eval()(x), rtol=0, atol=1e-7)
    assert json.loads((tmp_path / "model.json").read_text())["output"]["kind"] == "predictions"


def test_the_callers_network_keeps_its_mode_and_its_gradients(tmp_path: Path) -> None:
    net = Net().train()
    save_winner(tmp_path, net, IMAGES, EXAMPLE, {})
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_tied_weights_are_written(tmp_path: Path) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.twin = self.head

    save_winner(tmp_path, Tied(), IMAGES, EXAMPLE, {})
    assert "twin.weight" in load_file(tmp_path / "model.safetensors")


class Bent(nn.Module):
    """A layer and a change beside it, whose sum ships as ``merged`` says."""

    def __init__(self, base: nn.Linear, told: float = 1.0) -> None:
        super().__init__()
        self.base, self.told = base, told
        self.change = nn.Parameter(torch.randn_like(base.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + nn.functional.linear(x, self.change)

    def merged(self) -> nn.Linear:
        layer = copy.deepcopy(self.base)
        with torch.no_grad():
            layer.weight += self.told * self.change
        return layer


@pytest.mark.parametrize("apart", [Bent, nn.utils.parametrizations.weight_norm])
def test_what_training_keeps_apart_ships_as_one(tmp_path: Path, apart: Callable[[nn.Linear], nn.Module]) -> None:
    net = Net()
    names = net.state_dict().keys()
    net.head = apart(net.head)  # type: ignore[assignment]
    assert net.state_dict().keys() != names
    save_winner(tmp_path, net, IMAGES, EXAMPLE, {})
    assert load_file(tmp_path / "model.safetensors").keys() == names


def test_a_merged_layer_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    net = Net()
    net.head = Bent(net.head, told=2.0)  # type: ignore[assignment]
    with pytest.raises(AutoxferError, match="differs from the network"):
        save_winner(tmp_path / "winner", net, IMAGES, EXAMPLE, {})
    assert not (tmp_path / "winner").exists()


def test_a_network_that_fixes_its_batch_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    class Fixed(Net):
        def forward(self, stored: Tensor) -> Tensor:
            return super().forward(stored.reshape(2, 6, 5))

    with pytest.raises(AutoxferError, match="cannot be exported"):
        save_winner(tmp_path / "winner", Fixed(), IMAGES, EXAMPLE, {})
    assert not (tmp_path / "winner").exists()


def test_a_program_that_differs_from_its_network_is_refused(tmp_path: Path) -> None:
    class Restless(Net):
        def forward(self, stored: Tensor) -> Tensor:
            return super().forward(stored) + torch.rand(3)

    with pytest.raises(AutoxferError, match="differs from the network"):
        save_winner(tmp_path / "winner", Restless(), IMAGES, EXAMPLE, {})
    assert not (tmp_path / "winner").exists()


@pytest.mark.parametrize("example", [EXAMPLE[:1], EXAMPLE[:, :4], EXAMPLE.astype(np.float32)])
def test_an_example_that_does_not_fit_is_refused(tmp_path: Path, example: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2 or more stored examples"):
        save_winner(tmp_path, Net(), IMAGES, example, {})


def test_served_classes_sum_to_one() -> None:
    served = Served(Net().eval(), "classification")
    torch.testing.assert_close(served(torch.from_numpy(EXAMPLE)).sum(1), torch.ones(2))
