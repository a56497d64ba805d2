"""The guard's tests for metrics that are no mean of losses, and for examples in groups."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from autoxfer import statistics
from autoxfer.guard import Comparison, Finalist, decide, judge, weigh, weigh_auroc, weigh_whole
from autoxfer.guard.clustered import Clustered
from autoxfer.guard.exchange import Exchange
from autoxfer.metrics import METRICS
from autoxfer.records import Verdict

Array = NDArray[np.float64]
LEVEL = 0.05


def scores(
    rng: np.random.Generator, n: int, *, share: float = 0.4, gain: float = 0.0, groups: int = 0
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Scores of a candidate and a baseline with much in common, and labels; all the same within each of the groups."""
    size = groups or n
    labels = (rng.random(size) < share).astype(np.int64)
    common = rng.standard_normal(size) + 1.2 * labels
    pair = [common + 0.8 * rng.standard_normal(size) + extra * labels for extra in (gain, 0.0)]
    rows = np.arange(n) % size
    candidate, baseline = (np.c_[-s, s][rows] for s in (1 / (1 + np.exp(-one)) for one in pair))
    return candidate, baseline, labels[rows]


def decisions(
    rng: np.random.Generator, n: int, right: tuple[list[float], list[float]], prior: list[float]
) -> tuple[Array, Array, NDArray[np.int64]]:
    """One-hot answers of two models that are right about each class as often as asked, and labels."""
    labels = rng.choice(len(prior), n, p=prior)
    wrong = (labels + rng.integers(1, len(prior), n)) % len(prior)
    luck = rng.random(n)
    pair = []
    for shares in right:
        own = np.where(rng.random(n) < 0.6, luck, rng.random(n))
        pair.append(np.eye(len(prior))[np.where(own < np.asarray(shares)[labels], labels, wrong)])
    return pair[0], pair[1], labels


def verdict_of(seen: Comparison, alpha: float = LEVEL) -> Verdict:
    return judge([Finalist("", seen, competes=True, tune_rank=0.0)], alpha=alpha)[0]


def most(n_draws: int) -> float:
    """Share of false acceptances that an approximate test may show."""
    return 1.5 * LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / n_draws)


# DeLong


def test_delongs_error_is_the_covariance_of_the_u_statistics():
    candidate, baseline, labels = scores(np.random.default_rng(0), 30)
    candidate, baseline = candidate.round(1), baseline.round(1)  # ties
    pairs = []
    for predictions in (candidate, baseline):
        hit, missed = predictions[labels == 1, 1], predictions[labels == 0, 1]
        pairs.append(np.array([[(x > y) + 0.5 * (x == y) for y in missed] for x in hit]))
    (m, n), areas = pairs[0].shape, [pair.mean() for pair in pairs]
    s10, s01 = (np.cov([pair.mean(axis=axis) for pair in pairs]) for axis in (1, 0))
    covariance = s10 / m + s01 / n
    contrast = np.array([1.0, -1.0])
    seen = weigh_auroc(candidate, baseline, labels)
    assert seen.effect == pytest.approx(areas[0] - areas[1])
    assert seen.error == pytest.approx(math.sqrt(contrast @ covariance @ contrast))  # type: ignore[union-attr]


def test_an_area_by_hand():
    labels = np.array([0, 0, 1, 1])
    good, poor = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.1, 0.4, 0.4, 0.05])
    value = METRICS["auroc"].value
    assert value(np.c_[1 - good, good], labels) == 0.75
    assert value(np.c_[1 - poor, poor], labels) == pytest.approx(1.5 / 4)


def test_an_area_is_judged_in_points_and_called_approximate():
    candidate, baseline, labels = scores(np.random.default_rng(1), 300, gain=0.8)
    verdict = verdict_of(weigh_auroc(candidate, baseline, labels))
    assert verdict.accepted
    assert verdict.approximate
    assert verdict.method == "DeLong"
    assert verdict.reason.startswith("AUROC ")
    assert "points higher than scratch's on 300 examples, p " in verdict.reason
    assert "(DeLong, approximate) at level 0.05: better than scratch" in verdict.reason
    assert verdict.effect == pytest.approx(
        METRICS["auroc"].value(candidate, labels) - METRICS["auroc"].value(baseline, labels)
    )
    assert verdict_of(weigh_auroc(baseline, candidate, labels)).decision == "harmful"


def test_of_many_classes_the_mean_area_is_compared():
    rng = np.random.default_rng(2)
    candidate, baseline, labels = decisions(rng, 200, ([0.9] * 3, [0.6] * 3), [0.5, 0.3, 0.2])
    noise = [0.3 * rng.dirichlet(np.ones(3), 200) for _ in range(2)]
    seen = weigh_auroc(0.7 * candidate + noise[0], 0.7 * baseline + noise[1], labels)
    assert verdict_of(seen).accepted
    values = [
        METRICS["auroc"].value(0.7 * one + part, labels) for one, part in zip((candidate, baseline), noise, strict=True)
    ]
    assert seen.effect == pytest.approx(values[0] - values[1])


@pytest.mark.parametrize("y", [np.zeros(60, int), np.r_[np.zeros(56, int), np.ones(4, int)]])
def test_too_few_of_a_class_decide_nothing(y: NDArray[np.int64]):
    candidate, baseline, _ = scores(np.random.default_rng(0), 60)
    for seen in (
        weigh_auroc(candidate, baseline, y),
        weigh_whole(statistics.AVERAGE_PRECISION, candidate, baseline, y),
    ):
        verdict = verdict_of(seen)
        assert verdict.decision == "undecided"
        assert "two classes" in verdict.reason or "at least 5" in verdict.reason
        assert not math.isnan(verdict.p_value)


# Exchange


@pytest.mark.parametrize("grouped", [False, True])
def test_for_accuracy_the_exchange_test_is_mcnemars(grouped: bool):
    rng = np.random.default_rng(3)
    candidate, baseline, labels = decisions(rng, 120, ([0.78] * 3, [0.72] * 3), [0.4, 0.3, 0.3])
    hits = statistics.Statistic("accuracy", lambda a, y, w: (w * (a[:, 0] == y)).sum(1) / w.sum(1), True)
    seen = weigh_whole(hits, candidate, baseline, labels, groups=np.arange(120) if grouped else None)
    losses = [METRICS["accuracy"].losses(one, labels) for one in (candidate, baseline)]
    exact = weigh(*losses, kind="zero_one")
    assert isinstance(seen, Exchange)
    assert seen.effect == pytest.approx(exact.effect)
    share = (1 + (seen.reference >= seen.effect / seen.error - 1e-9).sum()) / (1 + len(seen.reference))
    assert share == pytest.approx(exact.p_better, rel=0.2)


@pytest.mark.parametrize("grouped", [False, True])
def test_exchanges_are_those_of_a_loop_over_all_of_them(grouped: bool):
    rng = np.random.default_rng(4)
    n, groups = 9, np.array([0, 0, 1, 1, 2, 3, 4, 5, 5])
    candidate, baseline, labels = decisions(rng, n, ([0.8] * 2, [0.4] * 2), [0.5, 0.5])
    seen = weigh_whole(statistics.F1_MACRO, candidate, baseline, labels, groups=groups if grouped else None)
    assert isinstance(seen, Exchange)
    unit = groups if grouped else np.arange(n)
    distances = []
    for coins in itertools.product([False, True], repeat=unit.max() + 1):
        moved = np.array(coins)[unit][:, None]
        first, second = np.where(moved, baseline, candidate), np.where(moved, candidate, baseline)
        mine, ours = (statistics.F1_MACRO.influences(one, labels) for one in (first, second))
        sums = np.bincount(unit, mine[1] - ours[1])
        error = math.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum())
        distances.append((mine[0] - ours[0]) / error if error > 1e-12 else 0.0)
    for probability in (0.05, 0.2, 0.5, 0.8, 0.95):
        assert np.quantile(seen.reference, probability) == pytest.approx(np.quantile(distances, probability), abs=0.25)
    assert seen.reference.max() == pytest.approx(max(distances))
    assert distances[0] == pytest.approx(seen.effect / seen.error)


def test_a_verdict_is_the_same_for_the_same_data_in_any_order():
    candidate, baseline, labels = decisions(np.random.default_rng(5), 80, ([0.8] * 2, [0.7] * 2), [0.6, 0.4])
    first, again = (weigh_whole(statistics.F1_MACRO, candidate, baseline, labels).p_better for _ in range(2))
    order = np.random.default_rng(0).permutation(80)
    shuffled = weigh_whole(statistics.F1_MACRO, candidate[order], baseline[order], labels[order]).p_better
    assert first == again == shuffled


def test_macro_f1_is_judged_in_points_and_explained():
    candidate, baseline, labels = decisions(np.random.default_rng(6), 300, ([0.9] * 3, [0.75] * 3), [0.5, 0.3, 0.2])
    verdict = verdict_of(weigh_whole(statistics.F1_MACRO, candidate, baseline, labels))
    assert verdict.accepted
    assert verdict.approximate
    assert "macro F1 " in verdict.reason
    assert "(exchange test, approximate) at level 0.05: better than scratch" in verdict.reason
    assert verdict.ci_low > 0
    assert verdict.effect < verdict.ci_high < 1
    assert 0 < verdict.detectable < 0.2
    reverse = verdict_of(weigh_whole(statistics.F1_MACRO, baseline, candidate, labels))
    assert reverse.decision == "harmful"
    close = decisions(np.random.default_rng(6), 100, ([0.8] * 3, [0.78] * 3), [0.5, 0.3, 0.2])
    assert "100 examples find a gain of" in verdict_of(weigh_whole(statistics.F1_MACRO, *close)).reason


def test_the_same_answers_are_no_gain_but_within_a_margin():
    candidate, _, labels = decisions(np.random.default_rng(7), 300, ([0.9] * 3, [0.75] * 3), [0.5, 0.3, 0.2])
    for judged in (
        lambda margin: weigh_whole(statistics.F1_MACRO, candidate, candidate, labels, margin=margin),
        lambda margin: weigh_auroc(candidate, candidate, labels, margin=margin),
    ):
        assert "no spread to judge by" in verdict_of(judged(0.0)).reason
        assert verdict_of(judged(0.02)).accepted
    few = slice(0, 100)  # 0.98^100: a loss of 2 points is easily missed
    assert not verdict_of(weigh_auroc(candidate[few], candidate[few], labels[few], margin=0.02)).accepted


def test_a_level_that_exchanges_cannot_show_is_an_obstacle():
    candidate, baseline, labels = decisions(np.random.default_rng(8), 300, ([0.99] * 2, [0.5] * 2), [0.5, 0.5])
    seen = weigh_whole(statistics.F1_MACRO, candidate, baseline, labels)
    assert seen.obstacle(0.05) == ""
    assert seen.obstacle(1e-5) == "4,000 simulated exchanges cannot show a level of 1e-05"
    three = np.where(np.arange(300)[:, None] < 3, 1 - candidate, candidate)
    assert "on too few examples" in verdict_of(weigh_whole(statistics.F1_MACRO, candidate, three, labels)).reason


# Groups


def test_the_clustered_error_is_a_sum_over_groups():
    rng = np.random.default_rng(9)
    groups = rng.integers(100, 120, 90)
    candidate, baseline = rng.random(90), rng.random(90)
    seen = weigh(candidate, baseline, kind="real", groups=groups)
    gain = baseline - candidate
    sums = [sum(gain[i] - gain.mean() for i in range(90) if groups[i] == g) for g in set(groups.tolist())]
    naive = math.sqrt(len(sums) / (len(sums) - 1) * sum(s**2 for s in sums)) / 90
    assert isinstance(seen, Clustered)
    assert seen.error == pytest.approx(naive)
    assert seen.degrees == len(sums) - 1


def test_groups_of_one_are_no_groups_for_the_error():
    rng = np.random.default_rng(10)
    candidate, baseline = rng.random(90), rng.random(90)
    alone, paired = (weigh(candidate, baseline, kind="real", groups=g) for g in (np.arange(90), None))
    assert alone.error == pytest.approx(paired.error)  # type: ignore[union-attr]


def test_grouped_examples_tell_how_many_groups_there_are():
    rng = np.random.default_rng(11)
    groups = np.arange(300) // 5
    baseline = (rng.random(60) < 0.5).astype(float)[groups]
    candidate = np.where(rng.random(300) < 0.2, 0.0, baseline)
    verdict = decide(candidate, baseline, kind="zero_one", groups=groups)
    assert verdict.accepted
    assert verdict.approximate
    assert (verdict.fixed, verdict.broken) == (int((candidate < baseline).sum()), 0)
    assert verdict.reason.startswith(f"fixed {verdict.fixed}, broke 0 of 300 in 60 groups, p ")
    assert not decide(candidate, baseline, kind="zero_one").approximate


def test_nine_groups_decide_nothing():
    rng = np.random.default_rng(12)
    candidate, baseline, labels = decisions(rng, 300, ([0.99] * 2, [0.5] * 2), [0.5, 0.5])
    for groups, refused in ((np.arange(300) % 9, True), (np.arange(300) % 10, False)):
        losses = [METRICS["accuracy"].losses(one, labels) for one in (candidate, baseline)]
        for seen in (
            weigh(*losses, kind="zero_one", groups=groups),
            weigh(*losses, kind="real", groups=groups),
            weigh_whole(statistics.F1_MACRO, candidate, baseline, labels, groups=groups),
            weigh_auroc(candidate, baseline, labels, groups=groups),
        ):
            assert (verdict_of(seen).decision == "undecided") == refused
            assert ("at least 10 groups" in seen.obstacle(0.05)) == refused


def test_wrong_arguments_are_named():
    candidate, baseline, labels = scores(np.random.default_rng(0), 20)
    with pytest.raises(ValueError, match=r"one shape \(n_guard, classes\) and labels"):
        weigh_auroc(candidate, baseline[:19], labels)
    with pytest.raises(ValueError, match=r"margin must lie between 0 and 1 for macro F1; got 1\.0"):
        weigh_whole(statistics.F1_MACRO, candidate, baseline, labels, margin=1.0)
    with pytest.raises(ValueError, match=r"groups need shape \(20,\); got \(19,\)"):
        weigh(labels * 1.0, labels * 1.0, kind="real", groups=np.arange(19))
    with pytest.raises(ValueError, match=r"a number or one for each example, \(20,\); got \(19,\)"):
        weigh(labels * 1.0, labels * 1.0, kind="real", margin=np.zeros(19))


# Measured promises


@pytest.mark.parametrize("n", [40, 100, 300])
def test_an_area_that_is_no_better_passes_no_more_often_than_an_approximate_test_may(n: int):
    rng, n_draws = np.random.default_rng(n), 300
    passed = [weigh_auroc(*scores(rng, n)).p_better <= LEVEL for _ in range(n_draws)]
    assert np.mean(passed) <= most(n_draws)


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 100, 300])
@pytest.mark.parametrize("statistic", [statistics.F1_MACRO, statistics.BALANCED_ACCURACY], ids=lambda s: s.title)
def test_a_whole_metric_that_is_no_better_passes_no_more_often(n: int, statistic: statistics.Statistic):
    """Two models with one value by different mistakes: one trades a rare class for a common one."""
    prior, traded = [0.6, 0.3, 0.1], ([0.72, 0.7, 0.68], [0.8, 0.75, 0.55])
    if statistic is statistics.F1_MACRO:
        traded = ([0.749, 0.711, 0.729], [0.8, 0.75, 0.55])
    rng = np.random.default_rng(0)
    truth = decisions(rng, 400_000, traded, prior)
    assert abs(statistic.value(truth[0], truth[2])[0] - statistic.value(truth[1], truth[2])[0]) < 0.004
    passed = [weigh_whole(statistic, *decisions(rng, n, traded, prior)).p_better <= LEVEL for _ in range(300)]
    assert np.mean(passed) <= most(300)


@pytest.mark.parametrize("kind", ["zero_one", "real", "auroc"])
def test_copies_in_groups_fool_the_naive_test_and_not_the_clustered_one(kind: str):
    rng, n_draws, groups = np.random.default_rng(0), 200, np.arange(120) % 30  # each example four times
    naive, clustered = [], []
    for _ in range(n_draws):
        if kind == "auroc":
            drawn = scores(rng, 120, groups=30, share=0.5)
            pair = [weigh_auroc(*drawn, groups=g) for g in (None, groups)]
        else:
            noise = rng.standard_normal((2, 30)) if kind == "real" else (rng.random((2, 30)) < 0.3).astype(float)
            pair = [weigh(*(noise[:, groups]), kind=kind, groups=g) for g in (None, groups)]  # type: ignore[arg-type]
        naive.append(pair[0].p_better <= LEVEL)
        clustered.append(pair[1].p_better <= LEVEL)
    assert np.mean(naive) > 0.12
    assert np.mean(clustered) <= most(n_draws)


@pytest.mark.parametrize("n", [50, 300])
def test_a_margin_of_the_baselines_own_loss_is_no_known_number(n: int):
    """The candidate is worse by exactly the margin, and its losses rise and fall with the baseline's."""
    rng, n_draws, margin = np.random.default_rng(n), 1000, 0.1
    baseline = rng.chisquare(1, (n_draws, n))
    candidate = baseline + margin + 0.05 * rng.standard_normal((n_draws, n))
    rows = list(zip(candidate, baseline, strict=True))
    metric = METRICS["mse"]
    honest = [weigh(c, b, kind="real", margin=metric.tolerance(margin, b)).p_better <= LEVEL for c, b in rows]
    fixed = [weigh(c, b, kind="real", margin=margin * b.mean()).p_better <= LEVEL for c, b in rows]
    assert np.mean(fixed) > 0.2
    assert np.mean(honest) <= most(n_draws)


# Worse answers


@pytest.mark.parametrize("metric", ["auroc", "f1_macro", "balanced_accuracy"])
def test_making_the_candidate_worse_never_turns_a_rejection_into_an_acceptance(metric: str):
    """Not for every step of the studentised tests: a worse answer may also lower the spread. Never across the level."""
    rng = np.random.default_rng(13)
    statistic = METRICS[metric].statistic
    assert statistic is not None
    for _ in range(2):
        if metric == "auroc":
            candidate, baseline, labels = scores(rng, 60, gain=1.5)
        else:
            candidate, baseline, labels = decisions(rng, 60, ([0.97] * 2, [0.6] * 2), [0.5, 0.5])
        rejected = False
        for example in rng.permutation(60):
            candidate[example] = [1.0, -1.0] if labels[example] else [-1.0, 1.0]
            seen = (
                weigh_auroc(candidate, baseline, labels)
                if metric == "auroc"
                else weigh_whole(statistic, candidate, baseline, labels)
            )
            now = seen.p_better > LEVEL
            assert now or not rejected
            rejected = now
        assert rejected
