"""Train the sources of the two digit examples and set the target's digits apart.

    python examples/digits/make_source.py

Of scikit-learn's 1,797 digits the first 600 of a fixed shuffle train a source; the other 1,197 are the target data, so
that nothing the source has seen is judged. With ``--shuffle 0.8`` that share of the source's labels is shuffled: the
source of examples/negative_transfer. Writes <name>.safetensors, its card <name>.json, and digits.npz beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from nets import SmallCNN
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional

HERE = Path(__file__).resolve().parent
N_SOURCE = 600


def main() -> None:
    """Write the files that are committed beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="digits_source")
    parser.add_argument("--shuffle", type=float, default=0.0, help="share of the labels to shuffle")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    source, target = order[:N_SOURCE], order[N_SOURCE:]
    names = np.array([str(name) for name in digits.target_names])
    np.savez_compressed(
        arguments.out / "digits.npz",
        images=images[target],
        labels=digits.target[target].astype(np.int64),
        class_names=names,
    )

    labels = digits.target[source].astype(np.int64)
    shuffled = np.random.default_rng(1).permutation(len(labels))[: round(arguments.shuffle * len(labels))]
    labels[shuffled] = labels[np.random.default_rng(2).permutation(shuffled)]
    pixels = images[source] / 255.0
    mean, std = float(pixels.mean()), float(pixels.std())
    network = train(
        torch.tensor((pixels - mean) / std, dtype=torch.float32)[:, None], torch.tensor(labels), arguments.steps
    )

    save_file(network.state_dict(), arguments.out / f"{arguments.name}.safetensors")
    card = {
        "name": arguments.name,
        "input": {"shape": [1, 8, 8], "mean": [mean], "std": [std]},
        "classes": names.tolist(),
        "source_dataset": f"{N_SOURCE} of scikit-learn's digits, {arguments.shuffle:.0%} of the labels shuffled",
    }
    (arguments.out / f"{arguments.name}.json").write_text(json.dumps(card, indent=1) + "\n")


def train(images: torch.Tensor, labels: torch.Tensor, n_steps: int) -> SmallCNN:
    """Train on pictures moved by up to one pixel."""
    torch.manual_seed(0)
    network = SmallCNN()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for _ in range(n_steps):
        rows = torch.randint(len(images), (64,))
        down, right = torch.randint(-1, 2, (2,)).tolist()
        batch = images[rows].roll((down, right), (2, 3))
        loss = functional.cross_entropy(network(batch), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


if __name__ == "__main__":
    main()
