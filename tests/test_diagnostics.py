"""What the diagnostics promise: each formula against a slower way to compute it, and no number for what has none."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from autoxfer.diagnostics import (
    Assessment,
    Case,
    Head,
    Labels,
    Turned,
    arrange,
    examine,
    rank_sources,
    scratch_error,
    standardised,
    stratified,
)
from autoxfer.diagnostics.cautions import cautions
from autoxfer.diagnostics.centroids import alignment, class_means
from autoxfer.diagnostics.crossfit import RidgeFit, probabilities_out_of_fold, ridge_out_of_fold
from autoxfer.diagnostics.evidence import logme
from autoxfer.diagnostics.gain import class_entropy, overlap, predicted_gain, probe_error
from autoxfer.diagnostics.separation import h_score, shrinkage
from autoxfer.diagnostics.sourcehead import leep, nce
from autoxfer.metrics import get_metric

Floats = NDArray[np.float64]
ACCURACY = get_metric("accuracy", "classification")
EVIDENCE = Path(__file__).resolve().parents[1] / "examples" / "evidence" / "diagnostics.py"


def blobs(n: int = 60, p: int = 8, n_classes: int = 3, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Draw features about a centre for each class, with a mean of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    return rng.normal(size=(n, p)) + 1.5 * rng.normal(size=(n_classes, p))[labels] + 2.0, labels


def labelled(values: NDArray[np.int64], classes: tuple[str, ...] = ("a", "b", "c")) -> Labels:
    return Labels(values, classes, ACCURACY, stratified(values, np.random.default_rng(0)))


def case(n: int = 60, p: int = 8) -> Case:
    features, labels = blobs(n, p)
    weights = np.random.default_rng(1).normal(size=(4, p))
    return Case(features, labelled(labels), Head(features @ weights.T, weights, ("c", "A", "z", "b")), 0.5)


# LogME


def direct_evidence(features: Floats, y: Floats, a: float, b: float) -> float:
    """Compute the log density of y under its Gaussian marginal, of covariance F F' / a + I / b, per example."""
    n = len(y)
    covariance = features @ features.T / a + np.eye(n) / b
    return float(
        -(n * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y)) / 2 / n
    )


@pytest.mark.parametrize(("n", "p"), [(30, 4), (12, 20)])
def test_logme_is_the_greatest_evidence_that_a_search_over_both_precisions_finds(n: int, p: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, p)) + 1
    y = features[:, 0] - 0.5 * features[:, 1] + 0.7 * rng.normal(size=n)
    grid = np.exp(np.linspace(-5, 5, 25))
    best = max(direct_evidence(features, y, a, b) for a in grid for b in grid)
    found = logme(features, y[:, None])
    assert found >= best - 1e-9
    assert found == pytest.approx(best, abs=0.02)


def fixed_point(features: Floats, y: Floats, n_steps: int = 100) -> float:
    """Walk to the best precisions as the paper does."""
    n, p = features.shape
    a = b = 1.0
    for _ in range(n_steps):
        A = a * np.eye(p) + b * features.T @ features
        m = b * np.linalg.solve(A, features.T @ y)
        s = np.linalg.eigvalsh(b * features.T @ features)
        g = (s / (a + s)).sum()
        a, b = g / (m @ m), (n - g) / np.square(features @ m - y).sum()
    return direct_evidence(features, y, a, b)


def test_logme_is_where_the_papers_fixed_point_ends() -> None:
    features, labels = blobs()
    columns = np.eye(3)[labels]
    naive = np.mean([fixed_point(features, column) for column in columns.T])
    assert logme(features, columns) == pytest.approx(naive, abs=1e-6)


def test_logme_prefers_the_features_that_the_labels_came_from() -> None:
    features, labels = blobs()
    noise = np.random.default_rng(5).normal(size=features.shape)
    columns = np.eye(3)[labels]
    assert logme(features, columns) > logme(np.hstack([features, noise]), columns) > logme(noise, columns)


def test_logme_of_features_that_tell_nothing_is_that_of_noise_alone() -> None:
    y = np.random.default_rng(0).normal(size=(40, 1))
    alone = -(1 + np.log(2 * np.pi) + np.log(np.square(y).mean())) / 2
    assert logme(np.zeros((40, 3)), y) == pytest.approx(alone)


def test_logme_is_finite_for_a_perfect_fit_and_for_a_class_that_never_occurs() -> None:
    features, labels = blobs(n=6, p=50)
    columns = np.eye(5)[labels]
    assert np.isfinite(logme(features, columns))
    assert logme(features, columns) == pytest.approx(logme(features, columns[:, :3]))
    with pytest.raises(ValueError, match="not zero throughout"):
        logme(features, np.zeros((6, 2)))


# H-score and the spectrum


@pytest.mark.parametrize("p", [5, 100])
def test_the_shrinkage_is_scikit_learns(p: int) -> None:
    features, _ = blobs(p=p)
    assert shrinkage(Turned.of(features)) == pytest.approx(ledoit_wolf(features)[1])


@pytest.mark.parametrize("p", [5, 100])
def test_the_h_score_is_its_definition_with_a_shrunk_covariance(p: int) -> None:
    features, labels = blobs(p=p)
    explained = np.stack([features[labels == label].mean(0) for label in labels])
    between = np.cov(explained.T, bias=True)
    naive = np.trace(np.linalg.solve(ledoit_wolf(features)[0], between))
    assert h_score(Turned.of(features), labels) == pytest.approx(naive)


def test_the_h_score_approaches_the_number_of_classes_less_one() -> None:
    labels = np.arange(3000) % 3
    features = 100 * np.eye(3)[labels] + 0.01 * np.random.default_rng(0).normal(size=(3000, 3))
    assert h_score(Turned.of(features), labels) == pytest.approx(2.0, abs=0.01)
    assert h_score(Turned.of(np.ones((9, 4))), np.arange(9) % 3) == 0.0


def test_the_effective_rank_counts_equal_directions_and_the_top_share_the_widest() -> None:
    cross = np.vstack([np.eye(4), -np.eye(4)])
    even = Turned.of(np.hstack([cross, np.ones((8, 3))]))  # constant columns add nothing
    assert even.effective_rank == pytest.approx(4.0)
    assert even.top_share == pytest.approx(0.25)
    assert even.n_features == 7
    collapsed = Turned.of(cross * [10, 1, 0, 0] + 1e6)
    assert collapsed.top_share == pytest.approx(100 / 101)
    assert 1.0 < collapsed.effective_rank < 1.1
    nothing = Turned.of(np.full((5, 2), 1e6))
    assert (nothing.effective_rank, nothing.top_share) == (0.0, 1.0)
    assert nothing.widest(3).shape == (5, 1)


# LEEP, NCE, alignment


def test_leep_and_nce_of_an_example_done_by_hand() -> None:
    source = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    labels = np.array([0, 1, 1])
    # P(y=0 | z=0) = .8 / 1.5, P(y=0 | z=1) = .2 / 1.5
    own = [0.8 * 0.8 / 1.5 + 0.2 * 0.2 / 1.5, 0.6 * 0.7 / 1.5 + 0.4 * 1.3 / 1.5, 0.1 * 0.7 / 1.5 + 0.9 * 1.3 / 1.5]
    assert leep(source, labels) == pytest.approx(np.log(own).mean())
    # z = 0, 0, 1: of the two examples with z = 0 one is of each class
    assert nce(source, labels) == pytest.approx(2 * np.log(0.5) / 3)


def test_a_source_that_says_the_class_has_the_greatest_leep_and_one_that_says_nothing_the_entropy() -> None:
    labels = np.array([0, 0, 1, 2])
    sure = np.eye(3)[[2, 2, 0, 1]]  # the names of its classes do not matter
    assert leep(sure, labels) == pytest.approx(0.0)
    assert nce(sure, labels) == pytest.approx(0.0)
    blank = np.full((4, 3), 1 / 3)
    assert leep(blank, labels) == pytest.approx(-class_entropy(labels))
    assert nce(blank, labels) == pytest.approx(-class_entropy(labels))


def test_alignment_matches_each_class_with_the_nearest_of_the_sources() -> None:
    raw, centred = alignment(np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([[0.0, 5.0], [1.0, 0.0], [-1.0, 0.0]]))
    assert raw == pytest.approx(1.0)
    assert centred < 1.0
    shared_mean = np.array([[10.0, 1.0], [10.0, -1.0]])
    raw, centred = alignment(shared_mean, np.array([[10.0, 0.0], [9.0, 0.0]]))
    assert raw > 0.99
    assert abs(centred) < 1e-9  # all that they share is the mean
    assert class_means(np.array([[1.0], [3.0], [8.0]]), np.array([4, 4, 7])).tolist() == [[2.0], [8.0]]


# Probes


def test_folds_hold_each_class_evenly_and_never_more_folds_than_examples() -> None:
    labels = np.repeat([0, 1, 2], [50, 25, 10])
    fold = stratified(labels, np.random.default_rng(0))
    for label, n in ((0, 10), (1, 5), (2, 2)):
        assert np.bincount(fold[labels == label], minlength=5).tolist() == [n] * 5
    assert sorted(stratified(np.array([0, 1, 0]), np.random.default_rng(0))) == [0, 1, 2]
    numbers = np.arange(100.0)
    by_size = stratified(numbers, np.random.default_rng(0))
    assert all(numbers[by_size == k].mean() == pytest.approx(49.5, abs=3) for k in range(5))
    with pytest.raises(ValueError, match="2 examples"):
        stratified(np.array([1]), np.random.default_rng(0))


def test_no_example_is_predicted_from_itself() -> None:
    features, labels = blobs()
    fold = stratified(labels, np.random.default_rng(0))
    before = probabilities_out_of_fold(features, labels, 3, fold)
    assert before.sum(1) == pytest.approx(1.0)
    here = fold == 2
    other = labels.copy()
    other[here] = (other[here] + 1) % 3
    strengths = np.array([1.0])
    one = ridge_out_of_fold(features, np.eye(3)[labels], fold, strengths=strengths)
    two = ridge_out_of_fold(features, np.eye(3)[other], fold, strengths=strengths)
    np.testing.assert_array_equal(one.predictions[here], two.predictions[here])
    assert not np.allclose(one.predictions[~here], two.predictions[~here])


def test_the_cross_fitted_ridge_is_a_loop_over_folds() -> None:
    features, labels = blobs(p=4)
    targets, fold = np.eye(3)[labels], stratified(labels, np.random.default_rng(0))
    found = ridge_out_of_fold(features, targets, fold, strengths=np.array([2.0]))
    for held_out in range(5):
        X, Y = features[fold != held_out], targets[fold != held_out]
        Z = X - X.mean(0)
        hat = np.linalg.solve(Z.T @ Z + 2 * np.eye(4), Z.T)
        here = fold == held_out
        expected = (features[here] - X.mean(0)) @ hat @ (Y - Y.mean(0)) + Y.mean(0)
        np.testing.assert_allclose(found.predictions[here], expected)
    assert found.n_examples == 48
    assert 3 < found.n_parameters < 4


def test_features_that_tell_nothing_overlap_with_nothing() -> None:
    values = np.arange(60) % 3
    noise = np.random.default_rng(3).normal(size=(60, 40))
    found = examine(Case(noise, labelled(values)))
    assert found.overlap is not None
    assert -0.15 < found.overlap < 0.1
    assert found.chance_score == pytest.approx(1 / 3)
    telling = examine(Case(noise + 5 * np.eye(3, 40)[values], labelled(values)))
    assert telling.overlap is not None
    assert telling.overlap > 0.8
    assert telling.probe_score is not None
    assert telling.probe_score > 0.9


# The theory of the linear model: d features, a source that knows one direction, at an angle to the target's


def linear_model(
    n: int, d: int, theta: float, sigma: float, rng: np.random.Generator
) -> tuple[RidgeFit, Floats, float]:
    """Draw a task: the cross-fitted probe, its labels, and the error of least squares from scratch (minimal norm)."""
    x = rng.normal(size=(n, d))
    target = np.zeros(d)
    target[:2] = np.cos(theta), np.sin(theta)
    y = x @ target + sigma * rng.normal(size=n)
    scratch = np.linalg.lstsq(x, y, rcond=None)[0]
    fold = stratified(y, rng)
    fit = ridge_out_of_fold(x[:, :1], y[:, None], fold)
    return fit, y, float(np.square(scratch - target).sum() + sigma**2)


def theory(g: float, theta: float, sigma: float, n: int) -> float:
    """Tell the transferability of a linear probe, T_lt."""
    scratch = ((1 - g) ** 2 + g * sigma**2) / (1 - g) if g < 1 else sigma**2 / (g - 1)
    missed = np.sin(theta) ** 2
    return float(scratch - missed - (sigma**2 + missed) / (n - 2))


@pytest.mark.parametrize("degrees", [22.5, 45.0, 67.5])
@pytest.mark.parametrize("g", [0.25, 0.5, 0.75, 1.5, 2.0])
def test_overlap_and_predicted_gain_are_those_of_the_linear_theory(g: float, degrees: float) -> None:
    d, sigma, theta = 100, 0.2, np.radians(degrees)
    n, rng = int(g * d), np.random.default_rng([int(degrees), int(100 * g)])
    overlaps, gains = [], []
    for _ in range(max(30, 2000 // n)):
        fit, y, scratch = linear_model(n, d, theta, sigma, rng)
        overlaps.append(overlap(fit.error, float(y.var())))
        gains.append(predicted_gain(fit, scratch, 1.0, n))
    expected = theory(g, theta, sigma, n)
    # A probe that has seen m examples pays about 2 / m of what it misses, for its weight and its intercept.
    assert np.mean(overlaps) == pytest.approx(np.cos(theta) ** 2, abs=0.05 + 2 / (0.8 * n))
    assert np.mean(gains) == pytest.approx(expected, abs=0.06)
    if abs(expected) > 0.03:
        assert np.sign(np.mean(gains)) == np.sign(expected)


def test_a_probes_error_falls_with_the_number_of_examples_as_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=20) / np.sqrt(20)
    small, large = [], []
    for _ in range(20):
        x = rng.normal(size=(400, 20))
        y = x @ target + rng.normal(size=400)
        few = np.flatnonzero(np.arange(400) < 75)
        fold = stratified(y[few], rng)
        plain = np.array([1e-6])
        small.append(probe_error(ridge_out_of_fold(x[few], y[few, None], fold, strengths=plain), 320))
        large.append(ridge_out_of_fold(x, y[:, None], stratified(y, rng), strengths=plain).error)
    assert np.mean(small) == pytest.approx(np.mean(large), rel=0.05)


def test_scratch_is_foretold_between_its_error_on_fewer_examples_and_none() -> None:
    features, labels = blobs(n=100, p=30)
    targets, fold = np.eye(3)[labels], stratified(labels, np.random.default_rng(0))
    observed = ridge_out_of_fold(features, targets, fold).error
    assert 0.8 * observed <= scratch_error(features, targets, fold) <= observed
    assert scratch_error(np.ones((9, 2)), np.zeros((9, 1)), np.arange(9) % 3) == 0.0


# All together


def without_notes(found: Assessment) -> dict[str, float | None]:
    return {key: value for key, value in vars(found).items() if key not in ("notes", "tap")}


def same(one: Assessment, other: Assessment) -> None:
    for key, value in without_notes(one).items():
        assert getattr(other, key) == pytest.approx(value, rel=1e-3, abs=1e-4), key


def test_the_order_of_features_does_not_matter() -> None:
    first = case()
    order = np.random.default_rng(2).permutation(8)
    assert first.head is not None
    head = replace(first.head, weights=first.head.weights[:, order])
    same(examine(first), examine(Case(first.features[:, order], first.labels, head, 0.5)))


def test_the_numbering_of_classes_does_not_matter() -> None:
    first = case()
    order = np.array([2, 0, 1])  # class k is now called order[k]
    names = tuple(first.labels.classes[k] for k in np.argsort(order))
    labels = replace(first.labels, values=order[first.labels.values], classes=names)
    same(examine(first), examine(replace(first, labels=labels)))


def test_every_number_is_there_for_classes_and_what_needs_classes_is_not_for_numbers() -> None:
    found = examine(case())
    assert None not in without_notes(found).values()
    features, values = blobs()
    numbers = 100 + 5 * features[:, 0] + values
    labels = Labels(numbers, (), get_metric("r2", "regression"), stratified(numbers, np.random.default_rng(0)))
    assert case().head is not None
    found = examine(Case(features, labels, case().head, 0.5))
    missing = {key for key, value in without_notes(found).items() if value is None}
    assert missing == {"h_score", "leep", "nce", "alignment", "alignment_centred", "zero_shot"}
    assert found.probe_score == pytest.approx(found.overlap)
    assert found.chance_score == pytest.approx(0.0)
    assert found.probe_score is not None
    assert found.probe_score > 0.9


def test_a_source_that_knows_the_names_of_the_classes_is_scored_as_it_stands() -> None:
    labels = labelled(np.array([0, 1, 2, 0]))
    logits = np.array([[0.0, 5, 9, 0], [0, 0, 9, 5], [5, 0, 9, 0], [5, 0, 9, 0]])
    head = Head(logits, np.zeros((4, 2)), ("c", " A", "z", "B"))  # "z" is not asked for
    features = np.arange(8.0).reshape(4, 2)
    assert examine(Case(features, labels, head)).zero_shot == 0.75
    assert examine(Case(features, labels, replace(head, classes=("c", "A", "z", "y")))).zero_shot is None
    assert examine(Case(features, labels, replace(head, classes=()))).zero_shot is None


def test_a_source_of_one_number_is_scored_on_numbers_as_it_stands() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    labels = Labels(values, (), get_metric("r2", "regression"), np.array([0, 1, 0, 1]))
    head = Head(values[:, None] + 0.1, np.ones((1, 2)), ())
    found = examine(Case(np.arange(8.0).reshape(4, 2), labels, head))
    assert found.zero_shot == pytest.approx(1 - 0.04 / 5)
    assert "other units" in found.notes[0]


@pytest.mark.parametrize(
    "features",
    [np.ones((6, 4)), np.zeros((6, 4)), np.full((6, 4), np.nan), np.full((6, 4), 1e200), np.eye(6, 500)],
    ids=["constant", "zero", "not a number", "enormous", "wide"],
)
def test_whatever_the_features_are_a_run_goes_on(features: Floats) -> None:
    found = examine(Case(features, labelled(np.array([0, 1, 2, 0, 1, 1]))))
    assert found.n == 6
    assert all(value is None or isinstance(value, str | tuple) or np.isfinite(value) for value in vars(found).values())


def test_a_diagnostic_that_fails_leaves_a_note() -> None:
    found = examine(replace(case(), features=np.full((60, 8), np.nan)))
    assert found.logme is None
    assert any(note.startswith("no LogME: ") for note in found.notes), found.notes


def test_two_examples_of_two_classes_are_enough() -> None:
    found = examine(Case(np.array([[0.0, 1.0], [2.0, 0.0]]), labelled(np.array([0, 1]), ("a", "b"))))
    assert found.probe_score == 0.0  # each class is unknown where its only example is held out


# Words and order


def test_collapsed_features_and_too_many_of_them_are_said() -> None:
    assert list(cautions(1000, 10, 5.0, 0.3, n_classes=4, overlap=0.5)) == []
    (rank,) = cautions(1000, 10, 2.0, 0.3, n_classes=4, overlap=0.5)
    assert "2.0 directions" in rank
    assert "collapsed" in rank
    (right,) = cautions(1000, 10, 2.0, 0.3, n_classes=4, overlap=0.9)
    assert "takes away 90%" in right
    (top,) = cautions(1000, 10, 5.0, 0.95, n_classes=0, overlap=None)
    assert "95%" in top
    (few,) = cautions(99, 10, 5.0, 0.3, n_classes=4, overlap=None)
    assert "99 train examples for 10 features" in few


def assessed(logme: float | None, overlap: float | None) -> Assessment:
    return Assessment("last", 10, 2, 5.0, logme=logme, overlap=overlap)


def test_the_most_promising_source_comes_first_and_the_unknown_last() -> None:
    found = {"bad": assessed(-1.0, 0.1), "none": assessed(None, None), "good": assessed(0.5, 0.9)}
    assert rank_sources(found) == ["good", "bad", "none"]
    assert rank_sources({"b": assessed(0.1, 0.2), "a": assessed(0.2, 0.1)}) == ["b", "a"]  # a tie: as they were named
    assert rank_sources({}) == []


def test_scratch_comes_first_then_the_best_source_and_its_probe() -> None:
    studies: dict[str, tuple[str, str | None]] = {"scratch": ("scratch", None)}
    for strategy in ("adapters", "fine_tune", "linear_probe", "mine", "residual"):
        studies |= {f"{strategy}@{source}": (strategy, source) for source in ("bad", "good")}
    studies["mixture"] = ("mixture", None)
    order = arrange(studies, {"bad": assessed(-1.0, 0.1), "good": assessed(0.5, 0.9)})
    within = ["linear_probe", "fine_tune", "residual", "adapters", "mine"]
    expected = [f"{strategy}@{source}" for source in ("good", "bad") for strategy in within]
    assert order == ("scratch", *expected, "mixture")


@pytest.mark.slow
def test_the_evidence_can_be_gathered_again() -> None:
    command = [sys.executable, str(EVIDENCE), "--smoke", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found["rows"]) == 6
    assert {"logme", "probe_score", "overlap", "rule"} <= found["table"].keys()
    assert all(-1 <= line["pooled"] <= 1 and line["lost"] >= 0 for line in found["table"].values())


def test_standardised_columns_have_deviation_one_and_constant_ones_are_zero() -> None:
    features = np.column_stack([np.arange(5.0) * 100, np.full(5, 0.1)])
    assert standardised(features).std(0) == pytest.approx([1.0, 0.0])


# Several labels, several numbers


def several(kind: str, n: int = 90) -> Case:
    """Features that know two of three labels, or numbers."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 6))
    scores = np.stack([features[:, 0], features[:, 1] - features[:, 2], 2 * rng.normal(size=n)], 1)
    scores += 0.3 * rng.normal(size=scores.shape)
    fold = stratified(scores, rng)
    weights = rng.normal(size=(4, 6))
    head = Head(features @ weights.T, weights, ("a", "b", "c", "d"))
    if kind == "labels":
        metric = get_metric(None, "multilabel")
        return Case(features, Labels((scores > 0.4).astype(np.float32), ("a", "b", "c"), metric, fold), head, 2.0)
    values = (scores * [1, 10, 100] + 50).astype(np.float32)
    return Case(features, Labels(values, (), get_metric("r2", "regression"), fold), head, 2.0)


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_of_several_labels_or_numbers_everything_is_told_that_has_a_meaning(kind: str) -> None:
    found = examine(several(kind))
    assert not any("no " in note and ":" in note for note in found.notes), found.notes
    assert [found.h_score, found.leep, found.nce, found.alignment, found.zero_shot] == [None] * 5
    assert found.logme is not None
    assert found.predicted_gain is not None
    assert found.overlap == pytest.approx(0.55, abs=0.15)  # one of the three is noise
    metric = several(kind).labels.metric
    assert metric.rank(found.probe_score) > metric.rank(found.chance_score)
    if kind == "numbers":
        assert found.chance_score == pytest.approx(0.0)


def test_probes_of_several_labels_answer_each_example_from_the_others() -> None:
    labels = several("labels").labels
    features = several("labels").probed
    found = probabilities_out_of_fold(features, labels.values, None, labels.fold)
    assert found.shape == labels.values.shape
    right = ((found > 0.5) == (labels.values > 0)).mean(0)
    assert right[:2].min() > 0.8
    assert labels.entropy() == pytest.approx(np.mean([class_entropy(column) for column in labels.values.T]))
