"""What a class must be before autoxfer lets a plugin offer it: each check gives the reason to refuse, or nothing."""

from __future__ import annotations

import dataclasses
import inspect

from autoxfer import __version__
from autoxfer.dataset import DatasetReader
from autoxfer.records import Recipe
from autoxfer.source import SourceLoader
from autoxfer.strategy import API, Strategy

RECIPE_FIELDS = frozenset(field.name for field in dataclasses.fields(Recipe))


def strategy_fault(offered: object) -> str:
    """Say why ``offered`` cannot be a strategy; empty where it can."""
    if fault := _class_fault(offered, Strategy):
        return fault
    assert isinstance(offered, type)  # for mypy; _class_fault has seen to it
    return _api_fault(offered) or _name_fault(offered) or _fields_fault(offered) or _default_fault(offered)


def loader_fault(offered: object) -> str:
    """Say why ``offered`` cannot load sources; empty where it can."""
    return _class_fault(offered, SourceLoader) or _name_fault(offered) or _default_fault(offered)


def reader_fault(offered: object) -> str:
    """Say why ``offered`` cannot read data sets; empty where it can."""
    return _class_fault(offered, DatasetReader) or _name_fault(offered) or _default_fault(offered)


def _class_fault(offered: object, base: type) -> str:
    if not isinstance(offered, type) or not issubclass(offered, base):
        return f"expected a subclass of {base.__name__}; got {offered!r}"
    if missing := sorted(getattr(offered, "__abstractmethods__", ())):
        return f"{offered.__name__} does not define {', '.join(missing)}"
    return ""


def _api_fault(offered: type) -> str:
    api = getattr(offered, "api", None)
    if api == API:
        return ""
    cure = "upgrade autoxfer" if isinstance(api, int) and api > API else "upgrade the plugin"
    return f"{offered.__name__} is written for strategy API {api!r}; autoxfer {__version__} has API {API}: {cure}"


def _name_fault(offered: object) -> str:
    name = getattr(offered, "name", None)
    if isinstance(name, str) and name.isidentifier():
        return ""
    return f"{getattr(offered, '__name__', offered)}.name must be an identifier such as 'my_method'; got {name!r}"


def _fields_fault(offered: type) -> str:
    parameters = vars(offered).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return f"{offered.__name__} must be a frozen dataclass: write @dataclass(frozen=True) above the class"
    fields = dataclasses.fields(offered)
    if taken := sorted(RECIPE_FIELDS.intersection(field.name for field in fields)):
        return f"{offered.__name__} has fields that belong to the recipe: {', '.join(taken)}"
    for field in fields:
        if field.default is dataclasses.MISSING:  # a factory's value would be no plain data
            return f"{offered.__name__}.{field.name} has no plain default; defaults are the first trial of every study"
    if getattr(offered, "many_sources", False) and not getattr(offered, "needs_source", True):
        return f"{offered.__name__} takes many_sources, but needs_source is False"
    recipe = inspect.getattr_static(offered, "recipe", None)
    if recipe is not None and not isinstance(recipe, Recipe):
        return f"{offered.__name__}.recipe must be a Recipe or None; got {recipe!r}"
    return ""


def _default_fault(offered: object) -> str:
    assert callable(offered)
    try:
        offered()
    except Exception as error:
        return f"{getattr(offered, '__name__', offered)}() raised {type(error).__name__}: {error}"
    return ""
