"""The loaders of sources: every way in which what the user names can be wrong, and what is right."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from autoxfer_builtins.python_source import PythonLoader
from safetensors.torch import save_file
from torch import Tensor, nn

from autoxfer import InputError, SourceLoader, SourceSpec

CODE = """
import torch
from torch import nn

number = 3
network = nn.Linear(6, 3)

class Net(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

def text():
    return "network"

def broken(width=8):
    raise RuntimeError("no such width")
"""


def weights(width: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
    return {name: tensor.detach().clone() for name, tensor in layers.state_dict().items()}


@pytest.fixture
def spec(tmp_path: Path) -> SourceSpec:
    (tmp_path / "nets.py").write_text(CODE)
    save_file(weights(), tmp_path / "net.safetensors")
    return SourceSpec("s", "nets.py:Net", Path("net.safetensors"), input={"shape": [6]}, directory=tmp_path)


def refusal(spec: SourceSpec, loader: SourceLoader | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        (loader or PythonLoader()).load(spec)
    return caught.value


def test_a_file_and_a_module_beside_the_run_file_give_the_same_source(spec):
    path = list(sys.path)
    source = PythonLoader().load(spec)
    x = torch.randn(2, 6)
    own = weights()
    expected = torch.relu(x @ own["0.weight"].T + own["0.bias"])
    assert torch.allclose(source.extract(["last"])(x)[0], expected)
    package = spec.directory / "mypackage_of_nets"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(CODE)
    assert PythonLoader().load(replace(spec, model="mypackage_of_nets.nets:Net")).fingerprint == source.fingerprint
    assert sys.path == path
    assert source.card["weights"] == "net.safetensors"


def test_loading_leaves_the_random_state_alone(spec):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    PythonLoader().load(spec)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "claimed"),
    [
        ("nets.py:Net", True),
        ("package.nets:Net", True),
        ("nets:Net", True),
        ("scheme:name", False),
        ("timm:resnet18", False),
        ("timm:resnet18.a1_in1k", False),
        ("Net", False),
    ],
)
def test_another_loaders_scheme_is_not_claimed(spec, model, claimed):
    assert PythonLoader().loads(replace(spec, model=model)) is claimed


@pytest.mark.parametrize(
    ("model", "expected", "found"),
    [
        ("gone.py:Net", "a Python file that exists", "gone.py"),
        ("nowhere.nets:Net", "a module that can be imported", "no module nowhere"),
        ("nets.py:Nett", r"a factory in nets.py \(Net, text, broken\)", "no Nett"),
        ("nets.py:number", "a function or class", "is a int"),
        ("nets.py:network", "a function or class", "is a Linear"),
        ("nets.py:text", "returns a torch.nn.Module", r"text\(\) -> str"),
        ("nets.py:broken", "a factory that works", r"broken\(\) raised RuntimeError: no such width"),
        ("bad.py:Net", "a module that imports cleanly", "bad.py raised ZeroDivisionError"),
        ("needs.py:Net", "a module that imports cleanly", "No module named 'a_library_that_is_not_there'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused_with_its_reason(spec, model, expected, found):
    (spec.directory / "bad.py").write_text("1 / 0")
    (spec.directory / "needs.py").write_text("import a_library_that_is_not_there")
    error = refusal(replace(spec, model=model))
    assert error.where == "sources.s.model"
    assert re.search(expected, error.expected)
    assert re.search(found, error.found)


def test_options_are_the_factorys_arguments(spec):
    save_file(weights(12), spec.directory / "net.safetensors")
    assert PythonLoader().load(replace(spec, options={"width": 12})).n_features == 12
    error = refusal(replace(spec, options={"depth": 12}))
    assert "Net(depth=12) raised TypeError" in error.found


def test_a_source_without_weights_is_refused(spec):
    assert "a source is pretrained" in refusal(replace(spec, weights=None)).expected
    assert refusal(replace(spec, weights=Path("gone.safetensors"))).found == "no gone.safetensors"


def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3, "best": 0.9}


@pytest.mark.parametrize("wrap", [dict, wrapped, lambda state: {"model": state}])
def test_checkpoints_of_plain_tensors_are_unwrapped(spec, wrap):
    torch.save(wrap(weights()), spec.directory / "net.pth")
    expected = PythonLoader().load(spec).fingerprint
    assert PythonLoader().load(replace(spec, weights=Path("net.pth"))).fingerprint == expected


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hostile_code_ran"),))


def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(spec, monkeypatch):
    monkeypatch.chdir(spec.directory)
    (spec.directory / "raw.pth").write_bytes(pickle.dumps({"0.weight": Hostile()}))
    torch.save({"0.weight": Hostile()}, spec.directory / "zip.pth")
    torch.save(nn.Linear(6, 3), spec.directory / "module.pth")
    for name in ("raw.pth", "zip.pth", "module.pth"):
        error = refusal(replace(spec, weights=Path(name)))
        assert "refused and not run" in error.found, name
        assert "safetensors" in error.expected
    assert not Path("hostile_code_ran").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors"])
def test_a_broken_file_is_refused_by_name(spec, name):
    torch.save(weights(), spec.directory / "cut.pth")
    save_file(weights(), spec.directory / "cut.safetensors")
    path = spec.directory / name
    path.write_bytes(path.read_bytes()[:200] if name.startswith("cut") else b"")
    error = refusal(replace(spec, weights=Path(name)))
    assert name in error.found
    assert error.where == "sources.s.weights"


def test_a_checkpoint_of_something_else_is_refused(spec):
    torch.save({"epoch": 3, "losses": [1.0]}, spec.directory / "net.pth")
    assert "state dict" in refusal(replace(spec, weights=Path("net.pth"))).expected


def test_tensors_that_do_not_fit_are_named_with_both_shapes(spec):
    state = weights()
    state["0.weight"] = torch.zeros(9, 6)
    state["extra"] = torch.zeros(2)
    del state["2.bias"]
    save_file(state, spec.directory / "net.safetensors")
    assert refusal(spec).found == (
        "0.weight 8x6 in the network, 9x6 in the file; 2.bias 3 in the network, missing in the file; "
        "extra 2 in the file, missing in the network"
    )


def test_weights_that_are_not_finite_are_refused(spec):
    state = weights()
    state["2.bias"][1] = float("nan")
    save_file(state, spec.directory / "net.safetensors")
    assert refusal(spec).found == "NaN or infinity in 2.bias"


def test_a_card_beside_the_weights_is_read_and_the_run_file_overrides_it(spec):
    card = {"input": {"shape": [6], "mean": [1.0], "std": [2.0]}, "classes": ["a", "b", "c"], "licence": "free"}
    (spec.directory / "net.json").write_text(json.dumps(card))
    source = PythonLoader().load(replace(spec, input={}))
    assert (source.mean, source.std, source.classes) == ((1.0,), (2.0,), ("a", "b", "c"))
    assert source.card["licence"] == "free"
    source = PythonLoader().load(replace(spec, input={"mean": [3], "classes": ["x", "y", "z"]}))
    assert (source.mean, source.std, source.classes) == ((3.0,), (2.0,), ("x", "y", "z"))


def test_columns_on_the_card_say_what_the_network_reads(spec):
    source = PythonLoader().load(replace(spec, input={"columns": list("abcdef")}))
    assert (source.input_shape, source.columns) == ((6,), tuple("abcdef"))


@pytest.mark.parametrize(
    ("given", "expected", "found"),
    [
        ({}, "input: {shape: [3, 32, 32]", "no JSON card net.json beside the weights"),
        ({"shape": [6], "means": 0}, "keys among shape, mean", "'means'; nearest: mean"),
        ({"shape": [6, 6]}, "shape as [channels, height, width] or [columns]", "[6, 6]"),
        ({"shape": "6"}, "shape as", "'6'"),
        ({"shape": [6], "mean": [1, 2]}, "mean as 6 numbers or one", "[1, 2]"),
        ({"shape": [6], "std": [0]}, "std above 0", "0"),
        ({"shape": [6], "std": "big"}, "std as 6 numbers", "'big'"),
        ({"shape": [6], "classes": "abc"}, "classes as a list", "'abc'"),
        ({"shape": [7]}, "a network that runs on its input shape 7", "RuntimeError"),
        ({"columns": list("abc")}, "a network that runs on its input shape 3", "RuntimeError"),
        ({"shape": [5], "columns": list("abcdef")}, "shape [6], as there are columns", "[5]"),
        ({"columns": "abcdef"}, "columns as a list of names", "'abcdef'"),
        ({"columns": list("abcdea")}, "columns of different names", "'a', 2 times"),
        ({"shape": [6], "classes": ["a", "b"]}, "3 classes, as the network has", "2"),
    ],
)
def test_an_input_that_does_not_describe_the_network_is_refused(spec, given, expected, found):
    error = refusal(replace(spec, input=given))
    assert expected in error.expected
    assert found in error.found


class TestTimm:
    @pytest.fixture(autouse=True)
    def _timm(self) -> None:
        pytest.importorskip("timm")

    def loader(self) -> SourceLoader:
        return importlib.import_module("autoxfer_builtins.timm_source").TimmLoader()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "segments", "features", "taps"),
        [
            ("resnet18", 9, 512, "conv1 layer1.0 layer1"),
            ("vit_tiny_patch16_224", 13, 192, "patch_embed blocks.0 blocks.1"),
            ("mobilenetv3_small_050", 14, 1024, "conv_stem blocks.0 blocks.1.0"),
            ("convnext_atto", 16, 320, "stem stages.0.blocks.0 stages.0"),
        ],
    )
    def test_local_weights_are_loaded_and_the_chain_is_the_model(self, tmp_path, name, segments, features, taps):
        import timm  # noqa: PLC0415 - heavy

        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=7).eval()
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        source = self.loader().load(SourceSpec("s", f"timm:{name}", tmp_path / "model.safetensors"))
        assert (len(source.taps) - 1, source.n_features) == (segments, features)
        assert " ".join(tap.name for tap in source.taps[1:4]) == taps
        assert source.mean == pytest.approx(model.pretrained_cfg["mean"])
        x = torch.randn(2, 3, 224, 224)
        with torch.no_grad():
            middle, last = source.extract([source.taps[3].name, "last"])(x)
            assert torch.allclose(source.head(last), model(x), atol=1e-5)
            assert torch.equal(source.suffix(source.taps[3].name).eval()(middle), last)
        torch.manual_seed(5)
        first = source.fresh()
        torch.manual_seed(5)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), source.fresh().parameters(), strict=True))
        assert not torch.equal(next(first.parameters()), next(source.suffix().parameters()))

    @pytest.mark.slow
    def test_a_file_without_a_head_is_a_feature_extractor(self, tmp_path):
        import timm  # noqa: PLC0415 - heavy

        model = timm.create_model("mobilenetv2_050", num_classes=0).eval()
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        source = self.loader().load(SourceSpec("s", "timm:mobilenetv2_050", tmp_path / "model.safetensors"))
        assert source.head is None
        x = torch.randn(2, 3, 224, 224)
        with torch.no_grad():
            assert torch.allclose(source.extract(["last"])(x)[0], model(x), atol=1e-5)

    @pytest.mark.slow
    def test_a_hub_that_cannot_be_reached_is_given_up_quickly(self, monkeypatch, tmp_path):
        import huggingface_hub  # noqa: PLC0415 - heavy
        from huggingface_hub import constants  # noqa: PLC0415 - heavy

        def unreachable() -> Any:
            raise ConnectionError("no network in tests")

        monkeypatch.setattr(huggingface_hub, "get_session", unreachable)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        start = time.monotonic()
        error = refusal(SourceSpec("s", "timm:resnet18.a1_in1k"), self.loader())
        assert time.monotonic() - start < 20
        assert "local .safetensors or checkpoint file" in error.expected
        assert error.where == "sources.s.weights"
        assert constants.HF_HUB_OFFLINE is False

    @pytest.mark.slow
    def test_a_misspelt_model_is_answered_with_the_nearest(self):
        assert "nearest: 'resnet18'" in refusal(SourceSpec("s", "timm:resnt18"), self.loader()).found
        assert "Invalid pretrained tag" in refusal(SourceSpec("s", "timm:resnet18.nope"), self.loader()).found

    def test_the_plugin_loads_without_timm_in_memory_and_names_the_extra_where_it_is_missing(self, monkeypatch):
        module = importlib.import_module("autoxfer_builtins.timm_source")
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "timm" else find(name, *a))
        with pytest.raises(ImportError, match=r"autoxfer\[vision\]") as caught:
            importlib.reload(module)
        assert caught.value.name == "timm"
        monkeypatch.undo()
        importlib.reload(module)


def test_the_networks_of_the_tests_load_real_weights(shared):
    path = shared / "weights" / "lenet_mnist.safetensors"
    source = PythonLoader().load(SourceSpec("s", "networks:LeNet", path, directory=Path(networks.__file__).parent))
    assert source.classes == tuple("0123456789")
    assert source.card["verified"] == {"mnist_test_10000": 0.9923}
