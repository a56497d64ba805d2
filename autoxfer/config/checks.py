"""What stands in a run file in several forms, brought into one: splits, sources, strategies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoxfer.config.runfile import show
from autoxfer.errors import nearest
from autoxfer.records import SPLITS

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # goes into paths, study names and the registry


class Refused(ValueError):  # noqa: N818 - never leaves the configuration
    """A value that does not fit; ``path`` leads to it from the value being checked."""

    def __init__(self, expected: str, found: str, *path: str | int) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found
        self.path = path


def stem(location: str) -> str:
    """Make a name of a location: sklearn:digits -> digits, data/red.csv -> red, nets:SmallCNN -> smallcnn."""
    if registered := re.search(r"models:/([^/@]+)[/@](.+)$", location):  # mlflow:models:/digits@champion
        location = f"models:{registered[1]}-{registered[2]}"
    scheme, _, rest = location.rpartition(":")
    tail = rest.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    text = tail if scheme else Path(tail).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._").lower()


def target(value: Any) -> Any:
    """Check the names of what is to be predicted: one, or a list of several."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise Refused("text, in quotes where it is a number, or a list of such", show(value))
    if not value or not all(isinstance(name, str) and name for name in value):
        wrong = next((name for name in value if not isinstance(name, str) or not name), value)
        raise Refused("a column's name, or a list of names, in quotes where they are numbers", show(wrong))
    if twice := next((name for name in value if value.count(name) > 1), None):
        raise Refused("a list of different names", f"{show(twice)}, {value.count(twice)} times")
    return tuple(value) if len(value) > 1 else value[0]


def sizes(value: Any) -> Any:
    """Check the sizes of the splits: fractions below 1 and counts, together if need be."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise Refused("a mapping from train, tune, guard, test to fractions or counts", show(value))
    for name, size in value.items():
        if name not in SPLITS:
            raise Refused(f"one of {', '.join(SPLITS)}", f"unknown key {name!r}{nearest(str(name), SPLITS)}", name)
        number = isinstance(size, int | float) and not isinstance(size, bool) and math.isfinite(size)
        if not number or size < 0 or (isinstance(size, float) and size >= 1) or (size == 0 and name != "test"):
            raise Refused("a fraction between 0 and 1, or a count of at least 1", show(size), name)
    total = sum(size for size in value.values() if isinstance(size, float))
    if total > 1 + 1e-9:
        raise Refused("fractions that sum to at most 1", f"a sum of {total:g}")
    if "train" not in value and total > 1 - 1e-9:
        raise Refused("fractions that leave something to train on", f"a sum of {total:g}")
    return dict(value)


def class_weight(value: Any) -> Any:
    """Check how much classes count: "balanced", or a weight above 0 for some of them."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, Mapping) or not value:
        raise Refused("balanced, or a mapping from classes to weights", show(value))
    for name, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
        if not number or weight <= 0:
            raise Refused("a number above 0", show(weight), str(name))
    return {str(name): float(weight) for name, weight in value.items()}


def source(value: Any) -> Any:
    """Turn "scheme:NAME" into a mapping; the default name is that of the weights, or of the model."""
    if isinstance(value, str):
        value = {"model": value}
    if not isinstance(value, Mapping):
        raise Refused("scheme:NAME, or a mapping with name, model, weights", show(value))
    if value.get("name") is not None or not isinstance(value.get("model"), str):
        return value
    model, weights = value["model"], value.get("weights")
    # package.module:callable, file.py:callable, module:Class; compact, which is a factory too
    factory = re.search(r"[./\\].*:|:[A-Z]", model) or ":" not in model
    return {**value, "name": stem(weights if factory and isinstance(weights, str) else model)}


def strategy(value: Any) -> Any:
    """Turn a name, or a mapping {name: {parameter: wish}}, into {name, params}."""
    pairs = [(value, {})] if isinstance(value, str) else list(value.items()) if isinstance(value, Mapping) else []
    name, params = pairs[0] if len(pairs) == 1 else ("", {})
    if not isinstance(name, str) or not name:
        raise Refused("a strategy's name, or one name with its parameters, as in {residual: {width: 32}}", show(value))
    if params is not None and not isinstance(params, Mapping):
        raise Refused("a mapping from parameters to values, lists of choices or {low, high}", show(params), name)
    for key, wish in (params or {}).items():
        if not isinstance(key, str) or not _is_wish(wish):
            expected = "a value, a list of different choices, or {low, high} with low below high"
            raise Refused(expected, show(wish), name, key)
    return {"name": name, "params": dict(params or {})}


def _is_wish(value: Any) -> bool:
    if isinstance(value, Mapping):
        low, high = value.get("low", math.nan), value.get("high", math.nan)
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        return set(value) == {"low", "high"} and numbers and -math.inf < low < high < math.inf
    if isinstance(value, list | tuple):
        scalars = all(item is None or isinstance(item, str | int | float) for item in value)
        return scalars and len(value) > 0 and len({(type(item), item) for item in value}) == len(value)
    return not isinstance(value, float) or math.isfinite(value)
