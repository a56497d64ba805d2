"""The run file as a checked value, and one clear message for what does not fit.

Its parts stand in ``sections``, checks that a type cannot express in ``checks``, and YAML, options and line numbers in
``runfile``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

from pydantic import BeforeValidator, Field, StrictInt, StrictStr, ValidationError, field_validator, model_validator

from autoxfer.config import checks, runfile
from autoxfer.config.checks import Refused
from autoxfer.config.runfile import RunFile, show
from autoxfer.config.sections import (
    BudgetConfig,
    GuardConfig,
    PluginsConfig,
    Section,
    SourceConfig,
    StrategyConfig,
    TaskConfig,
)
from autoxfer.dataset import DataSpec
from autoxfer.errors import InputError, nearest
from autoxfer.records import SourceSpec

TEMPLATE = Path(__file__).with_name("template.yaml")


def _before(check: Callable[[Any], Any], schema: Any) -> BeforeValidator:
    return BeforeValidator(
        lambda item: item if isinstance(item, Section) else check(item), json_schema_input_type=schema
    )


StrategyInput = str | dict[str, dict[str, Any] | None]
Sources = tuple[Annotated[SourceConfig, _before(checks.source, str | SourceConfig)], ...]
Strategies = tuple[Annotated[StrategyConfig, _before(checks.strategy, StrategyInput)], ...]


@final
class RunConfig(Section):
    """A run file, checked."""

    task: TaskConfig = Field(description="a mapping with at least the key data")
    sources: Sources = Field(
        default=(), description="a list of sources: scheme:NAME, or mappings with name, model, weights"
    )
    strategies: Strategies | None = Field(
        default=None,
        min_length=1,
        description="a list of strategies; left out: all that are installed and support the task",
    )
    budget: BudgetConfig = Field(default=BudgetConfig(), description="a mapping: trials, seconds, min_trials")
    guard: GuardConfig = Field(default=GuardConfig(), description="a mapping: alpha, margin, when_undecided, folds")
    device: StrictStr = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    engine: Literal["local"] = Field(default="local", description="local: where trials run")
    final: Literal["tested", "refit"] = Field(
        default="tested",
        description="tested or refit: whether the winner's recipe is trained again on all but test, not certified",
    )
    seed: StrictInt = Field(default=0, ge=0, description="a whole number of at least 0")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto, float32 or bfloat16: of training steps; auto: bfloat16 on a GPU that knows it",
    )
    calibration: Literal["temperature", "none"] = Field(
        default="temperature",
        description="temperature or none: whether probabilities are calibrated on the tune split; no answer changes",
    )
    warm_start: StrictStr | None = Field(
        default=None,
        min_length=1,
        description="a run's ID or its folder, as text: an earlier run whose best parameters are tried among others",
    )
    plugins: PluginsConfig = Field(default=PluginsConfig(), description="a mapping with the key disable")
    directory: Path = Field(default_factory=Path.cwd, description="a folder, where relative paths start")

    @model_validator(mode="after")
    def _one_guard(self) -> RunConfig:
        if self.task.time is not None and (self.task.group is not None or self.guard.folds is not None):
            other = "task.group, whose groups would have to be cut" if self.task.group is not None else "guard.folds"
            raise Refused(f"no task.time beside {other}", show(self.task.time), "task", "time")
        if self.guard.folds is not None and self.task.splits and "guard" in self.task.splits:
            expected = "no size of guard beside guard.folds, since every fold is the guard once"
            raise Refused(expected, show(self.task.splits["guard"]), "task", "splits", "guard")
        return self

    @field_validator("sources", "strategies")
    @classmethod
    def _different_names(cls, items: Any) -> Any:
        names: list[str] = []
        for index, item in enumerate(items or ()):
            first = next((place for place, name in enumerate(names) if name.lower() == item.name.lower()), None)
            if first is not None:  # in lower case they are the same folder on some disks
                second = str(index) if names[first] == item.name else f"{item.name!r} at {index}"
                raise Refused("every name once", f"{names[first]!r} at {first} and {second}", index)
            names.append(item.name)
        return items

    def to_data_spec(self) -> DataSpec:
        """Say which data set to read."""
        location = str(Path(self.task.data).expanduser()) if self.task.data.startswith("~") else self.task.data
        ignore = tuple(self.task.ignore)
        task = self.task
        return DataSpec(
            location, task.target, task.kind, task.group, ignore, self.directory, time=task.time, weight=task.weight
        )

    def to_source_specs(self) -> tuple[SourceSpec, ...]:
        """Say which sources to load."""
        return tuple(
            SourceSpec(
                item.name,
                item.model,
                None if item.weights is None else Path(item.weights).expanduser(),
                dict(item.input),
                dict(item.options),
                self.directory,
            )
            for item in self.sources
        )

    def resolved(self) -> dict[str, Any]:
        """Plain data for config.yaml: all defaults written out, the directory absolute; load_config reads it back."""
        return {**self.model_dump(mode="json"), "directory": str(self.directory.absolute())}

    def fingerprint(self) -> str:
        """Hash everything but where the run file lies."""
        plain = {key: value for key, value in self.resolved().items() if key != "directory"}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def load_config(
    config: str | Path | Mapping[str, Any] | RunConfig | None = None,
    overrides: Sequence[str] = (),  # "budget.trials=5"
    *,
    data: str | None = None,  # the quick way without a run file: --data, --source, --target
    sources: Sequence[str] = (),
    target: str | Sequence[str] | None = None,  # a column, or several
    disable: Iterable[str] = (),  # plugins, besides those that the run file switches off
) -> RunConfig:
    """Read, override and check a run's configuration. Raises InputError, which names the line or the option."""
    if isinstance(config, RunConfig):
        config = config.resolved()
    targets = [target] if isinstance(target, str) else target or ()
    file, folder = runfile.find(config, data, sources, targets)
    for text in overrides:
        file.override(text)
    given = file.values.get("directory")
    if given is None or isinstance(given, str):
        file.values["directory"] = str((folder / (given or "")).absolute())
    try:
        checked = RunConfig.model_validate(file.values)
    except ValidationError as error:
        raise _explain(error, file) from None
    plugins = PluginsConfig(disable=tuple(dict.fromkeys((*checked.plugins.disable, *disable))))
    return checked.model_copy(update={"plugins": plugins})


def schema() -> dict[str, Any]:
    """Describe the run file as a JSON schema."""
    return RunConfig.model_json_schema()


def template() -> str:
    """Give a run file to start from, with comments."""
    return TEMPLATE.read_text(encoding="utf-8")


_SECTIONS: dict[object, type[Section]] = {
    "task": TaskConfig,
    "sources": SourceConfig,
    "budget": BudgetConfig,
    "guard": GuardConfig,
    "plugins": PluginsConfig,
}


def _explain(error: ValidationError, file: RunFile) -> InputError:
    """Turn pydantic's first complaint into expected, found, where."""
    first = error.errors(include_url=False)[0]
    path = tuple(key for key in first["loc"] if key not in ("int", "float"))  # pydantic adds the members of a union
    refused = first.get("ctx", {}).get("error")
    if isinstance(refused, Refused):
        return InputError(refused.expected, refused.found, file.where((*path, *refused.path)))
    section = RunConfig if len(path) == 1 else _SECTIONS[path[0]]
    if first["type"] in ("extra_forbidden", "invalid_key"):
        known = section.model_fields
        unknown = f"unknown key {path[-1]!r}{nearest(str(path[-1]), known)}"
        return InputError(f"one of {', '.join(known)}", unknown, file.where(path))
    key = next(str(key) for key in reversed(path) if key in section.model_fields)
    description = section.model_fields[key].description or ""
    if first["type"] == "missing":
        return InputError(f"the key {key!r}: {description}", "nothing", file.where(path[:-1]))
    return InputError(re.split(": |; ", description)[0], show(first["input"]), file.where(path))
