"""The contract of a source: a pretrained backbone as a chain of segments, and its preprocessing. Provisional in 0.1."""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import nn

from autoxfer.conventions import chosen
from autoxfer.cutting import Chain, cut, tensors, with_stages
from autoxfer.errors import InputError
from autoxfer.heads import OnTokens
from autoxfer.preprocessing import Fit, Preprocess, Select
from autoxfer.records import SourceSpec
from autoxfer.seen import Sketch, bare, read
from autoxfer.strategy import Architecture, Tap
from autoxfer.taps import Extractor, TapInfo
from autoxfer.tokens import Tokenizer
from autoxfer.tracing import child_name


@final
class Source:
    """A pretrained backbone. Never changed by a run: what is handed out are copies.

    A tap stands after what its module computes and after everything without weights that follows (norm, ReLU, pooling).
    """

    name: str
    fingerprint: str  # of weights, architecture and preprocessing
    input_shape: tuple[int, ...]  # (channels, height, width), (width,) or (tokens,): what the network reads
    tokenizer: Tokenizer | None  # of a network that reads text, as ids of its tokens, -1 where the text has ended
    n_features: int  # width of "last"
    n_parameters: int  # of the backbone, the head left out
    taps: tuple[TapInfo, ...]  # in order, from "input" to "last"
    classes: tuple[str, ...]  # of the source's own head; empty where unknown
    head: nn.Module | None  # the source's own head: features -> logits
    card: Mapping[str, Any]  # what was recorded: model, weights, input shape, mean, std, resizing
    learned: tuple[Sketch, ...]  # what it was trained on, where the card says so

    def __init__(
        self,
        name: str,
        chain: Chain,
        factory: Callable[[], nn.Module],  # makes the network newly initialised, without its weights
        *,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        reverse: bool = False,
        fit: Fit | None = None,
        classes: Sequence[str] = (),
        columns: Sequence[str] = (),
        tokenizer: Tokenizer | None = None,
        card: Mapping[str, Any],
        fingerprint: str,
    ) -> None:
        self.name, self.fingerprint, self.input_shape = name, fingerprint, tuple(input_shape)
        self.mean, self.std, self.reverse, self.columns = tuple(mean), tuple(std), reverse, tuple(columns)
        self.head, self.classes = chain.head, tuple(classes) if chain.head is not None else ()
        self.learned = read(card, f"source {name!r}")
        self.card, self.tokenizer, self.fit = bare(card), tokenizer, fit
        self.channels_last = chain.channels_last  # whether it takes maps in that layout
        self._chain, self._factory = chain, factory
        sizes = [sum(p.numel() for p in segment.parameters()) for segment in chain.segments]
        self.n_parameters, self.n_features = sum(sizes), chain.shapes[-1][0]
        shares = [sum(sizes[: k + 1]) / max(self.n_parameters, 1) for k in range(len(sizes) - 1)] + [1.0]
        masked = [tokenizer is not None and len(shape) == 2 for shape in chain.shapes]
        ends = chosen(chain.stages or chain.names)
        each = zip(chain.names, chain.shapes, shares, masked, strict=True)
        self.taps = (
            TapInfo("input", self.input_shape, 0.0, stage=False),
            *(TapInfo(*known, known[0] in ends, chain.pooling) for known in each),
        )

    @classmethod
    def from_network(
        cls,
        name: str,
        factory: Callable[[], nn.Module],
        network: nn.Module,  # made by ``factory``, its weights loaded; stays untouched
        *,
        input_shape: Sequence[int],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        reverse: bool = False,  # the network reads BGR
        classes: Sequence[str] = (),
        columns: Sequence[str] = (),  # of a table: what the network reads, such as "age" and "workclass=Private"
        stages: Sequence[str] = (),  # paths of the modules that its library calls its stages
        card: Mapping[str, Any] | None = None,
    ) -> Source:
        """Cut a pretrained network. Raises InputError where it does not run, or does not fit its classes."""
        chain = with_stages(cut(network, input_shape, n_classes=len(classes) or None, where=f"sources.{name}"), stages)
        if chain.head is not None and classes and chain.head.out_features != len(classes):
            raise InputError(
                f"{chain.head.out_features} classes, as the network has", f"{len(classes)}", f"sources.{name}: classes"
            )
        preprocessing = {"shape": list(input_shape), "mean": list(mean), "std": list(std), "bgr": reverse}
        if columns:
            preprocessing["columns"] = list(columns)
        return cls(
            name,
            chain,
            factory,
            input_shape=input_shape,
            mean=mean,
            std=std,
            reverse=reverse,
            classes=classes,
            columns=columns,
            card={**(card or {}), "input": preprocessing, "segments": list(chain.names)},
            fingerprint=fingerprint(network, preprocessing),
        )

    def tap(self, name: str) -> TapInfo:
        """Look a tap up by its name, or by the path of a module that ends there. Raises InputError."""
        name = self._chain.aliases.get(name, name)
        for tap in self.taps:
            if tap.name == name:
                return tap
        names = [tap.name for tap in self.taps]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"{name!r}; nearest: {near[0]!r}" if near else repr(name)
        raise InputError(f"one of the taps {', '.join(names)}", hint, f"source {self.name!r}")

    @property
    def stages(self) -> tuple[TapInfo, ...]:
        """The taps that a person would choose among: where stages end, "last" the last of them."""
        return tuple(tap for tap in self.taps if tap.stage)

    def of_length(self, length: int) -> Source:
        """Give a source of text that reads ``length`` tokens, its weights shared with this one."""
        if self.tokenizer is None:
            raise ValueError(f"source {self.name!r} reads no text")
        changed = copy.copy(self)
        changed.input_shape, changed.tokenizer = (length,), replace(self.tokenizer, length=length)
        resized = [replace(tap, shape=(length, *tap.shape[1:])) if tap.masked else tap for tap in self.taps[1:]]
        changed.taps = (replace(self.taps[0], shape=(length,)), *resized)
        return changed

    def preprocess(self, shape: Sequence[int], columns: Sequence[str] = ()) -> nn.Module:
        """Make what turns natural examples of ``shape`` (pixels in [0, 1], or table values) into the network's input.

        ``columns`` names the values of a table; a source that names its own picks them by name. What had to be adapted
        is recorded in ``card["adapted"]``. Raises InputError where the examples do not fit.
        """
        where = f"source {self.name!r}"
        if self.tokenizer is not None:
            if tuple(shape) != self.input_shape:
                found = f"examples of shape {'x'.join(map(str, shape))}"
                raise InputError("text, which the source reads", found, where)
            return nn.Identity()
        select = Select(columns, self.columns, where) if columns and self.columns else None
        natural = self.input_shape if select else shape
        module = Preprocess(
            natural, self.input_shape, self.mean, self.std, reverse=self.reverse, fit=self.fit, where=where
        )
        self.card = {**self.card, "adapted": list(select.notes if select else module.notes)}
        return (nn.Sequential(select, module) if select else module).eval()

    def extract(self, taps: Sequence[str]) -> nn.Module:
        """Make a frozen module in evaluation mode: network input -> tuple of activations at ``taps``, in one pass."""
        positions = [self._position(name) for name in taps]
        return Extractor(copy.deepcopy(self._chain.segments[: max(positions, default=0)]), positions)

    def suffix(
        self, tap: str = "input", insert: Mapping[str, Callable[[int], nn.Module]] | None = None
    ) -> nn.Sequential:
        """Copy what follows ``tap``: activation there -> features (batch, n_features), pretrained, trainable.

        A child of the returned sequence is called as the tap at its end, dots replaced by underscores. ``insert`` maps
        a tap after ``tap`` to a function of the width there (channels, or the last dimension), which makes the module
        that is put behind it, called "..._after"; a mask stays apart.
        """
        start = self._position(tap)
        makers = {self._position(name): make for name, make in (insert or {}).items()}
        if early := [self.taps[k].name for k in makers if k <= start]:
            raise ValueError(f"modules are inserted after tap {tap!r}; got {early}")
        segments = copy.deepcopy(self._chain.segments[start:])
        children: OrderedDict[str, nn.Module] = OrderedDict()
        for position, segment in enumerate(segments, start + 1):
            info = self.taps[position]
            children[name := child_name(info.name, children)] = segment
            if position in makers:
                inserted = makers[position](info.width)
                children[f"{name}_after"] = OnTokens(inserted) if info.masked else inserted
        sequence = nn.Sequential(children).train()
        for segment in segments:
            segment.requires_grad_(True)
        return sequence

    def fresh(self, tap: str = "input") -> nn.Sequential:
        """As ``suffix``, newly initialised under torch's current random state."""
        network = self._factory()
        new = tensors(network)
        sequence = self.suffix(tap)
        with torch.no_grad():
            for child, origin in zip(sequence, self._chain.origins[self._position(tap) :], strict=True):
                own = tensors(child)
                for name, outer in origin.items():
                    own[name].copy_(new[outer])
        return sequence

    @property
    def architecture(self) -> Architecture:
        """The same network, to be trained from scratch."""
        return SourceArchitecture(self)

    def _position(self, name: str) -> int:
        return self.taps.index(self.tap(name))


@dataclass(frozen=True)
class SourceArchitecture:
    """A source's network, newly initialised, with a head of its own."""

    source: Source

    @property
    def input(self) -> Tap:
        """The example as the source preprocesses it."""
        return Tap("input", self.source.name)

    @property
    def n_parameters(self) -> int:
        """With one output."""
        return self.source.n_parameters + self.source.n_features + 1

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Sequential:
        """Make a newly initialised network."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(body=self.source.fresh())
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        layers["head"] = nn.Linear(self.source.n_features, n_outputs)
        return nn.Sequential(layers)


class SourceLoader(ABC):
    """Loads sources of one scheme; offered by the hook ``autoxfer_sources``."""

    name: ClassVar[str]

    @abstractmethod
    def loads(self, spec: SourceSpec) -> bool:
        """Whether this loader is the one for ``spec.model``."""

    @abstractmethod
    def load(self, spec: SourceSpec) -> Source:
        """Load it, safely. Raises InputError: no such factory, weights that do not fit, a file that would run code."""

    def factory(self, spec: SourceSpec, shape: Sequence[int], n_outputs: int) -> Callable[[], nn.Module]:
        """Give what makes the network newly initialised, for ``autoxfer pretrain``: it reads (batch, *shape).

        A network of the user's own has as many outputs as it has. Raises InputError where this loader makes none.
        """
        expected = "a network to train: compact, file.py:Factory or timm:NAME"
        raise InputError(expected, repr(spec.model), f"sources.{spec.name}.model")


def fingerprint(network: nn.Module, preprocessing: Mapping[str, Any]) -> str:
    """Hash the names and bytes of the weights, the architecture's description and the preprocessing."""
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(network)).encode())
    digest.update(repr(sorted(preprocessing.items())).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
