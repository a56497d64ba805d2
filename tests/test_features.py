"""What the features promise: cached, live and composed inputs agree, and nothing before a tap is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoxfer import features as module_under_test
from autoxfer.augmentation import augment
from autoxfer.composed import Reader
from autoxfer.features import Features, resolve
from autoxfer.strategy import Candidate, Raw, Tap
from autoxfer.testing.scenes import Scene, scene
from autoxfer.traindata import TrainTensors


@pytest.fixture
def pictures() -> Scene:
    return scene("image", "classification")


def fresh(tiny: Scene) -> Features:
    old = tiny.features
    stored = {split: old.stored(split) for split in ("train", "tune")}
    return Features(old.preparation, old.sources, stored, old.device)


def test_an_index_and_a_name_of_a_source_are_one_input(pictures: Scene) -> None:
    assert resolve(Tap("last", 0), pictures.problem) == Tap("last", "tiny_image")
    assert resolve(Tap("last", "tiny_image"), pictures.problem) == Tap("last", "tiny_image")
    assert resolve(Raw(), pictures.problem) == Raw()


def test_cached_and_live_inputs_are_the_same(pictures: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (Raw(), Tap("input", "tiny_image"), Tap("last", "tiny_image"))
    rows = torch.tensor([5, 1, 8])
    cached = fresh(pictures).batch(names, "train", rows)
    monkeypatch.setattr(module_under_test, "CACHE_BYTES", 0)  # nothing fits: computed batch by batch
    live = fresh(pictures).batch(names, "train", rows)
    for one, other in zip(cached, live, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_tap_is_computed_once(pictures: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = Reader.forward
    monkeypatch.setattr(Reader, "forward", lambda self, x: calls.append(len(x)) or forward(self, x))
    features = fresh(pictures)
    for _ in range(3):
        features.batch((Tap("last", "tiny_image"),), "train", torch.arange(4))
    assert calls.count(40) == 1  # the whole split; what remains is the look at one example's size
    assert sum(calls) < 50


def test_one_network_answers_as_the_cached_inputs_do(pictures: Scene) -> None:
    torch.manual_seed(0)
    candidate = Candidate(nn.Linear(pictures.problem.source.n_features, 3), (Tap("last"),))
    composed = pictures.features.compose(candidate, pictures.problem)
    stored = pictures.features.stored("tune")
    direct = candidate.module(pictures.features.whole(Tap("last", "tiny_image"), "tune"))
    torch.testing.assert_close(composed(stored), direct, rtol=1e-6, atol=1e-6)


def test_numbers_come_out_in_the_labels_units() -> None:
    tiny = scene("vector", "regression")
    candidate = Candidate(nn.Linear(6, 1), (Raw(),))
    standard = tiny.features.compose(candidate, tiny.problem)
    own = tiny.features.compose(candidate, tiny.problem, center=20.0, spread=5.0)
    stored = tiny.features.stored("tune")
    torch.testing.assert_close(own(stored), 20 + 5 * standard(stored))


def test_what_lies_before_a_tap_is_frozen_and_stays_in_evaluation_mode(pictures: Scene) -> None:
    reader = Reader((Raw(), Tap("last", "tiny_image")), pictures.features.preparation, pictures.features.sources)
    reader.train()
    assert not any(part.training for part in reader.modules())
    assert not any(parameter.requires_grad for parameter in reader.parameters())


def test_a_strategy_sees_the_train_split_alone(pictures: Scene) -> None:
    data = TrainTensors(pictures.features, pictures.problem, pictures.labels)
    assert len(data[Tap("last")]) == len(data.labels) == pictures.problem.n_train


def test_a_shift_moves_every_picture_by_itself_and_repeats_the_edge() -> None:
    images = torch.arange(2 * 1 * 8 * 8, dtype=torch.float32).reshape(2, 1, 8, 8)
    moved = augment(images, "shift", torch.Generator().manual_seed(3))
    for before, after in zip(images, moved, strict=True):
        padded = nn.functional.pad(before[None], (1, 1, 1, 1), mode="replicate")[0]
        candidates = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        assert any(torch.equal(after, candidate) for candidate in candidates)


def test_a_flip_mirrors_about_half() -> None:
    images = torch.zeros(400, 1, 8, 8)
    images[:, :, :, :3] = 1
    mirrored = augment(images, "shift_flip", torch.Generator().manual_seed(0))[:, 0, 4, 7] == 1
    assert 0.4 < mirrored.float().mean() < 0.6


def test_augmentation_follows_its_seed() -> None:
    images = torch.rand(16, 3, 12, 12)
    draws = [augment(images, "shift_flip", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_an_unknown_augmentation_is_named() -> None:
    with pytest.raises(ValueError, match="'blur'"):
        augment(torch.zeros(1, 1, 4, 4), "blur")
