"""The points inside a source where its activations can be read, and the frozen network that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from autoxfer.heads import Pool


@dataclass(frozen=True)
class TapInfo:
    """A point of the chain where activations can be read and the network can be cut."""

    name: str  # "input", module paths such as "layer1.0", and "last" for the pooled features
    shape: tuple[int, ...]  # without the batch
    inherited: float  # share of the backbone's parameters that lie before this tap: 0 at "input", 1 at "last"
    masked: bool = False  # (tokens, width + 1): the last channel is 1 where a token is, 0 where the text has ended
    stage: bool = True  # whether a stage ends here; every block does where a network has no stages
    pooling: tuple[str, int] = ("mean", 0)  # how the network's head pools tokens, how many at the start it leaves out

    @property
    def width(self) -> int:
        """Channels of a map, or the last dimension; a mask does not count."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1] - self.masked

    def pool(self, *, own: bool = True) -> Pool:
        """Make what turns the activation into features: maps averaged, tokens as the network's own head pools them.

        Where ``own`` is false, tokens are averaged, all of them.
        """
        kind, skipped = self.pooling if own else ("mean", 0)
        return Pool(kind, skipped=skipped, masked=self.masked)


class Extractor(nn.Module):
    """The frozen front of a source; stays in evaluation mode."""

    def __init__(self, segments: Sequence[nn.Module], positions: Sequence[int]) -> None:
        super().__init__()
        self.segments = nn.ModuleList(segments)
        self.positions = tuple(positions)
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> Extractor:
        """Stay in evaluation mode, whatever the surrounding module does."""
        return super().train(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Network input -> the activations at the taps, in the order in which they were asked for."""
        values = [x]
        for segment in self.segments:
            values.append(segment(values[-1]))
        return tuple(values[position] for position in self.positions)
