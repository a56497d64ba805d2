"""What sentence-transformers does to a transformer's tokens: pooling, dense layers, vectors of length 1.

``modules.json`` names the parts in order, each part's folder says how it is made: ``1_Pooling``, ``2_Dense`` and so on.
A dense layer is activation(W x + b), and its weights lie in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import InputError
from autoxfer_builtins.hf_chain import POOLINGS
from autoxfer_builtins.hf_files import read_json
from autoxfer_builtins.weights import fit_weights, read_weights

MODES = {  # sentence-transformers' words
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")
PLACES = ("torch.nn.", "torch.nn.modules.linear.", "torch.nn.modules.activation.")  # where an activation may come from
ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Identity, nn.Tanh, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
        *(nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.Softsign),
    )
}
Step = Mapping[str, Any]  # of a dense layer: folder, in_features, out_features, bias, activation; {} = length 1


@final
class Length(nn.Module):
    """Make vectors of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) -> (batch, width)."""
        return functional.normalize(x, dim=1)


@final
class Dense(nn.Sequential):
    """A linear layer and an activation, under the names that sentence-transformers saves."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.add_module("linear", nn.Linear(step["in_features"], step["out_features"], bias=step["bias"]))
        self.add_module("activation", ACTIVATIONS[step["activation"]]())


def make(steps: Sequence[Step]) -> nn.Sequential:
    """Make what follows the pooling, newly initialised."""
    return nn.Sequential(*(Dense(step) if step else Length() for step in steps))


def fill(made: nn.Module, steps: Sequence[Step], folder: Path, where: str) -> None:
    """Load the weights. Raises InputError where they are missing, do not fit, or come as a pickle."""
    for layer, step in zip(made.children(), steps, strict=True):
        if not step:
            continue
        path = folder / step["folder"] / "model.safetensors"
        if not path.is_file():
            others = [item.name for item in path.parent.iterdir() if item.suffix != ".json"]
            raise InputError(f"{step['folder']}/model.safetensors", ", ".join(sorted(others)) or "no weights", where)
        state = {name: tensor.to(torch.float32) for name, tensor in read_weights(path, where).items()}
        fit_weights(layer, state, where)


def habits(folder: Path, where: str, *, told: bool) -> dict[str, Any]:
    """Read how sentence-transformers makes a vector of a text with this model; nothing where it does not say.

    What comes after the pooling is left out where the user has ``told`` how to pool. Raises InputError for what is not
    done here, unless so.
    """
    found: dict[str, Any] = {}
    modules = read_json(folder / "modules.json")
    kinds = [(str(part.get("type", "")).rpartition(".")[2], str(part.get("path", ""))) for part in modules or ()]
    more = [kind for kind, _ in kinds if kind not in KNOWN]
    if more and not told:
        expected = f"{', '.join(KNOWN)} alone, or options: {{pooling: mean}} to read the transformer alone"
        raise InputError(expected, f"a module {more[0]} in {folder.name}/modules.json", where)
    for kind, place in kinds:
        if kind == "Pooling":
            found["pooling"] = _pooling(folder, place, where, told=told)
    if kinds:
        found["normalise"] = any(kind == "Normalize" for kind, _ in kinds)
    steps = [] if told else _steps(folder, kinds, where)
    longest = (read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    found |= {"after": steps} if steps else {}
    return found | ({"length": longest} if isinstance(longest, int) else {})


def _pooling(folder: Path, place: str, where: str, *, told: bool) -> str:
    pooling = read_json(folder / place / "config.json") or {}
    modes = [name for key, name in MODES.items() if pooling.get(key)] or [pooling.get("pooling_mode", "mean")]
    if (len(modes) > 1 or modes[0] not in POOLINGS) and not told:
        found = f"{' and '.join(map(str, modes))} in {folder.name}/{place}/config.json"
        raise InputError(f"one pooling among {', '.join(POOLINGS)}", found, where)
    return str(modes[0])


def _steps(folder: Path, kinds: Sequence[tuple[str, str]], where: str) -> list[Step]:
    """Describe the dense layers, and where vectors are made of length 1 before one of them. Raises InputError."""
    names = [kind for kind, _ in kinds]
    if "Dense" not in names:
        return []
    if "Pooling" not in names[: names.index("Dense")]:
        raise InputError("Pooling before Dense", f"{', '.join(names)} in {folder.name}/modules.json", where)
    last = len(names) - names[::-1].index("Dense")
    parts = kinds[names.index("Pooling") + 1 : last]
    return [_dense(folder, place, where) if kind == "Dense" else {} for kind, place in parts]


def _dense(folder: Path, place: str, where: str) -> Step:
    at = f"{folder.name}/{place}/config.json"
    config = read_json(folder / place / "config.json")
    sizes = [config.get(key) for key in ("in_features", "out_features")] if isinstance(config, dict) else [None]
    if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise InputError("in_features and out_features, whole numbers", f"{sizes} in {at}", where)
    assert isinstance(config, dict)
    bias, activation = config.get("bias", True), str(config.get("activation_function", "torch.nn.Tanh"))
    prefix, _, name = activation.rpartition(".")
    if f"{prefix}." not in PLACES or name not in ACTIVATIONS:
        raise InputError(f"an activation of torch.nn among {', '.join(ACTIVATIONS)}", f"{activation!r} in {at}", where)
    reads = {config.get(f"module_{side}_name") or "sentence_embedding" for side in ("input", "output")}
    if reads != {"sentence_embedding"} or not isinstance(bias, bool):
        found = f"{', '.join(sorted(map(str, reads)))} and bias {bias!r} in {at}"
        raise InputError("a layer on sentence_embedding, its bias true or false", found, where)
    return {"folder": place, "in_features": sizes[0], "out_features": sizes[1], "bias": bias, "activation": name}
