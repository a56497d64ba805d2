from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autoxfer.errors import InputError
from autoxfer.plugins import load_plugins
from autoxfer.records import Recipe
from autoxfer.tuning.spaces import clip, default_steps, narrow, recipe_defaults, recipe_space

SPACE = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "fraction": FloatDistribution(0.25, 1.0, step=0.25),
    "depth": IntDistribution(1, 9, step=2),
    "batch": CategoricalDistribution([16, 32, 64]),
    "mode": CategoricalDistribution(["frozen", "trained"]),
    "centred": CategoricalDistribution([False, True]),
}


def test_thirty_epochs_within_150_and_2000_steps() -> None:
    assert [default_steps(n, 32) for n in (50, 100, 1000, 100_000)] == [150, 150, 960, 2000]


def test_the_recipe_is_searched_about_its_own_values() -> None:
    space = recipe_space(Recipe(lr=3e-3, steps=300), 1000, "image")
    assert space["lr"] == FloatDistribution(1e-4, 3e-2, log=True)
    assert space["steps"] == IntDistribution(100, 600, log=True)
    assert space["batch"] == CategoricalDistribution([16, 32, 64])
    assert space["augment"] == CategoricalDistribution(["none", "shift", "shift_flip"])
    assert clip(recipe_defaults(Recipe(), 1000), recipe_space(Recipe(), 1000, "image")) == {
        "lr": 3e-3, "decay": 1e-4, "steps": 960, "batch": 32, "augment": "none",
    }  # fmt: skip


def test_the_learning_rate_stays_in_a_sane_range() -> None:
    assert recipe_space(Recipe(lr=2e-5), 100, "vector")["lr"] == FloatDistribution(1e-5, 2e-4, log=True)
    assert recipe_space(Recipe(lr=0.3), 100, "vector")["lr"] == FloatDistribution(1e-2, 1e-1, log=True)


@pytest.mark.parametrize(("n_train", "batches"), [(40, (16, 32)), (20, (16,)), (9, (9,))])
def test_no_batch_is_larger_than_the_train_split(n_train: int, batches: tuple[int, ...]) -> None:
    assert recipe_space(Recipe(), n_train, "vector")["batch"] == CategoricalDistribution(batches)


def test_only_images_are_augmented_and_a_closed_form_has_no_recipe() -> None:
    assert "augment" not in recipe_space(Recipe(), 100, "table")
    assert recipe_space(None, 100, "image") == {} == recipe_defaults(None, 100)


def test_defaults_are_clipped_into_the_space() -> None:
    outside = {"lr": 5.0, "fraction": 0.0, "depth": 4, "batch": 128, "mode": "melted", "centred": True, "other": 1}
    assert clip(outside, SPACE) == {
        "lr": 0.1, "fraction": 0.25, "depth": 5, "batch": 16, "mode": "frozen", "centred": True,
    }  # fmt: skip
    assert clip({}, {"lr": FloatDistribution(1e-4, 1e-2, log=True)})["lr"] == pytest.approx(1e-3)
    for name, value in clip(outside, SPACE).items():
        assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))


def test_the_user_narrows_by_value_list_or_range_and_nothing_is_mutated() -> None:
    before = dict(SPACE)
    user = {"lr": {"low": 1e-6, "high": "1e-3"}, "fraction": [0.5, 1], "depth": 11, "batch": 128, "mode": "trained"}
    space = narrow(SPACE, user)
    assert space["lr"] == FloatDistribution(1e-6, 1e-3, log=True)
    assert space["fraction"] == CategoricalDistribution([0.5, 1.0])
    assert space["depth"] == CategoricalDistribution([11])
    assert space["batch"] == CategoricalDistribution([128])
    assert space["mode"] == CategoricalDistribution(["trained"])
    assert space["centred"] == SPACE["centred"]
    assert before == SPACE


def test_a_range_keeps_the_steps_of_the_strategy() -> None:
    space = narrow(
        SPACE,
        {"fraction": {"low": 0.5, "high": 0.9}, "depth": {"low": 2, "high": 7}, "batch": {"low": 20, "high": 70}},
    )
    assert space["fraction"] == FloatDistribution(0.5, 0.75, step=0.25)
    assert space["depth"] == IntDistribution(2, 6, step=2)
    assert space["batch"] == CategoricalDistribution([32, 64])


def test_a_field_that_is_not_searched_can_be_fixed() -> None:
    assert narrow({}, {"width": 24}, fields={"width": 32})["width"] == CategoricalDistribution([24])
    assert narrow({}, {"centre": False}, fields={"centre": True})["centre"] == CategoricalDistribution([False])
    assert narrow({}, {"tap": "last"}, fields={"tap": None})["tap"] == CategoricalDistribution(["last"])


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"lrr": 0.1}, "strategies.x: expected one of batch, centred, .*, found 'lrr'; did you mean 'lr'"),
        ({"lr": []}, "strategies.x.lr: expected at least one choice, found an empty list"),
        ({"lr": "fast"}, "strategies.x.lr: expected a number, found 'fast'"),
        ({"lr": True}, "expected a number, found True"),
        ({"lr": float("nan")}, "expected a number, found nan"),
        ({"lr": 0}, "expected a number above 0, found 0"),
        ({"lr": {"low": 0, "high": 1e-2}}, "expected a number above 0, found 0"),
        ({"lr": {"low": 1e-2, "high": 1e-3}}, "expected low <= high, found 0.01 > 0.001"),
        ({"lr": {"low": 1e-2}}, "expected low and high, found low"),
        ({"fraction": -0.5}, "expected a number of at least 0, found -0.5"),
        ({"depth": 2.5}, "expected a whole number, found 2.5"),
        ({"depth": None}, "expected a whole number, found None"),
        ({"batch": 0}, "expected a number above 0, found 0"),
        ({"batch": {"low": 1, "high": 8}}, "expected a range that holds some of 16, 32, 64, found 1 to 8"),
        ({"mode": "melted"}, "strategies.x.mode: expected one of frozen, trained, found 'melted'"),
        ({"mode": ["frozen", 1]}, "expected one of frozen, trained, found 1"),
        ({"mode": {"low": 0, "high": 1}}, "expected a value or a list of frozen, trained, found low and high"),
        ({"centred": 1}, "expected one of False, True, found 1"),
        ({"mode": [["frozen"]]}, r"expected one of frozen, trained, found \['frozen'\]"),
    ],
)
def test_what_cannot_be_searched_is_refused(user: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        narrow(SPACE, user, where="strategies.x")


def test_nothing_to_set_is_said_so() -> None:
    with pytest.raises(InputError, match="nothing can be set here"):
        narrow({}, {"lr": 1.0})


@pytest.mark.parametrize("n_train", [40, 1000, 100_000])
def test_no_built_in_transfer_is_offered_other_steps_than_scratch(n_train: int) -> None:
    found = load_plugins(only=()).strategies
    steps = {name: recipe_space(cls.recipe, n_train, "image").get("steps") for name, cls in found.items()}
    assert {name for name, offered in steps.items() if offered not in (None, steps["scratch"])} == set()
    assert steps["scratch"] is not None
