import pytest
import torch
from torch import Tensor, nn

from autoxfer import building, linear
from autoxfer.building import Normalise, Pool
from autoxfer.strategy import Candidate, Tap
from autoxfer.testing.scenes import scene
from autoxfer.traindata import TrainTensors


@pytest.fixture
def features() -> Tensor:
    return torch.randn(30, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0) + 2


def test_standardised_features_have_mean_zero_and_spread_one_and_constant_ones_stay_finite(features: Tensor) -> None:
    features[:, 2] = 4.0
    normalise = Normalise(6, "standardise")
    normalise.fit(features)
    out = normalise(features)
    torch.testing.assert_close(out.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, correction=0), torch.tensor([1.0, 1, 0, 1, 1, 1]), rtol=0, atol=1e-5)


def test_l2_gives_every_example_mean_square_one(features: Tensor) -> None:
    torch.testing.assert_close(Normalise(6, "l2")(features).square().mean(1), torch.ones(30))


def test_principal_components_are_those_of_the_covariance(features: Tensor) -> None:
    normalise = Normalise(6, n_components=2)
    normalise.fit(features)
    out = normalise(features)
    values, vectors = torch.linalg.eigh(torch.cov(features.T, correction=0))
    naive = (features - features.mean(0)) @ vectors[:, [5, 4]]
    torch.testing.assert_close(out.abs(), naive.abs(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(out.var(0, correction=0), values[[5, 4]], rtol=1e-3, atol=1e-3)


def test_more_components_than_examples_allow_are_zero(features: Tensor) -> None:
    normalise = Normalise(6, "standardise", n_components=5)
    normalise.fit(features[:3])
    assert (normalise(features)[:, 2:] == 0).all()
    assert torch.isfinite(normalise(features)).all()


def test_pooling_averages_over_space_or_tokens() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    torch.testing.assert_close(Pool()(x), torch.tensor([[5.5, 17.5]]))
    torch.testing.assert_close(Pool()(x[0]), x[0].mean(1))
    torch.testing.assert_close(Pool()(x[0, 0]), x[0, 0])


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="one of none, standardise, l2; got 'whiten'"):
        Normalise(3, "whiten")


def test_a_feature_that_hardly_varied_does_not_blow_up_when_it_does() -> None:
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 1.0
    features[0, 2] += 1e-5  # almost constant among the train examples
    part = Normalise(3, "standardise")
    part.fit(features)
    assert part(torch.tensor([[0.0, 0.0, 2.0]])).abs().max() < 200  # one spread of the others away, not 100,000


def test_a_head_is_fitted_once_for_the_same_examples_and_again_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fit = linear.fit_head
    monkeypatch.setattr(linear, "fit_head", lambda *a: calls.append(1) or fit(*a))
    tiny = scene("image", "classification")
    data = TrainTensors(tiny.features, tiny.problem, tiny.labels)
    heads = []
    for _ in range(2):
        module = building.with_head(nn.Identity(), tiny.problem.source.n_features, 3)
        building.start_head(Candidate(module, (Tap("last"),)), data)
        heads.append(module.get_submodule("head").weight.detach().clone())  # type: ignore[union-attr, operator]
    assert torch.equal(*heads)
    assert len(calls) <= 1  # none where another test has asked before
    other = TrainTensors(tiny.features, tiny.problem, tiny.labels.flip(0))
    building.start_head(Candidate(module, (Tap("last"),)), other)
    assert len(calls) >= 1
    assert not torch.equal(heads[0], module.get_submodule("head").weight)  # type: ignore[arg-type]


def test_what_a_fitted_head_is_used_for_does_not_change_the_next_one() -> None:
    features, labels = torch.randn(40, 3), torch.arange(40) % 2
    weight, _ = building.fit_head(features, labels, 2)
    kept = weight.clone()
    weight.zero_()
    assert torch.equal(building.fit_head(features, labels, 2)[0], kept)
    assert torch.equal(kept, linear.fit_head(features, labels, 2)[0])


def test_only_so_many_heads_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_HEADS", {})
    monkeypatch.setattr(building, "MOST_HEADS", 2)
    for n in (10, 11, 12):
        building.fit_head(torch.randn(n, 2), torch.randn(n, 1), 1)
    assert len(building._HEADS) == 2
