import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from autoxfer.axes import principal_axes, weighted_mean
from autoxfer.linear import (
    _folds,
    fit_head,
    kind_of,
    linear_path,
    ridge_path,
    sigmoid_path,
    softmax_path,
    strength_grid,
)


def _regression(n: int, p: int, q: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, p, generator=generator) * torch.linspace(0.1, 3, p) + 5
    W = torch.randn(p, q, generator=generator)
    return X, X @ W + torch.randn(n, q, generator=generator)


def _classes(n: int, p: int, n_classes: int) -> tuple[Tensor, Tensor]:
    X, scores = _regression(n, p, n_classes)
    return X, (scores - scores.mean(0)).argmax(1)


def _naive_ridge(features: Tensor, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    X, Y = features, targets
    mean, level = X.mean(0), Y.mean(0)
    W = torch.linalg.solve((X - mean).T @ (X - mean) + strength * torch.eye(X.shape[1]), (X - mean).T @ (Y - level))
    return W, level - mean @ W


@pytest.mark.parametrize("p", [3, 40])  # fewer features than examples, and more
def test_the_ridge_path_solves_the_normal_equations_at_every_strength(p: int) -> None:
    X, Y = (tensor.double() for tensor in _regression(20, p))
    strengths = torch.tensor([0.1, 10.0, 1000.0])
    weights, biases, _ = ridge_path(X, Y, strengths)
    for i, strength in enumerate(strengths.tolist()):
        W, b = _naive_ridge(X, Y, strength)
        torch.testing.assert_close(weights[i], W)
        torch.testing.assert_close(biases[i], b)


@pytest.mark.parametrize("p", [3, 40])
def test_leave_one_out_errors_are_those_of_leaving_each_example_out(p: int) -> None:
    X, Y = (tensor.double() for tensor in _regression(20, p))
    strengths = torch.tensor([0.1, 100.0])
    _, _, errors = ridge_path(X, Y, strengths)
    for i, strength in enumerate(strengths.tolist()):
        squares = []
        for row in range(20):
            rest = torch.arange(20) != row
            W, b = _naive_ridge(X[rest], Y[rest], strength)
            squares.append((Y[row] - X[row] @ W - b).square().mean())
        torch.testing.assert_close(errors[i], torch.stack(squares).mean())


@pytest.mark.parametrize(("n", "p"), [(60, 5), (30, 50)])
def test_the_softmax_path_agrees_with_scikit_learn(n: int, p: int) -> None:
    X, y = _classes(n, p, 3)
    strengths = torch.tensor([1.0, 0.1, 100.0])  # in any order
    weights, biases = softmax_path(X.double(), y, 3, strengths, tolerance=1e-15)
    for i, strength in enumerate(strengths.tolist()):
        naive = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=10_000).fit(X.double().numpy(), y.numpy())
        np.testing.assert_allclose(weights[i].T.numpy(), naive.coef_, atol=1e-4)
        ours = biases[i].numpy() - biases[i].numpy().mean()  # a constant added to every bias changes nothing
        np.testing.assert_allclose(ours, naive.intercept_ - naive.intercept_.mean(), atol=1e-3)


def test_at_the_softmax_solution_the_gradient_is_zero_even_where_classes_are_separable() -> None:
    X, y = _classes(40, 60, 4)
    strengths = strength_grid(X, 8)
    weights, biases = softmax_path(X.double(), y, 4, strengths, tolerance=1e-14)
    weights, biases = weights.requires_grad_(), biases.requires_grad_()
    for W, b, strength in zip(weights, biases, strengths, strict=True):
        loss = (
            torch.nn.functional.cross_entropy(X.double() @ W + b, y, reduction="sum") + strength / 2 * W.square().sum()
        )
        loss.backward()
    assert weights.grad is not None
    assert biases.grad is not None
    assert weights.grad.abs().max() < 1e-3
    assert biases.grad.abs().max() < 1e-3


def test_single_precision_gives_the_same_probabilities() -> None:
    X, y = _classes(200, 10, 3)
    strengths = strength_grid(X, 5)
    single, exact = softmax_path(X, y, 3, strengths), softmax_path(X.double(), y, 3, strengths, tolerance=1e-12)
    for (W, b), (W_exact, b_exact) in zip(zip(*single, strict=True), zip(*exact, strict=True), strict=True):
        difference = (X.double() @ W + b).softmax(1) - (X.double() @ W_exact + b_exact).softmax(1)
        assert difference.abs().max() < 0.01


def test_the_head_for_classes_is_regularised_where_features_are_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(60) % 3
    informative = torch.nn.functional.one_hot(y, 3) + 0.3 * torch.randn(60, 3, generator=generator)
    noise = torch.randn(60, 50, generator=generator)
    weight, bias = fit_head(noise, y, 3)
    assert (weight.shape, bias.shape) == ((3, 50), (3,))
    assert (noise @ weight.T + bias).softmax(1).amax(1).mean() < 0.55
    weight, bias = fit_head(informative, y, 3)
    assert ((informative @ weight.T + bias).argmax(1) == y).float().mean() > 0.95


def test_the_head_for_numbers_has_the_least_leave_one_out_error() -> None:
    X, Y = _regression(50, 30, 1)
    weight, bias = fit_head(X, Y, 1)
    strengths = strength_grid(X, 13)
    weights, biases, errors = ridge_path(X, Y, strengths)
    torch.testing.assert_close(weight, weights[errors.argmin()].T.float())
    torch.testing.assert_close(bias, biases[errors.argmin()].float())


def test_constant_features_and_a_class_that_never_occurs_do_no_harm() -> None:
    X = torch.cat([torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.ones(12, 3)], 1)
    weights, biases = softmax_path(X, torch.arange(12) % 2, 3, strength_grid(X, 4))
    assert torch.isfinite(torch.cat([weights.flatten(), biases.flatten()])).all()
    assert (weights[:, 2:].abs() < 1e-6).all()
    weight, bias = fit_head(torch.ones(12, 3), torch.arange(12) % 2, 2)
    assert torch.isfinite(torch.cat([weight.flatten(), bias])).all()


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1; got 0 to 2"):
        softmax_path(torch.randn(3, 2), torch.arange(3), 2, torch.ones(1))


def _labels(n: int, p: int, q: int) -> tuple[Tensor, Tensor]:
    X, scores = _regression(n, p, q)
    return X, (scores > scores.mean(0) + torch.linspace(0, 3, q)).float()


@pytest.mark.parametrize(("n", "p"), [(60, 5), (30, 50)])
def test_several_labels_get_scikit_learns_logistic_regression_each(n: int, p: int) -> None:
    X, Y = _labels(n, p, 3)
    strengths = torch.tensor([1.0, 0.1, 100.0])
    weights, biases = sigmoid_path(X.double(), Y, strengths, tolerance=1e-15)
    for i, strength in enumerate(strengths.tolist()):
        for label in range(3):
            naive = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=10_000)
            naive.fit(X.double().numpy(), Y[:, label].numpy())
            np.testing.assert_allclose(weights[i, :, label].numpy(), naive.coef_[0], atol=1e-4)
            np.testing.assert_allclose(biases[i, label].numpy(), naive.intercept_[0], atol=1e-3)


def test_labels_tell_what_is_asked_for() -> None:
    y, Y = _classes(40, 4, 3)[1], _labels(40, 4, 3)[1]
    numbers = (Y - Y.mean(0)) / Y.std(0)
    assert [kind_of(each) for each in (y, Y, Y.long(), numbers, numbers[:, :1])] == [
        "softmax", "sigmoid", "sigmoid", "ridge", "ridge"
    ]  # fmt: skip
    constant = torch.zeros(40, 1)  # a target that does not vary in train, standardised
    assert kind_of(constant) == "ridge"


def test_the_head_for_several_labels_is_regularised_where_features_are_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    X, Y = torch.randn(60, 30, generator=generator), (torch.rand(60, 2, generator=generator) < 0.4).float()
    weight, bias = fit_head(X, Y, 2)
    assert weight.shape == (2, 30)
    assert weight.abs().max() < 0.1
    torch.testing.assert_close(bias.sigmoid(), Y.mean(0), atol=0.05, rtol=0)


def test_a_label_that_the_examples_never_have_does_no_harm() -> None:
    X, Y = _labels(40, 5, 3)
    Y[:, 1] = 0
    weight, bias = fit_head(X, Y, 3)
    assert torch.isfinite(weight).all()
    assert bias[1] + (X @ weight[1]).max() < -2


def test_labels_without_a_column_for_each_output_are_refused() -> None:
    X, Y = _labels(20, 4, 3)
    with pytest.raises(ValueError, match=r"labels need shape \(n, 2\); got \(20, 3\)"):
        fit_head(X, Y, 2)


SHAPES = pytest.mark.parametrize(("n", "p"), [(60, 5), (30, 50)])  # fewer features than examples, and more
STRENGTHS = torch.tensor([1.0, 0.1, 100.0])


def _weighted(n: int) -> Tensor:
    """Weights of no plain pattern, some of them 0."""
    weights = torch.rand(n, generator=torch.Generator().manual_seed(3)) * 4
    weights[::5] = 0
    return weights


def _problems(n: int, p: int) -> dict[str, tuple[Tensor, Tensor]]:
    return {"ridge": _regression(n, p, 3), "softmax": _classes(n, p, 3), "sigmoid": _labels(n, p, 3)}


def _path(kind: str, x: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    if kind == "ridge":
        return ridge_path(x.double(), labels, STRENGTHS, weights)[:2]
    if kind == "softmax":
        return softmax_path(x.double(), labels, 3, STRENGTHS, weights, tolerance=1e-14)
    return sigmoid_path(x.double(), labels, STRENGTHS, weights, tolerance=1e-14)


@SHAPES
def test_weighted_axes_are_those_of_the_weighted_covariance(n: int, p: int) -> None:
    X, weights = _regression(n, p)[0].double(), _weighted(n).double()
    turned = principal_axes(X, weights)
    torch.testing.assert_close(turned.mean, (weights[:, None] * X).sum(0) / weights.sum())
    Z = turned.coordinates
    torch.testing.assert_close(Z.T @ (weights[:, None] * Z), turned.curvature.diag(), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(turned.axes.T @ turned.axes, torch.eye(len(turned.curvature)).double())
    kept = (X - turned.mean)[weights > 0]
    torch.testing.assert_close(kept @ turned.axes @ turned.axes.T, kept, atol=1e-6, rtol=1e-6)


@SHAPES
def test_weighted_ridge_regression_is_scikit_learns(n: int, p: int) -> None:
    X, Y = (tensor.double() for tensor in _regression(n, p))
    weights = _weighted(n)
    found, biases, _ = ridge_path(X, Y, STRENGTHS, weights)
    for i, strength in enumerate(STRENGTHS.tolist()):
        naive = Ridge(alpha=strength).fit(X.numpy(), Y.numpy(), weights.double().numpy())
        np.testing.assert_allclose(found[i].T.numpy(), naive.coef_, atol=1e-8)
        np.testing.assert_allclose(biases[i].numpy(), naive.intercept_, atol=1e-7)


@SHAPES
def test_weighted_logistic_regressions_are_scikit_learns(n: int, p: int) -> None:
    weights = _weighted(n)
    (X, y), (_, Y) = _classes(n, p, 3), _labels(n, p, 3)
    found, biases = _path("softmax", X, y, weights)
    apart, levels = _path("sigmoid", X, Y, weights)
    for i, strength in enumerate(STRENGTHS.tolist()):
        naive = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=10_000)
        naive.fit(X.double().numpy(), y.numpy(), weights.double().numpy())
        np.testing.assert_allclose(found[i].T.numpy(), naive.coef_, atol=2e-4)
        ours = biases[i].numpy() - biases[i].numpy().mean()
        np.testing.assert_allclose(ours, naive.intercept_ - naive.intercept_.mean(), atol=2e-3)
        for label in range(3):
            naive.fit(X.double().numpy(), Y[:, label].numpy(), weights.double().numpy())
            np.testing.assert_allclose(apart[i, :, label].numpy(), naive.coef_[0], atol=2e-4)
            np.testing.assert_allclose(levels[i, label].numpy(), naive.intercept_[0], atol=2e-3)


@SHAPES
@pytest.mark.parametrize("kind", ["ridge", "softmax", "sigmoid"])
def test_an_example_of_weight_three_is_three_examples_and_one_of_none_is_none(kind: str, n: int, p: int) -> None:
    X, labels = _problems(n, p)[kind]
    weights = torch.arange(n) % 4
    repeated = torch.arange(n).repeat_interleave(weights)
    heavy, many = _path(kind, X, labels, weights), _path(kind, X[repeated], labels[repeated], None)
    for ours, theirs in zip(heavy, many, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(strength_grid(X, 3, weights), strength_grid(X[repeated], 3))
    torch.testing.assert_close(weighted_mean(X, weights), X[repeated].mean(0))


@pytest.mark.parametrize("kind", ["ridge", "softmax", "sigmoid"])
def test_ones_for_weights_change_nothing(kind: str) -> None:
    X, labels = _problems(60, 5)[kind]
    for ours, theirs in zip(_path(kind, X, labels, torch.ones(60)), _path(kind, X, labels, None), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    weighted, plain = fit_head(X, labels, 3, torch.ones(60)), fit_head(X, labels, 3)
    torch.testing.assert_close(weighted[0], plain[0], atol=1e-3, rtol=1e-3)


@SHAPES
def test_weighted_leave_one_out_errors_are_those_of_leaving_each_example_out(n: int, p: int) -> None:
    X, Y = (tensor[:20].double() for tensor in _regression(n, p))
    weights = _weighted(20)
    _, _, errors = ridge_path(X, Y, STRENGTHS, weights)
    for i, strength in enumerate(STRENGTHS.tolist()):
        squares = []
        for row in range(20):
            rest = np.arange(20) != row
            naive = Ridge(alpha=strength).fit(X[rest].numpy(), Y[rest].numpy(), weights[rest].double().numpy())
            squares.append(np.square(Y[row].numpy() - naive.predict(X[row : row + 1].numpy())[0]).mean())
        assert float(errors[i]) == pytest.approx(np.average(squares, weights=weights.numpy()), rel=1e-6)


@pytest.mark.parametrize("light", [0.0, 1e-6])
@pytest.mark.parametrize("kind", ["ridge", "softmax", "sigmoid"])
def test_a_head_learns_from_what_counts(kind: str, light: float) -> None:
    """Every other example tells the contrary and counts next to nothing; the strength is not chosen by them either."""
    X, labels = _problems(200, 6)[kind]
    bad = torch.arange(200) % 2 == 0
    spoilt = labels.clone()
    spoilt[bad] = {"ridge": -labels, "softmax": (labels + 1) % 3, "sigmoid": 1 - labels}[kind][bad]
    weights = torch.where(bad, light, 1.0)
    honest = fit_head(X[~bad], labels[~bad], 3)
    found, misled = fit_head(X, spoilt, 3, weights), fit_head(X, spoilt, 3)
    answers = [X @ weight.T + bias for weight, bias in (honest, found, misled)]
    off = [(answer - answers[0]).abs().mean() / answers[0].std() for answer in answers]
    assert off[1] < 0.1
    assert off[2] > 0.3
    (_, weight, bias), *_ = reversed(list(linear_path(X, spoilt, 3, weights=weights)))
    (_, clean, level), *_ = reversed(list(linear_path(X[~bad], labels[~bad], 3)))
    assert (X @ weight.T + bias - X @ clean.T - level).abs().mean() < 0.1 * (X @ clean.T).std()


@pytest.mark.parametrize("kind", ["ridge", "softmax", "sigmoid"])
def test_a_head_is_that_of_the_examples_that_count_alone(kind: str) -> None:
    """Its strength too: the others neither fill the folds nor make them so large that one of them would do."""
    _, labels = _problems(1600, 20)[kind]
    kept = torch.arange(1600) % 40 == 0
    noise = torch.randn(1600, 20, generator=torch.Generator().manual_seed(5))
    found, alone = (
        fit_head(noise, labels, 3, 40.0 * kept),
        fit_head(noise[kept], labels[kept], 3, torch.full((40,), 40.0)),
    )
    torch.testing.assert_close(found[0], alone[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found[1], alone[1], atol=1e-3, rtol=1e-3)


def test_folds_hold_as_much_of_the_heavy_and_of_the_light_examples() -> None:
    labels, weights = torch.arange(64) // 32, torch.where(torch.arange(64) % 4 == 0, 5.0, 0.1)
    fold = _folds(labels, weights)
    shares = torch.zeros(2, 4).index_put((labels, fold), weights, accumulate=True)
    torch.testing.assert_close(shares, shares.mean(1, keepdim=True).expand(2, 4))
