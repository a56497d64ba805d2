"""What candidates consume: each input of a split computed once, or live under augmentation, or inside one network.

The three ways share one module, ``composed.Reader``, so that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor, nn

from autoxfer import activations
from autoxfer.activations import Store
from autoxfer.augmentation import augment
from autoxfer.composed import Composed, Reader
from autoxfer.layout import channels_last
from autoxfer.limits import Portion
from autoxfer.mapped import most_bytes
from autoxfer.scoring import Scale
from autoxfer.strategy import Candidate, Input, Problem, Tap
from autoxfer.streaming import OnDisk, Stored, batches

if TYPE_CHECKING:
    from autoxfer.preparation import Preparation
    from autoxfer.source import Source

BATCH = 256  # examples at a time where nothing is trained; on a CPU
BATCH_CPU = 64  # is faster by a quarter: its caches hold the maps
CACHE_BYTES = 2 << 30  # an input larger than this is mapped from disk, or computed batch by batch
COPIES = 8  # of an input that solving for it may make, some in float64
FEWEST = 100  # examples that are solved for, however small the memory
STORED_BYTES = 1 << 18  # an activation smaller than this is not worth a file


def at_once(device: torch.device) -> int:
    """Say how many examples are computed at a time where nothing is trained."""
    return BATCH_CPU if device.type == "cpu" else BATCH


def resolve(name: Input, problem: Problem) -> Input:
    """Replace an index into ``problem.sources`` by that source's name, so that an input means one thing in a run."""
    if isinstance(name, Tap) and isinstance(name.source, int):
        return Tap(name.name, problem.sources[name.source].name)
    return name


@final
class Features:
    """Hands out the tensors of any input, by split and rows: computed once, kept in memory or on disk, or live."""

    def __init__(
        self,
        preparation: Preparation,
        sources: Mapping[str, Source],
        stored: Mapping[str, Stored],  # split -> (n, *stored shape)
        device: torch.device,
        store: Store | None = None,  # of activations, shared with other runs
    ) -> None:
        self.preparation = preparation
        self.sources = sources
        self.device = device
        self._unpack = preparation.unpack.to(device).eval()
        self._stored: dict[str, Stored] = {split: examples.to(device) for split, examples in stored.items()}
        # Where the examples are too many for the memory, what is made of them is held to the same bound.
        on_disk = any(isinstance(examples, OnDisk) for examples in stored.values())
        self._most = min(CACHE_BYTES, most_bytes()) if on_disk else CACHE_BYTES
        self._store = store
        self._cache: dict[tuple[Input, str], Tensor] = {}
        self._readers: dict[tuple[Input, ...], Reader] = {}
        self._live: set[tuple[Input, str]] = set()  # too large to be kept anywhere
        self._prints: dict[str, str] = {}  # of each split's examples
        self._portion = Portion(at_once(device))

    def whole(self, name: Input, split: str) -> Tensor:
        """Compute one input for a whole split, (n, ...) on the device, once; the name must be resolved."""
        return self._kept(name, split, at_any_size=True).to(self.device)

    def some(self, name: Input, split: str, rows: Tensor) -> Tensor:
        """Look up or compute one input for a few rows of a split, on the device; nothing new is kept."""
        if (name, split) in self._cache:
            kept = self._cache[name, split]
            return kept[rows.to(kept.device)].to(self.device)
        with torch.no_grad():
            return self._read(self.reader((name,)), self._unpack(self._stored[split][rows.to(self.device)]))[0]

    def sampled(self, names: Sequence[Input], split: str, labels: Tensor) -> Tensor | None:
        """Choose rows whose inputs memory bears, with every class among them; None where that is all of them."""
        if not isinstance(self._stored[split], OnDisk):
            return None
        row_bytes = sum(self._sample(name, split)[:1].nbytes for name in names)
        n = max(FEWEST, int(most_bytes() / COPIES / row_bytes))
        if n >= len(labels):
            return None
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = order[:n]
        if labels.dim() == 1 and not labels.is_floating_point():
            first = np.unique(labels.cpu()[order].numpy(), return_index=True)[1]
            chosen = torch.cat([order[torch.from_numpy(first)], chosen])
        return torch.from_numpy(np.unique(chosen.numpy()))

    def stored(self, split: str) -> Stored:
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
        live = tuple(name for name in inputs if kind != "none" or not self._keeps(name, split))
        found = {name: self._look_up(name, split, rows) for name in inputs if name not in live}
        if live:
            with torch.no_grad():
                natural = augment(self._unpack(self._stored[split][rows]), kind, generator)
                found |= zip(live, self._read(self.reader(live), natural), strict=True)
        return tuple(found[name] for name in inputs)

    def reader(self, inputs: tuple[Input, ...]) -> Reader:
        """Make, once, what computes ``inputs`` from natural examples."""
        if inputs not in self._readers:
            self._readers[inputs] = Reader(inputs, self.preparation, self.sources).to(self.device)
        return self._readers[inputs]

    def compose(self, candidate: Candidate, problem: Problem, center: Scale = 0.0, spread: Scale = 1.0) -> Composed:
        """Join everything between a stored example and the candidate's answer into one float32 network."""
        inputs = tuple(resolve(name, problem) for name in candidate.inputs)
        reader = Reader(inputs, self.preparation, self.sources)
        composed = Composed(self.preparation.unpack, reader, candidate.module, center, spread)
        return composed.to(self.device).eval()

    def _look_up(self, name: Input, split: str, rows: Tensor) -> Tensor:
        """Take some rows of what is kept, laid out as the network that goes on with it computes fastest."""
        whole = self._kept(name, split)
        tensor = whole[rows.to(whole.device)].to(self.device)
        takes = isinstance(name, Tap) and self.sources[str(name.source)].channels_last
        return channels_last(tensor) if takes else tensor

    def _keeps(self, name: Input, split: str) -> bool:
        """Whether an input of a split is kept, in memory or on disk."""
        key = (name, split)
        if key not in self._cache and key not in self._live:
            try:
                self._kept(name, split)
            except _TooLargeError:
                self._live.add(key)
        return key not in self._live

    def _kept(self, name: Input, split: str, *, at_any_size: bool = False) -> Tensor:
        """Find an input where it is kept, or compute it and keep it; on the CPU where it is mapped from disk.

        Raises _TooLargeError where neither memory nor the store takes it.
        """
        key = (name, split)
        if key not in self._cache:
            sample = self._sample(name, split)
            n_bytes = sample[:1].nbytes * len(self._stored[split])
            held = self._from_store(name, split, sample, n_bytes)
            if held is None and n_bytes > self._most and not at_any_size:
                raise _TooLargeError
            if held is None:
                held = torch.cat(list(self._parts(name, split))).contiguous()  # as the store hands it out
            self._cache[key] = held if held.nbytes > self._most else held.to(self.device)
        return self._cache[key]

    def _from_store(self, name: Input, split: str, sample: Tensor, n_bytes: int) -> Tensor | None:
        """Map an activation from disk, computed first where it is not there; None for what is not worth a file."""
        if self._store is None or not isinstance(name, Tap) or name.name == "input" or n_bytes < STORED_BYTES:
            return None
        key = self._key(name, split)
        found = self._store.read(key)
        # A fingerprint knows weights and structure, not what a module's code does: two examples say whether it changed.
        if found is not None and _agree(found, sample, len(self._stored[split])):
            return found
        shape = (len(self._stored[split]), *sample.shape[1:])
        return self._store.write(key, self._parts(name, split), shape, sample.dtype)

    def _key(self, name: Tap, split: str) -> str:
        if split not in self._prints:
            self._prints[split] = activations.content(self._stored[split])
        source = self.sources[str(name.source)]
        before = activations.module_content(nn.ModuleList([self._unpack, self.preparation.adapt(source)]))
        layout = source.channels_last
        return activations.key(source.fingerprint, name.name, before, self._prints[split], self.device.type, layout)

    @torch.no_grad()
    def _sample(self, name: Input, split: str) -> Tensor:
        """Compute an input for the first and the last example, (2, ...)."""
        stored = self._stored[split]
        values: tuple[Tensor, ...] = self.reader((name,))(self._unpack(stored[[0, len(stored) - 1]]))
        return values[0]

    @torch.no_grad()
    def _parts(self, name: Input, split: str) -> Iterator[Tensor]:
        """Compute an input batch by batch.

        Always from the examples: from an earlier tap that happens to be kept, the last bits would depend on what a run
        did before, and one that was killed would not end where it would have ended.
        """
        reader = self.reader((name,))

        def compute(part: Tensor) -> Tensor:
            values: tuple[Tensor, ...] = reader(self._unpack(part))
            return values[0]

        for part in batches(self._stored[split], BATCH):
            yield self._portion.attempt(
                lambda size, part=part: torch.cat([compute(each) for each in torch.split(part, size)])  # type: ignore[misc]
            )

    def _read(self, reader: Reader, natural: Tensor) -> tuple[Tensor, ...]:
        """Compute a batch's inputs, in parts where memory is short."""

        def work(size: int) -> tuple[Tensor, ...]:
            parts = [reader(part) for part in torch.split(natural, size)]
            return parts[0] if len(parts) == 1 else tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))

        return self._portion.attempt(work)


class _TooLargeError(Exception):
    """An input is kept nowhere."""


def _agree(kept: Tensor, sample: Tensor, n: int) -> bool:
    """Whether what is kept is what would be computed now, by the first and the last example."""
    if kept.shape != (n, *sample.shape[1:]) or kept.dtype != sample.dtype:
        return False
    return torch.allclose(kept[[0, n - 1]].to(sample.device), sample, rtol=1e-3, atol=1e-5, equal_nan=True)
