"""Whether it pays to train trials of one structure together, as one program, on this machine.

    python examples/benchmarks/populations.py [--short | --smoke] [--seeds 12] [--device cuda] [--json]

Three questions, each answered in one run, in alternating order, in CPU seconds of one thread (on a GPU: seconds):

- structures: members of one structure, all equally long, one by one by autoxfer's own loop, and together: by products
  of our own for linear layers (``stacking.py``), and by torch.func's vmap. How much faster: the most there is to gain.
- studies: whole studies of two tables (wine and adult of ``examples/tables``), asked in generations of a quarter of the
  trials, at most 8: the same trials one by one, and with those of one structure together. Scoring, heads fitted first,
  pruning, unequal lengths and batches are in; ``sizes`` are those of the stacks that were trained together.
- asking, with ``--seeds``: the same studies asked one by one and in generations, all trials trained alone: the mean
  difference in the best tune score (``rank``, higher is better) with its standard error, and the steps that it takes.

What came of it on a CPU, and why autoxfer trains its trials one by one, stands in NOTES.md.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from common import finish, parser, table
from population_studies import STRATEGIES, asking, clocked, studies
from stacking import Member, Stack
from torch import nn

from autoxfer.architectures import Compact
from autoxfer.dataset import Schema
from autoxfer.features import Features
from autoxfer.metrics import get_metric
from autoxfer.preparation import prepare
from autoxfer.records import Recipe
from autoxfer.scoring import Target
from autoxfer.strategy import Candidate, Fitted, Problem, Raw
from autoxfer.training import GradientTrainer
from autoxfer.trials import seeded

N_CLASSES = 10
STRUCTURES: dict[str, tuple[tuple[int, ...], int]] = {  # shape of an example, width of the compact network (0: a head)
    "head on 64": ((64,), 0),
    "head on 512": ((512,), 0),
    "two layers of 64 on 12": ((12,), 16),
    "two layers of 128 on 12": ((12,), 32),
    "two layers of 128 on 64": ((64,), 32),
    "two layers of 256 on 64": ((64,), 64),
    "two layers of 128 on 512": ((512,), 32),
    "convolutions on 8 x 8": ((1, 8, 8), 32),
}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int)
    made.add_argument("--trials", type=int, help="of each study")
    made.add_argument("--strategies", nargs="+", default=STRATEGIES)
    made.add_argument("--seeds", type=int, default=0, help="searches of each kind to compare asking by")
    arguments = made.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="grad and param do not obey")  # slices of a matrix never do
    n_trials = arguments.trials or (8 if arguments.smoke else 20)
    answers = {"studies": list(studies(arguments, n_trials))}
    if arguments.seeds:
        answers["asking"] = list(asking(arguments, n_trials))
    shown: dict[str, Any] = answers if arguments.json else {k: "\n" + table(rows) for k, rows in answers.items()}
    finish(arguments, list(structures(arguments)), **shown)


def structures(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare members of one structure one by one and together."""
    device = torch.device(arguments.device)
    few = arguments.smoke or arguments.short
    n_rounds = arguments.rounds or (1 if arguments.smoke else 3)
    names = ["two layers of 64 on 12", "convolutions on 8 x 8"] if arguments.smoke else list(STRUCTURES)
    n_steps = 24 if arguments.smoke else 120
    for name in names:
        scene = Scene(STRUCTURES[name][0], device, arguments.seed)
        ways = ("vmap",) if "convolutions" in name else ("products", "vmap")
        for batch in (32,) if few else (16, 32, 64):
            for n_members in (2,) if arguments.smoke else (2, 4, 8):
                make = partial(scene.members, n_members, STRUCTURES[name][1], batch, n_steps)
                times, ends = timed(make, ways, n_rounds, device)
                seconds = {way: statistics.median(values) for way, values in times.items()}
                pairs = [pair for way in ways for pair in zip(ends["alone"], ends[way], strict=True)]
                yield {
                    "structure": name,
                    "batch": batch,
                    "members": n_members,
                    "alone_s": seconds["alone"],
                    **{
                        f"{way}_times": seconds["alone"] / seconds[way] if way in ways else None
                        for way in ("products", "vmap")
                    },
                    "loss_off": max(abs(a.score.loss - b.score.loss) for a, b in pairs),
                }


def timed(
    make: Callable[[], list[Member]], ways: Sequence[str], n_rounds: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[Fitted]]]:
    """Train the same members in every way, in alternating order: seconds of each round, and what came of the last."""
    times: dict[str, list[float]] = {way: [] for way in ("alone", *ways)}
    ends: dict[str, list[Fitted]] = {}
    for turn in range(n_rounds):
        for way in [*times][:: 1 if turn % 2 else -1]:
            members = make()

            def work(members: Sequence[Member] = members, way: str = way) -> None:
                ends[way] = train(members, way)

            times[way].append(clocked(work, device))
    return times, ends


def train(members: Sequence[Member], way: str) -> list[Fitted]:
    """Train members one by one or together."""
    if way != "alone":
        return Stack(members, way).run()
    found = []
    for member in members:
        with seeded(0, torch.device("cpu")):
            torch.set_rng_state(member.generator.get_state())
            found.append(member.trainer.run(member.candidate))
    return found


class Scene:
    """Clouds of examples, 500 to learn from and 200 to choose on."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, seed: int) -> None:
        rng = np.random.default_rng(seed)
        kinds = rng.integers(N_CLASSES, size=700)
        examples = 1.5 * rng.normal(size=(700, *shape)) + rng.normal(size=(N_CLASSES, *shape))[kinds]
        stored = examples.astype(np.float32)
        schema = Schema("vector", "classification", (int(np.prod(shape)),), "float32", classes=tuple("abcdefghij"))
        if len(shape) == 3:
            stored = np.clip(128 + 30 * stored[:, 0], 0, 255).astype(np.uint8)
            schema = Schema("image", "classification", shape[1:], "uint8", classes=schema.classes)
        splits = {"train": torch.from_numpy(stored[:500]), "tune": torch.from_numpy(stored[500:])}
        self.features = Features(prepare(schema, stored[:500]), {}, splits, device)
        self.problem = Problem("classification", schema.modality, shape, N_CLASSES, 500, (), {})
        self.labels = torch.from_numpy(kinds[:500]).to(device)
        self.tune = Target(kinds[500:], get_metric(None, "classification"))

    def members(self, n: int, width: int, batch: int, n_steps: int, dropout: float = 0.0) -> list[Member]:
        """Make members that differ in seed and rate."""
        made = []
        for k in range(n):
            with seeded(k, torch.device("cpu")):
                head = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(self.problem.shape)), N_CLASSES))
                network = Compact(self.problem.shape, width)(N_CLASSES, dropout=dropout) if width else head
            candidate = Candidate(network.to(self.features.device), (Raw(),))
            recipe = Recipe(lr=1e-3 * (k + 1), steps=n_steps, batch=batch)
            trainer = GradientTrainer(self.features, self.problem, self.labels, self.tune, recipe, seed=k)
            made.append(Member(candidate, trainer, torch.Generator().manual_seed(k)))
        return made


if __name__ == "__main__":
    main()
