"""The source's network: three convolutions and two linear layers for 8 x 8 grey pictures."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Digits in, ten logits out."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(64 * 2 * 2, 64)
        self.fc2 = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, classes)."""
        x = self.conv1(x).relu()
        x = self.pool(self.conv2(x).relu())
        x = self.pool(self.conv3(x).relu())
        x = self.fc1(x.flatten(1)).relu()
        return self.fc2(x)
