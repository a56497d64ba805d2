"""What Holm's procedure promises: no order, all compete, the family's error at most alpha whatever the dependence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from autoxfer.guard import Finalist, holm, judge, weigh

ALPHA = 0.05


def test_levels_widen_from_the_smallest_p_value_until_one_fails():
    assert holm([0.04, 0.001, 0.02], ALPHA) == (pytest.approx([0.05, ALPHA / 3, 0.025]), [True, True, True])
    assert holm([0.04, 0.001, 0.03], ALPHA) == (pytest.approx([0.025, ALPHA / 3, 0.025]), [False, True, False])
    assert holm([0.9, 0.02, 0.03], ALPHA) == (pytest.approx([ALPHA / 3] * 3), [False] * 3)
    assert holm([0.05], ALPHA) == ([ALPHA], [True])
    assert holm([], ALPHA) == ([], [])


def test_it_rejects_what_adjusted_p_values_reject():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 7))
        p_values = rng.random(n) ** 3
        adjusted = np.empty(n)
        ranks = np.argsort(p_values)
        adjusted[ranks] = np.maximum.accumulate((n - np.arange(n)) * p_values[ranks])
        levels, rejected = holm(p_values.tolist(), ALPHA)
        assert rejected == (adjusted <= ALPHA).tolist()
        assert [p <= level for p, level in zip(p_values, levels, strict=True)] == rejected


def test_a_smaller_p_value_takes_nothing_away():
    rng = np.random.default_rng(1)
    for _ in range(300):
        p_values = (rng.random(5) ** 3).tolist()
        before = holm(p_values, ALPHA)[1]
        at = int(rng.integers(5))
        after = holm([p / 2 if i == at else p for i, p in enumerate(p_values)], ALPHA)[1]
        assert all(now or not then for then, now in zip(before, after, strict=True))


def test_the_order_in_which_hypotheses_are_told_does_not_matter():
    p_values = [0.001, 0.02, 0.5, 0.012]
    levels, rejected = holm(p_values, ALPHA)
    assert holm(p_values[::-1], ALPHA) == (levels[::-1], rejected[::-1])


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_one_that_is_not_better_is_accepted_with_probability_alpha_at_most(correlation: float):
    rng = np.random.default_rng(2)
    n, gains = 6, np.array([0.0, 0.0, 0.0, 3.0, 3.0, 0.0])
    shared = rng.standard_normal((4000, 1))
    z = gains + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal((4000, n))
    worthless = np.flatnonzero(gains == 0)
    wrong = [np.array(holm(row, ALPHA)[1])[worthless].any() for row in norm.sf(z).tolist()]
    assert np.mean(wrong) <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / 4000)


def test_the_guard_follows_it_where_it_is_asked_to():
    baseline = np.r_[np.ones(60), np.zeros(140)]
    losses = {"good": np.r_[np.zeros(30), np.ones(30), np.zeros(140)], "same": baseline}
    seen = {name: weigh(loss, baseline, kind="zero_one", margin=0.0) for name, loss in losses.items()}
    finalists = [Finalist(name, one, competes=True, tune_rank=rank) for rank, (name, one) in enumerate(seen.items())]
    good, same = judge(finalists, alpha=ALPHA, procedure="holm")
    assert (good.decision, good.level) == ("accepted", ALPHA / 2)
    assert (same.decision, same.level) == ("undecided", ALPHA)
    assert {verdict.decision for verdict in judge(finalists, procedure="holm", untested="no time")} == {"untested"}
