"""Run real pairs of source and target, two that should help and two that should hurt, and print their leaderboards.

    python examples/pairs.py --data FOLDER [--pair NAME]... [--seeds 3] [--json]

With several seeds, all but the first are further looks at the same data: exploratory, and not certified.

FOLDER holds the data sets (vision/*.npz) and the weights with their cards (weights/*.safetensors, *.json).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import autoxfer

NETWORKS = Path(__file__).resolve().with_name("networks.py")
SIZES = {"train": 200, "tune": 200, "guard": 600}
PAIRS = {  # name -> source's weights, its class, target's file, what is expected
    "resnet20-cifar10_jpeg": ("resnet20_cifar10", "CifarResNet", "cifar10_jpeg", "help: same classes, other pixels"),
    "resnet20-sign_digits": ("resnet20_cifar10", "CifarResNet", "sign_digits", "help: fine-tuning more than a probe"),
    "lenet-mnist_permuted": ("lenet_mnist", "LeNet", "mnist_permuted", "hurt: one fixed permutation of the pixels"),
    "lenet-fashion": ("lenet_mnist", "LeNet", "fashion_mnist_900", "hurt: strokes know little of clothes"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pair", action="append", choices=PAIRS)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        for name in arguments.pair or PAIRS:
            for seed in range(arguments.seeds):
                config = configure(name, arguments.data.resolve(), Path(temporary), arguments.trials, seed)
                result = autoxfer.run(config, runs=arguments.runs or Path(temporary) / "runs")
                found.append({"pair": name, "seed": seed, "expected": PAIRS[name][3], **result.record.as_dict()})
                if not arguments.json:
                    print(f"\n{name}, seed {seed}; expected to {PAIRS[name][3]}")
                    print(result.leaderboard().drop(columns=["status", "p_value"]).round(3).to_string(), flush=True)
                    for study, verdict in result.verdicts.items():
                        print(f"  {study}: {verdict.reason}", flush=True)
    if arguments.json:
        print(json.dumps(found))


def configure(name: str, data: Path, temporary: Path, trials: int, seed: int) -> dict[str, Any]:
    """Write the run file of one pair."""
    weights, network, target, _ = PAIRS[name]
    location = data / "vision" / f"{target}.npz"
    sizes = dict(SIZES)
    if target == "mnist_permuted":
        location = permute(data / "vision" / "mnist.npz", temporary / "mnist_permuted.npz")
    if target == "fashion_mnist_900":  # 600 of its own to learn, choose and judge by
        sizes = {"train": 150, "tune": 100, "guard": 350}
    return {
        "task": {"data": str(location), "name": name, "splits": sizes},
        "sources": [
            {
                "name": weights.split("_")[0],
                "model": f"{NETWORKS}:{network}",
                "weights": str(data / "weights" / f"{weights}.safetensors"),
            }
        ],
        "budget": {"trials": trials},
        "seed": seed,
    }


def permute(source: Path, target: Path) -> Path:
    """Shuffle the pixels of every picture in the same way: what a convolution relies on is gone."""
    with np.load(source, allow_pickle=False) as arrays:
        tables = dict(arrays)
    for key in ("train_images", "test_images"):
        flat = tables[key].reshape(len(tables[key]), -1)
        order = np.random.default_rng(0).permutation(flat.shape[1])
        tables[key] = flat[:, order].reshape(tables[key].shape)
    np.savez(target, **tables)
    return target


if __name__ == "__main__":
    main()
