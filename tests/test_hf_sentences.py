"""What sentence-transformers does behind a transformer: dense layers and vectors of length 1, beside a plain loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from autoxfer.errors import InputError
from autoxfer.records import SourceSpec
from autoxfer.source import Source

pytest.importorskip("transformers", reason='the extra "text" is not installed')

from autoxfer_builtins.hf_source import HuggingFaceLoader

TEXTS = ["it was red", "the green and the blue", "number", ""]
TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"
CURVES: dict[str, Callable[[Any], Any]] = {
    TANH: np.tanh,
    IDENTITY: lambda x: x,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
    "torch.nn.modules.activation.SiLU": lambda x: x / (1 + np.exp(-x)),
    "torch.nn.modules.activation.Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "torch.nn.LeakyReLU": lambda x: np.where(x > 0, x, 0.01 * x),
}


def described(tiny: Path, place: Path, parts: list[str]) -> Path:
    """Copy a folder and name its parts, each in a folder of its own."""
    place.mkdir()
    for file in tiny.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    paths = ["" if kind == "Transformer" else f"{k}_{kind}" for k, kind in enumerate(parts)]
    modules = [
        {"idx": k, "name": str(k), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for k, (kind, path) in enumerate(zip(parts, paths, strict=True))
    ]
    (place / "modules.json").write_text(json.dumps(modules))
    for kind, path in zip(parts, paths, strict=True):
        (place / path).mkdir(exist_ok=True)
        if kind == "Pooling":
            (place / path / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return place


def dense(folder: Path, n_in: int, n_out: int, activation: str = TANH, *, bias: bool = True, **more: Any) -> Any:
    """Write a dense layer, and give the same layer as a function of arrays."""
    rng = np.random.default_rng(n_in + n_out)
    weights = {"linear.weight": rng.normal(size=(n_out, n_in)).astype(np.float32)}
    if bias:
        weights["linear.bias"] = rng.normal(size=n_out).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    config = {"in_features": n_in, "out_features": n_out, "bias": bias, "activation_function": activation, **more}
    (folder / "config.json").write_text(json.dumps(config))
    curve = CURVES[activation]
    return lambda x: curve(x @ weights["linear.weight"].T + weights.get("linear.bias", 0))


def load(folder: Path, **options: object) -> Source:
    return HuggingFaceLoader().load(SourceSpec("tiny", f"hf:{folder}", options=options))


def features(source: Source) -> Any:
    short = source.of_length(12)
    assert short.tokenizer is not None
    with torch.no_grad():
        return short.extract(["last"])(torch.from_numpy(short.tokenizer.encode(TEXTS)))[0].numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", CURVES)
def test_features_are_what_comes_after_the_dense_layer(
    transformer: Path, tmp_path: Path, activation: str, bias: bool
) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Dense"])
    layer = dense(folder / "2_Dense", 16, 5, activation, bias=bias)
    found = features(load(folder))
    assert found.shape == (4, 5)
    np.testing.assert_allclose(found, layer(features(load(transformer))), rtol=1e-4, atol=1e-5)


def test_two_layers_follow_one_another_and_length_1_is_made_where_the_user_asks(
    transformer: Path, tmp_path: Path
) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Dense", "Dense", "Normalize"])
    first, second = dense(folder / "2_Dense", 16, 24, IDENTITY, bias=False), dense(folder / "3_Dense", 24, 7)
    expected = second(first(features(load(transformer))))
    source = load(folder)
    assert (source.n_features, source.card["as_published"]["normalise"]) == (7, True)
    np.testing.assert_allclose(features(source), expected, rtol=1e-4, atol=1e-5)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(features(load(folder, normalise=True)), unit, rtol=1e-4, atol=1e-5)


def test_length_1_before_a_layer_is_part_of_the_network(transformer: Path, tmp_path: Path) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Normalize", "Dense"])
    layer, pooled = dense(folder / "3_Dense", 16, 5), features(load(transformer))
    expected = layer(pooled / np.linalg.norm(pooled, axis=1, keepdims=True).clip(1e-12))  # an empty text is 0
    np.testing.assert_allclose(features(load(folder)), expected, rtol=1e-4, atol=1e-5)


def test_the_layer_belongs_to_the_sources_weights(transformer: Path, tmp_path: Path) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Dense"])
    dense(folder / "2_Dense", 16, 5)
    one = load(folder)
    names = [name for name, _ in one.suffix().named_parameters()]
    assert sum("linear" in name for name in names) == 2
    torch.manual_seed(1)
    new = one.architecture(3)
    assert any(parameter.shape == (5, 16) for parameter in new.parameters())
    state = {"linear.weight": np.ones((5, 16), np.float32), "linear.bias": np.zeros(5, np.float32)}
    save_file(state, folder / "2_Dense" / "model.safetensors")
    other = load(folder)
    assert one.fingerprint != other.fingerprint != load(transformer).fingerprint


def test_who_says_how_to_pool_reads_the_transformer_alone(transformer: Path, tmp_path: Path) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Dense"])
    dense(folder / "2_Dense", 16, 5)
    assert load(folder, pooling="mean").fingerprint == load(transformer).fingerprint


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"activation_function": "os.system"}, r"an activation of torch.nn among Identity.*found 'os.system'"),
        ({"activation_function": "torch.nn.modules.activation.Exotic"}, "activation.Exotic"),
        ({"activation_function": "mine.Tanh"}, "found 'mine.Tanh' in st/2_Dense/config.json"),
        ({"in_features": 17}, "a Dense module that takes 16 numbers, found 17"),
        ({"in_features": "16"}, "in_features and out_features, whole numbers"),
        ({"out_features": 6}, "weights that fit the network"),
        ({"bias": False}, "linear.bias 5 in the file, missing in the network"),
        ({"module_input_name": "token_embeddings"}, "a layer on sentence_embedding"),
    ],
)
def test_what_is_wrong_with_a_layer_is_told(transformer: Path, tmp_path: Path, more: dict[str, Any], told: str) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Dense"])
    dense(folder / "2_Dense", 16, 5)
    config = folder / "2_Dense" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **more}))
    with pytest.raises(InputError, match=told):
        load(folder)


def test_weights_that_are_no_safetensors_are_refused_and_not_opened(transformer: Path, tmp_path: Path) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Pooling", "Dense"])
    dense(folder / "2_Dense", 16, 5)
    weights = folder / "2_Dense" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(InputError, match=r"expected 2_Dense/model.safetensors, found pytorch_model.bin"):
        load(folder)


def test_a_layer_before_the_pooling_is_refused(transformer: Path, tmp_path: Path) -> None:
    folder = described(transformer, tmp_path / "st", ["Transformer", "Dense", "Pooling"])
    dense(folder / "1_Dense", 16, 5)
    with pytest.raises(InputError, match="Pooling before Dense, found Transformer, Dense, Pooling"):
        load(folder)
