"""Encoders of pictures as transformers keeps them: config.json, model.safetensors, preprocessor_config.json.

What the image processor does is done on tensors, inside the model: resized, cut at the centre, rescaled, normalised.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoxfer import InputError, Source, SourceSpec
from autoxfer.preprocessing import Fit
from autoxfer.source import fingerprint
from autoxfer_builtins import hf_pixels
from autoxfer_builtins.hf_files import class_names, load_network, quietly, reason
from autoxfer_builtins.weights import read_card

POOLINGS = ("cls", "mean")
MODES: Mapping[int, Any] = {0: "nearest-exact", 2: "bilinear"}  # PIL's numbers; all others are nearest to bicubic
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class _Body:
    """What the features come from: the network, how they are picked from its output, and the head that reads them."""

    network: nn.Module
    pick: str  # "logits" (the head taken off), "pooler_output", "cls", "mean"
    n_prefix: int  # tokens before those of the patches
    head: nn.Linear | None
    is_base: bool  # whether it is the checkpoint's backbone alone


def load(spec: SourceSpec, folder: Path, config: Any, where: str) -> Source:
    """Load it. Option: pooling (cls, mean); left out: what the network itself goes on with. Raises InputError."""
    pooling = _check(spec, f"{where}.options")
    auto = _auto(config)
    network, missing = load_network(folder, auto, f"{where}.model", optional=("pooler.", "head."))
    reading, fit = _reading(folder, config, spec, where)
    card = read_card(spec, None, reading)
    fit = fit if list(card.shape) == reading.get("shape") else Fit()
    body = _body(network, auto, pooling, card.shape, missing=missing, where=where)
    chain = hf_pixels.cut(body.network, body.pick, card.shape, body.head, body.n_prefix)
    described = {
        "shape": list(card.shape),
        "mean": list(card.mean),
        "std": list(card.std),
        "bgr": card.reverse,
        "resize": list(fit.size),
        "interpolation": fit.mode,
        "pooling": {"logits": "classifier", "pooler_output": "pooler"}.get(body.pick, body.pick),
    }

    def fresh() -> nn.Module:
        made: Any = auto.from_config(config)
        return made.base_model if body.is_base else made  # type: ignore[no-any-return]

    return Source(
        spec.name,
        chain,
        fresh,
        input_shape=card.shape,
        mean=card.mean,
        std=card.std,
        reverse=card.reverse,
        fit=fit,
        classes=class_names(config, body.head),
        card={
            "model": spec.model,
            "type": config.model_type,
            "options": dict(spec.options),
            "input": described,
            "segments": list(chain.names),
        },
        fingerprint=fingerprint(body.network, described),
    )


def _check(spec: SourceSpec, where: str) -> str | None:
    unknown = [name for name in spec.options if name != "pooling"]
    if unknown:
        raise InputError("the option pooling, for a source that reads pictures", repr(unknown[0]), where)
    pooling = spec.options.get("pooling")
    if pooling is not None and pooling not in POOLINGS:
        expected = f"pooling among {', '.join(POOLINGS)}; left out: as the network does"
        raise InputError(expected, repr(pooling), where)
    return pooling


def _auto(config: Any) -> Any:
    """Choose the library's class: with the classifier where the checkpoint has one."""
    from transformers import (  # noqa: PLC0415 - heavy
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        AutoModel,
        AutoModelForImageClassification,
    )

    known = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), ())
    names = {getattr(each, "__name__", "") for each in (known if isinstance(known, tuple) else (known,))}
    return AutoModelForImageClassification if names & set(config.architectures or ()) else AutoModel


def _body(
    network: Any, auto: Any, pooling: str | None, shape: tuple[int, ...], *, missing: Collection[str], where: str
) -> _Body:
    """Settle where features come from. Raises InputError where the network does not read the shape, or pool so."""
    x = torch.zeros(1, *shape)
    try:
        with torch.no_grad():
            head = _take_head(network, x) if pooling is None else None
            if head is not None:
                return _Body(network, "logits", 0, head, is_base=False)
            base = network if auto.__name__ == "AutoModel" else network.base_model
            out = base(pixel_values=x, return_dict=True)
            hidden: Tensor = out.last_hidden_state
    except Exception as error:  # a network's own code may raise anything
        size = "x".join(map(str, shape))
        raise InputError(f"a network that reads pictures of {size}", reason(error), f"{where}.model") from error
    n_prefix = _n_prefix(base, hidden)
    if pooling == "cls" and not n_prefix:
        raise InputError("pooling: mean, for a network without a class token", "'cls'", f"{where}.options")
    pick = pooling or ("pooler_output" if _pools(base, out, missing) else "cls" if n_prefix else "mean")
    pooler = getattr(base, "pooler", None)
    if pick != "pooler_output" and isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        base.pooler = None  # it would be trained, and read by nobody
    return _Body(base, pick, n_prefix, None, is_base=base is not network)


def _take_head(network: Any, x: Tensor) -> nn.Linear | None:
    """Take the linear layer off that gives the classes' logits; None where there is none, or more than one."""
    calls: list[tuple[str, nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda m, _, y, path=path: calls.append((path, m, y)))
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    out = network(pixel_values=x, return_dict=True)
    for hook in hooks:
        hook.remove()
    logits = getattr(out, "logits", None)
    if not calls or not isinstance(logits, Tensor) or calls[-1][2] is not logits:
        return None
    path, head, _ = calls[-1]
    network.set_submodule(path, nn.Identity())
    return head


def _pools(base: Any, out: Any, missing: Collection[str]) -> bool:
    """Whether the network pools by itself; a dense layer there is the pretraining's own, as is one without weights."""
    pooler = getattr(base, "pooler", None)
    dense = isinstance(pooler, nn.Module) and any(isinstance(part, nn.Linear) for part in pooler.modules())
    return getattr(out, "pooler_output", None) is not None and not dense and not missing


def _n_prefix(base: nn.Module, hidden: Tensor) -> int:
    """Count the tokens that stand before those of the patches: the class token, registers."""
    if hidden.dim() != 3:
        return 0
    counts = [getattr(module, "num_patches", None) for module in base.modules()]
    known = [count for count in counts if isinstance(count, int) and 0 <= hidden.shape[1] - count < 16]
    has_token = any(name.endswith(("cls_token", "class_embedding")) for name, _ in base.named_parameters())
    return hidden.shape[1] - known[0] if known else int(has_token)


def _reading(folder: Path, config: Any, spec: SourceSpec, where: str) -> tuple[dict[str, Any], Fit]:
    """Read what the image processor makes of a picture: shape, mean, std, channels; and how it is resized."""
    if not (folder / PROCESSOR).is_file():
        if {"shape", "mean", "std"} <= set(spec.input):
            return {}, Fit()
        expected = f"{PROCESSOR} in the folder, or input: {{shape: [3, 224, 224], mean: [...], std: [...]}}"
        raise InputError(expected, f"none in {folder.name}", f"{where}.input")
    from transformers import AutoImageProcessor  # noqa: PLC0415 - heavy

    try:
        with quietly():
            read: Any = AutoImageProcessor.from_pretrained
            processor = read(folder, local_files_only=True, trust_remote_code=False)
        return describe(processor, int(getattr(config, "num_channels", None) or 3))
    except Exception as error:  # the library's own, of many kinds
        raise InputError(
            f"a {PROCESSOR} of transformers", f"{folder.name}: {reason(error)}", f"{where}.model"
        ) from error


def describe(processor: Any, channels: int) -> tuple[dict[str, Any], Fit]:
    """Say what an image processor does, for pixels in [0, 1]."""
    size, crop = (_sides(getattr(processor, name, None)) for name in ("size", "crop_size"))
    crops = bool(getattr(processor, "do_center_crop", False)) and len(crop) == 2
    edge = size[0] if len(size) == 1 else 0
    share = getattr(processor, "crop_pct", None)
    if edge and share and not crops:  # ConvNeXt: below 384 resized to more, and cut; from there on squeezed
        size = (int(edge / share),) if edge < 384 else (edge, edge)
    wanted = crop if crops else (edge, edge) if edge else size
    if len(wanted) != 2:
        raise ValueError(f"a size of {getattr(processor, 'size', None)}")
    resizes = bool(getattr(processor, "do_resize", True))
    fit = Fit(size if resizes and size != wanted else (), MODES.get(int(processor.resample or 0), "bicubic"))
    scale = 255.0 * float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 255.0
    offset = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    mean, std = [0.0] * channels, [1.0] * channels
    if getattr(processor, "do_normalize", True):
        mean, std = ([float(v) for v in values] for values in (processor.image_mean, processor.image_std))
    if getattr(processor, "include_top", False):  # EfficientNet: divided once more
        std = [s * float(again) for s, again in zip(std, processor.image_std, strict=True)]
    reading: dict[str, Any] = {
        "shape": [channels, *wanted],
        "mean": [(m + offset) / scale for m in mean],  # (scale * x - offset - m) / s
        "std": [s / scale for s in std],
    }
    return reading | ({"channels": "BGR"} if getattr(processor, "do_flip_channel_order", False) else {}), fit


def _sides(size: Any) -> tuple[int, ...]:
    """Read a size as (height, width), or (shorter side,)."""
    known = dict(size) if size is not None else {}
    if known.get("height") and known.get("width"):
        return int(known["height"]), int(known["width"])
    return (int(known["shortest_edge"]),) if known.get("shortest_edge") else ()
