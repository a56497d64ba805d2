r"""Distillation: a new network learns the labels and what a teacher, the frozen source, answers.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, https://arxiv.org/abs/1503.02531:

    (1 - weight) * loss(z, y)  +  weight * T^2 * KL(softmax(t / T) || softmax(z / T))       classes
    (1 - weight) * (z - y)^2   +  weight * (z - t)^2                                         numbers

| symbol | meaning                                                              | shape      |
|--------|----------------------------------------------------------------------|------------|
| z, y   | the student's outputs, the labels                                    | (batch, k) |
| t      | the teacher's outputs: the source's own head where its classes map,  | (batch, k) |
|        | or a linear probe on its features, solved on the train split         |            |
| T      | temperature                                                          |            |

Differs from the paper: the probe lets any source teach, with other classes or none; the teacher answers each example as
it stands, also where the student sees it augmented. What is shipped is the student alone. Several labels at once are
answers to yes and no: cross-entropies of sigmoids take the place of KL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import (
    Candidate,
    Fitted,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    Unsupported,
    fit_head,
    hookimpl,
)
from autoxfer_builtins.zero_shot import Restricted, meanings, n_answers


@dataclass(frozen=True)
class Lesson:
    """What the student minimises; called with its outputs, the task's own loss and the rows."""

    task: str
    weight: float
    temperature: float
    head: nn.Module | None  # of the source, restricted to the target's classes; None = a probe teaches
    n_outputs: int
    answers: Tensor | None = None  # (n_train, n_outputs) the teacher's
    weights: Tensor | None = None  # (n_train,) how much each example counts

    def taught(self, data: TrainData) -> Lesson:
        """Let the teacher answer the train split."""
        features = data[Tap("last")]
        if self.head is not None:
            with torch.no_grad():
                return replace(self, answers=self.head.to(features.device)(features), weights=data.weights)
        weight, bias = fit_head(features, data.labels, self.n_outputs, data.weights)
        return replace(self, answers=features @ weight.T + bias, weights=data.weights)

    def __call__(self, outputs: Tensor, loss: Tensor, rows: Tensor) -> Tensor:
        """Mix the task's loss with the distance to the teacher."""
        if self.answers is None:
            return loss
        weights = None if self.weights is None else self.weights[rows]
        return (1 - self.weight) * loss + self.weight * self.distance(outputs, self.answers[rows], weights)

    def distance(self, outputs: Tensor, answers: Tensor, weights: Tensor | None = None) -> Tensor:
        """How far the student is from its teacher, (batch, n_outputs) both; a mean over the batch, by weights."""
        T, counts = self.temperature, 1.0 if weights is None else weights[:, None]
        if self.task == "regression":
            return (counts * functional.mse_loss(outputs, answers, reduction="none")).mean()
        if self.task == "multilabel":
            cross_entropy = functional.binary_cross_entropy_with_logits
            return T**2 * (counts * cross_entropy(outputs / T, (answers / T).sigmoid(), reduction="none")).mean()
        student, teacher = (outputs / T).log_softmax(1), (answers / T).log_softmax(1)
        divergences = functional.kl_div(student, teacher, reduction="none", log_target=True)
        return T**2 * (counts * divergences).sum() / len(outputs)


@final
@dataclass(frozen=True)
class Distill(Strategy):
    """Train ``architecture`` from nothing on the labels and on the answers of the ``teacher``: "probe" or "head"."""

    name: ClassVar[str] = "distill"
    recipe: ClassVar[Recipe | None] = Recipe(augment="shift")
    architecture: str = "compact"
    teacher: str = "probe"
    weight: float = 0.5
    temperature: float = 2.0
    dropout: float = 0.0

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose the student among what scratch trains, the teacher, and how much it says."""
        students = [name for name in ("compact", "compact_wide", problem.source.name) if name in problem.architectures]
        space: dict[str, BaseDistribution] = {
            "architecture": CategoricalDistribution(students),
            "teacher": CategoricalDistribution(["probe", "head"] if _head_teaches(problem) else ["probe"]),
            "weight": FloatDistribution(0.1, 1.0),
            "dropout": FloatDistribution(0.0, 0.5),
        }
        if problem.task != "regression":
            space["temperature"] = FloatDistribution(1.0, 10.0, log=True)
        return space

    def build(self, problem: Problem) -> Candidate:
        """Make the student; the teacher is no part of it."""
        architecture = problem.architectures[self.architecture]
        student = architecture(problem.n_outputs, dropout=self.dropout)
        head = None
        if self.teacher == "head":
            assert problem.source.head is not None
            head = Restricted(problem.source.head, meanings("names", problem))
        lesson = Lesson(problem.task, self.weight, self.temperature, head, problem.n_outputs)
        return Candidate(student, (architecture.input,), objective=lesson)

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Let the teacher answer, then train the student."""
        lesson = candidate.objective
        assert isinstance(lesson, Lesson)
        return trainer.run(replace(candidate, objective=lesson.taught(data)))


def _head_teaches(problem: Problem) -> bool:
    """Whether the source's own head knows the target's classes."""
    try:
        return problem.task != "regression" and n_answers(problem.source) > 0 and bool(meanings("names", problem))
    except Unsupported:
        return False


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer distillation."""
    return [Distill]
