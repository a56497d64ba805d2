"""autoxfer: find the best way to reuse a pretrained model, and say when not to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AutoxferError": "errors",
    "InputError": "errors",
    "Unsupported": "errors",
    "hookimpl": "hooks",
    "Recipe": "records",
    "Score": "records",
    "Verdict": "records",
    "SourceSpec": "records",
    "Candidate": "strategy",
    "Fitted": "strategy",
    "Group": "strategy",
    "Problem": "strategy",
    "Raw": "strategy",
    "Strategy": "strategy",
    "Tap": "strategy",
    "TrainData": "strategy",
    "Trainer": "strategy",
    "Source": "source",
    "SourceLoader": "source",
    "Column": "dataset",
    "DataSpec": "dataset",
    "Dataset": "dataset",
    "DatasetReader": "dataset",
    "Schema": "dataset",
    "RunConfig": "config",
    "Result": "selection",
    "run": "selection",
    "load": "prediction",
    "Predictor": "prediction",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoxfer' has no attribute {name!r}")
    return getattr(import_module(f"autoxfer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
