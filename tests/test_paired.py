"""Each formula against a loop that anyone can check, and each test against its promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from autoxfer.guard import paired

RHO = np.sin(np.linspace(0.01, math.pi / 2, 200)) ** 2


def binomial(k: int, n: int, share: float) -> float:
    return math.comb(n, k) * share**k * (1 - share) ** (n - k)


def trinomial(fixed: int, broken: int, n: int, rho: float, gain: float) -> float:
    same = n - fixed - broken
    ways = math.comb(n, fixed) * math.comb(n - fixed, broken)
    return ways * ((rho + gain) / 2) ** fixed * max((rho - gain) / 2, 0.0) ** broken * max(1 - rho, 0.0) ** same


def outcomes(n: int) -> list[tuple[int, int]]:
    return [(fixed, broken) for fixed in range(n + 1) for broken in range(n + 1 - fixed)]


def draws(rng: np.random.Generator, n: int, rho: float, gain: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    counts = rng.multinomial(n, [(rho + gain) / 2, (rho - gain) / 2, 1 - rho], size=size)
    return counts[:, 0], counts[:, 1]


def test_mcnemar_is_a_sum_of_binomial_terms():
    for fixed, broken in [*itertools.product(range(9), range(9)), (34, 18), (60, 75)]:
        m = fixed + broken
        naive = sum(binomial(k, m, 0.5) for k in range(fixed, m + 1))
        assert float(paired.mcnemar(fixed, broken)) == pytest.approx(naive, rel=1e-9)


def test_the_example_of_the_readme_has_p_0_018():
    assert round(float(paired.mcnemar(34, 18)), 3) == 0.018


@pytest.mark.parametrize("bound", [-0.1, -0.02, 0.0, 0.02])
@pytest.mark.parametrize(("fixed", "broken", "n"), [(5, 3, 40), (0, 4, 40), (4, 0, 40), (30, 20, 100), (0, 0, 50)])
def test_the_score_statistic_uses_the_most_likely_share_under_the_null(bound: float, fixed: int, broken: int, n: int):
    broken_share = np.linspace(max(0.0, -bound), (1 - bound) / 2, 400_001)[1:-1]
    fixed_share = broken_share + bound
    with np.errstate(divide="ignore"):
        likelihood = broken * np.log(broken_share) + (n - fixed - broken) * np.log(1 - broken_share - fixed_share)
        likelihood = likelihood + (fixed * np.log(fixed_share) if fixed else 0.0)
    best = broken_share[likelihood.argmax()]
    variance = n * (2 * best + bound - bound**2)
    distance = fixed - broken - n * bound
    naive = distance / math.sqrt(variance) if distance else 0.0
    assert float(paired.score(fixed, broken, n, bound)) == pytest.approx(naive, abs=1e-3)


@pytest.mark.parametrize("bound", [-0.2, -0.02, 0.0, 0.05])
def test_the_score_statistic_rises_with_each_fixed_and_falls_with_each_broken_example(bound: float):
    n = 30
    z = {pair: float(paired.score(*pair, n, bound)) for pair in outcomes(n)}
    for fixed, broken in outcomes(n - 1):
        assert z[fixed + 1, broken] > z[fixed, broken] > z[fixed, broken + 1]


@pytest.mark.parametrize("bound", [-0.1, -0.02, 0.05])
def test_tango_is_the_worst_case_over_the_discordance_of_a_sum_over_all_outcomes(bound: float):
    n = 12
    z = {pair: float(paired.score(*pair, n, bound)) for pair in outcomes(n)}
    for seen in [(4, 0), (7, 1), (5, 5), (12, 0)]:
        extreme = [pair for pair in outcomes(n) if z[pair] >= z[seen] - 1e-9]
        naive = max(sum(trinomial(*pair, n, rho, bound) for pair in extreme) for rho in RHO if rho >= abs(bound))
        assert paired.tango(*seen, n, bound) == pytest.approx(naive, rel=0.01)


def test_power_is_a_sum_over_all_outcomes():
    n = 14
    for bound, rho, gain in [(0.0, 0.5, 0.3), (-0.1, 0.2, 0.05), (0.0, 0.4, 0.4)]:
        counts = paired.zero_one_counts(n, bound, 0.05)
        naive = sum(trinomial(f, b, n, rho, gain) for f, b in outcomes(n) if f >= counts[f + b])
        assert paired.zero_one_power(n, rho, gain, bound, 0.05) == pytest.approx(naive, rel=1e-6)


def test_critical_counts_are_the_first_that_reject():
    counts = paired.zero_one_counts(20, 0.0, 0.05)
    for m in range(21):
        naive = next((f for f in range(m + 1) if paired.mcnemar(f, m - f) <= 0.05), m + 1)
        assert counts[m] == naive
    assert list(counts[:6]) == [1, 2, 3, 4, 5, 5]  # five discordant examples can decide, four cannot


@pytest.mark.parametrize("level", [0.05, 0.025, 0.05 / 32])
@pytest.mark.parametrize("n", [1, 7, 40, 300])
@pytest.mark.parametrize("bound", [0.0, -0.005, -0.02, -0.1, 0.02])
def test_no_discordance_makes_a_worthless_candidate_pass_too_often(bound: float, n: int, level: float):
    rho = RHO[abs(bound) <= RHO]
    size = paired.reach(paired.zero_one_counts(n, bound, level), n, rho, bound).max()
    assert size <= 1.01 * level  # the p-value's grid of discordances misses its peak by less than a hundredth


def test_the_normal_approximation_alone_would_be_too_generous():
    for n, bound, level, factor in [(10, -0.02, 0.025, 1.9), (300, -0.02, 0.05, 1.15)]:
        z = paired.quantile(1 - level)
        assert paired.rarity(z, n, bound) > factor * level


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("rho", [0.05, 0.12, 0.3])
@pytest.mark.parametrize("bound", [0.0, -0.02])
def test_simulated_candidates_of_no_worth_pass_at_most_at_the_level(n: int, rho: float, bound: float):
    rng = np.random.default_rng(n)
    fixed, broken = draws(rng, n, rho, bound, 4000)
    accepted = np.mean(fixed >= paired.zero_one_counts(n, bound, 0.05)[fixed + broken])
    assert accepted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("n", [100, 300])
@pytest.mark.parametrize("tail", ["normal", "t3"])
def test_the_t_test_holds_its_level_roughly(n: int, tail: str):
    rng = np.random.default_rng(n)
    noise = rng.standard_normal((4000, n)) if tail == "normal" else rng.standard_t(3, (4000, n))
    assert np.mean(paired.student(noise - 0.1, -0.1) <= 0.05) <= 0.065


@pytest.mark.parametrize(
    ("n", "strict", "margin"),
    [
        (100, (0.006, 0.026, 0.092, 0.307), (0.047, 0.141, 0.326, 0.642)),
        (300, (0.004, 0.041, 0.209, 0.786), (0.046, 0.252, 0.639, 0.971)),
        (1000, (0.000, 0.038, 0.532, 0.999), (0.049, 0.563, 0.976, 1.0)),
        (3000, (0.000, 0.038, 0.923, 1.0), (0.051, 0.931, 1.0, 1.0)),
    ],
)
def test_power_agrees_with_published_simulations(n: int, strict: tuple[float, ...], margin: tuple[float, ...]):
    for bound, expected in ((0.0, strict), (-0.02, margin)):
        power = [paired.zero_one_power(n, 0.12, gain, bound, 0.05) for gain in (-0.02, 0.0, 0.02, 0.05)]
        np.testing.assert_allclose(power, expected, atol=0.03)  # exactness costs Tango up to .028


@pytest.mark.parametrize("bound", [0.0, -0.02])
def test_what_is_detectable_is_found_four_times_in_five(bound: float):
    gain = paired.zero_one_detectable(300, 0.12, bound, 0.05)
    assert paired.zero_one_power(300, 0.12, gain, bound, 0.05) == pytest.approx(0.8, abs=1e-3)


def test_a_gain_needs_as_much_discordance_as_itself():
    assert paired.zero_one_detectable(40, 0.0, 0.0, 0.05) == pytest.approx(
        next(g for g in np.arange(0.0, 1, 1e-4) if sum(binomial(k, 40, g) for k in range(5, 41)) >= 0.8), abs=2e-4
    )
    assert math.isinf(paired.zero_one_detectable(4, 0.12, 0.0, 0.05))


def test_the_interval_ends_where_the_score_test_stops_rejecting():
    low = paired.score_bound(34, 18, 300, 0.05)
    assert float(paired.score(34, 18, 300, low)) == pytest.approx(paired.quantile(0.95), abs=1e-6)
    assert paired.score_bound(0, 300, 300, 0.05) == pytest.approx(-1.0, abs=1e-6)


def test_student_is_scipys_one_sample_test_where_nothing_is_skewed():
    from scipy.stats import ttest_1samp  # noqa: PLC0415

    half = np.random.default_rng(0).normal(0.0, 1.0, (5, 40))
    differences = np.concatenate([0.2 + half, 0.2 - half], axis=1)
    expected = ttest_1samp(differences, -0.05, axis=1, alternative="greater").pvalue
    np.testing.assert_array_less(expected - 1e-12, paired.student(differences, -0.05))
    np.testing.assert_allclose(paired.student(differences, -0.05), expected, rtol=1e-9)


def test_little_gains_and_rare_losses_pass_no_more_often_than_they_may():
    from scipy.stats import ttest_1samp  # noqa: PLC0415

    differences = 1.0 - np.random.default_rng(0).gamma(0.25, 4.0, (4000, 100))  # mean 0, skewness -4
    naive = ttest_1samp(differences, 0.0, axis=1, alternative="greater").pvalue
    assert np.mean(naive <= 0.05) > 0.09
    assert np.mean(paired.student(differences, 0.0) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("g", [-6.0, -1.0, -1e-3, 0.0, 1e-7, 0.5, 4.0])
def test_the_correction_for_skewness_is_a_loop_and_its_inverse_undoes_it(g: float):
    for t in [-3.0, 0.0, 1.0, 1.7, 4.0, 9.0]:
        w = t / 10
        hall = 10 * (w + g * w**2 / 3 + g**2 * w**3 / 27 + g / 600)
        assert float(paired.unskewed(t, g, 100)) == pytest.approx(min(t, hall))
    for t in [0.5, 1.7, 2.5, 4.0]:
        assert float(paired.unskewed(paired.skewed(t, g, 100), g, 100)) == pytest.approx(t, abs=1e-5)


def test_what_the_t_test_detects_is_found_four_times_in_five():
    rng = np.random.default_rng(1)
    gain = paired.student_detectable(100, 2.0, -0.1, 0.05)
    found = np.mean(paired.student(rng.normal(gain, 2.0, (4000, 100)), -0.1) <= 0.05)
    assert found == pytest.approx(0.8, abs=0.02)


def test_differences_that_do_not_vary_prove_nothing():
    assert paired.student(np.full(300, 0.5), 0.0) == 1.0


def test_two_points_need_1850_examples_and_five_need_300():
    assert paired.examples_needed(0.02, variance=0.12) == pytest.approx(1850, abs=10)
    assert paired.examples_needed(0.05, variance=0.12) == pytest.approx(300, abs=5)
    assert math.isinf(paired.examples_needed(0.0, variance=0.12))
    assert math.isinf(paired.examples_needed(math.nan, variance=0.12))
