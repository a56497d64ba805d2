"""Augmentation of images, per batch on the device; drawn anew at every step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

KINDS = ("none", "shift", "shift_flip")


def augment(images: Tensor, kind: str, generator: torch.Generator | None = None) -> Tensor:
    """Move each image (batch, channels, height, width) by up to an eighth of its side; mirror half of them.

    "shift" moves, "shift_flip" also mirrors left to right. Edges are repeated. ``generator`` lives on the CPU, so that
    a seed means the same on every device. Raises ValueError for a kind that is not known.
    """
    if kind == "none":
        return images
    if kind not in KINDS:
        raise ValueError(f"augment must be one of {', '.join(KINDS)}; got {kind!r}")
    n, _, height, width = images.shape
    moved = _shift(images, max(1, height // 8), max(1, width // 8), generator)
    if kind == "shift":
        return moved
    mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def _shift(images: Tensor, reach_y: int, reach_x: int, generator: torch.Generator | None) -> Tensor:
    n, channels, height, width = images.shape
    device = images.device
    down = torch.randint(0, 2 * reach_y + 1, (n, 1), generator=generator).to(device)
    right = torch.randint(0, 2 * reach_x + 1, (n, 1), generator=generator).to(device)
    padded = functional.pad(images, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    rows = down + torch.arange(height, device=device)  # (n, height)
    columns = right + torch.arange(width, device=device)  # (n, width)
    every = torch.arange(n, device=device)[:, None, None, None]
    each = torch.arange(channels, device=device)[None, :, None, None]
    return padded[every, each, rows[:, None, :, None], columns[:, None, None, :]]
