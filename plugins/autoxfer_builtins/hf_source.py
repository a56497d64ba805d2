"""A source that reads text: ``hf:FOLDER``, a transformer as Hugging Face and sentence-transformers keep them.

FOLDER may also lie in an installed package (``hf:PACKAGE``, ``hf:PACKAGE/FOLDER``), or be a name on the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import nn

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer.source import fingerprint
from autoxfer.tokens import Tokenizer
from autoxfer_builtins.hf_chain import POOLINGS, Pooled, cut
from autoxfer_builtins.hub import quick_to_give_up

for _package in ("transformers", "tokenizers"):  # they take seconds to import: only where a source is loaded
    if importlib.util.find_spec(_package) is None:
        raise ImportError(f'{_package} is not installed: pip install "autoxfer[text]"', name=_package)

PREFIX = "hf:"
OPTIONS = ("pooling", "normalise", "length")
LONGEST = 256  # tokens read of one text where neither the folder nor the user says
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")  # no file that holds code or pickles


@final
class HuggingFaceLoader(SourceLoader):
    """Loads a transformer and its tokenizer; only safetensors, and no code that comes with the weights."""

    name: ClassVar[str] = "hf"

    def loads(self, spec: SourceSpec) -> bool:
        """Whether the model starts with ``hf:``."""
        return spec.model.startswith(PREFIX)

    def load(self, spec: SourceSpec) -> Source:
        """Load it. Options: pooling (mean, cls, last), normalise (true, false), length (tokens). Raises InputError."""
        where = f"sources.{spec.name}"
        _check(spec, where)
        folder = _find(spec, f"{where}.model")
        network = _load(folder, f"{where}.model")
        tokenizer = _tokenizer(folder, f"{where}.model")
        habits = _habits(folder)
        chosen = _choose(spec.options, habits, network, f"{where}.options")
        pad = int(getattr(network.config, "pad_token_id", None) or 0)
        pool = Pooled(chosen["pooling"], normalise=chosen["normalise"])
        chain = cut(network, pad, pool, chosen["length"], _ids_known(network))
        reading = {"tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest(), **chosen}

        def fresh() -> nn.Module:
            return _new(network.config)

        return Source(
            spec.name,
            chain,
            fresh,
            input_shape=(chosen["length"],),
            mean=(0.0,),
            std=(1.0,),
            tokenizer=Tokenizer("tokenizers", tokenizer, chosen["length"], spec.name),
            card={
                "model": spec.model,
                "type": network.config.model_type,
                "options": dict(spec.options),
                "input": reading,
                "as_published": habits,
                "segments": list(chain.names),
            },
            fingerprint=fingerprint(network, reading),
        )


def _check(spec: SourceSpec, where: str) -> None:
    if spec.weights is not None:
        raise InputError("no weights beside hf:FOLDER, which holds them", str(spec.weights), f"{where}.weights")
    if spec.input:
        raise InputError("options instead of input for a source that reads text", repr(dict(spec.input)), where)
    unknown = [name for name in spec.options if name not in OPTIONS]
    if unknown:
        raise InputError(f"options among {', '.join(OPTIONS)}", repr(unknown[0]), f"{where}.options")


def _find(spec: SourceSpec, where: str) -> Path:
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
    try:
        with quick_to_give_up():
            return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:  # what the hub's client raises are kinds of them
        reason = str(error).strip().partition("\n")[0]
        found = f"no folder and no package {name!r}, and the hub did not help ({type(error).__name__}: {reason})"
        raise InputError(expected, found, where) from error


def _load(folder: Path, where: str) -> Any:
    """Read configuration and weights. Raises InputError where some are missing, or want code of their own."""
    from transformers import AutoModel  # noqa: PLC0415 - heavy

    try:
        with torch.random.fork_rng(devices=[]), _quietly():
            network, info = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # anything can be wrong with a folder
        reason = str(error).strip().partition("\n")[0]
        found = f"{folder.name}: {type(error).__name__}: {reason}"
        raise InputError("a transformer in safetensors that needs no code of its own", found, where) from error
    missing = sorted(str(name) for name in info["missing_keys"] if not str(name).startswith("pooler."))
    if missing:
        raise InputError("weights for the whole network", f"none for {', '.join(missing[:3])}", where)
    return _without_pooler(network).eval()


def _new(config: Any) -> nn.Module:
    from transformers import AutoModel  # noqa: PLC0415 - heavy

    network: nn.Module = _without_pooler(AutoModel.from_config(config))  # type: ignore[no-untyped-call]
    return network


def _without_pooler(network: Any) -> Any:
    """Leave out what only the pretraining's own task has read."""
    if isinstance(getattr(network, "pooler", None), nn.Module):
        network.pooler = None
    return network


def _tokenizer(folder: Path, where: str) -> str:
    """Read the tokenizer as the JSON of the library ``tokenizers``, made from older files where it has to be."""
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            from tokenizers import Tokenizer as Fast  # noqa: PLC0415

            content: str = Fast.from_str(path.read_text(encoding="utf-8")).to_str()
            return content
        from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

        with _quietly():
            made = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return str(made.backend_tokenizer.to_str())
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise InputError("a tokenizer.json", f"{folder.name}: {reason}", where) from error


def _habits(folder: Path) -> dict[str, Any]:
    """Read how sentence-transformers makes a vector of a text with this model; nothing where it does not say."""
    habits: dict[str, Any] = {}
    modules = _json(folder / "modules.json")
    kinds = [(str(part.get("type", "")).rpartition(".")[2], str(part.get("path", ""))) for part in modules or ()]
    for kind, place in kinds:
        if kind == "Pooling":
            pooling = _json(folder / place / "config.json") or {}
            known = {
                "pooling_mode_cls_token": "cls",
                "pooling_mode_mean_tokens": "mean",
                "pooling_mode_lasttoken": "last",
            }
            habits["pooling"] = next((name for key, name in known.items() if pooling.get(key)), "mean")
    if kinds:
        habits["normalise"] = any(kind == "Normalize" for kind, _ in kinds)
    longest = (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    return habits | ({"length": longest} if isinstance(longest, int) else {})


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _choose(options: Mapping[str, Any], habits: Mapping[str, Any], network: Any, where: str) -> dict[str, Any]:
    """Settle pooling, normalisation and length; the folder's habits where the user says nothing.

    Vectors of length 1 have entries too small for heads that are trained by gradient, so they are made only where the
    user asks: what compares angles, such as the probe's "l2", makes them itself.
    """
    most = int(getattr(network.config, "max_position_embeddings", 0) or 512)
    if network.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        most -= 2  # their positions begin behind the padding's
    pooling = options.get("pooling", habits.get("pooling", "mean"))
    normalise = options.get("normalise", False)
    length = options.get("length", min(habits.get("length", LONGEST), most))
    if pooling not in POOLINGS:
        raise InputError(f"pooling among {', '.join(POOLINGS)}", repr(pooling), where)
    if not isinstance(normalise, bool):
        raise InputError("normalise: true or false", repr(normalise), where)
    if isinstance(length, bool) or not isinstance(length, int) or not 3 <= length <= most:
        raise InputError(f"length between 3 and {most} tokens", repr(length), where)
    return {"pooling": pooling, "normalise": normalise, "length": length}


def _ids_known(network: Any) -> int:
    return int(network.get_input_embeddings().weight.shape[0])


@contextmanager
def _quietly() -> Iterator[None]:
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


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer transformers that read text."""
    return [HuggingFaceLoader]
