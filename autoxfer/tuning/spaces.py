"""Search spaces, in Optuna's distributions: the recipe's part, what the user narrows, defaults clipped into them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoxfer.errors import InputError, nearest
from autoxfer.records import Modality, Recipe

Space = Mapping[str, BaseDistribution]

BATCHES = (16, 32, 64)
AUGMENTATIONS = ("none", "shift", "shift_flip")


def default_steps(n_train: int, batch: int) -> int:
    """Say how long to train: 30 epochs, at least 150 steps and at most 2,000.

    Steps, not epochs: at 100 examples 36, 120 and 360 steps scored .51, .63 and .65, while 30 epochs of 100,000
    examples would leave no budget for a search. The search may go from a third to twice of it.
    """
    return min(max(30 * math.ceil(n_train / batch), 150), 2000)


def recipe_space(recipe: Recipe | None, n_train: int, modality: Modality) -> dict[str, BaseDistribution]:
    """Make the search space of the recipe's fields about its defaults; empty without a recipe."""
    if recipe is None:
        return {}
    steps = recipe.steps or default_steps(n_train, recipe.batch)
    batches = [size for size in sorted({*BATCHES, recipe.batch}) if size <= n_train] or [n_train]
    space: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(_within(recipe.lr / 30, 1e-5, 1e-1), _within(recipe.lr * 10, 1e-5, 1e-1), log=True),
        "decay": FloatDistribution(1e-6, 1e-1, log=True),
        "steps": IntDistribution(max(1, round(steps / 3)), 2 * steps, log=True),
        "batch": CategoricalDistribution(batches),
    }
    if modality == "image":
        space["augment"] = CategoricalDistribution(AUGMENTATIONS)
    return space


def recipe_defaults(recipe: Recipe | None, n_train: int) -> dict[str, Any]:
    """Name the recipe's own values, ``steps`` filled in: with the strategy's defaults, the first trial."""
    if recipe is None:
        return {}
    steps = recipe.steps or default_steps(n_train, recipe.batch)
    return {
        "lr": recipe.lr,
        "decay": recipe.decay,
        "steps": steps,
        "batch": recipe.batch,
        "augment": recipe.augment,
    }


def clip(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Bring parameters into the space.

    A number goes to the nearest allowed one, a choice that is not offered to the first, a missing one to the middle;
    names that are not searched are left out.
    """
    return {name: _clip(params.get(name), distribution) for name, distribution in space.items()}


def _clip(value: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        same = [choice for choice in distribution.choices if choice == value and type(choice) is type(value)]
        return (same or [choice for choice in distribution.choices if choice == value] or distribution.choices)[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if value is None:
        low, high = distribution.low, distribution.high
        value = math.sqrt(low * high) if distribution.log else (low + high) / 2
    value = _within(float(value), distribution.low, distribution.high)
    if distribution.step is not None and not distribution.log:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    return round(value) if isinstance(distribution, IntDistribution) else _within(value, -math.inf, distribution.high)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def narrow(
    space: Space,
    user: Mapping[str, Any],  # parameter -> a fixed value, a list of choices, or {low, high}
    *,
    fields: Mapping[str, Any] | None = None,  # what is not searched but may be set -> its default, None = any type
    where: str = "strategies",
) -> dict[str, BaseDistribution]:
    """Apply what the user typed; a fixed value becomes a single choice, so that trials name every value.

    ``{low, high}`` may leave the strategy's own range, and so may single numbers; words must be among the choices.
    Raises InputError: unknown name (the nearest is named), wrong type, empty list or range, a number of the wrong sign.
    """
    result, fields = dict(space), fields or {}
    for name, wish in user.items():
        place = f"{where}.{name}"
        if name not in space and name not in fields:
            raise _unknown(name, sorted({*space, *fields}), where)
        old = _Allowed(space[name] if name in space else _guess(fields[name]), place)
        if isinstance(wish, Mapping):
            result[name] = old.between(wish)
        elif isinstance(wish, list | tuple):
            result[name] = old.among(wish)
        else:
            result[name] = old.among([wish])
    return result


def _unknown(name: str, known: Sequence[str], where: str) -> InputError:
    listed = ", ".join(known) or "(nothing can be set here)"
    return InputError(f"one of {listed}", f"{name!r}{nearest(name, known)}", where)


def _guess(default: Any) -> BaseDistribution | None:
    """Take the type of a field that is not searched from its default."""
    if isinstance(default, bool):
        return CategoricalDistribution([False, True])
    if isinstance(default, int):
        return IntDistribution(min(default, 0), max(default, 0))
    if isinstance(default, float):
        return FloatDistribution(min(default, 0.0), max(default, 0.0))
    return None


@final
class _Allowed:
    """What may be typed in a distribution's place; None = any value."""

    def __init__(self, distribution: BaseDistribution | None, where: str) -> None:
        self.distribution = distribution
        self.where = where
        self.numbers: Sequence[Any] = ()  # the distribution's corners, if it is about numbers
        if isinstance(distribution, FloatDistribution | IntDistribution):
            self.numbers = (distribution.low, distribution.high)
        elif isinstance(distribution, CategoricalDistribution) and all(map(_is_number, distribution.choices)):
            self.numbers = distribution.choices
        self.whole = not isinstance(distribution, FloatDistribution) and all(isinstance(n, int) for n in self.numbers)

    def among(self, values: Sequence[Any]) -> CategoricalDistribution:
        """Allow these values only."""
        if not values:
            raise InputError("at least one choice", "an empty list", self.where)
        choices = [self._check(value) for value in values]
        return CategoricalDistribution(list(dict.fromkeys(choices)))

    def between(self, wish: Mapping[str, Any]) -> BaseDistribution:
        """Allow what lies between ``low`` and ``high``."""
        if set(wish) != {"low", "high"}:
            raise InputError("low and high", ", ".join(map(str, wish)) or "nothing", self.where)
        if not self.numbers:
            raise InputError(
                f"a value or a list{' of ' * bool(self._choices)}{self._choices}", "low and high", self.where
            )
        low, high = self._check(wish["low"]), self._check(wish["high"])
        if low > high:
            raise InputError("low <= high", f"{low} > {high}", self.where)
        old = self.distribution
        if isinstance(old, CategoricalDistribution):
            inside = [choice for choice in old.choices if low <= choice <= high]
            if not inside:
                raise InputError(f"a range that holds some of {self._choices}", f"{low} to {high}", self.where)
            return CategoricalDistribution(inside)
        if isinstance(old, IntDistribution):
            return IntDistribution(low, high - (high - low) % old.step, log=old.log, step=old.step)
        assert isinstance(old, FloatDistribution)
        if old.step is None:
            return FloatDistribution(low, high, log=old.log)
        return FloatDistribution(low, low + old.step * int((high - low) / old.step + 1e-8), step=old.step)

    def _check(self, value: Any) -> Any:
        if self.numbers:
            return self._number(value)
        if isinstance(self.distribution, CategoricalDistribution):
            for choice in self.distribution.choices:
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return choice
            raise InputError(f"one of {self._choices}", repr(value), self.where)
        if value is not None and not isinstance(value, str | int | float):
            raise InputError("a plain value", repr(value), self.where)
        return value

    def _number(self, value: Any) -> int | float:
        try:  # YAML reads 1e-3, without a dot, as text
            number = float(value) if isinstance(value, str) or _is_number(value) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (self.whole and number != int(number)):
            raise InputError("a whole number" if self.whole else "a number", repr(value), self.where)
        smallest = min(self.numbers)
        positive = smallest > 0 and (self.whole or bool(getattr(self.distribution, "log", False)))
        if number < 0 <= smallest or (number == 0 and positive):
            raise InputError("a number above 0" if positive else "a number of at least 0", repr(value), self.where)
        return int(number) if self.whole else number

    @property
    def _choices(self) -> str:
        return ", ".join(map(str, getattr(self.distribution, "choices", ())))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
