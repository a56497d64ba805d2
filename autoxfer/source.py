"""The contract of a source: a pretrained backbone as a chain of segments, its preprocessing, its fingerprint. Provisional in 0.1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from autoxfer.records import SourceSpec
from autoxfer.strategy import Architecture


@dataclass(frozen=True)
class TapInfo:
    """A point of the chain where activations can be read and the network can be cut."""

    name: str  # "input", module paths such as "layer1.0", and "last" for the pooled features
    shape: tuple[int, ...]  # without the batch
    inherited: float  # share of the backbone's parameters that lie before this tap: 0 at "input", 1 at "last"


class Source:
    """A pretrained backbone. Never changed by a run: what is handed out are copies."""

    name: str
    fingerprint: str  # of weights, architecture and preprocessing
    input_shape: tuple[int, ...]  # (channels, height, width) or (width,): what the network reads
    n_features: int  # width of "last"
    n_parameters: int  # of the backbone, the head left out
    taps: tuple[TapInfo, ...]  # in order, from "input" to "last"
    classes: tuple[str, ...]  # of the source's own head; empty where unknown
    head: nn.Module | None  # the source's own head
    card: Mapping[str, Any]  # what was recorded: model, weights, input shape, mean, std, resizing

    def tap(self, name: str) -> TapInfo: ...

    def preprocess(self, shape: Sequence[int]) -> nn.Module:
        """Make what turns natural examples of ``shape`` (pixels in [0, 1], or table values) into the network's input."""

    def extract(self, taps: Sequence[str]) -> nn.Module:
        """Make a frozen module in evaluation mode: network input -> tuple of the activations at ``taps``, in one pass."""

    def suffix(
        self, tap: str = "input", insert: Mapping[str, Callable[[int], nn.Module]] | None = None
    ) -> nn.Sequential:
        """Copy what follows ``tap``, up to the features: activation there -> (batch, n_features), pretrained, trainable.

        A child of the returned sequence is called as the tap at its end, dots replaced by underscores.
        """

    def fresh(self, tap: str = "input") -> nn.Sequential:
        """As ``suffix``, newly initialised under torch's current random state."""

    @property
    def architecture(self) -> Architecture:
        """This network to be trained from scratch."""


class SourceLoader(ABC):
    """Loads sources of one scheme; offered by the hook ``autoxfer_sources``."""

    name: ClassVar[str]

    @abstractmethod
    def loads(self, spec: SourceSpec) -> bool:
        """Whether this loader is the one for ``spec.model``."""

    @abstractmethod
    def load(self, spec: SourceSpec) -> Source:
        """Load it, safely. Raises InputError: no such factory, weights that do not fit, a file that wants to run code."""
