"""Transformers that read text, as Hugging Face and sentence-transformers keep them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from autoxfer import InputError, Source, SourceSpec
from autoxfer.source import fingerprint
from autoxfer.tokens import Tokenizer
from autoxfer_builtins import hf_sentences
from autoxfer_builtins.hf_chain import POOLINGS, Judged, Pooled, cut
from autoxfer_builtins.hf_files import class_names, load_network, quietly, reason

OPTIONS = ("pooling", "normalise", "length")
LONGEST = 256  # tokens read of one text where neither the folder nor the user says


def load(spec: SourceSpec, folder: Path, config: Any, where: str) -> Source:
    """Load it. Options: pooling (mean, cls, max, last), normalise, length (tokens). Raises InputError."""
    _check(spec, where)
    habits = hf_sentences.habits(folder, f"{where}.options", told="pooling" in spec.options)
    auto = _auto(config) if "pooling" not in {**habits, **spec.options} else _auto(None)
    network, _ = load_network(folder, auto, f"{where}.model", optional=("pooler.",))
    tokenizer = _tokenizer(folder, f"{where}.model")
    chosen = _choose(spec.options, habits, config, f"{where}.options")
    pad = int(getattr(config, "pad_token_id", None) or 0)
    with quietly():
        body, head = _body(network, chosen, pad)
    _fill(body, chosen, folder, config, f"{where}.model")
    backbone: Any = body[0]
    n_ids = int(backbone.get_input_embeddings().weight.shape[0])
    chain = cut(body, pad, chosen["length"], n_ids, head)
    chosen["pooling"] = "classifier" if head is not None else chosen["pooling"] or "mean"
    reading = {"tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest(), **chosen}

    def fresh() -> nn.Module:
        return _body(auto.from_config(config), chosen, pad, tried=True)[0]

    return Source(
        spec.name,
        chain,
        fresh,
        input_shape=(chosen["length"],),
        mean=(0.0,),
        std=(1.0,),
        classes=class_names(config, head),
        tokenizer=Tokenizer("tokenizers", tokenizer, chosen["length"], spec.name),
        card={
            "model": spec.model,
            "type": config.model_type,
            "options": dict(spec.options),
            "input": reading,
            "as_published": habits,
            "segments": list(chain.names),
        },
        fingerprint=fingerprint(body, reading),
    )


def _check(spec: SourceSpec, where: str) -> None:
    if spec.input:
        raise InputError("options instead of input for a source that reads text", repr(dict(spec.input)), where)
    unknown = [name for name in spec.options if name not in OPTIONS]
    if unknown:
        raise InputError(f"options among {', '.join(OPTIONS)}", repr(unknown[0]), f"{where}.options")


def _auto(config: Any) -> Any:
    """Choose the library's class: with the classifier where the checkpoint has one."""
    from transformers import (  # noqa: PLC0415 - heavy
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        AutoModel,
        AutoModelForSequenceClassification,
    )

    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), ())
    names = {getattr(each, "__name__", "") for each in (known if isinstance(known, tuple) else (known,))}
    return AutoModelForSequenceClassification if names & set(getattr(config, "architectures", ()) or ()) else AutoModel


def _body(
    network: Any, chosen: Mapping[str, Any], pad: int, *, tried: bool = False
) -> tuple[nn.ModuleList, nn.Linear | None]:
    """Put the backbone beside what pools its tokens: the classifier's own way where it can be followed."""
    base = network.base_model
    if base is not network and chosen["pooling"] in ("classifier", None):
        judged = Judged.of(network, base, pad, trusted=tried)
        if judged is not None:
            return nn.ModuleList([_without_pooler(base), judged[0]]), judged[1]
    after = hf_sentences.make(chosen["after"]) if "after" in chosen else None
    pool = Pooled(chosen["pooling"] or "mean", normalise=chosen["normalise"], after=after)
    return nn.ModuleList([_without_pooler(base), pool]), None


def _fill(body: nn.ModuleList, chosen: Mapping[str, Any], folder: Path, config: Any, where: str) -> None:
    """Load the weights of what comes after the pooling. Raises InputError."""
    if "after" not in chosen:
        return
    width = config.hidden_size
    for step in filter(None, chosen["after"]):
        if step["in_features"] != width:
            raise InputError(f"a Dense module that takes {width} numbers", f"{step['in_features']}", where)
        width = step["out_features"]
    hf_sentences.fill(body.get_submodule("1.after"), chosen["after"], folder, where)


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

        with quietly():
            made = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return str(made.backend_tokenizer.to_str())
    except Exception as error:
        raise InputError("a tokenizer.json", f"{folder.name}: {reason(error)}", where) from error


def _choose(options: Mapping[str, Any], habits: Mapping[str, Any], config: Any, where: str) -> dict[str, Any]:
    """Settle pooling, normalisation and length; the folder's habits where the user says nothing.

    Vectors of length 1 have entries too small for heads that are trained by gradient, so they are made only where the
    user asks: what compares angles, such as the probe's "l2", makes them itself.
    """
    most = int(getattr(config, "max_position_embeddings", 0) or 512)
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        most -= 2  # their positions begin behind the padding's
    pooling = options.get("pooling", habits.get("pooling"))
    normalise = options.get("normalise", False)
    length = options.get("length", min(habits.get("length", LONGEST), most))
    if pooling not in (*POOLINGS, None):
        raise InputError(f"pooling among {', '.join(POOLINGS)}", repr(pooling), where)
    if not isinstance(normalise, bool):
        raise InputError("normalise: true or false", repr(normalise), where)
    if isinstance(length, bool) or not isinstance(length, int) or not 3 <= length <= most:
        raise InputError(f"length between 3 and {most} tokens", repr(length), where)
    after = {"after": habits["after"]} if "after" in habits else {}
    return {"pooling": pooling, "normalise": normalise, "length": length, **after}
