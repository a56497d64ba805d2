"""Softened labels, and steps in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.losses import TaskLoss, autocast
from autoxfer.records import Recipe
from autoxfer.strategy import Candidate, Raw
from autoxfer.testing.scenes import Scene, scene
from autoxfer.training import GradientTrainer


def test_softened_labels_are_mixed_with_the_uniform_distribution() -> None:
    outputs, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    mixed = torch.tensor([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    expected = -(mixed * outputs.log_softmax(1)).sum()
    assert TaskLoss("classification", 0.1)(outputs, labels).item() == pytest.approx(expected.item())
    several = torch.tensor([[1.0, 0.0, 1.0]])
    soft = torch.tensor([[0.95, 0.05, 0.95]])
    expected = functional.binary_cross_entropy_with_logits(outputs, soft)
    assert TaskLoss("multilabel", 0.1)(outputs, several).item() == pytest.approx(expected.item())
    assert TaskLoss("regression", 0.1)(outputs, several) == TaskLoss("regression")(outputs, several)


def test_softening_keeps_a_network_from_being_certain() -> None:
    tiny = scene("vector", "classification")
    sure, soft = (train(tiny, smoothing=smoothing)[1] for smoothing in (0.0, 0.3))
    assert soft.softmax(1).max(1).values.mean() < sure.softmax(1).max(1).values.mean() - 0.05


class Watched(nn.Module):
    """Notes in which precision it computed."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(6, n_outputs)
        self.seen: set[tuple[bool, torch.dtype]] = set()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x)
        self.seen.add((self.training, answer.dtype))
        return answer


def train(tiny: Scene, **settings: object) -> tuple[Watched, Tensor]:
    torch.manual_seed(0)
    module = Watched(tiny.problem.n_outputs)
    recipe = Recipe(lr=0.05, decay=0.0, steps=60, batch=16)
    trainer = GradientTrainer(tiny.features, tiny.problem, tiny.labels, tiny.tune, recipe, seed=3, **settings)  # type: ignore[arg-type]
    trainer.run(Candidate(module, (Raw(),)))
    with torch.no_grad():
        return module, module.eval()(tiny.features.whole(Raw(), "train"))


def test_only_steps_are_in_bfloat16_and_what_is_learned_and_scored_is_not() -> None:
    tiny = scene("vector", "classification")
    module, _ = train(tiny, precision="bfloat16")
    assert module.seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert module.layer.weight.dtype == torch.float32
    plain, _ = train(tiny)
    assert plain.seen == {(True, torch.float32), (False, torch.float32)}


def test_a_cpu_is_asked_for_bfloat16_only_by_name() -> None:
    with autocast(torch.device("cpu"), "auto")():
        assert not torch.is_autocast_enabled("cpu")
    with autocast(torch.device("cpu"), "bfloat16")():
        assert torch.is_autocast_enabled("cpu")
