"""A source from the user's own code: ``package.module:Factory`` or ``file.py:Factory``, and a file of its weights."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, final

import torch
from torch import nn

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer_builtins.weights import fit_weights, locate, read_card, read_weights

SCHEMES = ("timm", "hf", "run", "mlflow")  # modules whose name is another loader's scheme


@final
class PythonLoader(SourceLoader):
    """Calls a factory that the user names, and loads a state dict into what it makes."""

    name: ClassVar[str] = "python"

    def loads(self, spec: SourceSpec) -> bool:
        """Whether the model is ``MODULE:NAME``; a module without a dot must exist, or it is another loader's scheme."""
        place, colon, name = spec.model.rpartition(":")
        if not colon or not name.isidentifier() or place in SCHEMES:
            return False
        if place.endswith(".py") or "." in place:
            return True
        with _importing_from(spec.directory):
            return place.isidentifier() and importlib.util.find_spec(place) is not None

    def load(self, spec: SourceSpec) -> Source:
        """Import the factory, call it with the options, load the weights. Raises InputError for whatever is wrong."""
        where = f"sources.{spec.name}"
        if spec.weights is None:
            raise InputError("weights, since a source is pretrained", "none", f"{where}.weights")
        path = locate(spec, spec.weights)
        card = read_card(spec, path)
        with torch.random.fork_rng(devices=[]):  # importing and making draw numbers that are nobody else's business
            factory = _Factory(_find(spec), dict(spec.options), f"{where}.model")
            network = factory()
        fit_weights(network, read_weights(path, f"{where}.weights"), f"{where}.weights")
        return Source.from_network(
            spec.name,
            factory,
            network,
            input_shape=card.shape,
            mean=card.mean,
            std=card.std,
            reverse=card.reverse,
            classes=card.classes,
            columns=card.columns,
            card={**card.record, "model": spec.model, "weights": path.name, "options": dict(spec.options)},
        )

    def factory(self, spec: SourceSpec, shape: Sequence[int], n_outputs: int) -> Callable[[], nn.Module]:
        """Import the factory, and call it with the options. Raises InputError."""
        return _Factory(_find(spec), dict(spec.options), f"sources.{spec.name}.model")


class _Factory:
    """The user's factory with its options; what it raises is the user's input."""

    def __init__(self, make: Callable[..., Any], options: dict[str, Any], where: str) -> None:
        self.make, self.options, self.where = make, options, where

    def __call__(self) -> nn.Module:
        """Make a newly initialised network."""
        shown = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        call = f"{getattr(self.make, '__name__', self.make)}({shown})"
        try:
            network = self.make(**self.options)
        except (Exception, SystemExit) as error:
            raise InputError(
                "a factory that works", f"{call} raised {type(error).__name__}: {error}", self.where
            ) from error
        if not isinstance(network, nn.Module):
            found = f"{call} -> {type(network).__name__}"
            raise InputError("a factory that returns a torch.nn.Module", found, self.where)
        return network


def _find(spec: SourceSpec) -> Callable[..., Any]:
    where = f"sources.{spec.name}.model"
    place, _, name = spec.model.rpartition(":")
    module = _import_file(spec.directory / place, where) if place.endswith(".py") else _import(place, spec, where)
    if not hasattr(module, name):
        own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        offered = [key for key, value in own.items() if _makes(value) and not key.startswith("_")]
        raise InputError(f"a factory in {place} ({', '.join(offered) or 'it has none'})", f"no {name}", where)
    factory = getattr(module, name)
    if not _makes(factory):
        expected = f"a function or class that makes a new network (such as def {name}(): ...)"
        raise InputError(expected, f"{spec.model} is a {type(factory).__name__}", where)
    return factory  # type: ignore[no-any-return]


def _makes(value: object) -> bool:
    """Whether it can be called for a new network; a network can be called too, but makes none."""
    return callable(value) and not isinstance(value, nn.Module)


def _import(name: str, spec: SourceSpec, where: str) -> ModuleType:
    with _importing_from(spec.directory):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                found = f"no module {error.name} (looked in {spec.directory} and among what is installed)"
                raise InputError("a module that can be imported", found, where) from error
            raise _broken(name, error, where) from error
        except (Exception, SystemExit) as error:
            raise _broken(name, error, where) from error


def _import_file(path: Path, where: str) -> ModuleType:
    """Import a file under a name of its own, so that two run folders may both have a nets.py."""
    path = path.resolve()
    if not path.is_file():
        raise InputError("a Python file that exists", f"no {path}", where)
    name = f"autoxfer_source_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError("a Python file", str(path), where)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    with _importing_from(path.parent):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise _broken(path.name, error, where) from error
    return module


def _broken(name: str, error: BaseException, where: str) -> InputError:
    return InputError("a module that imports cleanly", f"{name} raised {type(error).__name__}: {error}", where)


@contextmanager
def _importing_from(directory: Path) -> Iterator[None]:
    entry = str(directory.resolve())
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer sources from the user's own code."""
    return [PythonLoader]
