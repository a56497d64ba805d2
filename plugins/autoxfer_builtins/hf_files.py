"""Where a model's folder is: a path, an installed package, a hub; and reading it without a word on the terminal."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoxfer import InputError, SourceSpec
from autoxfer_builtins.hub import quick_to_give_up, why

PREFIX = "hf:"
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")  # no file that holds code or pickles


def find(spec: SourceSpec, where: str) -> Path:
    """Find the folder: as a path, in a package, on the hub. Raises InputError."""
    name = spec.model.removeprefix(PREFIX)
    folder = spec.directory / Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError("a folder with config.json and model.safetensors", f"no config.json in {name}", where)
        return folder
    return _in_package(name) or _on_hub(name, where)


def _in_package(name: str) -> Path | None:
    """Find a folder in an installed package without importing it: the one named, or the only one with a model."""
    package, _, rest = name.partition("/")
    package = package.replace("-", "_")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / rest
        found = [
            path.parent for path in (folder / "config.json", *sorted(folder.glob("*/config.json"))) if path.is_file()
        ]
        if found:
            return found[0]
    return None


def _on_hub(name: str, where: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - heavy

    expected = "a folder with config.json and model.safetensors, an installed package that holds one, or a hub's model"
    with quick_to_give_up() as answered:
        try:
            return Path(snapshot_download(name, allow_patterns=list(FILES)))
        except (OSError, ValueError) as error:  # what the hub's client raises are kinds of them
            found = f"no folder and no package {name!r}, and the hub did not help ({why(error, answered=answered)})"
            raise InputError(expected, found, where) from error


def read_json(path: Path) -> Any:
    """Read JSON; None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_config(folder: Path, where: str) -> Any:
    """Read the configuration. Raises InputError for one that transformers does not know, or that wants code."""
    from transformers import AutoConfig  # noqa: PLC0415 - heavy

    try:
        with quietly():
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # anything can be wrong with a folder
        expected = "a transformer in safetensors that needs no code of its own"
        raise InputError(expected, f"{folder.name}: {reason(error)}", where) from error


def load_network(folder: Path, auto: Any, where: str, *, optional: Collection[str] = ()) -> tuple[Any, list[str]]:
    """Load weights with one of transformers' auto classes, and say which optional ones are missing.

    Raises InputError where others are missing, do not fit, or come as a pickle.
    """
    try:
        with torch.random.fork_rng(devices=[]), quietly():
            network, info = auto.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # anything can be wrong with a folder
        expected = "a transformer in safetensors that needs no code of its own"
        raise InputError(expected, f"{folder.name}: {reason(error)}", where) from error
    missing = sorted(map(str, info["missing_keys"]))
    needed = [name for name in missing if not any(f".{part}" in f".{name}" for part in optional)]
    if needed:
        raise InputError("weights for the whole network", f"none for {', '.join(needed[:3])}", where)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError("finite weights", f"NaN or infinity in {name}", where)
    return network.eval(), missing


def class_names(config: Any, head: nn.Linear | None) -> tuple[str, ...]:
    """Read the names of the head's classes; none where the checkpoint has only numbered them."""
    named = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    if head is None or sorted(named) != list(range(head.out_features)):
        return ()
    names = tuple(named[index] for index in sorted(named))
    return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def reason(error: Exception) -> str:
    """Name an error and its first line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def quietly() -> Iterator[None]:
    """Keep progress bars and reports off the terminal: what matters is checked here."""
    from transformers.utils import logging  # noqa: PLC0415 - heavy

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
