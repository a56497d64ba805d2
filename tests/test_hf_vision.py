"""Encoders of pictures, from folders as transformers keeps them: tiny random members of many families."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoxfer
from autoxfer.errors import InputError
from autoxfer.preprocessing import Fit, Preprocess
from autoxfer.records import SourceSpec
from autoxfer.source import Source

pytest.importorskip("transformers", reason='the extra "text" is not installed')

import transformers
from autoxfer_builtins.hf_source import HuggingFaceLoader
from autoxfer_builtins.hf_vision import describe

NAMED = {0: "ant", 1: "bee", 2: "cow"}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VIT = {"image_size": 32, "patch_size": 8, **TINY}
WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {  # class, configuration, what makes it small
    "vit": ("ViTForImageClassification", "ViTConfig", VIT),
    "vit alone": ("ViTModel", "ViTConfig", VIT),
    "deit": ("DeiTForImageClassification", "DeiTConfig", VIT),
    "deit of two heads": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", VIT),
    "beit": ("BeitForImageClassification", "BeitConfig", VIT),
    "beit alone": ("BeitModel", "BeitConfig", VIT),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", VIT),
    "dinov2 alone": ("Dinov2Model", "Dinov2Config", VIT),
    "swin": ("SwinForImageClassification", "SwinConfig", WINDOWS),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", {**STAGES, "num_stages": 2, "image_size": 32}),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", {**STAGES, "embedding_size": 8, "layer_type": "basic"}),
    "mobilenet": (
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"image_size": 32, "depth_multiplier": 0.35, "finegrained_output": False},
    ),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", VIT),
    "beit of shared positions": ("BeitModel", "BeitConfig", {**VIT, "use_shared_relative_position_bias": True}),
}
WHOLE = ("beit of shared positions",)  # its layers are given what the network computes of weights


def make(folder: Path, family: str, **more: Any) -> Any:
    """Save a newly initialised network with its processor, and give it."""
    cls, config, sizes = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(transformers, cls)(getattr(transformers, config)(**sizes, id2label=NAMED, **more)).eval()
    network.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return network


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("vit")
    make(folder, "vit")
    return folder


def load(folder: Path, **given: Any) -> Source:
    return HuggingFaceLoader().load(SourceSpec("tiny", f"hf:{folder}", **given))


def pictures(n: int = 3) -> torch.Tensor:
    return torch.randn((n, 3, 32, 32), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_cut_at_its_layers_and_stays_what_it_is(tmp_path: Path, family: str) -> None:
    network, source, x = make(tmp_path, family), load(tmp_path), pictures()
    names = [tap.name for tap in source.taps]
    assert names[0] == "input"
    assert names[-1] == "last"
    assert (len(names) > 3) == (family not in WHOLE), names
    with torch.no_grad():
        out = network(pixel_values=x, return_dict=True)
        activations = source.extract(names)(x)
        if source.head is not None:
            torch.testing.assert_close(source.head(activations[-1]), out.logits, rtol=1e-4, atol=1e-5)
            assert source.classes == tuple(NAMED.values())
        for tap, activation in zip(source.taps[:-1], activations[:-1], strict=True):
            assert activation.shape[1:] == tap.shape
            follows = source.suffix(tap.name).eval()(activation)
            torch.testing.assert_close(follows, activations[-1], rtol=1e-4, atol=1e-5)
    assert (source.head is not None) == (
        "Classification" in FAMILIES[family][0] and "Teacher" not in str(type(network))
    )


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
def test_a_suffix_can_be_trained_exported_and_made_anew(tmp_path: Path, family: str) -> None:
    make(tmp_path, family)
    source = load(tmp_path)
    body = source.suffix()
    body(pictures()).sum().backward()
    trained = [name for name, p in body.named_parameters() if p.grad is not None and "mask_token" not in name]
    assert len(trained) >= len([name for name, _ in body.named_parameters() if "mask_token" not in name])
    body.eval()
    program = torch.export.export(body, (pictures(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    torch.testing.assert_close(program(pictures(5)), body(pictures(5)), rtol=1e-4, atol=1e-5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        new = source.fresh()
    for name, parameter in new.named_parameters():
        if parameter.dim() > 1 and "mask_token" not in name and "cls_token" not in name and "position" not in name:
            assert not torch.equal(parameter, body.get_parameter(name)), name


@pytest.mark.parametrize(
    ("family", "pooling", "expected"),
    [
        ("vit", "cls", lambda hidden: hidden[:, 0]),
        ("vit", "mean", lambda hidden: hidden[:, 1:].mean(1)),
        ("deit", "mean", lambda hidden: hidden[:, 2:].mean(1)),
        ("swin", "mean", lambda hidden: hidden.mean(1)),
        ("resnet", "mean", lambda hidden: hidden.mean((2, 3))),
    ],
)
def test_pooling_is_a_choice_and_leaves_the_head_behind(
    tmp_path: Path, family: str, pooling: str, expected: Any
) -> None:
    network, source = make(tmp_path, family), load(tmp_path, options={"pooling": pooling})
    with torch.no_grad():
        hidden = network.base_model(pixel_values=pictures(), return_dict=True).last_hidden_state
        features = source.extract(["last"])(pictures())[0]
    torch.testing.assert_close(features, expected(hidden), rtol=1e-4, atol=1e-5)
    assert source.head is None
    assert source.classes == ()
    assert source.card["input"]["pooling"] == pooling


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "squeezed": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "bicubic and cut": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    ),
    "resized to more and cut": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}}),
    "filled up": (
        "DeiTImageProcessor",
        {"size": {"height": 24, "width": 28}, "crop_size": {"height": 32, "width": 32}},
    ),
    "BGR": ("MobileViTImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
    "from -1 to 1": (
        "EfficientNetImageProcessor",
        {
            "size": {"height": 32, "width": 32},
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
            "do_normalize": False,
        },
    ),
}


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("shape", [(48, 40), (20, 30), (32, 32)])
def test_a_picture_is_prepared_as_the_library_prepares_it(kind: str, shape: tuple[int, int]) -> None:
    """Up to what the library loses by rounding to whole pixel values after resizing: 1 of 255, bicubic edges 2."""
    name, settings = PROCESSORS[kind]
    processor = getattr(transformers, name)(**settings)
    reading, fit = describe(processor, 3)
    assert reading["shape"] == [3, 32, 32]
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, shape, mode="bilinear").round().to(torch.uint8)
    expected = torch.as_tensor(np.asarray(processor(smooth[0].permute(1, 2, 0).numpy())["pixel_values"][0]))
    module = Preprocess(
        (3, *shape), (3, 32, 32), reading["mean"], reading["std"], reverse=reading.get("channels") == "BGR", fit=fit
    )
    std = torch.tensor(reading["std"]).view(3, 1, 1)
    error = ((module(smooth / 255.0)[0] - expected) * std).abs().max()
    assert error <= (2.01 if fit.mode == "bicubic" else 1.01) / 255


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(Preprocess((3, 8, 8), (3, 8, 8), [0.0], [1.0], fit=Fit((8, 8), "bicubic"))(x), x)


def _spoil(folder: Path, how: str) -> dict[str, Any]:
    if how == "no processor":
        (folder / "preprocessor_config.json").unlink()
    elif how == "processor of no kind":
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "NoSuchProcessor"}))
    elif how == "pickle":
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif how == "no head":
        from safetensors.torch import load_file, save_file  # noqa: PLC0415

        state = load_file(folder / "model.safetensors")
        save_file({name: t for name, t in state.items() if "classifier" not in name}, folder / "model.safetensors")
    elif how == "nan":
        from safetensors.torch import load_file, save_file  # noqa: PLC0415

        state = load_file(folder / "model.safetensors")
        state["classifier.bias"][0] = torch.nan
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    elif how == "size":
        transformers.ViTImageProcessor(size={"height": 30, "width": 30}).save_pretrained(folder)
    return {"pooling": {"options": {"pooling": "last"}}, "length": {"options": {"length": 9}}}.get(how, {})


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no processor", r"preprocessor_config.json in the folder, or input: \{shape: \[3, 224, 224\]"),
        ("processor of no kind", "a preprocessor_config.json of transformers"),
        ("pickle", "a transformer in safetensors that needs no code"),
        ("no head", "none for classifier.bias, classifier.weight"),
        ("nan", "NaN or infinity in classifier.bias"),
        ("size", "a network that reads pictures of 3x30x30"),
        ("pooling", "pooling among cls, mean; left out: as the network does, found 'last'"),
        ("length", "the option pooling, for a source that reads pictures, found 'length'"),
    ],
)
def test_a_folder_that_is_not_whole_or_not_safe_is_refused(vit: Path, tmp_path: Path, how: str, told: str) -> None:
    folder = shutil.copytree(vit, tmp_path / "vit")
    given = _spoil(folder, how)
    with pytest.raises(InputError, match=told):
        load(folder, **given)


def test_what_is_read_in_the_middle_is_pooled_as_at_the_end(tmp_path: Path) -> None:
    for family, expected in {"vit": ("first", 0), "swin": ("mean", 0), "beit": ("mean", 1)}.items():
        make(tmp_path / family, family)
        assert load(tmp_path / family).taps[1].pooling == expected, family


def test_a_class_token_that_is_not_there_cannot_be_picked(tmp_path: Path) -> None:
    make(tmp_path, "resnet")
    with pytest.raises(InputError, match="pooling: mean, for a network without a class token"):
        load(tmp_path, options={"pooling": "cls"})


def test_without_a_processor_the_run_file_may_say_what_the_network_reads(vit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vit, tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    source = load(folder, input={"shape": [3, 32, 32], "mean": [0.5], "std": [0.5]})
    assert source.fingerprint == load(vit, input={"mean": [0.5], "std": [0.5]}).fingerprint


@pytest.mark.slow
def test_a_run_with_a_tiny_vit_ends_in_a_winner_that_reads_pictures(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 60, (120, 40, 36, 3)).astype(np.uint8)
    images[np.arange(120), :, :, labels] += 120
    np.savez(tmp_path / "pictures.npz", images=images, labels=labels, class_names=np.array(["ant", "bee", "cow"]))
    config = {
        "task": {"data": "pictures.npz"},
        "sources": [{"name": "vit", "model": f"hf:{vit}"}],
        "strategies": ["scratch", "linear_probe", "fine_tune", "lora", "adapters"],
        "budget": {"trials": 2, "min_trials": 1},
        "guard": {"when_undecided": "best_tune"},
        "device": "cpu",
    }
    config["strategies"][0] = {"scratch": {"architecture": ["vit"], "steps": 3}}
    result = autoxfer.run(config, runs=tmp_path / "runs")
    assert {entry.status for entry in result.record.entries} == {"complete"}
    assert result.record.winner.source == "vit"
    loaded = autoxfer.load(result.folder)
    assert (loaded.predict(images) == np.array(["ant", "bee", "cow"])[labels]).mean() > 0.9
