"""A winner, loaded from its files: no training data, no strategy plugin, no MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from autoxfer.dataset import Schema
from autoxfer.errors import InputError
from autoxfer.inputfile import AT_ONCE, read_examples
from autoxfer.preparation import encode
from autoxfer.winnerfiles import DESCRIPTION, load_program, read_description, read_schema

SEPARATOR = ";"  # between the labels of one example, in files


@final
class Predictor:
    """Predicts from raw examples as users have them: arrays, lists, a DataFrame for a table."""

    def __init__(self, schema: Schema, program: torch.nn.Module, description: Mapping[str, Any]) -> None:
        self.schema = schema
        self.program = program  # stored batch (B, *schema.shape) -> (B, outputs)
        self.description = description  # model.json

    def __repr__(self) -> str:
        told = {key: self.description.get(key) for key in ("strategy", "source", "certified")}
        return f"Predictor({', '.join(f'{key}={value!r}' for key, value in told.items())}, classes={self.classes})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of classes, or of labels, in the order of the columns of ``predict_proba``; empty for regression."""
        return self.schema.classes

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the numbers, where they are several, in the order of the columns of ``predict``."""
        return self.schema.targets

    def predict(self, x: Any) -> NDArray[Any]:
        """Name the class of each example (n,), or give its number (n,) float64, of several numbers (n, k).

        Of several labels those that are at least as likely as not: a tuple of names for each example, (n,).
        """
        outputs = self.outputs(x)
        if self.schema.task == "regression":
            return outputs if self.targets else outputs[:, 0]
        if self.schema.task == "multilabel":
            labels = np.empty(len(outputs), dtype=object)
            labels[:] = self.labels(outputs)
            return labels
        names: NDArray[Any] = np.asarray(self.classes)[outputs.argmax(axis=1)]
        return names

    def predict_proba(self, x: Any) -> NDArray[np.float64]:
        """Give each example's probability of each class, or of each label by itself: (n, classes or labels).

        Raises InputError for regression.
        """
        if self.schema.task == "regression":
            raise InputError("a classifier", "a winner of a regression task", "predict_proba")
        return self.outputs(x)

    def labels(self, probabilities: NDArray[np.float64]) -> list[tuple[str, ...]]:
        """Name the labels that are at least as likely as not, by their probabilities (n, labels)."""
        return [
            tuple(name for name, value in zip(self.classes, row, strict=True) if value >= 0.5) for row in probabilities
        ]

    def outputs(self, x: Any, where: str = "input", first: int = 0) -> NDArray[np.float64]:
        """Give probabilities (n, classes or labels) or predictions (n, outputs); the rest is for an error."""
        stored = encode(self.schema, x, where, first)
        with torch.inference_mode():
            parts = [
                self.program(torch.from_numpy(np.ascontiguousarray(stored[start : start + AT_ONCE])))
                for start in range(0, len(stored), AT_ONCE)
            ]
        return torch.cat(parts).double().numpy()


def load(folder: str | Path) -> Predictor:
    """Load the winner of a run folder, or a winner's own folder.

    Raises InputError: no such folder, a file that is missing, changed or of another format.
    """
    place = find_winner(Path(folder))
    description = read_description(place)
    program = load_program(place, description)
    return Predictor(read_schema(description["schema"]), program.module(), description)


def find_winner(folder: Path) -> Path:
    """Find the folder that holds ``model.json``: ``folder`` itself, or the ``winner`` in it."""
    if not folder.is_dir():
        raise InputError("a run folder or a winner's folder", "no such folder", str(folder))
    for place in (folder, folder / "winner"):
        if (place / DESCRIPTION).is_file():
            return place
    found = "a run that has not finished" if (folder / "config.yaml").is_file() else f"no {DESCRIPTION}"
    raise InputError(f"{DESCRIPTION} or winner/{DESCRIPTION}", found, str(folder))


def predict_file(
    predictor: Predictor, path: str | Path, warn: Callable[[str], object] = lambda text: None
) -> list[dict[str, Any]]:
    """Predict every example of a file: its row or file name, the prediction and, of a class, the probability.

    Of several labels the predicted ones in one text, and the probability of each; of several numbers each by its name.
    Takes .npz, .npy, .csv, .parquet, an image, or a folder of images. Where images cannot be read, every row says
    under "error" why, or None, and theirs holds None otherwise; ``warn`` is told how many they are.

    Raises InputError: nothing that can be read, arrays or tables that do not fit.
    """
    asked = read_examples(predictor.schema, Path(path))
    parts: list[NDArray[np.float64]] = []
    for piece in asked.pieces:
        parts.append(predictor.outputs(piece, str(path), sum(map(len, parts))))
    answers = _answers(predictor, np.concatenate(parts))
    if asked.unreadable:
        answers = _with_gaps(answers, asked.unreadable)
        first = min(asked.unreadable)
        told = f"{len(asked.unreadable):,} of {len(asked.names):,} images cannot be read and have no answer"
        warn(f"{told}, the first {asked.names[first]['file']}: {asked.unreadable[first]}")
    return [{**name, **answer} for name, answer in zip(asked.names, answers, strict=True)]


def _answers(predictor: Predictor, outputs: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Say what is predicted, one by one."""
    if predictor.schema.task == "multilabel":
        return [
            {"prediction": SEPARATOR.join(labels), **_named("probability", predictor.classes, row)}
            for labels, row in zip(predictor.labels(outputs), outputs, strict=True)
        ]
    if predictor.targets:
        return [_named("prediction", predictor.targets, row) for row in outputs]
    if predictor.schema.task == "regression":
        return [{"prediction": float(row[0])} for row in outputs]
    return [{"prediction": predictor.classes[row.argmax()], "probability": float(row.max())} for row in outputs]


def _with_gaps(answers: Sequence[dict[str, Any]], unreadable: Mapping[int, str]) -> list[dict[str, Any]]:
    """Put an empty answer in the place of each example that has none."""
    empty, sound = dict.fromkeys(answers[0]), iter(answers)
    return [
        {**(empty if row in unreadable else next(sound)), "error": unreadable.get(row)}
        for row in range(len(answers) + len(unreadable))
    ]


def _named(what: str, names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, float]:
    return {f"{what}_{name}": float(value) for name, value in zip(names, values, strict=True)}
