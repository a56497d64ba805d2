"""What the guard promises: what is not better is accepted no more often than alpha says, what is better can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from autoxfer.guard import Finalist, decide, fallback, judge, paired, plan_detectable, weigh
from autoxfer.guard.comparison import MIN_STUDENT
from autoxfer.metrics import get_metric
from autoxfer.records import Verdict

Losses = NDArray[np.float64]


def zero_one(fixed: int, broken: int, n: int) -> tuple[Losses, Losses]:
    """Losses of a candidate and a baseline that differ as asked, and are otherwise half wrong together."""
    baseline = np.r_[np.ones(fixed), np.zeros(broken), np.arange(n - fixed - broken) % 2]
    candidate = np.r_[np.zeros(fixed), np.ones(broken), np.arange(n - fixed - broken) % 2]
    return candidate, baseline


def judged(fixed: int, broken: int, n: int, margin: float = 0.0, alpha: float = 0.05) -> Verdict:
    return decide(*zero_one(fixed, broken, n), kind="zero_one", margin=margin, alpha=alpha)


def finalist(name: str, loss: Losses, baseline: Losses, *, competes: bool = True, tune_rank: float = 1.0) -> Finalist:
    return Finalist(name, weigh(loss, baseline, kind="zero_one", margin=0.0), competes, tune_rank)


def judged_real(gain: float, sd: float = 1.0, n: int = 300, margin: float = 0.0) -> Verdict:
    noise = np.random.default_rng(0).standard_normal(n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    baseline = np.full(n, 10.0)
    return decide(baseline - gain - sd * noise, baseline, kind="real", margin=margin)


# One finalist


def test_thirty_four_fixed_and_eighteen_broken_are_accepted_and_explained():
    verdict = judged(34, 18, 300)
    assert verdict.accepted
    assert verdict.reason == "fixed 34, broke 18 of 300, p = 0.018 at level 0.05: better than scratch"
    assert (verdict.method, verdict.n, verdict.fixed, verdict.broken) == ("exact McNemar", 300, 34, 18)
    assert verdict.effect == pytest.approx(16 / 300)
    assert verdict.level == 0.05


def test_a_lucky_seed_is_not_worth_transferring():
    verdict = judged(20, 14, 300)
    assert verdict.decision == "undecided"
    assert verdict.reason == (
        "fixed 20, broke 14 of 300, p = 0.2 at level 0.05: undecided; "
        "300 examples find a gain of 5 points; the observed 2 points would need about 1,750"
    )


def test_harm_is_named_and_its_test_mirrors_acceptance():
    for fixed, broken in [(34, 18), (20, 14), (5, 0), (4, 0), (60, 10)]:
        forward, reverse = judged(fixed, broken, 300), judged(broken, fixed, 300)
        assert forward.accepted == (reverse.decision == "harmful")
        assert forward.ci_low == pytest.approx(-reverse.ci_high)
    assert (
        judged(18, 34, 300).reason == "fixed 18, broke 34 of 300, reverse p = 0.018 at level 0.05: worse than scratch"
    )
    assert judged_real(0.2).accepted
    assert judged_real(-0.2).decision == "harmful"


def test_five_examples_can_decide_and_four_cannot():
    assert judged(5, 0, 40).accepted
    assert not judged(4, 0, 40).accepted
    assert judged(4, 0, 4).reason == "undecided: no outcome of 4 guard examples could reach level 0.05"
    assert judged(4, 0, 4).detectable == math.inf
    assert judged(0, 4, 4).decision == "undecided"


def test_a_margin_moves_the_boundary_for_acceptance_and_for_harm():
    assert judged(20, 20, 1000).decision == "undecided"
    tolerant = judged(20, 20, 1000, margin=0.02)
    assert tolerant.accepted
    assert tolerant.method == "Tango"
    assert tolerant.reason.endswith("not worse than scratch by more than the margin of 2 points")
    assert judged(5, 20, 300).decision == "harmful"
    assert judged(5, 20, 300, margin=0.05).decision == "undecided"
    assert judged(5, 60, 300, margin=0.05).reason.endswith("worse than scratch by more than the margin of 5 points")


def test_a_real_valued_loss_is_judged_by_the_paired_t_and_told_in_percent():
    verdict = judged_real(0.2)
    assert verdict.method == "paired t"
    assert (verdict.fixed, verdict.broken) == (None, None)
    assert verdict.reason == (
        "loss 2% lower than scratch's on 300 examples, p = 0.0003 at level 0.05: better than scratch"
    )
    assert judged_real(0.05).reason.endswith(
        "300 examples find a gain of 1.4%; the observed 0.5% would need about 2,470"
    )
    assert not judged_real(-0.05).accepted
    assert judged_real(-0.05, margin=0.2).accepted


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("n", [5, 12, 60])
def test_the_interval_never_contradicts_the_decision(n: int, margin: float):
    for fixed in range(0, n + 1, max(1, n // 12)):
        for broken in range(0, n + 1 - fixed, max(1, n // 12)):
            verdict = judged(fixed, broken, n, margin)
            assert verdict.ci_low <= verdict.effect <= verdict.ci_high
            assert (verdict.decision == "accepted") == (verdict.ci_low >= -margin and verdict.accepted)
            assert (verdict.ci_high <= -margin) >= (verdict.decision == "harmful")
            if verdict.decision == "undecided":
                assert verdict.ci_low <= -margin <= verdict.ci_high


@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_a_worse_candidate_is_never_accepted_where_a_better_one_was_not(margin: float):
    rng = np.random.default_rng(3)
    baseline = (rng.random(80) < 0.4).astype(float)
    candidate, accepted = np.zeros(80), True
    for example in rng.permutation(80):  # from no mistake to nothing but mistakes
        candidate[example] = 1.0
        now = decide(candidate, baseline, kind="zero_one", margin=margin).accepted
        assert accepted or not now
        accepted = now
    assert not accepted


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_the_interval_of_skewed_losses_ends_where_the_test_stops_rejecting(margin: float):
    rng = np.random.default_rng(0)
    baseline = np.full(80, 2.0)
    for gain in np.linspace(-0.6, 0.9, 16):
        verdict = decide(1.0 - gain + rng.gamma(0.25, 4.0, 80), baseline, kind="real", margin=margin)
        assert verdict.ci_low <= verdict.effect <= verdict.ci_high
        seen = weigh(1.0 - gain + rng.gamma(0.25, 4.0, 80), baseline, kind="real", margin=margin)
        assert seen.effect - seen.low(0.05) > seen.high(0.05) - seen.effect - 1e-12  # the long tail counts
        assert (seen.p_better <= 0.05) == (seen.low(0.05) >= -margin)
        assert (seen.p_worse <= 0.05) == (seen.high(0.05) <= -margin)


def test_the_t_test_is_called_approximate_where_losses_are_skewed_to_the_wrong_side():
    rare = np.random.default_rng(0).gamma(0.25, 4.0, 80)
    assert decide(rare, np.ones(80), kind="real").approximate
    assert "(paired t, approximate)" in decide(rare, np.ones(80), kind="real").reason
    assert not decide(np.ones(80), rare, kind="real").approximate
    assert not judged_real(0.2).approximate


# Degenerate losses


def test_the_same_predictions_are_no_gain():
    assert judged(0, 0, 300).reason.endswith("300 examples find a gain of 2.2 points, and none was seen")
    assert decide(np.ones(300), np.ones(300), kind="zero_one").decision == "undecided"  # all wrong, both


def test_the_same_predictions_on_enough_examples_are_within_a_margin():
    assert judged(0, 0, 300, margin=0.02).accepted
    assert not judged(0, 0, 100, margin=0.02).accepted  # 0.98^100: a loss of 2 points is easily missed


def test_one_example_decides_nothing():
    for kind in ("zero_one", "real"):
        assert decide(np.zeros(1), np.ones(1), kind=kind).decision == "undecided"


@pytest.mark.parametrize("shift", [0.1, -0.1, 0.0])
def test_differences_without_spread_decide_nothing(shift: float):
    baseline = np.random.default_rng(0).random(300)
    verdict = decide(baseline - shift, baseline, kind="real", margin=0.01)
    assert verdict.decision == "undecided"
    assert "no spread to judge by" in verdict.reason


def test_the_t_test_is_refused_below_fifty_examples():
    assert judged_real(5.0, n=50).accepted
    verdict = judged_real(5.0, n=49)
    assert verdict.decision == "undecided"
    assert verdict.reason == "undecided: a paired t test needs at least 50 guard examples, and there are 49"


def test_log_loss_asks_for_more_examples_than_other_losses():
    baseline = np.random.default_rng(0).random(74)
    for name, least in (("log_loss", 75), ("rmse", MIN_STUDENT)):
        metric = get_metric(name, "classification" if name == "log_loss" else "regression")
        assert metric.least == least
        seen = weigh(baseline / 2, baseline, kind="real", margin=0.0, least=metric.least)
        assert (seen.p_better == 1.0) == (least > 74)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_is_never_accepted(bad: float):
    baseline = np.random.default_rng(0).random(300)
    candidate = baseline / 2
    assert decide(candidate, baseline, kind="real").accepted
    candidate[7] = bad
    verdict = decide(candidate, baseline, kind="real")
    assert verdict.decision == "undecided"
    assert verdict.reason == "undecided: its loss is not a finite number on 1 of 300 guard examples"
    assert "scratch's loss is not a finite number" in decide(baseline, candidate, kind="real").reason


def test_wrong_arguments_are_named():
    ok = np.zeros(300)
    for candidate, baseline, kind, margin, alpha, message in [
        (ok, ok[:299], "real", 0, 0.05, r"paired losses need one shape \(n_guard,\); got \(300,\) and \(299,\)"),
        (ok[:0], ok[:0], "real", 0, 0.05, r"got \(0,\) and \(0,\)"),
        (ok[None], ok[None], "real", 0, 0.05, r"got \(1, 300\)"),
        (ok + 0.3, ok, "zero_one", 0, 0.05, "zero-one losses must be 0 or 1; got 0.3"),
        (ok * np.nan, ok, "zero_one", 0, 0.05, "zero-one losses must be 0 or 1; got nan"),
        (ok, ok, "zero_one", 1.0, 0.05, "margin must lie between 0 and 1 for zero-one losses; got 1.0"),
        (ok, ok, "real", -0.1, 0.05, "margin must be a finite number from 0; got -0.1"),
        (ok, ok, "real", math.nan, 0.05, "got nan"),
        (ok, ok, "real", 0, 0.5, "alpha must lie between 0 and 0.5; got 0.5"),
        (ok, ok, "rank", 0, 0.05, "kind must be 'zero_one' or 'real'; got 'rank'"),
    ]:
        with pytest.raises(ValueError, match=message):
            decide(candidate, baseline, kind=kind, margin=margin, alpha=alpha)


# Several finalists


def test_levels_halve_and_sum_to_alpha():
    for n, shares in [(1, [1]), (2, [1 / 2, 1 / 2]), (4, [1 / 2, 1 / 4, 1 / 8, 1 / 8])]:
        levels, rejected = fallback([1.0] * n, 0.05)
        assert levels == pytest.approx([0.05 * share for share in shares])
        assert not any(rejected)
    assert fallback([], 0.05) == ([], [])


def test_an_accepted_one_hands_its_level_on_and_a_failure_stops_nothing():
    assert fallback([0.01, 0.04, 0.9], 0.05) == (pytest.approx([0.025, 0.0375, 0.0125]), [True, False, False])
    assert fallback([0.9, 0.01, 0.02], 0.05) == (pytest.approx([0.05, 0.0125, 0.025]), [False, True, True])
    assert fallback([0.04, 0.01, 0.02], 0.05)[1] == [True, True, True]  # what the last one leaves comes round


def test_finalists_are_tested_in_the_order_of_their_tune_scores_and_answered_in_the_order_given():
    baseline = zero_one(40, 36, 300)[1]
    poor, good = zero_one(40, 36, 300)[0], np.where(np.arange(300) < 40, 0.0, baseline)
    losses, ranks = {"third": poor, "first": poor, "second": good}, {"first": 0.9, "second": 0.7, "third": 0.6}
    finalists = [finalist(name, loss, baseline, tune_rank=ranks[name]) for name, loss in losses.items()]
    verdicts = judge(finalists)
    assert [verdict.decision for verdict in verdicts] == ["undecided", "undecided", "accepted"]
    assert [verdict.level for verdict in verdicts] == pytest.approx([0.025, 0.025, 0.0125])
    finalists[2] = finalist("second", poor, baseline, tune_rank=0.7)
    levels = [verdict.level for verdict in judge(finalists)]
    assert levels == pytest.approx([0.0125, 0.025, 0.0125])


def test_a_finalist_below_the_baselines_tune_score_is_tested_for_harm_only():
    good, baseline = zero_one(60, 10, 300)
    alone, idle = judge([finalist("a", good, baseline), finalist("b", good, baseline, competes=False)])
    assert alone.accepted
    assert alone.level == 0.05  # it shares alpha with nobody
    assert (idle.decision, idle.level) == ("undecided", 0.0)
    assert idle.reason.startswith(
        "undecided: it did not compete, since its tune score is more than a standard error below scratch's; "
        "harm alone was tested"
    )
    bad, baseline = zero_one(10, 60, 300)
    assert judge([finalist("b", bad, baseline, competes=False)])[0].decision == "harmful"


def test_an_under_tuned_baseline_proves_nothing():
    good, baseline = zero_one(60, 10, 300)
    reason = "undecided: the baseline is under-tuned (3 of 5 trials)"
    (verdict,) = judge([finalist("a", good, baseline)], untested=reason)
    assert (verdict.decision, verdict.level, verdict.reason) == ("untested", 0.0, reason)
    assert verdict.effect == pytest.approx(50 / 300)
    assert judge([]) == ()


def test_decide_accepts_exactly_where_its_p_value_says_so():
    for fixed in range(0, 30, 3):
        for broken in range(0, 12, 3):
            verdict = judged(fixed, broken, 60)
            assert verdict.accepted == (float(paired.mcnemar(fixed, broken)) <= 0.05)


# Measured promises. Candidates share one baseline: wrong on a fifth, discordance .12.


def shared_baseline(
    rng: np.random.Generator, n: int, gains: list[float] | NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts (size, len(gains)) of fixed and broken examples."""
    wrong = rng.binomial(n, 0.2, size=(size, 1))
    gains = np.asarray(gains)
    return rng.binomial(wrong, (0.06 + gains / 2) / 0.2), rng.binomial(n - wrong, (0.06 - gains / 2) / 0.8)


def false_acceptances(p_values: NDArray[np.float64], worthless: slice) -> float:
    return float(np.mean([any(fallback(row, 0.05)[1][worthless]) for row in p_values.tolist()]))


@pytest.mark.parametrize("n", [40, 300])
def test_six_worthless_finalists_pass_together_no_more_often_than_one(n: int):
    fixed, broken = shared_baseline(np.random.default_rng(n), n, [0.0] * 6, 2000)
    assert false_acceptances(paired.mcnemar(fixed, broken), slice(None)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_good_finalists_do_not_pull_worthless_ones_through():
    gains = [0.08, 0.0, 0.0, 0.08, 0.0, 0.0]
    fixed, broken = shared_baseline(np.random.default_rng(0), 1000, gains, 2000)
    p_values = paired.mcnemar(fixed, broken)[:, [0, 3, 1, 2, 4, 5]]
    assert false_acceptances(p_values, slice(2, None)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_runners_up_add_power():
    gains = [0.08, 0.0, 0.0, 0.0, 0.0, 0.0]
    rng = np.random.default_rng(0)
    order = np.argsort(-np.subtract(*shared_baseline(rng, 40, gains, 2000)), axis=1, kind="stable")
    p_values = np.take_along_axis(paired.mcnemar(*shared_baseline(rng, 300, gains, 2000)), order, axis=1)
    together = np.mean([any(fallback(row, 0.05)[1]) for row in p_values.tolist()])
    top_alone = np.mean(p_values[:, 0] <= 0.05)
    assert together > top_alone + 0.1


@pytest.mark.parametrize("gain", [0.0, -0.02])
def test_the_best_of_a_hundred_that_are_no_better_passes_no_more_often_than_one(gain: float):
    rng = np.random.default_rng(0)
    rows, gains = np.arange(2000), [gain] * 100
    tune_fixed, tune_broken = shared_baseline(rng, 200, gains, 2000)
    best = (tune_fixed - tune_broken).argmax(axis=1)
    fixed, broken = shared_baseline(rng, 300, gains, 2000)
    honest = np.mean(paired.mcnemar(fixed[rows, best], broken[rows, best]) <= 0.05)
    assert honest <= 0.06
    same_split = np.mean(paired.mcnemar(tune_fixed[rows, best], tune_broken[rows, best]) <= 0.05)
    assert same_split > (0.5 if gain == 0 else 0.1)  # why the guard is a split of its own


# Planning


def test_a_plan_needs_more_examples_for_smaller_gains_and_noisier_pairs():
    table = [[plan_detectable(n, kind="zero_one", discordance=d) for d in (0.05, 0.12, 0.3)] for n in (100, 300, 1000)]
    assert np.all(np.diff(table, axis=0) < 0)
    assert np.all(np.diff(table, axis=1) > 0)
    assert plan_detectable(300, kind="zero_one") == pytest.approx(0.05, abs=0.003)
    assert plan_detectable(300, kind="real", sd=2.0) == pytest.approx(2 * plan_detectable(300, kind="real"))
    assert plan_detectable(49, kind="real") == math.inf


def test_the_interval_of_what_was_not_tested_is_as_wide_as_the_data_make_it():
    bad, baseline = zero_one(32, 62, 800)
    (verdict,) = judge([finalist("a", bad, baseline)], untested="undecided: the baseline is under-tuned")
    assert verdict.decision == "untested"
    assert verdict.ci_high == pytest.approx(-0.0175, abs=0.002)
