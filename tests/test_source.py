"""Sources: real pretrained networks, read, cut, renewed and preprocessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from autoxfer_builtins.python_source import PythonLoader
from torch import Tensor, nn

from autoxfer import InputError, Source, SourceSpec, Tap

REAL = {
    "lenet_mnist": ("LeNet", {}),
    "resnet20_cifar10": ("CifarResNet", {"n": 3}),
    "resnet32_cifar10": ("CifarResNet", {"n": 5}),
    "resnet56_cifar10": ("CifarResNet", {"n": 9}),
    "resnet8_cifar10_mlperftiny": ("ResNet8", {}),
    "squeezenet1_0_imagenet_deepcompressed": ("SqueezeNet", {}),
    "mobilenetv1_025_vww96": ("MobileNet", {}),
}
SMALL = [name for name in REAL if "32" not in name and "56" not in name]
HERE = Path(networks.__file__).parent


@pytest.fixture(scope="module")
def source(shared: Path) -> Callable[[str], Source]:
    loaded: dict[str, Source] = {}

    def load(name: str) -> Source:
        if name not in loaded:
            factory, options = REAL[name]
            weights = shared / "weights" / f"{name}.safetensors"
            spec = SourceSpec(name, f"networks.py:{factory}", weights, options=options, directory=HERE)
            loaded[name] = PythonLoader().load(spec)
        return loaded[name]

    return load


@pytest.fixture
def small() -> Source:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))

    torch.manual_seed(0)
    return Source.from_network("small", make, make(), input_shape=(6,), classes=["a", "b", "c"])


def noise(source: Source, batch: int = 2) -> Tensor:
    return torch.randn(batch, *source.input_shape, generator=torch.Generator().manual_seed(3))


def pixels(images: np.ndarray[Any, Any]) -> Tensor:
    x = torch.tensor(images).float() / 255
    return x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", SMALL)
def test_what_follows_a_tap_continues_what_was_extracted_there_exactly(source, name):
    loaded = source(name)
    x = noise(loaded)
    names = [tap.name for tap in loaded.taps]
    with torch.no_grad():
        values = loaded.extract(names)(x)
        assert values[0] is x
        for tap, value in zip(loaded.taps, values, strict=True):
            assert value.shape[1:] == tap.shape
            assert torch.equal(loaded.suffix(tap.name).eval()(value), values[-1]), tap.name
    assert values[-1].shape == (2, loaded.n_features)


@pytest.mark.parametrize("name", REAL)
def test_a_real_network_is_cut_and_its_taps_inherit_more_and_more(source, name):
    loaded = source(name)
    shares = [tap.inherited for tap in loaded.taps]
    assert shares[0] == 0
    assert shares[-1] == 1
    assert shares == sorted(shares)
    expected = {"lenet_mnist": 3, "resnet20_cifar10": 10, "resnet32_cifar10": 16, "resnet56_cifar10": 28}
    expected |= {
        "resnet8_cifar10_mlperftiny": 4,
        "squeezenet1_0_imagenet_deepcompressed": 9,
        "mobilenetv1_025_vww96": 27,
    }
    assert len(loaded.taps) - 1 == expected[name]
    assert loaded.n_parameters == sum(p.numel() for p in loaded.suffix().parameters())


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("lenet_mnist", 0.99),
        ("resnet20_cifar10", 0.90),
        ("resnet8_cifar10_mlperftiny", 0.855),
        pytest.param("resnet32_cifar10", 0.94, marks=pytest.mark.slow),
        pytest.param("resnet56_cifar10", 0.91, marks=pytest.mark.slow),
    ],
)
def test_a_real_network_is_as_good_as_its_card_says(shared, source, name, accuracy):
    loaded = source(name)
    file = "mnist" if name == "lenet_mnist" else "cifar10_lossless"
    with np.load(shared / "vision" / f"{file}.npz") as data:
        x, labels = pixels(data["test_images"][:2000]), torch.tensor(data["test_labels"][:2000])
        assert list(loaded.classes) == data["class_names"].tolist()
    with torch.no_grad():
        (features,) = loaded.extract(["last"])(loaded.preprocess(x.shape[1:])(x))
        correct = loaded.head(features).argmax(1) == labels
    assert float(correct.float().mean()) == pytest.approx(accuracy, abs=0.005 if file == "mnist" else 1e-6)


@pytest.mark.parametrize("name", ["lenet_mnist", "resnet20_cifar10"])
def test_fresh_weights_differ_from_the_pretrained_and_repeat_under_a_seed(source, name):
    loaded = source(name)
    tap = loaded.taps[1].name
    torch.manual_seed(4)
    first, other = loaded.fresh(tap), loaded.fresh(tap)
    torch.manual_seed(4)
    again = loaded.fresh(tap)
    pretrained = loaded.suffix(tap)
    assert first.state_dict().keys() == pretrained.state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        if value.dim() > 1:
            assert not torch.equal(value, other.state_dict()[key])
            assert not torch.equal(value, pretrained.state_dict()[key])
        if key.endswith("running_mean"):
            assert not value.any()


def test_training_a_copy_changes_nothing_in_the_source(small):
    before = [p.clone() for p in small.suffix().parameters()]
    copy = small.suffix()
    optimiser = torch.optim.SGD(copy.parameters(), lr=1.0)
    copy(noise(small)).sum().backward()
    optimiser.step()
    assert not torch.equal(next(copy.parameters()), before[0])
    assert all(torch.equal(a, b) for a, b in zip(small.suffix().parameters(), before, strict=True))


def test_a_suffix_is_trainable_and_its_children_are_called_as_the_taps(source):
    suffix = source("resnet20_cifar10").suffix("layer3.0")
    assert [name for name, _ in suffix.named_children()] == ["layer3_1", "last"]
    assert suffix.training
    assert all(module.training for module in suffix.modules())
    assert all(p.requires_grad for p in suffix.parameters())


def test_nothing_follows_the_last_tap(small):
    x = torch.randn(3, 5)
    assert torch.equal(small.suffix("last")(x), x)


def test_modules_are_inserted_behind_the_taps_that_they_are_named_for(source):
    loaded = source("resnet20_cifar10")
    widths: list[int] = []

    def make(width: int) -> nn.Module:
        widths.append(width)
        return nn.Identity()

    suffix = loaded.suffix("conv1", {"layer1": make, "layer2.1": make, "last": make})
    names = [name for name, _ in suffix.named_children()]
    assert widths == [16, 32, 64]
    assert names[names.index("layer1_2") + 1] == "layer1_2_after"
    assert names[names.index("layer2_1") + 1] == "layer2_1_after"
    assert names[-2:] == ["last", "last_after"]
    x = torch.randn(2, 16, 32, 32)
    assert torch.equal(suffix.eval()(x), loaded.suffix("conv1").eval()(x))
    with pytest.raises(ValueError, match=r"after tap 'layer2'; got \['layer1\.0'\]"):
        loaded.suffix("layer2", {"layer1.0": make})


def test_what_is_extracted_is_frozen_and_stays_in_evaluation_mode(source):
    extract = source("resnet20_cifar10").extract(["layer1", "last"])
    nn.Sequential(extract).train()
    assert not any(module.training for module in extract.modules())
    assert not any(p.requires_grad for p in extract.parameters())


def test_extraction_stops_behind_the_last_tap_and_keeps_the_order_asked_for(source):
    loaded = source("resnet20_cifar10")
    assert len(loaded.extract(["conv1"]).segments) == 1
    a, b = loaded.extract(["layer2.0", "conv1"])(noise(loaded))
    assert a.shape[1:] == loaded.tap("layer2.0").shape
    assert b.shape[1:] == loaded.tap("conv1").shape


def test_an_outer_name_is_good_for_the_tap_inside_and_a_wrong_one_is_corrected(source):
    loaded = source("resnet20_cifar10")
    assert loaded.tap("layer2").name == "layer2.2"
    assert loaded.tap("layer3").name == "last"
    with pytest.raises(InputError, match=r"one of the taps input, conv1.*'layer1\.9'; nearest: 'layer1\.\d'"):
        loaded.tap("layer1.9")


@pytest.mark.parametrize("name", ["lenet_mnist", "resnet20_cifar10"])
def test_preprocessing_and_extraction_export_with_a_dynamic_batch(source, name):
    loaded = source(name)
    module = nn.Sequential(loaded.preprocess((3, 40, 20)), loaded.extract(["conv1", "last"]))
    program = torch.export.export(module, (torch.rand(2, 3, 40, 20),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.rand(5, 3, 40, 20)
    for ours, theirs in zip(module(x), program.module()(x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_source_trained_from_scratch_reads_the_source_input(small):
    make = small.architecture
    assert make.input == Tap("input", "small")
    network = make(1, dropout=0.5)
    assert [name for name, _ in network.named_children()] == ["body", "dropout", "head"]
    assert sum(p.numel() for p in make(1).parameters()) == make.n_parameters
    assert make(4)(noise(small)).shape == (2, 4)


def test_the_fingerprint_knows_weights_architecture_and_preprocessing():
    def prints(ends: nn.Module, seed: int = 0, mean: float = 0.0) -> str:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), ends)
        return Source.from_network("s", lambda: network, network, input_shape=(6,), mean=[mean]).fingerprint

    first = prints(nn.Identity())
    assert first == prints(nn.Identity())
    others = {prints(nn.Identity(), seed=1), prints(nn.Identity(), mean=0.1), prints(nn.Softmax(1))}
    assert len(others | {first}) == 4


def test_classes_that_the_head_does_not_have_are_refused():
    network = nn.Linear(6, 3)
    with pytest.raises(InputError, match="expected 3 classes, as the network has, found 2"):
        Source.from_network("s", lambda: network, network, input_shape=(6,), classes=["a", "b"])


class TestPreprocess:
    def make(self, shape: tuple[int, ...], **more: Any) -> Source:
        make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 2))  # noqa: E731
        return Source.from_network("s", make, make(), input_shape=shape, **more)

    def test_grey_is_repeated_and_colour_is_weighted_by_luminance(self):
        x = torch.rand(2, 1, 4, 4)
        assert torch.equal(self.make((3, 4, 4)).preprocess((1, 4, 4))(x), x.expand(-1, 3, -1, -1))
        x = torch.rand(2, 3, 4, 4)
        grey = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
        assert torch.allclose(self.make((1, 4, 4)).preprocess((3, 4, 4))(x), grey)

    def test_the_order_is_resize_reverse_normalise(self):
        source = self.make((3, 4, 4), mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0], reverse=True)
        x = torch.rand(2, 3, 1, 1).expand(-1, -1, 8, 2)
        y = source.preprocess((3, 8, 2))(x)
        assert y.shape == (2, 3, 4, 4)
        assert torch.allclose(y[:, 0], (x[:, 2, :4, :1].expand(-1, -1, 4) - 0.1), atol=1e-6)
        assert torch.allclose(y[:, 2], (x[:, 0, :4, :1].expand(-1, -1, 4) - 0.3) / 4, atol=1e-6)

    def test_shrinking_does_not_alias(self):
        stripes = torch.tensor([0.0, 1.0, 1.0, 1.0]).repeat(16).expand(1, 1, 64, 64)
        small = self.make((1, 16, 16)).preprocess((1, 64, 64))(stripes)
        assert float((small - 0.75).abs().max()) < 0.1

    def test_what_was_adapted_is_on_the_card(self):
        source = self.make((3, 4, 4))
        source.preprocess((1, 8, 8))
        expected = ["grey repeated to 3 channels", "resized from 8x8 to 4x4 (bilinear, antialiased)"]
        assert source.card["adapted"] == expected

    @pytest.mark.parametrize(
        ("wanted", "natural", "message"),
        [
            ((6,), (5,), "expected examples of 6 values, as the source reads, found 5 values"),
            ((6,), (1, 2, 3), "expected examples of 6 values, found examples of shape 1x2x3"),
            ((3, 4, 4), (6,), "expected images, which the source reads as 3x4x4, found shape 6"),
            ((3, 4, 4), (2, 4, 4), "expected images of 3 channels, found 2 channels"),
        ],
    )
    def test_what_cannot_be_adapted_is_refused(self, wanted, natural, message):
        with pytest.raises(InputError, match=message):
            self.make(wanted).preprocess(natural)


class TestColumns:
    """A source over a table picks what it reads by name."""

    def make(self, columns: list[str], **more: Any) -> Source:
        make = lambda: nn.Linear(len(columns), 2)  # noqa: E731
        return Source.from_network("s", make, make(), input_shape=(len(columns),), columns=columns, **more)

    def test_columns_are_picked_by_name_in_the_sources_order(self):
        source = self.make(["b", "kind=x", "a"], mean=[1.0, 0.0, 2.0], std=[2.0, 1.0, 1.0])
        x = torch.tensor([[5.0, 7.0, 1.0, 0.0, 9.0]])
        found = source.preprocess((5,), ["a", "b", "kind=x", "kind=y", "c"])(x)
        assert found.tolist() == [[3.0, 1.0, 3.0]]
        assert source.card["adapted"] == ["left out kind=y, c, which the source does not know"]

    def test_a_category_that_the_table_never_has_is_zero(self):
        source = self.make(["a", "kind=z", "kind=x"])
        x = torch.tensor([[5.0, 1.0], [6.0, 0.0]])
        assert source.preprocess((2,), ["a", "kind=x"])(x).tolist() == [[5.0, 0.0, 1.0], [6.0, 0.0, 0.0]]
        assert source.card["adapted"] == ["0 for kind=z, which the table never has"]

    @pytest.mark.parametrize("columns", [["a", "d"], ["a", "other=x"], ["a", "kind"], ["a", "b=1"]])
    def test_a_column_that_is_missing_is_named(self, columns):
        name = columns[1].split("=", 1)[0]
        with pytest.raises(InputError, match=rf"a table with {name}, which the source reads, found .* a, b, kind"):
            self.make(columns).preprocess((4,), ["a", "b", "kind=x", "kind=y"])

    def test_without_names_the_width_must_match(self):
        x = torch.rand(3, 2)
        assert torch.equal(self.make(["a", "b"]).preprocess((2,))(x), x)
        with pytest.raises(InputError, match="examples of 2 values, as the source reads, found 3 values"):
            self.make(["a", "b"]).preprocess((3,))

    def test_the_names_belong_to_the_fingerprint(self):
        network = nn.Linear(2, 2)

        def print_of(*columns: str) -> str:
            return Source.from_network("s", lambda: network, network, input_shape=(2,), columns=columns).fingerprint

        assert print_of("a", "b") == print_of("a", "b")
        assert len({print_of(), print_of("a", "b"), print_of("b", "a")}) == 3
