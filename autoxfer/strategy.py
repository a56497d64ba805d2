"""The contract of a strategy: a way to reuse sources. Stable: ``api = 1``.

A strategy is a frozen dataclass of its own hyperparameters with three methods, called in this order: ``space`` says
what may be searched, ``build`` makes the trainable module, ``fit`` trains it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from autoxfer.records import Modality, Recipe, Score, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from autoxfer.source import Source

API = 1


@dataclass(frozen=True)
class Raw:
    """The target's own example, normalised by the train split's statistics: (batch, *problem.shape).

    Of a text the ids of its words (int32), -1 where it has ended: names, not numbers. Of a mixed example these ids in
    float32, then its columns; ``problem.architectures`` know where the one ends and the other begins.
    """


@dataclass(frozen=True)
class Tap:
    """A source's activation at a named point; ``"input"``: the example as that source preprocesses it.

    ``"last"`` is the source's feature vector: (batch, source.n_features). Everything up to a tap is frozen.
    """

    name: str
    source: int | str = 0  # an index into problem.sources, or the name of any source of the run


Input = Raw | Tap


@dataclass(frozen=True)
class Group:
    """How the parameters whose names start with ``match`` are trained; the first group that matches counts."""

    match: str = ""
    lr: float = 1.0  # multiplies the recipe's learning rate
    decay: float | None = None  # weight decay in place of the recipe's
    anchor: float = 0.0  # adds anchor / 2 * ||w - w0||^2 (L2-SP), w0 = the value that build gave


@dataclass(frozen=True)
class Candidate:
    """The trainable module, and the names of the tensors that it consumes.

    Called with the tensors of ``inputs``, in order -> logits (batch, classes or labels), or predictions (batch,
    outputs) of the standardised target. A parameter with ``requires_grad=False`` is not trained, and a submodule that
    owns parameters, none of them trained, stays in evaluation mode.

    What training keeps apart may ship as one: a submodule with a method ``merged()`` is replaced, in the winner that is
    written, by the module that it returns, and a weight with a parametrisation (``torch.nn.utils.parametrize``) by its
    value. Both are to compute the same; the outputs are compared before anything is written.
    """

    module: nn.Module
    inputs: tuple[Input, ...]
    groups: tuple[Group, ...] = (Group(),)
    frozen: Mapping[str, Tensor] = field(default_factory=dict)  # parameter -> mask (bool) of entries that stay exactly
    penalty: Callable[[nn.Module], Tensor] | None = None  # any other term of the loss; scalar
    # (outputs, the task's mean loss, rows of the train split) of a batch -> what is minimised, a mean over the batch.
    # In the task's loss examples count by weight already, in what is added they do if it reads TrainData.weights.
    objective: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


class Architecture(Protocol):
    """A network that can be trained from scratch: what it reads, and a function of the number of outputs."""

    @property
    def input(self) -> Input:
        """What the network reads."""

    @property
    def n_parameters(self) -> int:
        """With one output."""

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make a newly initialised network; ``dropout`` acts on the features before its last layer."""


@dataclass(frozen=True)
class Problem:
    """What a strategy may know of the target task. No labels, no examples."""

    task: Task
    modality: Modality
    shape: tuple[int, ...]  # of Raw() without the batch: (channels, height, width) or (width,)
    n_outputs: int  # classes, labels (multilabel: a logit of each by itself), or a regression's outputs
    n_train: int
    sources: tuple[Source, ...]  # one; all of them for a multi-source strategy; none for scratch
    architectures: Mapping[str, Architecture]  # "compact", "compact_wide", and each source's own by the source's name
    classes: tuple[str, ...] = ()  # names of the classes or labels, in the order of the outputs; none for regression

    @property
    def source(self) -> Source:
        """The one source. Raises IndexError for a strategy that asked for none."""
        return self.sources[0]


class TrainData(Protocol):
    """The train split, on the device.

    ``trainer.run`` counts each example by its weight. Whatever a strategy fits by itself, a closed form or statistics,
    counts all alike unless it reads ``weights``: a run cannot notice, the conformance kit does. ``fit_head``,
    ``linear_path``, ``ridge_path``, ``softmax_path``, ``weighted_mean`` and ``Normalise.fit`` take them.
    """

    def __getitem__(self, name: Input) -> Tensor:
        """Give the whole split's tensor for one input: (n_train, ...). Taps are computed once in a run."""

    def sample(self, *names: Input) -> TrainData:
        """Restrict it to as many examples as memory bears in these inputs: all, unless the examples lie on disk."""

    @property
    def labels(self) -> Tensor:
        """(n_train,) int64 classes, (n_train, k) float32 labels 0/1, or (n_train, outputs) float32 standardised."""

    @property
    def weights(self) -> Tensor | None:
        """How much each example counts in training, by ``task.weight``: (n_train,) float32 of mean 1; None = alike."""

    @property
    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a regression's labels, (n_outputs,) each, by which they were standardised."""


@dataclass(frozen=True)
class Fitted:
    """The weights that were kept, and how they came about."""

    state: Mapping[str, Tensor]  # the module's state_dict at the best checkpoint on the tune split
    score: Score  # there, as the trainer gave it; any other is not believed, and the state is scored again
    curve: tuple[tuple[float, float], ...] = ()  # (share of the steps done, rank)
    steps: int = 0
    stopped: str = ""  # why training ended early; empty = it ran to its end
    notes: Mapping[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """Handed to ``fit``: holds recipe, seed and budget, owns the loop, and alone sees the tune split."""

    @property
    def recipe(self) -> Recipe:
        """The trial's training hyperparameters, ``steps`` filled in."""

    def run(self, candidate: Candidate, share: float = 1.0) -> Fitted:
        """Train by gradient; keep the best checkpoint on the tune split, the state before the first step included.

        With ``share`` for that share of the recipe's steps, a whole schedule: several runs make up one trial, each with
        batches of its own. Where ``stopped`` says why one ended early, the trial is to end. What one of them is to hold
        still gets a rate of 0: ``replace(candidate, groups=(Group("head"), Group(lr=0.0)))``.
        """

    def score(self, candidate: Candidate) -> Score:
        """Score the candidate as it stands on the tune split."""

    def choose(self, candidate: Candidate, states: Iterable[tuple[Any, Mapping[str, Tensor]]]) -> Fitted:
        """Score each (label, partial state dict) on the tune split, keep the best; its label is ``notes["chosen"]``."""


@runtime_checkable
class Solvable(Protocol):
    """A module that is solved instead of trained by gradient: trees, linear models. Scratch leaves its fitting to it.

    Its shapes are fixed when it is made, so that a fitted state can be loaded into a new one; the recipe is ignored.
    """

    def solve(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Fit this module, which is ``candidate.module``, by ``trainer.choose``; torch's random state is the trial's.

        Steps that need no search, such as the strength of a penalty, are one state each for ``choose``. Examples are to
        count by ``data.weights``.
        """


class Strategy(ABC):
    """A way to reuse sources; an instance is that way with its hyperparameters chosen.

    Each source of a run is a problem of its own; with ``many_sources`` all of them together are one more.

    The dataclass's defaults are the first trial of every study. A field that is not in ``space`` stays at its
    default unless the user fixes it in the run file.
    """

    api: ClassVar[int] = API
    name: ClassVar[str]
    needs_source: ClassVar[bool] = True
    many_sources: ClassVar[bool] = False  # it also takes all sources of a run together, in a study of their own
    recipe: ClassVar[Recipe | None] = (
        Recipe()
    )  # its training defaults; None = no gradient training, recipe not searched

    @classmethod
    @abstractmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Give the search space of the strategy's own fields; the core adds the recipe's.

        Raises Unsupported, with the reason, where the strategy cannot serve ``problem``.
        """

    @abstractmethod
    def build(self, problem: Problem) -> Candidate:
        """Make the candidate on the CPU, under a forked and seeded random state."""

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Train the candidate; override for stages, or a closed form (examples count by ``data.weights`` in it)."""
        return trainer.run(candidate)
