"""The sources' network: two hidden layers for the columns of a table."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Columns in, one number or one logit for each class out."""

    def __init__(self, n_columns: int, n_outputs: int = 1, width: int = 64) -> None:
        super().__init__()
        self.fc1 = nn.Linear(n_columns, width)
        self.fc2 = nn.Linear(width, width)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_columns) -> (batch, n_outputs)."""
        return self.head(self.fc2(self.fc1(x).relu()).relu())
