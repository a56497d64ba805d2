"""What the loaders of sources share: reading weights without running code, fitting them in, reading cards."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autoxfer import InputError, SourceSpec

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep their tensors
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
INPUT_KEYS = ("shape", "mean", "std", "channels", "classes", "columns")


def locate(spec: SourceSpec, path: Path) -> Path:
    """Where a weights file is. Raises InputError where it is not."""
    found = spec.directory / path.expanduser()
    if not found.is_file():
        what = f"{path}, which is a folder" if found.is_dir() else f"no {path}"
        raise InputError("a weights file that exists", what, f"sources.{spec.name}.weights")
    return found


def read_weights(path: Path, where: str) -> dict[str, Tensor]:
    """Read a .safetensors file or a checkpoint of plain tensors; a pickle that wants code is refused, unrun."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError("a safetensors file", f"{path.name}: {error}", where) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # about how it was pickled, which is no one's concern here
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        expected = "tensors alone (save network.state_dict() with safetensors)"
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(expected, f"{path.name}, which was refused and not run: {reason}", where) from error
    except Exception as error:  # cut files fail in many ways
        found = f"{path.name}, which cannot be read: {type(error).__name__}: {error}"
        raise InputError("a checkpoint that torch.load can read", found, where) from error
    for _ in range(2):
        key = next(
            (key for key in WRAPPERS if isinstance(state, Mapping) and isinstance(state.get(key), Mapping)), None
        )
        state = state if key is None else state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError("a state dict: names and tensors", f"{path.name}, which holds something else", where)
    return {str(name): value for name, value in state.items()}


def fit_weights(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load ``state`` into ``network``, all or nothing. Raises InputError naming the first tensors that do not fit."""
    own = network.state_dict()
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state) and not all(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    faults = [
        f"{name} {_shape(own[name])} in the network, {_shape(state[name]) if name in state else 'missing'} in the file"
        for name in own
        if not (name in state and state[name].shape == own[name].shape) and not _counts_batches(name, state)
    ]
    faults += [f"{name} {_shape(state[name])} in the file, missing in the network" for name in state if name not in own]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError("weights that fit the network", "; ".join(faults[:3]) + more, where)
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError("finite weights", f"NaN or infinity in {name}", where)
    network.load_state_dict(dict(state), strict=False)


def _counts_batches(name: str, state: Mapping[str, Tensor]) -> bool:
    return name.endswith("num_batches_tracked") and name not in state


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


@dataclass(frozen=True)
class InputCard:
    """What a source reads, from the JSON card beside its weights and from the run file."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse: bool  # the network reads BGR
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()  # of a table, in the order in which the network reads them
    record: Mapping[str, Any] = field(default_factory=dict)  # the rest of the card


def read_card(spec: SourceSpec, weights: Path | None, defaults: Mapping[str, Any] | None = None) -> InputCard:
    """Read what a source reads: ``input:`` of the run file over the JSON card over ``defaults``. Raises InputError."""
    where = f"sources.{spec.name}.input"
    if unknown := [key for key in spec.input if key not in INPUT_KEYS]:
        near = get_close_matches(unknown[0], INPUT_KEYS, 1)
        raise InputError(
            f"keys among {', '.join(INPUT_KEYS)}", repr(unknown[0]) + (f"; nearest: {near[0]}" if near else ""), where
        )
    card = _read_json(weights.with_suffix(".json")) if weights is not None else {}
    described = card.get("input") if isinstance(card.get("input"), Mapping) else {}
    named = card.get("classes")  # some cards only describe them
    values = {
        **(defaults or {}),
        "classes": named if isinstance(named, list) else (),
        **(described or {}),
        **spec.input,
    }
    columns = _check_columns(values, where)
    if columns:
        values = {"shape": [len(columns)], **values}
    if "shape" not in values:
        expected = (
            "what the network reads, such as input: {shape: [3, 32, 32], mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]} "
            "for pixels in [0, 1], or input: {shape: [12]} for 12 columns"
        )
        beside = (
            f"and no JSON card {weights.stem}.json beside the weights" if weights is not None else "for this source"
        )
        raise InputError(expected, f"nothing here {beside}", where)
    shape = _check_shape(values["shape"], where)
    if columns and shape != (len(columns),):
        raise InputError(f"shape [{len(columns)}], as there are columns", repr(list(shape)), where)
    mean = _numbers(values.get("mean", 0.0), "mean", shape[0], where)
    std = _numbers(values.get("std", 1.0), "std", shape[0], where)
    if min(std) <= 0:
        raise InputError("std above 0", f"{min(std)}", where)
    classes = values["classes"]
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError("classes as a list of names", repr(classes), where)
    rest = {key: value for key, value in card.items() if key not in ("input", "tensors", "classes")}
    reverse = str(values.get("channels", "")).upper() == "BGR"
    return InputCard(shape, mean, std, reverse, tuple(map(str, classes)), columns, rest)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("a JSON card", f"{type(error).__name__}: {error}", str(path)) from error
    if not isinstance(card, dict):
        raise InputError("a JSON card: an object", f"a {type(card).__name__}", str(path))
    return card


def _check_shape(shape: Any, where: str) -> tuple[int, ...]:
    fits = isinstance(shape, Sequence) and not isinstance(shape, str) and len(shape) in (1, 3)
    if not fits or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError("shape as [channels, height, width] or [columns]", repr(shape), where)
    return tuple(shape)


def _check_columns(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Take the names of a table's columns; none where the card has none. Raises InputError."""
    columns = values.get("columns", [])
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise InputError('columns as a list of names, such as ["age", "workclass=Private"]', repr(columns), where)
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise InputError("columns of different names", f"{twice[0]!r}, {columns.count(twice[0])} times", where)
    return tuple(columns)


def _numbers(value: Any, key: str, channels: int, where: str) -> tuple[float, ...]:
    """Read one number, or one for each channel or column."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if not numeric or len(values) not in (1, channels):
        raise InputError(f"{key} as {channels} numbers or one", repr(value), where)
    return tuple(float(v) for v in values)
