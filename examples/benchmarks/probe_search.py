"""How long it takes to find the best of 64 penalties for a linear model on a frozen network.

    python examples/benchmarks/probe_search.py [--short | --smoke] [--naive-trials 64] [--device cuda] [--json]

ResNet-20 with its published weights on 2,000 images of cifar10_jpeg: 1,500 to learn from, 500 to choose on; 1,000
others say how good the choice was. Everyone starts with images and weights in memory. Medians of several rounds.

- autoxfer: its linear_probe study with ``n_strengths: 64`` as a run does it, journal, trial and weights on disk
  included; the cache of activations is empty.
- naive: a plain Optuna loop of 64 trials, 20 epochs of SGD from a DataLoader over the same module, every image through
  the frozen network in every epoch, autoxfer's own pruner.
- hand_cached: the same loop over features that were computed once. It takes the same decisions, so that naive, of which
  ``--naive-trials`` are run, is scaled to the epochs of all its trials (marked ~).
- hand_indexed: that without a DataLoader, batches by index; a look at what a DataLoader costs.
- scikit_learn: LogisticRegressionCV on features that were computed once, for the same 64 penalties.
- forward: one pass of the 2,000 images through the network.

The command fails where a target is missed. ``--smoke`` takes autoxfer's example of digits instead.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from common import alternate, finish, medians, parser
from probe_contenders import Found, Probe

EXAMPLES = Path(__file__).resolve().parents[1]
N_SETTINGS, N_EPOCHS = 64, 20
TIMES_NAIVE, TIMES_HAND = 50, 5  # how much faster at least
FORWARDS, SECONDS = 1.5, 2.0  # at most: of one forward pass, and beside it


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--naive-trials", type=int, help="of the naive loop that are run; the others are scaled")
    made.add_argument("--rounds", type=int)
    arguments = made.parse_args()
    n_settings, n_epochs = (8, 4) if arguments.smoke else (N_SETTINGS, N_EPOCHS)
    n_naive = min(arguments.naive_trials or (1 if arguments.short or arguments.smoke else 3), n_settings)
    probe = Probe(configure(arguments), n_settings, n_epochs)
    found: dict[str, Found] = {}

    def run(name: str) -> None:
        if name == "forward":
            probe.forward("train", "tune")
        else:
            found[name] = probe.naive(n_naive) if name == "naive" else getattr(probe, name)()

    names = ("forward", "autoxfer", "hand_cached", "hand_indexed", "scikit_learn", "naive")
    probe.autoxfer()  # the first use of anything is slow
    n_rounds = arguments.rounds or (1 if arguments.smoke else 3)
    times = alternate({name: lambda name=name: run(name) for name in names}, n_rounds, probe.device)  # type: ignore[misc]
    seconds = medians(times)
    if found["naive"].epochs < found["hand_cached"].epochs:
        seconds["naive"] *= found["hand_cached"].epochs / found["naive"].epochs
    holds = judge(seconds, found)
    finish(
        arguments,
        [row(name, seconds, found, n_naive < n_settings) for name in names],
        **{f"{name}_s": value for name, value in seconds.items()},
        speedup_naive=seconds["naive"] / seconds["autoxfer"],
        speedup_hand_cached=seconds["hand_cached"] / seconds["autoxfer"],
        accuracy={name: one.accuracy for name, one in found.items() if name != "naive" or n_naive == n_settings},
        naive_trials_run=n_naive,
        naive_drift=max(abs(a - b) for a, b in zip(found["naive"].first, found["hand_cached"].first, strict=True)),
        holds=holds,
    )
    return int(not arguments.smoke and not all(holds.values()))


def configure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the run file; the guard split is drawn, and nobody looks at it."""
    if arguments.smoke:
        digits = EXAMPLES / "digits"
        data, splits = digits / "digits.npz", {"train": 200, "tune": 100, "guard": 300, "test": 297}
        source = {"name": "digits", "model": f"{digits}/nets.py:SmallCNN"}
        weights = digits / "digits_source.safetensors"
    else:
        data, splits = arguments.data / "vision" / "cifar10_jpeg.npz", {"train": 1500, "tune": 500, "guard": 300}
        source = {"name": "resnet20", "model": f"{EXAMPLES}/networks.py:CifarResNet"}
        weights = arguments.data / "weights" / "resnet20_cifar10.safetensors"
    return {
        "task": {"data": str(data), "splits": splits},
        "sources": [source | {"weights": str(weights)}],
        "device": arguments.device,
        "seed": arguments.seed,
    }


def judge(seconds: dict[str, float], found: dict[str, Found]) -> dict[str, bool]:
    """Hold the figures against the targets; an accuracy is below another where a paired test could see it."""
    ours, theirs = found["autoxfer"], found["hand_cached"]
    differences = theirs.right.double() - ours.right.double()
    error = float(differences.std()) / math.sqrt(len(differences))
    return {
        "times_naive": seconds["naive"] >= TIMES_NAIVE * seconds["autoxfer"],
        "times_hand_cached": seconds["hand_cached"] >= TIMES_HAND * seconds["autoxfer"],
        "forward": seconds["autoxfer"] <= FORWARDS * seconds["forward"] + SECONDS,
        "accuracy_tune": ours.tune >= theirs.tune,
        "accuracy_held_out": float(differences.mean()) <= 2 * error,
    }


def row(name: str, seconds: dict[str, float], found: dict[str, Found], is_scaled: bool) -> dict[str, Any]:
    """Make one line of the table."""
    one = found["hand_cached" if name == "naive" else name] if name in found else None
    return {
        "who": f"~{name}" if name == "naive" and is_scaled else name,
        "seconds": seconds[name],
        "autoxfer is faster": f"{seconds[name] / seconds['autoxfer']:.1f}x",
        "epochs": None if one is None else one.epochs,
        "tune": None if one is None else one.accuracy["tune"],
        "held out": None if one is None else one.accuracy["held_out"],
    }


if __name__ == "__main__":
    sys.exit(main())
