"""The run file as a checked value, and one clear message for what does not fit.

A field's description opens with what is allowed there: the error message and ``autoxfer config schema`` both quote it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from autoxfer.config import checks, runfile
from autoxfer.config.checks import Refused
from autoxfer.config.runfile import RunFile, show
from autoxfer.dataset import DataSpec
from autoxfer.errors import InputError, nearest
from autoxfer.records import SourceSpec, Task

Number = StrictInt | StrictFloat
TEMPLATE = Path(__file__).with_name("template.yaml")


class Section(BaseModel):
    """A mapping of the run file: no unknown key; null is the same as leaving a key out."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        return (
            {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


@final
class TaskConfig(Section):
    """The target task."""

    data: StrictStr = Field(min_length=1, description="a path or scheme:NAME, as text: the target data set")
    target: Annotated[StrictStr | tuple[StrictStr, ...] | None, BeforeValidator(checks.target)] = Field(
        default=None,
        description="text, in quotes where it is a number: the label's column or key, or a list of them",
    )
    group: StrictStr | None = Field(
        default=None, description="text, in quotes where it is a number: the column or key whose examples stay together"
    )
    time: StrictStr | None = Field(
        default=None,
        description="text, in quotes where it is a number: the column or key that says when; train is oldest",
    )
    weight: StrictStr | None = Field(
        default=None,
        description="text, in quotes where it is a number: the column or key of the examples' weights in training",
    )
    ignore: list[StrictStr] = Field(default=[], description="names of columns that are not to be learned from")
    metric: StrictStr | None = Field(default=None, description="a metric's name; by default the task's")
    class_weight: Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(checks.class_weight)] = (
        Field(default=None, description="balanced, or a mapping from classes to weights: how much each class counts")
    )
    label_smoothing: Number = Field(
        default=0.0, ge=0, lt=1, description="a number from 0 to below 1: share of the uniform distribution in labels"
    )
    name: StrictStr = Field(
        default="", pattern=checks.NAME, description="letters, digits, '.', '_' and '-': the registered name"
    )
    kind: Task | None = Field(
        default=None, description="classification, multilabel or regression; by default what the labels look like"
    )
    splits: Annotated[dict[str, int | float] | None, BeforeValidator(checks.sizes)] = Field(
        default=None, description="sizes of train, tune, guard and test, as fractions or counts"
    )

    @model_validator(mode="before")
    @classmethod
    def _name(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("data"), str) and values.get("name") is None:
            return {**values, "name": checks.stem(values["data"]) or "task"}
        return values


@final
class SourceConfig(Section):
    """A pretrained model."""

    name: StrictStr = Field(
        default="", pattern=checks.NAME, description="letters, digits, '.', '_' and '-': what to call the source"
    )
    model: StrictStr = Field(min_length=1, description="package.module:callable, file.py:callable or scheme:NAME")
    weights: StrictStr | None = Field(
        default=None, min_length=1, description="a path, as text: the file of the weights"
    )
    input: dict[str, Any] = Field(default={}, description="a mapping: shape, mean, std, channels, classes")
    options: dict[str, Any] = Field(default={}, description="a mapping: keyword arguments of the model's factory")


@final
class StrategyConfig(Section):
    """A strategy, and what the user wants of its parameters: a value, a list of choices, or {low, high}."""

    name: StrictStr
    params: dict[str, Any] = {}

    @model_serializer
    def _as_typed(self) -> Any:
        return {self.name: dict(self.params)} if self.params else self.name


@final
class BudgetConfig(Section):
    """What may be spent."""

    trials: StrictInt = Field(default=30, ge=1, description="a whole number of at least 1: trials per study")
    seconds: Number | None = Field(
        default=None, gt=0, description="a number above 0: seconds for the whole run; left out: no limit"
    )
    trial_seconds: Number | None = Field(
        default=None,
        gt=0,
        description="a number above 0: seconds after which a trial has failed; left out: no limit",
    )
    min_trials: StrictInt = Field(
        default=5,
        ge=1,
        description="a whole number of at least 1: completed trials below which the baseline is under-tuned",
    )


@final
class GuardConfig(Section):
    """What it takes for a transfer to be accepted."""

    alpha: Number = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="a number above 0 and below 0.5: the chance of accepting a useless transfer",
    )
    margin: Number = Field(
        default=0.0, ge=0, lt=1, description="a number from 0 to below 1: the loss of performance that is tolerated"
    )
    when_undecided: Literal["scratch", "best_tune"] = Field(
        default="scratch",
        description="scratch or best_tune: what wins where no transfer is accepted; best_tune is not certified",
    )
    folds: StrictInt | None = Field(
        default=None,
        ge=2,
        le=20,
        description="a whole number from 2 to 20: searches that take turns as each other's guard; left out: one search",
    )


@final
class PluginsConfig(Section):
    """Which plugins take part."""

    disable: tuple[StrictStr, ...] = Field(
        default=(), description="a list of names: plugins or distributions to switch off"
    )


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
    target: str | None = None,
    disable: Iterable[str] = (),  # plugins, besides those that the run file switches off
) -> RunConfig:
    """Read, override and check a run's configuration. Raises InputError, which names the line or the option."""
    if isinstance(config, RunConfig):
        config = config.resolved()
    file, folder = runfile.find(config, data, sources, target)
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
