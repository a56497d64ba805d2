"""The parts of a run file: which keys there are, what each may hold, and what holds where it is left out.

A field's description opens with what is allowed there: the error message and ``autoxfer config schema`` both quote it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_serializer,
    model_validator,
)

from autoxfer.config import checks
from autoxfer.records import Task

Number = StrictInt | StrictFloat


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
