"""Pairs of source and target for negative_transfer.py: sources spoilt in five ways, and real ones good and bad.

Most sources are small networks that this script trains in seconds. A source has never seen an image or row of its
target: of scikit-learn's and MNIST's digits some train the source and the others are the target; the published LeNet
and ResNet-20 were trained on the training sides of MNIST and CIFAR-10, so that their targets come from the test sides.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

EXAMPLES = Path(__file__).resolve().parents[1]
SMALL_CNN = f"{EXAMPLES}/digits/nets.py:SmallCNN"
LENET = f"{EXAMPLES}/networks.py:LeNet"
RESNET = f"{EXAMPLES}/networks.py:CifarResNet"
MLP = f"{EXAMPLES}/tables/nets.py:MLP"

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Change = Callable[[Images], Images]
Tables = tuple[pd.DataFrame, pd.DataFrame, str]  # source, target, the label's column
Read = Callable[[Path], Tables]


@dataclass(frozen=True)
class Pair:
    """A source, a target, and how many examples of it there are to learn from."""

    name: str
    make: Callable[[Path, Path], dict[str, Any]]  # (work folder, shared folder) -> task and sources of a run file
    rows: int  # of the target
    needs: tuple[str, ...] = ()  # files of the shared folder
    cost: Literal["cheap", "middle", "slow"] = "middle"  # cheap: less than a minute of one core; slow: many minutes
    tune: int = 150
    guard: int = 300

    def splits(self, n_train: int, most: int = 5000) -> dict[str, int] | None:
        """Give the truth all that is left, up to ``most``; None where less than 200 are."""
        test = min(most, self.rows - n_train - self.tune - self.guard)
        return None if test < 200 else {"train": n_train, "tune": self.tune, "guard": self.guard, "test": test}


def same(images: Images) -> Images:
    return images


def inverted(images: Images) -> Images:
    return 255 - images


def rotated(images: Images) -> Images:
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def permuted(images: Images) -> Images:
    """Move every pixel to another place, in all images alike."""
    flat = images.reshape(len(images), images.shape[1] * images.shape[2], -1)
    order = np.random.default_rng(0).permutation(flat.shape[1])
    return np.ascontiguousarray(flat[:, order].reshape(images.shape))


def shuffle(labels: NDArray[Any], share: float) -> NDArray[Any]:
    """Deal the labels of this share of the examples anew among them."""
    chosen = np.random.default_rng(1).permutation(len(labels))[: round(share * len(labels))]
    changed = labels.copy()
    changed[chosen] = labels[np.random.default_rng(2).permutation(chosen)]
    return changed


def digits() -> tuple[Images, Labels]:
    """Scikit-learn's 1,797 digits of 8 x 8 pixels, in a fixed order without sense."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    return np.round(bunch.images[order] * (255 / 16)).astype(np.uint8), bunch.target[order].astype(np.int64)


def mnist8(shared: Path) -> tuple[Images, Labels]:
    """16,000 digits of MNIST, the inner 24 x 24 pixels averaged to the format of scikit-learn's."""
    with np.load(shared / "vision" / "mnist.npz") as arrays:
        images = np.concatenate([arrays["train_images"], arrays["test_images"]])[:, 2:26, 2:26]
        labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    small = images.reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4))
    order = np.random.default_rng(0).permutation(len(small))
    return np.round(small[order]).astype(np.uint8), labels[order].astype(np.int64)


def spoilt(
    folder: Path, shared: Path, *, family: str, n_source: int, name: str, change: Change, share: float, steps: int
) -> dict[str, Any]:
    """Train a source on the first digits, seen through ``change``, a share of their labels shuffled."""
    images, labels = digits() if family == "digits" else mnist8(shared)
    target = store(folder / f"{family}.npz", images[n_source:], labels[n_source:])
    seen = change(images[:n_source]) / 255.0
    mean, std = float(seen.mean()), float(seen.std())
    weights = folder / f"{family}-{name}.safetensors"
    if not weights.exists():
        x = torch.tensor((seen - mean) / std, dtype=torch.float32)[:, None]
        write(weights, train(SMALL_CNN, {}, x, torch.tensor(shuffle(labels[:n_source], share)), steps))
    card = {"shape": [1, 8, 8], "mean": [mean], "std": [std], "classes": [str(k) for k in range(10)]}
    return {
        "task": {"data": str(target), "name": f"{family}-{name}"},
        "sources": [{"name": "source", "model": SMALL_CNN, "weights": str(weights), "input": card}],
    }


def published(folder: Path, shared: Path, *, weights: str, network: str, target: str, change: Change) -> dict[str, Any]:
    """Let a published network meet images that it has never seen, through ``change``."""
    if target == "digits28":
        small, labels = digits()
        large = functional.interpolate(torch.tensor(small)[:, None].float(), size=28, mode="bilinear")
        images: Images = large[:, 0].round().numpy().astype(np.uint8)
    else:
        with np.load(shared / "vision" / f"{target}.npz") as arrays:
            sides = ["test"] if target in ("mnist", "cifar10_jpeg") else ["train", "test"]
            images = np.concatenate([arrays[f"{side}_images"] for side in sides])
            labels = np.concatenate([arrays[f"{side}_labels"] for side in sides])
    name, file = f"{target}-{change.__name__}", shared / "weights" / f"{weights}.safetensors"
    return {
        "task": {"data": str(store(folder / f"{name}.npz", change(images), labels)), "name": name},
        "sources": [{"name": "source", "model": network, "weights": str(file)}],
    }


def adult(shared: Path) -> Tables:
    """Read the census forms of private employees, and of the government's."""
    people = pd.read_parquet(shared / "tabular" / "adult.parquet").drop(columns=["fnlwgt", "split"])
    employer = people["workclass"].fillna("")
    return people[employer == "Private"], people[employer.str.endswith("-gov")], "income"


def wine(source: str, target: str, shared: Path) -> Tables:
    """Read the marks of one colour, and of the other."""
    place = shared / "tabular"
    return (
        pd.read_csv(place / f"wine_quality_{source}.csv"),
        pd.read_csv(place / f"wine_quality_{target}.csv"),
        "quality",
    )


def abalone(shared: Path) -> Tables:
    """Count the rings of male abalones, and of the females and the young."""
    everything = pd.read_csv(shared / "tabular" / "abalone.csv")
    male = everything["sex"] == "M"
    return everything[male].drop(columns="sex"), everything[~male].drop(columns="sex"), "rings"


def table(folder: Path, shared: Path, *, name: str, read: Read, share: float) -> dict[str, Any]:
    """Train a source on one table's rows, a share of their labels shuffled."""
    source, target, label = read(shared)
    columns = pd.get_dummies(source.drop(columns=label), prefix_sep="=", dtype=float)
    columns = columns.loc[:, columns.std() > 0]
    mean, std = columns.mean(), columns.std()
    numeric = source[label].dtype.kind in "if"
    labels, classes = (source[label].to_numpy(float), []) if numeric else pd.factorize(source[label], sort=True)
    weights, data = folder / f"{name}.safetensors", folder / f"{name}.csv"
    options = {"n_columns": columns.shape[1], "n_outputs": max(len(classes), 1)}
    if not weights.exists():
        target.to_csv(data, index=False)
        x = torch.tensor(((columns - mean) / std).to_numpy(), dtype=torch.float32)
        y = shuffle(np.asarray(labels), share)
        scaled = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None] if numeric else torch.tensor(y)
        write(weights, train(MLP, options, x, scaled, 1000))
    card = {"columns": list(columns), "mean": mean.tolist(), "std": std.tolist(), "classes": list(map(str, classes))}
    task = {"data": str(data), "name": name, "target": label, "kind": "regression" if numeric else "classification"}
    known = {"name": "source", "model": MLP, "options": options, "weights": str(weights), "input": card}
    return {"task": task, "sources": [known]}


def store(path: Path, images: Images, labels: Labels) -> Path:
    if not path.exists():
        write_whole(path, lambda part: np.savez(part, images=images, labels=labels.astype(np.int64)))
    return path


def write(path: Path, network: nn.Module) -> None:
    write_whole(path, lambda part: save_file(network.state_dict(), part))


def write_whole(path: Path, fill: Callable[[Path], object]) -> None:
    """Put a file in place in one step, so that a killed experiment leaves none that is cut short."""
    part = path.with_name(f"{os.getpid()}-{path.name}")
    fill(part)
    part.replace(path)


def train(model: str, options: dict[str, int], x: torch.Tensor, y: torch.Tensor, n_steps: int) -> nn.Module:
    """Train on batches of 64; y holds classes (n,) or numbers (n, 1). No steps leave the weights random."""
    torch.manual_seed(0)
    file, _, name = model.rpartition(":")
    network: nn.Module = runpy.run_path(file)[name](**options)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / n_steps)
        rows = torch.randint(len(x), (64,))
        answer = network(x[rows])
        loss = functional.mse_loss(answer, y[rows]) if y.ndim == 2 else functional.cross_entropy(answer, y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


CORRUPTIONS: dict[str, tuple[Change, float, int]] = {  # what the source sees, share of labels shuffled, steps
    "clean": (same, 0.0, 1000),
    "shuffled40": (same, 0.4, 1000),
    "shuffled80": (same, 0.8, 1000),
    "shuffled100": (same, 1.0, 1000),
    "permuted": (permuted, 0.0, 1000),
    "random": (same, 0.0, 0),
    "inverted": (inverted, 0.0, 1000),
}


def _spoilt(family: str, n_source: int, rows: int, needs: tuple[str, ...] = (), **more: Any) -> list[Pair]:
    return [
        Pair(
            f"{family}-{name}",
            partial(spoilt, family=family, n_source=n_source, name=name, change=change, share=share, steps=steps),
            rows,
            needs,
            **more,
        )
        for name, (change, share, steps) in CORRUPTIONS.items()
    ]


def _published(weights: str, network: str, target: str, change: Change, rows: int, **more: Any) -> Pair:
    short = weights.partition("_")[0]
    name = f"{short}-{target}" if change is same else f"{short}-{target}-{change.__name__}"
    files = () if target == "digits28" else (f"vision/{target}.npz",)
    needs = (f"weights/{weights}.safetensors", *files)
    make = partial(published, weights=weights, network=network, target=target, change=change)
    return Pair(name, make, rows, needs, **more)


def _table(name: str, read: Read, rows: int, files: Sequence[str], share: float = 0.0) -> Pair:
    needs = tuple(f"tabular/{file}" for file in files)
    guard = 305  # copies of a row stay together, so that a split may fall short of its size by a few
    return Pair(name, partial(table, name=name, read=read, share=share), rows, needs, cost="cheap", guard=guard)


WINES = ("wine_quality_red.csv", "wine_quality_white.csv")
PAIRS = {
    pair.name: pair
    for pair in [
        *_spoilt("digits", 600, 1197),
        *_spoilt("mnist8", 4000, 12000, ("vision/mnist.npz",), cost="cheap"),
        _table("adult", adult, 6549, ["adult.parquet"]),
        _table("adult-shuffled100", adult, 6549, ["adult.parquet"], 1.0),
        _table("wine-white-red", partial(wine, "white", "red"), 1599, WINES),
        _table("wine-red-white", partial(wine, "red", "white"), 4898, WINES),
        _table("abalone", abalone, 2649, ["abalone.csv"]),
        _table("abalone-shuffled100", abalone, 2649, ["abalone.csv"], 1.0),
        _published("lenet_mnist", LENET, "mnist", inverted, 4000),
        _published("lenet_mnist", LENET, "mnist", rotated, 4000),
        _published("lenet_mnist", LENET, "mnist", permuted, 4000),
        _published("lenet_mnist", LENET, "fashion_mnist_900", same, 900, tune=100),
        _published("lenet_mnist", LENET, "digits28", same, 1797),
        _published("resnet20_cifar10", RESNET, "cifar10_jpeg", same, 1000, cost="slow"),
        _published("resnet20_cifar10", RESNET, "cifar10_jpeg", permuted, 1000, cost="slow"),
        _published("resnet20_cifar10", RESNET, "sign_digits", same, 2000, cost="slow"),
    ]
}
