"""What the installed plugins offer, and how a name or a location finds its plugin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autoxfer.dataset import DatasetReader, DataSpec
from autoxfer.errors import InputError, PluginError, nearest
from autoxfer.records import SourceSpec
from autoxfer.source import SourceLoader
from autoxfer.strategy import Strategy


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin."""

    name: str  # of the entry point
    distribution: str
    version: str
    state: Literal["loaded", "refused", "unavailable", "disabled"]
    reason: str = ""  # why it is not loaded, in one sentence
    strategies: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    seconds: float = 0.0  # that loading took

    @property
    def origin(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Plugins:
    """Everything that is installed and works, and a record of what does not."""

    strategies: Mapping[str, type[Strategy]]
    loaders: Mapping[str, SourceLoader]
    readers: Mapping[str, DatasetReader]
    records: tuple[PluginRecord, ...]

    def strategy(self, name: str, where: str = "strategies") -> type[Strategy]:
        """Look a strategy up. Raises InputError: the nearest name, or why its plugin is not loaded."""
        if name in self.strategies:
            return self.strategies[name]
        hint = nearest(name, self.strategies)
        for record in self.records:
            if record.state != "loaded" and (name in record.strategies or same(name, record.name)):
                hint = f": its plugin is {record.state}: {record.reason}"
        raise InputError(f"an installed strategy ({listed(self.strategies)})", f"{name!r}{hint}", where)

    def loader_for(self, spec: SourceSpec) -> SourceLoader:
        """Find what loads a source. Raises InputError where nothing does, PluginError where two plugins claim it."""
        claims = {name: loader.loads for name, loader in self.loaders.items()}
        return self.loaders[self._claimant("source loader", spec, spec.model, f"sources.{spec.name}", claims)]

    def reader_for(self, spec: DataSpec) -> DatasetReader:
        """Find what reads a data set. Raises InputError where nothing does, PluginError where two plugins claim it."""
        claims = {name: reader.reads for name, reader in self.readers.items()}
        return self.readers[self._claimant("data set reader", spec, spec.location, "task.data", claims)]

    def _claimant(
        self, kind: str, spec: Any, wanted: str, where: str, claims: Mapping[str, Callable[[Any], bool]]
    ) -> str:
        names, faults = [], []
        for name, claim in claims.items():
            try:
                if claim(spec):
                    names.append(name)
            except (Exception, SystemExit) as error:  # one plugin's mistake must not keep the others from answering
                faults.append(f"{name} raised {type(error).__name__}: {error}")
        if len(names) > 1:
            raise PluginError(f"{where}: {wanted!r} is claimed by {' and '.join(names)}; switch one of them off")
        if names:
            return names[0]
        faults += [f"{r.name} is {r.state}: {r.reason}" for r in self.records if r.state in ("refused", "unavailable")]
        hint = f" ({'; '.join(faults)})" if faults else ""
        raise InputError(f"something for an installed {kind} ({listed(claims)})", f"{wanted!r}{hint}", where)


def same(one: str, other: str) -> bool:
    """Whether two names mean the same plugin or distribution, which is also written with other hyphens and cases."""
    plain, reference = (re.sub(r"[-_.]+", "-", name).lower() for name in (one, other))
    return plain == reference


def listed(names: Iterable[str]) -> str:
    """List names for a message."""
    return ", ".join(sorted(names)) or "none"
