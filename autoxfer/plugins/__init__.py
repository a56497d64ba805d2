"""Find, load and check plugins: each alone, so that a faulty one is refused by name and reason and the others work.

Built-ins come through the same door, the entry-point group ``autoxfer``, and first. Three switches turn a plugin off;
a name is a plugin's or a distribution's:

    AUTOXFER_PLUGINS=""            only the built-ins
    AUTOXFER_PLUGINS="bitfit,x"    the built-ins and these
    --no-plugin NAME, or plugins: {disable: [NAME]} in the run file
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import pluggy

from autoxfer import hooks
from autoxfer.errors import InputError, nearest
from autoxfer.plugins.admission import loader_fault, reader_fault, strategy_fault
from autoxfer.plugins.offers import PluginRecord, Plugins, listed, same

__all__ = ["PluginRecord", "Plugins", "load_plugins"]

VARIABLE = "AUTOXFER_PLUGINS"
BUILT_IN = "autoxfer"  # the distribution

HOOKS: dict[str, tuple[str, Callable[[object], str]]] = {  # hook -> what it offers, what is wrong with an offer
    "autoxfer_strategies": ("strategy", strategy_fault),
    "autoxfer_sources": ("source loader", loader_fault),
    "autoxfer_datasets": ("data set reader", reader_fault),
}


def load_plugins(disabled: Collection[str] = (), only: Collection[str] | None = None) -> Plugins:
    """Load every installed plugin that is not switched off.

    ``disabled`` names plugins or distributions to leave out, built-ins too; ``only`` those to load besides the
    built-ins (None: what AUTOXFER_PLUGINS says, and all of them where it is unset). A plugin's own fault is recorded,
    never raised. Raises InputError for a name that is no plugin's: a switch that turns nothing off is a mistake.
    """
    found = sorted(entry_points(group=hooks.GROUP), key=_order)
    where = "plugins"
    if only is None and VARIABLE in os.environ:
        where = VARIABLE
        only = [name.strip() for name in os.environ[VARIABLE].split(",") if name.strip()]
    _check_names(disabled, found, "plugins.disable")
    _check_names(only or (), found, where)
    shelf = _Shelf()
    for point in found:
        if _named(point, disabled):
            shelf.records.append(PluginRecord(point.name, *_origin(point), "disabled", "switched off by name"))
        elif only is not None and _origin(point)[0] != BUILT_IN and not _named(point, only):
            reason = f"{where} names the plugins to load, and this is not one of them"
            shelf.records.append(PluginRecord(point.name, *_origin(point), "disabled", reason))
        else:
            shelf.add(point)
    strategies, loaders, readers = (shelf.items[hook] for hook in HOOKS)
    return Plugins(
        strategies,
        {name: cls() for name, cls in loaders.items()},
        {name: cls() for name, cls in readers.items()},
        tuple(shelf.records),
    )


class _RefusedError(Exception):
    """Carries a reason from wherever loading stopped."""


@dataclass
class _Shelf:
    """What has been admitted so far, and from where."""

    items: dict[str, dict[str, Any]] = field(default_factory=lambda: {hook: {} for hook in HOOKS})
    origins: dict[tuple[str, str], str] = field(default_factory=dict)  # (kind, name) -> distribution and version
    records: list[PluginRecord] = field(default_factory=list)

    def add(self, point: EntryPoint) -> None:
        """Load one plugin alone: everything of it is admitted, or nothing."""
        start = time.perf_counter()
        state: Literal["loaded", "refused", "unavailable"] = "loaded"
        reason = ""
        offers: dict[str, list[Any]] = {hook: [] for hook in HOOKS}
        try:
            self._check_free("plugin", point.name)
            with _blame(f"importing {point.value}"):
                plugin = point.load()
            _collect(plugin, offers)
            for hook, classes in offers.items():
                for cls in classes:
                    self._check_free(HOOKS[hook][0], cls.name)
        except _RefusedError as refusal:
            state, reason = "refused", str(refusal)
        except ImportError as error:
            command = _missing_extra(point, error)
            state = "unavailable" if command else "refused"
            reason = command or f"importing {point.value} raised {type(error).__name__}: {error}"
        names = [tuple(cls.name for cls in classes) for classes in offers.values()]
        seconds = time.perf_counter() - start
        record = PluginRecord(point.name, *_origin(point), state, reason, names[0], names[1], names[2], seconds)
        self.records.append(record)
        if state == "loaded":
            self._admit(record, offers)

    def _check_free(self, kind: str, name: str) -> None:
        if (kind, name) in self.origins:
            raise _RefusedError(f"{kind} {name!r} already comes from {self.origins[kind, name]}")

    def _admit(self, record: PluginRecord, offers: dict[str, list[Any]]) -> None:
        self.origins["plugin", record.name] = record.origin
        for hook, classes in offers.items():
            for cls in classes:
                self.items[hook][cls.name] = cls
                self.origins[HOOKS[hook][0], cls.name] = record.origin


@contextmanager
def _blame(what: str) -> Iterator[None]:
    """Turn whatever a plugin raises, sys.exit() too, into the reason to refuse it."""
    try:
        yield
    except (KeyboardInterrupt, ImportError, _RefusedError):
        raise
    except BaseException as error:
        raise _RefusedError(f"{what} raised {type(error).__name__}: {error}") from error


def _collect(plugin: Any, offers: dict[str, list[Any]]) -> None:
    """Fill ``offers`` with the classes that the plugin's hooks return. A manager of its own keeps plugins apart."""
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = [caller.name for caller in manager.get_hookcallers(plugin) or () if not caller.has_spec()]
        reasons = [f"unknown hook {name!r}{nearest(name, HOOKS)}" for name in unknown]
        raise _RefusedError("; ".join(reasons) or " ".join(str(error).split())) from error
    if not manager.get_hookcallers(plugin):
        raise _RefusedError(f"offers nothing: no function is marked @hookimpl; known hooks: {listed(HOOKS)}")
    for hook, (kind, fault) in HOOKS.items():
        with _blame(f"hook {hook}"):
            for offered in _flat(hook, getattr(manager.hook, hook)()):
                if reason := fault(offered):
                    raise _RefusedError(reason)
                if offered.name in (other.name for other in offers[hook]):
                    raise _RefusedError(f"{kind} {offered.name!r} is offered twice")
                offers[hook].append(offered)


def _flat(hook: str, returned: list[Any]) -> Iterator[Any]:
    for value in returned:
        if not isinstance(value, Iterable):
            raise _RefusedError(f"hook {hook} must return a list of classes; got {value!r}")
        yield from value


def _missing_extra(point: EntryPoint, error: ImportError) -> str:
    """Name the command that installs what could not be imported, where the distribution declares it as an extra."""
    module = (error.name or "").partition(".")[0]
    requirements = (point.dist.requires if point.dist else None) or ()
    for requirement in sorted(requirements, key=lambda text: "test" in text or "dev" in text):  # users' extras first
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra\s*==\s*['\"]([\w.-]+)", requirement)
        if name and extra and same(name[0], module):
            return f"{module} is not installed: pip install '{_origin(point)[0]}[{extra[1]}]'"
    return ""


def _origin(point: EntryPoint) -> tuple[str, str]:
    """Name the distribution and its version, which broken metadata may lack."""
    if point.dist is None:
        return "unknown", "unknown"
    return point.dist.name or "unknown", point.dist.version or "unknown"


def _order(point: EntryPoint) -> tuple[bool, str, str]:
    distribution, _ = _origin(point)
    return distribution != BUILT_IN, distribution, point.name


def _named(point: EntryPoint, names: Collection[str]) -> bool:
    return any(same(name, point.name) or same(name, _origin(point)[0]) for name in names)


def _check_names(names: Collection[str], found: Collection[EntryPoint], where: str) -> None:
    known = [point.name for point in found]
    for name in names:
        if not any(_named(point, [name]) for point in found):
            raise InputError(f"an installed plugin ({listed(known)})", f"{name!r}{nearest(name, known)}", where)
