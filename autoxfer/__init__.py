"""autoxfer: find the best way to reuse a pretrained model, and say when not to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ does, for type checkers and editors
    from autoxfer.axes import weighted_mean as weighted_mean
    from autoxfer.building import (
        Normalise as Normalise,
        OnTokens as OnTokens,
        Pool as Pool,
        fit_head as fit_head,
        start_head as start_head,
        with_head as with_head,
    )
    from autoxfer.cells import as_text as as_text
    from autoxfer.config import RunConfig as RunConfig
    from autoxfer.dataset import (
        Column as Column,
        Dataset as Dataset,
        DatasetReader as DatasetReader,
        DataSpec as DataSpec,
        Schema as Schema,
    )
    from autoxfer.encoding import encode as encode
    from autoxfer.errors import AutoxferError as AutoxferError, InputError as InputError, Unsupported as Unsupported
    from autoxfer.hooks import hookimpl as hookimpl
    from autoxfer.linear import (
        linear_path as linear_path,
        ridge_path as ridge_path,
        softmax_path as softmax_path,
        strength_grid as strength_grid,
    )
    from autoxfer.matching import match_classes as match_classes
    from autoxfer.prediction import Predictor as Predictor, load as load
    from autoxfer.records import Recipe as Recipe, Score as Score, SourceSpec as SourceSpec, Verdict as Verdict
    from autoxfer.result import Result as Result
    from autoxfer.selection import run as run
    from autoxfer.source import Source as Source, SourceLoader as SourceLoader
    from autoxfer.strategy import (
        Candidate as Candidate,
        Fitted as Fitted,
        Group as Group,
        Problem as Problem,
        Raw as Raw,
        Solvable as Solvable,
        Strategy as Strategy,
        Tap as Tap,
        TrainData as TrainData,
        Trainer as Trainer,
    )
    from autoxfer.taps import TapInfo as TapInfo

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
    "Solvable": "strategy",
    "Strategy": "strategy",
    "Tap": "strategy",
    "TrainData": "strategy",
    "Trainer": "strategy",
    "weighted_mean": "axes",
    "Normalise": "building",
    "OnTokens": "building",
    "Pool": "building",
    "start_head": "building",
    "with_head": "building",
    "fit_head": "building",
    "linear_path": "linear",
    "ridge_path": "linear",
    "softmax_path": "linear",
    "strength_grid": "linear",
    "match_classes": "matching",
    "Source": "source",
    "SourceLoader": "source",
    "TapInfo": "taps",
    "Column": "dataset",
    "DataSpec": "dataset",
    "Dataset": "dataset",
    "DatasetReader": "dataset",
    "Schema": "dataset",
    "as_text": "cells",
    "encode": "encoding",
    "RunConfig": "config",
    "Result": "result",
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
