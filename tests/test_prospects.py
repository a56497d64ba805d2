"""What a guard can find, in numbers that a simulation can check, and in words that a newcomer understands."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoxfer.guard import paired, plan_detectable
from autoxfer.metrics import METRICS, Metric, get_metric
from autoxfer.prospects import (
    CORRELATIONS,
    SHARES,
    SPREADS,
    Prospect,
    prospect,
    spread_of_sizes,
    spread_of_squares,
    too_few_groups,
    too_small,
)


def of(n: int, metric: str = "accuracy", *, margin: float = 0.0, n_finalists: int = 6, **more) -> Prospect:
    found: Metric = METRICS[metric]
    return prospect(n, found, alpha=0.05, margin=margin, n_finalists=n_finalists, **more)


def warned(n: int, metric: str = "accuracy", **more) -> str:
    return too_small(n, METRICS[metric], **({"alpha": 0.05, "margin": 0.0, "n_finalists": 6} | more))


@pytest.mark.parametrize("correlation", [0.9, 0.7, 0.3])
@pytest.mark.parametrize(("loss", "formula"), [(np.square, spread_of_squares), (np.abs, spread_of_sizes)])
def test_the_spread_of_gaussian_errors_is_that_of_a_simulation(correlation, loss, formula):
    rng = np.random.default_rng(0)
    one, other = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=200_000).T * 3.0
    simulated = (loss(one) - loss(other)).std() / loss(one).mean()
    assert formula(correlation) == pytest.approx(simulated, rel=0.02)


@pytest.mark.parametrize("correlation", [0.9, 0.3])
def test_a_gain_in_squared_errors_that_is_promised_is_found_four_times_in_five(correlation):
    rng = np.random.default_rng(1)
    case = {"0.9": 0, "0.3": 2}[str(correlation)]
    gain = of(300, "rmse").cases[case].found[0]  # a share of scratch's loss: the candidate's is 1 - gain of it
    shape = [[1, correlation * math.sqrt(1 - gain)], [correlation * math.sqrt(1 - gain), 1 - gain]]
    errors = rng.multivariate_normal([0, 0], shape, size=(2000, 300))
    differences = np.square(errors[..., 0]) - np.square(errors[..., 1])
    accepted = float((paired.student(differences, 0.0) <= 0.025).mean())
    assert 0.75 < accepted < 0.92  # a better candidate's losses spread less than the formula's equal ones


def test_the_level_is_the_one_that_the_best_finalist_starts_with():
    assert [of(100, n_finalists=k).level for k in (1, 2, 6)] == [0.05, 0.025, 0.025]
    assert of(200, n_finalists=5, pooled=True).level == pytest.approx(0.01)  # Holm's first
    assert of(199, n_finalists=5, pooled=True).level == pytest.approx(0.02 / 3)
    for n_finalists, level in ((1, 0.05), (6, 0.025)):
        expected = plan_detectable(100, kind="zero_one", discordance=0.12, alpha=level)
        assert of(100, n_finalists=n_finalists).cases[1].found[0] == expected


SPREAD = {
    "accuracy": SHARES,
    "rmse": [spread_of_squares(each) for each in CORRELATIONS],
    "mae": [spread_of_sizes(each) for each in CORRELATIONS],
    "log_loss": SPREADS,
}


@pytest.mark.parametrize("metric", SPREAD)
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_what_a_gain_takes_finds_that_gain(metric, margin):
    planned = of(60, metric, margin=margin)
    for case, spread in zip(planned.cases, SPREAD[metric], strict=True):
        assert list(case.found) == sorted(case.found, reverse=True)
        for gain, needed in zip(planned.gains, case.needed, strict=True):
            if math.isinf(needed):
                assert gain > spread  # models that differ on 5% of the examples are not 10 points apart
                continue
            like = {"kind": "real", "sd": spread} if planned.relative else {"kind": "zero_one", "discordance": spread}
            found = plan_detectable(round(needed), **like, margin=margin, alpha=planned.level)
            assert found <= gain * 1.02
            assert found >= gain * 0.85 or (planned.relative and needed == planned.least)


def test_a_guard_of_400_is_told_as_a_table():
    head, more, names, *rows = list(of(400).lines())
    assert (
        head == "the smallest true gain that the guard finds four times in five, in points (percent of the examples),"
    )
    assert more == "and how many guard examples some gains take:"
    assert names.split("  ")[-3:] == ["10 points take", "5 points take", "2 points take"]
    assert "400 (now)" in names
    assert rows[1].split()[-6:] == ["5.0", "3.5", "2.5", "95", "400", "2,500"]
    assert "at level 0.025, where of several transfers the one that tunes best starts" in rows[3]


def test_a_loss_is_told_as_a_share_of_scratchs():
    text = "\n".join(of(400, "rmse").lines())
    assert "in percent of scratch's mean squared error" in text
    assert "the two models' errors correlate 0.9" in text
    assert "Gaussian" in text
    assert "standard deviation" not in text
    assert "mean squared" not in "\n".join(of(400, "mae").lines())


def test_what_cannot_be_tested_is_said_plainly():
    text = "\n".join(of(30, "rmse").lines())
    assert "with fewer than 50 guard examples rmse is not tested, and nothing is accepted" in text
    assert "none" in text
    assert "inf" not in text
    assert "nan" not in text


def test_so_few_groups_that_nothing_is_tested_are_told():
    assert too_few_groups(10) == ""
    assert "come from 9 groups; with fewer than 10 nothing is tested" in too_few_groups(9)
    assert "fewer than 50" not in "\n".join(of(30, "rmse", n_groups=15).lines())  # another test, with another limit


def test_groups_are_told_to_count_for_less():
    assert "come from 17 groups" in list(of(80, n_groups=17).lines())[-1]


@pytest.mark.parametrize(("metric", "enough", "few"), [("accuracy", 50, 25), ("rmse", 80, 60), ("rmse", 80, 20)])
def test_a_guard_that_finds_nothing_of_use_is_told_what_would(metric, enough, few):
    assert warned(enough, metric) == ""
    said = warned(few, metric, n_all=5 * few)
    assert f"the guard's {few} examples find not even a" in said
    size = int(said.split("about ")[1].split()[0])
    assert warned(size, metric) == ""
    in_all = int(said.split("some ")[1].split()[0])
    assert 5 * size <= in_all <= 5.5 * size + 5
    assert "in all" not in warned(few, metric)


def test_two_hundred_examples_are_enough_not_to_be_warned_of():
    assert warned(80) == ""
    assert warned(80, "rmse") == ""
    assert get_metric(None, "classification").name == "accuracy"
