"""How a network becomes a chain of segments."""

from __future__ import annotations

from collections.abc import Callable

import networks
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.cutting import Chain, cut
from autoxfer.errors import InputError


def run(chain: Chain, x: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.Sequential(*chain.segments)(x)


def agrees(chain: Chain, network: nn.Module, shape: tuple[int, ...]) -> bool:
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    features = run(chain, x)
    with torch.no_grad():
        got = features if chain.head is None else chain.head(features)
        return torch.allclose(got, network.eval()(x), atol=1e-5)


def mlp(*ends: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), *ends)


def net(forward: Callable[[nn.Module, Tensor], Tensor], **children: nn.Module) -> nn.Module:
    """Make a network of a forward function and its layers."""
    cls = type("Net", (nn.Module,), {"forward": forward})
    network: nn.Module = cls()
    for name, child in children.items():
        network.add_module(name, child)
    return network


@pytest.mark.parametrize(
    ("make", "shape", "names"),
    [
        (networks.LeNet, (1, 28, 28), "conv1 conv2 last"),
        (
            lambda: networks.CifarResNet(3),
            (3, 32, 32),
            "conv1 layer1.0 layer1.1 layer1.2 layer2.0 layer2.1 layer2.2 layer3.0 layer3.1 last",
        ),
        (networks.ResNet8, (3, 32, 32), "conv0 b1_conv2 b2_short last"),
        (mlp, (6,), "last"),
        (lambda: mlp(nn.ReLU()), (6,), "0 last"),
        (lambda: nn.Linear(6, 3), (6,), "last"),
        (lambda: nn.Sequential(nn.Flatten(), mlp()), (2, 3), "last"),
    ],
)
def test_a_segment_ends_where_one_tensor_is_alive_and_holds_weights(make, shape, names):
    torch.manual_seed(0)
    network = make()
    chain = cut(network, shape)
    assert " ".join(chain.names) == names
    assert agrees(chain, network, shape)


def test_a_linear_layer_at_the_end_is_the_head_and_one_before_relu_is_not():
    assert isinstance(cut(mlp(), (6,)).head, nn.Linear)
    assert isinstance(cut(mlp(nn.Softmax(1)), (6,)).head, nn.Linear)
    assert cut(mlp(nn.ReLU()), (6,)).head is None


def test_squeezenet_ends_in_a_convolution_that_is_left_out():
    torch.manual_seed(0)
    network = networks.SqueezeNet(7)
    chain = cut(network, (3, 64, 64), n_classes=7)
    assert chain.head is None
    assert chain.shapes[-1] == (512,)
    assert chain.names[:3] == ("features.0", "features.3", "features.4")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().features(x).mean((2, 3))
    assert torch.allclose(run(chain, x), expected, atol=1e-5)


def test_a_convolution_that_is_averaged_is_a_linear_head():
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers)
    chain = cut(network, (3, 8, 8))
    assert isinstance(chain.head, nn.Linear)
    assert agrees(chain, network, (3, 8, 8))


def test_outer_names_lead_to_the_last_tap_inside():
    assert cut(networks.CifarResNet(2), (3, 32, 32)).aliases == {
        "layer1": "layer1.1",
        "layer2": "layer2.1",
        "layer3": "last",
        "layer3.1": "last",
    }


def test_a_layer_may_be_called_as_the_ends_of_the_chain_are():
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return self.c(self.b(self.last(self.input(x))))

    layers = {"input": nn.Linear(6, 6), "last": nn.Linear(6, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 2)}
    assert cut(net(forward, **layers), (6,)).names == ("input_", "last_", "last")


def test_functional_dropout_still_drops_in_training():
    chain = cut(networks.LeNet(dropout=0.5), (1, 28, 28))
    body = nn.Sequential(*chain.segments).train()
    x = torch.randn(8, 1, 28, 28)
    torch.manual_seed(0)
    assert not torch.equal(body(x), body(x))
    assert torch.equal(body.eval()(x), body.eval()(x))


def test_functional_batch_norm_is_not_frozen_into_evaluation_mode():
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        norm = self.norm
        x = functional.batch_norm(self.a(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)
        return self.c(self.b(x).relu())

    network = net(forward, a=nn.Linear(6, 8), norm=nn.BatchNorm1d(8), b=nn.Linear(8, 8), c=nn.Linear(8, 3))
    chain = cut(network, (6,))
    assert chain.names == ("last",)
    assert isinstance(chain.head, nn.Linear)
    assert agrees(chain, network, (6,))
    body = nn.Sequential(*chain.segments)
    x = 5 + torch.randn(16, 6)
    assert not torch.allclose(body.train()(x), body.eval()(x))


def test_a_network_that_cannot_be_traced_stays_whole_and_still_gives_its_head():
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            return self.b(x)
        return self.b(torch.relu(self.a(x)))

    network = net(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 3))
    chain = cut(network, (6,))
    assert chain.names == ("last",)
    assert agrees(chain, network, (6,))
    assert chain.head is not None
    assert chain.head.out_features == 3


def test_a_child_that_cannot_be_traced_does_not_spoil_the_others():
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return self.b(self.a(x)) if float(x.sum()) < 1e9 else x

    odd = net(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    network = nn.Sequential(nn.Linear(6, 8), odd, nn.Linear(8, 8), nn.Linear(8, 3))
    chain = cut(network, (6,))
    assert chain.names == ("0", "1", "last")
    assert agrees(chain, network, (6,))


class Gated(nn.Module):
    """A block over tokens that has to be told the size of the map that they were."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.mix = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Linear(6, 6)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        maps = x.transpose(1, 2).reshape(x.shape[0], -1, height, width)
        return x + self.mix(self.near(maps).flatten(2).transpose(1, 2))


class Tokens(nn.Module):
    """Patches and blocks over them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.ModuleList([Gated() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        height, width = x.shape[-2], x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, height, width)
        return x


@pytest.mark.parametrize("nested", [False, True])
def test_blocks_that_are_told_the_size_of_the_map_are_cut_apart(nested: bool):
    torch.manual_seed(0)
    head, body = nn.Linear(6, 3), Tokens()
    if nested:
        network = net(lambda self, x: self.head(self.body(x).mean(1)), body=body, head=head)
    else:
        forward: Callable[[nn.Module, Tensor], Tensor] = lambda self, x: self.head(Tokens.forward(self, x).mean(1))  # noqa: E731
        network = net(forward, **dict(body.named_children()), head=head)
    chain = cut(network, (3, 8, 6))
    inner = "patches blocks.0 blocks.1 last"
    assert " ".join(name.removeprefix("body.") for name in chain.names) == inner
    assert chain.shapes[:3] == ((12, 6),) * 3
    assert agrees(chain, network, (3, 8, 6))


def test_a_number_that_differs_from_batch_to_batch_stays_what_it_is():
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        n = x.shape[0]
        return self.c(self.b(self.a(x)).reshape(n, -1) / n)

    network = net(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 3))
    assert agrees(cut(network, (6,)), network, (6,))


def test_layers_that_share_weights_are_not_cut_apart():
    shared = nn.Linear(6, 6)
    network = nn.Sequential(nn.Linear(6, 6), shared, nn.Linear(6, 6), shared, nn.ReLU(), nn.Linear(6, 2))
    chain = cut(network, (6,))
    assert chain.names == ("0", "last")
    assert agrees(chain, network, (6,))


def test_activations_are_not_overwritten_by_layers_that_work_in_place():
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return self.a(x).relu_().mul_(2)

    double = net(forward, a=nn.Identity(), w=nn.Linear(1, 1))
    network = nn.Sequential(
        nn.Linear(6, 8), nn.Sequential(double, nn.Linear(8, 8)), nn.ReLU(inplace=True), nn.Linear(8, 2)
    )
    chain = cut(network, (6,))
    assert agrees(chain, network, (6,))
    value = torch.randn(4, 6)
    for segment in chain.segments:
        before = value.clone()
        after = segment(value)
        assert torch.equal(value, before)
        value = after.detach()


def test_default_arguments_of_forward_keep_their_values():
    def forward(self: nn.Module, x: Tensor, skip: Tensor | None = None, twice: bool = False) -> Tensor:
        x = self.a(x) if skip is None else x
        return self.c(self.b(x) * 2 if twice else self.b(x))

    network = net(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 2))
    chain = cut(network, (6,))
    assert chain.names == ("a", "last")
    assert agrees(chain, network, (6,))


def test_the_network_itself_stays_untouched():
    network = networks.CifarResNet(1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modules = [type(module) for module in network.modules()]
    cut(network, (3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [type(module) for module in network.modules()] == modules
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("forward", "expected", "found"),
    [
        (lambda self, x: self.a(x[:, :3]), "runs on its input shape 6", "RuntimeError"),
        (lambda self, x: (self.a(x), x), "returns one tensor", "tuple"),
        (lambda self, x: self.a(x).sum(), "returns one tensor", "shape ()"),
        (lambda self, x: functional.dropout(self.a(x)), "same output twice", "different outputs"),
    ],
)
def test_a_network_that_cannot_be_a_source_is_refused_with_its_reason(forward, expected, found):
    with pytest.raises(InputError) as caught:
        cut(net(forward, a=nn.Linear(6, 3)), (6,))
    assert expected in caught.value.expected
    assert found in caught.value.found
