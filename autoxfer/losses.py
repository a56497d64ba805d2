"""What a step of the gradient makes smaller, and in which precision it is computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from autoxfer.records import Task

Precision = Literal["auto", "float32", "bfloat16"]


@final
@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy, binary cross-entropy or squared error, averaged over a batch.

    ``smoothing`` mixes the labels with the uniform distribution over classes, or with one half for each of several
    labels (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, https://arxiv.org/abs/1512.00567).
    """

    task: Task
    smoothing: float = 0.0  # share of the uniform distribution, from 0 to below 1; of no meaning for numbers

    def __call__(self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """(batch, n_outputs), labels (batch,) int64 or (batch, n_outputs) float32 -> scalar.

        With weights (batch,), of mean 1 over all examples, each example's loss counts that much.
        """
        if weights is not None:
            return (weights * self._each(outputs, labels)).mean()
        if self.task == "classification":
            return functional.cross_entropy(outputs, labels, label_smoothing=self.smoothing)
        if self.task == "multilabel":
            soft = labels * (1.0 - self.smoothing) + 0.5 * self.smoothing if self.smoothing else labels
            return functional.binary_cross_entropy_with_logits(outputs, soft)
        return functional.mse_loss(outputs, labels)

    def _each(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Compute every example's loss by itself, (batch,), as a batch of one."""
        if self.task == "classification":
            return functional.cross_entropy(outputs, labels, label_smoothing=self.smoothing, reduction="none")
        if self.task == "multilabel":
            soft = labels * (1.0 - self.smoothing) + 0.5 * self.smoothing
            return functional.binary_cross_entropy_with_logits(outputs, soft, reduction="none").mean(1)
        return functional.mse_loss(outputs, labels, reduction="none").mean(1)


def autocast(device: torch.device, precision: Precision) -> Callable[[], AbstractContextManager[object]]:
    """Make the context of a training step's forward pass: bfloat16 where it is asked for, or where a GPU knows it.

    Parameters, the loss and whatever is scored, judged or shipped stay in float32.
    """
    knows = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "float32" or (precision == "auto" and not knows):
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)
