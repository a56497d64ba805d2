"""Tiny problems on which a strategy is tried: images, vectors and texts, classes and numbers, with small sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoxfer.architectures import architectures
from autoxfer.dataset import Column, Schema
from autoxfer.encoding import encode
from autoxfer.features import Features, resolve
from autoxfer.metrics import get_metric
from autoxfer.preparation import prepare
from autoxfer.records import Floors, Modality, Recipe, Task
from autoxfer.scoring import Scale, Target
from autoxfer.source import Source
from autoxfer.strategy import Candidate, Fitted, Input, Problem, Strategy
from autoxfer.testing import texts
from autoxfer.tokens import fit
from autoxfer.traindata import TrainTensors
from autoxfer.training import GradientTrainer
from autoxfer.trials import seeded

if TYPE_CHECKING:
    pass

CPU = torch.device("cpu")
N_TRAIN, N_TUNE, STEPS, SEED = 40, 30, 12, 7
CLASSES = ("x", "B", "a", "y", "c")  # of a source; the target's are a, b, c
SCENES: tuple[tuple[Modality, Task], ...] = (
    ("image", "classification"),
    ("vector", "classification"),
    ("vector", "regression"),
    ("vector", "multilabel"),
    ("text", "classification"),
    ("mixed", "classification"),
)
TABLE = (*(Column(f"n{k}", "numeric") for k in range(4)), Column("side", "categorical", ("left", "right")))
NATURAL = tuple(name for column in TABLE for name in column.natural_names)


@final
@dataclass(frozen=True)
class Scene:
    """A tiny target task with everything that a trial needs."""

    problem: Problem  # with its one source, or its two
    features: Features
    labels: Tensor  # of the train split: (n,) int64, (n, 3) float32 0/1, or (n, outputs) float32 standardised
    tune: Target
    weights: Tensor | None = None  # of the train split's examples

    def __str__(self) -> str:
        several = f"-{len(self.problem.sources)}_sources" if len(self.problem.sources) > 1 else ""
        numbers = self.problem.n_outputs if self.problem.task == "regression" else 1
        several += f"-{numbers}_outputs" if numbers > 1 else ""
        return f"{self.problem.modality}-{self.problem.task}{several}"

    def problem_for(self, strategy: type[Strategy]) -> Problem:
        """Give the problem as the strategy asks for it: without a source where it needs none."""
        return self.problem if strategy.needs_source else replace(self.problem, sources=())

    def trainer(self, strategy: type[Strategy], floors: Floors = ()) -> GradientTrainer:
        """Make the trainer of a short trial."""
        recipe = replace(strategy.recipe or Recipe(), steps=STEPS, batch=16, augment="none")
        problem = self.problem_for(strategy)
        return GradientTrainer(
            self.features, problem, self.labels, self.tune, recipe, seed=1, floors=floors, weights=self.weights
        )

    def build(self, instance: Strategy) -> Candidate:
        """Build a candidate as the core does: under a forked, seeded random state."""
        with seeded(SEED, CPU):
            return instance.build(self.problem_for(type(instance)))

    def train(self, instance: Strategy, candidate: Candidate, trainer: GradientTrainer | None = None) -> Fitted:
        """Fit a candidate; the strategy is given nothing but what the contract names."""
        scale = self.tune.center, self.tune.spread
        problem = self.problem_for(type(instance))
        data = TrainTensors(self.features, problem, self.labels, *scale, weights=self.weights)
        with seeded(SEED + 1, CPU):
            return instance.fit(candidate, _OnlyData(data), _OnlyTrainer(trainer or self.trainer(type(instance))))

    def fit(self, instance: Strategy) -> tuple[Candidate, Fitted]:
        """Build and train."""
        candidate = self.build(instance)
        return candidate, self.train(instance, candidate)

    def answer(self, candidate: Candidate, n: int) -> Tensor:
        """Answer the first ``n`` tune examples in evaluation mode, from the cached inputs."""
        inputs = tuple(resolve(name, self.problem) for name in candidate.inputs)
        tensors = self.features.batch(inputs, "tune", torch.arange(n))
        candidate.module.eval()
        with torch.no_grad():
            outputs: Tensor = candidate.module(*tensors)
        return outputs


class _OnlyTrainer:
    """What the contract names of a trainer; the tune labels above all are out of reach."""

    __slots__ = ("choose", "recipe", "run", "score")

    def __init__(self, trainer: GradientTrainer) -> None:
        self.recipe, self.run, self.score, self.choose = trainer.recipe, trainer.run, trainer.score, trainer.choose


class _OnlyData:
    """The train split through the contract's two doors."""

    __slots__ = ("_get", "labels", "scale", "weights")

    def __init__(self, data: TrainTensors) -> None:
        self._get, self.labels, self.scale, self.weights = data.__getitem__, data.labels, data.scale, data.weights

    def __getitem__(self, name: Input) -> Tensor:
        return self._get(name)

    def sample(self, *names: Input) -> _OnlyData:
        return self


@cache
def scene(modality: Modality, task: Task, n_sources: int = 1, n_numbers: int = 1) -> Scene:
    """Make a tiny problem; the same one every time. A regression may have several numbers to predict.

    Its second source is of another width and reads another size; of a mixed problem it reads the columns, not the text.
    """
    return scene_of(modality, task, [_source(modality, number) for number in range(n_sources)], n_numbers)


def scene_of(modality: Modality, task: Task, made: Sequence[Source], n_numbers: int = 1) -> Scene:
    """Make a tiny problem for any sources: pictures (12, 12), vectors (6,), sentences, or these beside ``TABLE``."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(3, size=N_TRAIN + N_TUNE)
    schema, examples = _DRAW[modality](kinds, rng, made)
    schema = replace(schema, task=task, classes=() if task == "regression" else ("a", "b", "c"))
    sources = tuple(_fitted(source, schema) for source in made)
    preparation = prepare(schema, examples[:N_TRAIN])
    shape = preparation.raw_shape
    stored = {"train": torch.from_numpy(examples[:N_TRAIN]), "tune": torch.from_numpy(examples[N_TRAIN:])}
    values = _labels(task, kinds, rng, n_numbers)
    labels, center, spread = standardised(values[:N_TRAIN], task)
    problem = Problem(
        task=task,
        modality=modality,
        shape=shape,
        n_outputs=n_numbers if task == "regression" else 3,
        n_train=N_TRAIN,
        sources=sources,
        architectures=architectures(
            modality, shape, sources, preparation.vocabulary, preparation.n_words, separate=values.ndim == 2
        ),
        classes=schema.classes,
    )
    tune = Target(values[N_TRAIN:], get_metric(None, task), center, spread)
    return Scene(problem, Features(preparation, {source.name: source for source in sources}, stored, CPU), labels, tune)


def _labels(task: Task, kinds: NDArray[np.int64], rng: np.random.Generator, n_numbers: int) -> NDArray[Any]:
    """Give each example its kind, numbers that grow with it, or three labels of which the first is true of kind 0."""
    if task == "classification":
        return kinds
    if task == "multilabel":
        either = np.stack([kinds == 0, kinds != 1, kinds == 2], axis=1)
        return np.where(rng.random(either.shape) < 0.1, ~either, either).astype(np.float32)
    if n_numbers == 1:
        return 20.0 + 5.0 * kinds + rng.normal(size=len(kinds))
    return np.asarray(
        (20.0 + 5.0 * kinds[:, None] + rng.normal(size=(len(kinds), n_numbers))) * 10.0 ** np.arange(n_numbers)
    )


def standardised(values: NDArray[Any], task: Task) -> tuple[Tensor, Scale, Scale]:
    """Make the labels that a loss takes, and the mean and deviation of each output, as the core does."""
    labels = torch.from_numpy(values)
    if task != "regression":
        return labels, 0.0, 1.0
    if values.ndim == 2:
        center, spread = values.mean(0), values.std(0)
        return torch.from_numpy((values - center) / spread).float(), center, spread
    center, spread = float(labels.mean()), float(labels.std(correction=0))
    return ((labels - center) / spread).float()[:, None], center, spread


def _images(kinds: NDArray[np.int64], rng: np.random.Generator, _: Sequence[Source]) -> tuple[Schema, NDArray[Any]]:
    """Draw grey pictures (n, 12, 12) of noise with a bright bar whose height is the kind."""
    pictures = rng.integers(0, 90, size=(len(kinds), 12, 12), dtype=np.uint8)
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[4 * kind : 4 * kind + 4] += 120
    return Schema("image", "classification", (12, 12), "uint8"), pictures


def _vectors(kinds: NDArray[np.int64], rng: np.random.Generator, _: Sequence[Source]) -> tuple[Schema, NDArray[Any]]:
    """Draw vectors (n, 6) about a centre for each kind."""
    vectors = rng.normal(size=(len(kinds), 6)) + 2.0 * np.eye(3, 6)[kinds]
    return Schema("vector", "classification", (6,), "float32"), vectors.astype(np.float32)


def _texts(
    kinds: NDArray[np.int64], rng: np.random.Generator, sources: Sequence[Source]
) -> tuple[Schema, NDArray[Any]]:
    """Draw sentences and turn them into ids (n, columns of all tokenizers), as the core does."""
    drawn = texts.sentences(kinds, rng)
    tokenizers = fit(drawn[:N_TRAIN], {source.name: source.tokenizer for source in sources if source.tokenizer})
    shape = (sum(each.length for each in tokenizers),)
    columns = (Column("text", "text"),)
    schema = Schema("text", "classification", shape, "int32", columns=columns, tokenizers=tokenizers)
    return schema, encode(schema, drawn)


def _mixed(
    kinds: NDArray[np.int64], rng: np.random.Generator, sources: Sequence[Source]
) -> tuple[Schema, NDArray[Any]]:
    """Draw sentences beside ``TABLE``, whose numbers lie about a centre for each kind, with gaps."""
    text, ids = _texts(kinds, rng, sources)
    table = (rng.normal(size=(len(kinds), len(TABLE))) + 2.0 * np.eye(3, len(TABLE))[kinds]).astype(np.float32)
    table[:, -1] = rng.integers(2, size=len(kinds))
    table[rng.random(table.shape) < 0.1] = np.nan
    examples = np.concatenate([ids.astype(np.float32), table], axis=1)
    columns = (*text.columns, *TABLE)
    return replace(text, modality="mixed", shape=examples.shape[1:], dtype="float32", columns=columns), examples


_DRAW = {"image": _images, "vector": _vectors, "text": _texts, "mixed": _mixed}


def _fitted(source: Source, schema: Schema) -> Source:
    lengths = {each.source: each.length for each in schema.tokenizers}
    return source.of_length(lengths[source.name]) if source.tokenizer else source


def _source(modality: Modality, number: int) -> Source:
    name = f"tiny_{modality}" + (f"_{number + 1}" if number else "")
    if modality == "text" or (modality == "mixed" and not number):
        with seeded(number, CPU):
            return texts.source(name, texts.network())
    shape = (3, 12 - number, 12 - number) if modality == "image" else (6,)
    factory = partial(_convolutions if modality == "image" else _layers, 8 - number)
    with seeded(number, CPU):
        network = factory()
        for part in network.modules():  # statistics and gains that differ from what a new layer starts with
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.1)
                nn.init.normal_(part.running_mean, std=0.1)  # type: ignore[arg-type]
                nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    statistics: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3} if modality == "image" else {}
    statistics |= {"columns": NATURAL} if modality == "mixed" else {}
    return Source.from_network(name, factory, network, input_shape=shape, classes=CLASSES, **statistics)


def _convolutions(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 5),
    )


def _layers(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 5))
