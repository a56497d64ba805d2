"""A source as Hugging Face keeps it: ``hf:FOLDER``, an encoder of pictures, or a transformer that reads text.

FOLDER may also lie in an installed package (``hf:PACKAGE``, ``hf:PACKAGE/FOLDER``), or be a name on the hub.
"""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar, final

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer_builtins import hf_text, hf_vision
from autoxfer_builtins.hf_files import PREFIX, find, read_config

for _package in ("transformers", "tokenizers"):  # they take seconds to import: only where a source is loaded
    if importlib.util.find_spec(_package) is None:
        raise ImportError(f'{_package} is not installed: pip install "autoxfer[text]"', name=_package)


@final
class HuggingFaceLoader(SourceLoader):
    """Loads a network with its tokenizer or image processor; only safetensors, and no code that comes with them."""

    name: ClassVar[str] = "hf"

    def loads(self, spec: SourceSpec) -> bool:
        """Whether the model starts with ``hf:``."""
        return spec.model.startswith(PREFIX)

    def load(self, spec: SourceSpec) -> Source:
        """Load it. Options: pooling; of text also normalise (true, false), length (tokens). Raises InputError."""
        where = f"sources.{spec.name}"
        if spec.weights is not None:
            raise InputError("no weights beside hf:FOLDER, which holds them", str(spec.weights), f"{where}.weights")
        folder = find(spec, f"{where}.model")
        config = read_config(folder, f"{where}.model")
        load = hf_vision.load if _sees(config) else hf_text.load
        return load(spec, folder, config, where)


def _sees(config: Any) -> bool:
    """Whether a network of this configuration reads pixels."""
    from transformers import MODEL_MAPPING  # noqa: PLC0415 - heavy

    made = MODEL_MAPPING.get(type(config), None)
    first = made[0] if isinstance(made, tuple) else made
    return getattr(first, "main_input_name", "") == "pixel_values"


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer Hugging Face's networks."""
    return [HuggingFaceLoader]
