"""What candidates consume: each input of a split computed once, or live under augmentation, or inside one network.

The three ways share one module, ``Reader``, so that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from autoxfer.augmentation import augment
from autoxfer.limits import Portion
from autoxfer.strategy import Candidate, Input, Problem, Raw, Tap

if TYPE_CHECKING:
    from autoxfer.preparation import Preparation
    from autoxfer.source import Source

BATCH = 256  # examples at a time where nothing is trained
CACHE_BYTES = 2 << 30  # an input larger than this is computed batch by batch instead of kept


def resolve(name: Input, problem: Problem) -> Input:
    """Replace an index into ``problem.sources`` by that source's name, so that an input means one thing in a run."""
    if isinstance(name, Tap) and isinstance(name.source, int):
        return Tap(name.name, problem.sources[name.source].name)
    return name


@final
class Reader(nn.Module):
    """Natural examples -> the tensors of ``inputs``, in order; each source runs once, frozen."""

    def __init__(self, inputs: Sequence[Input], preparation: Preparation, sources: Mapping[str, Source]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        taps = [name for name in inputs if isinstance(name, Tap)]
        # Lists, not dictionaries: a source's name may hold dots, a module's may not.
        self.names = names = sorted({str(tap.source) for tap in taps})
        self.taps = [sorted({tap.name for tap in taps if tap.source == name}) for name in names]
        self.standardise = preparation.standardise if Raw() in self.inputs else nn.Identity()
        self.preprocess = nn.ModuleList(preparation.adapt(sources[name]) for name in names)
        self.extract = nn.ModuleList(
            sources[name].extract(wanted) if wanted != ["input"] else nn.Identity()
            for name, wanted in zip(names, self.taps, strict=True)
        )
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Reader:
        """Stay in evaluation mode: what lies before a tap is frozen."""
        return super().train(False)

    def forward(self, natural: Tensor) -> tuple[Tensor, ...]:
        """(batch, *natural shape) -> one tensor per input."""
        found: dict[Input, Tensor] = {}
        if Raw() in self.inputs:
            found[Raw()] = self.standardise(natural)
        for source, taps, preprocess, extract in zip(self.names, self.taps, self.preprocess, self.extract, strict=True):
            prepared = preprocess(natural)
            activations = (prepared,) if taps == ["input"] else extract(prepared)
            found.update({Tap(tap, source): value for tap, value in zip(taps, activations, strict=True)})
        return tuple(found[name] for name in self.inputs)


@final
class Composed(nn.Module):
    """One network from stored examples to the candidate's answer: what judges, reports and serves.

    Returns logits (batch, classes), or predictions (batch, 1) in the label's own units.
    """

    def __init__(self, unpack: nn.Module, reader: Reader, module: nn.Module, center: float, spread: float) -> None:
        super().__init__()
        self.unpack = unpack
        self.reader = reader
        self.module = module
        self.center = center  # of the target over the train split; 0 and 1 for classification
        self.spread = spread

    def forward(self, stored: Tensor) -> Tensor:
        """(batch, *stored shape) of the stored dtype -> (batch, n_outputs)."""
        answer: Tensor = self.module(*self.reader(self.unpack(stored)))
        return answer if (self.center, self.spread) == (0.0, 1.0) else answer * self.spread + self.center


@final
class Features:
    """Hands out the tensors of any input, on the device, by split and rows."""

    def __init__(
        self,
        preparation: Preparation,
        sources: Mapping[str, Source],
        stored: Mapping[str, Tensor],  # split -> (n, *stored shape)
        device: torch.device,
    ) -> None:
        self.preparation = preparation
        self.sources = sources
        self.device = device
        self._unpack = preparation.unpack.to(device).eval()
        self._stored = {split: tensor.to(device) for split, tensor in stored.items()}
        self._cache: dict[tuple[Input, str], Tensor] = {}
        self._readers: dict[tuple[Input, ...], Reader] = {}
        self._too_large: set[tuple[Input, str]] = set()
        self._portion = Portion(BATCH)

    def whole(self, name: Input, split: str) -> Tensor:
        """Compute one input for a whole split, (n, ...), once; the name must be resolved."""
        key = (name, split)
        if key not in self._cache:
            self._cache[key] = self._compute(name, split)
        return self._cache[key]

    def stored(self, split: str) -> Tensor:
        """Give the examples of a split as they are stored, on the device."""
        return self._stored[split]

    def batch(
        self,
        inputs: tuple[Input, ...],
        split: str,
        rows: Tensor,  # (batch,) int64, on the device
        kind: str = "none",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """Fetch the tensors of ``inputs`` for some rows: from what is kept, or live under augmentation."""
        if kind == "none" and all(self._keeps(name, split) for name in inputs):
            return tuple(self.whole(name, split)[rows] for name in inputs)
        with torch.no_grad():
            natural = augment(self._unpack(self._stored[split][rows]), kind, generator)
            return self._read(self.reader(inputs), natural)

    def reader(self, inputs: tuple[Input, ...]) -> Reader:
        """Make, once, what computes ``inputs`` from natural examples."""
        if inputs not in self._readers:
            self._readers[inputs] = Reader(inputs, self.preparation, self.sources).to(self.device)
        return self._readers[inputs]

    def compose(self, candidate: Candidate, problem: Problem, center: float = 0.0, spread: float = 1.0) -> Composed:
        """Join everything between a stored example and the candidate's answer into one float32 network."""
        inputs = tuple(resolve(name, problem) for name in candidate.inputs)
        reader = Reader(inputs, self.preparation, self.sources)
        composed = Composed(self.preparation.unpack, reader, candidate.module, center, spread)
        return composed.to(self.device).eval()

    def _keeps(self, name: Input, split: str) -> bool:
        key = (name, split)
        if key in self._cache:
            return True
        if key not in self._too_large:
            n = len(self._stored[split])
            rows = torch.arange(min(n, 2), device=self.device)
            with torch.no_grad():
                (sample,) = self.reader((name,))(self._unpack(self._stored[split][rows]))
            if sample[:1].nbytes * n <= CACHE_BYTES:
                return True
            self._too_large.add(key)
        return False

    @torch.no_grad()
    def _compute(self, name: Input, split: str) -> Tensor:
        reader, stored = self.reader((name,)), self._stored[split]
        return self._portion.attempt(
            lambda size: torch.cat([reader(self._unpack(part))[0] for part in torch.split(stored, size)])
        )

    def _read(self, reader: Reader, natural: Tensor) -> tuple[Tensor, ...]:
        """Compute a batch's inputs, in parts where memory is short."""

        def work(size: int) -> tuple[Tensor, ...]:
            parts = [reader(part) for part in torch.split(natural, size)]
            return parts[0] if len(parts) == 1 else tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))

        return self._portion.attempt(work)


@final
class TrainTensors:
    """The train split as a strategy sees it (strategy.TrainData)."""

    def __init__(self, features: Features, problem: Problem, labels: Tensor) -> None:
        self._features = features
        self._problem = problem
        self._labels = labels

    def __getitem__(self, name: Input) -> Tensor:
        return self._features.whole(resolve(name, self._problem), "train")

    @property
    def labels(self) -> Tensor:
        """(n_train,) int64 classes, or (n_train, 1) float32 standardised by the train split."""
        return self._labels
