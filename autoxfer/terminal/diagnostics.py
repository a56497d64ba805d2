"""A source's diagnostics in words: what its features are worth before anything is trained on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from autoxfer.terminal.progress import number

FEW = 10  # train examples per feature below which carrying all features costs more than most of them give


def source_words(facts: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Tell what ``diagnostics.json`` has on one source."""
    parts = [*_probe(facts, task), *_room(facts), *_scores(facts), *_alignment(facts, task)]
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in [*parts, *facts.get("notes", ())])


def _probe(facts: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    score, chance = facts.get("probe_score"), facts.get("chance_score")
    tap = "its last features" if facts.get("tap") == "last" else f"its features at {facts.get('tap')}"
    if score is not None:
        guess = "" if chance is None else f", a constant guess {number(chance)}"
        metric = task.get("metric", "score")
        yield f"a linear probe of {tap}, cross-validated on train, reaches {metric} {number(score)}{guess}"
    if (overlap := facts.get("overlap")) is not None:
        share = "nothing" if overlap <= 0 else f"{overlap:.0%}"
        yield f"as far as a linear model can tell, these features explain {share} of the labels' uncertainty"
    if (gain := facts.get("predicted_gain")) is not None:
        word = "lower" if gain > 0 else "higher"
        share = f"{abs(gain):.0%} of the labels' variance"
        yield f"that predicts for a probe a squared error {word} by {share} than a linear model of the inputs has"


def _room(facts: Mapping[str, Any]) -> Iterator[str]:
    said = " ".join(facts.get("notes", ()))  # a note says more, where there is one
    n, p, each = (facts.get(name) for name in ("n", "p", "n_per_feature"))
    if n is not None and p is not None and each is not None and "train examples for" not in said:
        verdict = "few" if each < FEW else "enough"
        yield f"{n:,} train examples for {p:,} features are {each:.2g} per feature: {verdict}"
    rank, top = facts.get("effective_rank"), facts.get("top_share")
    if rank is not None and top is not None and not re.search("features (spread|are collapsed)", said):
        yield f"the features vary in about {rank:.3g} directions, {top:.0%} of it in the first"


def _scores(facts: Mapping[str, Any]) -> Iterator[str]:
    names = (("LogME", "logme"), ("H-score", "h_score"), ("LEEP", "leep"), ("NCE", "nce"))
    known = [f"{name} {number(facts[key])}" for name, key in names if facts.get(key) is not None]
    if known:
        yield f"{', '.join(known)}: higher is better, and they compare sources on one data set only"


def _alignment(facts: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    raw, centred, zero_shot = (facts.get(name) for name in ("alignment", "alignment_centred", "zero_shot"))
    if raw is not None:
        after = "" if centred is None else f", {number(centred)} once the common mean is taken away"
        yield f"the classes' centres point to weights of the source's own head with cosine {number(raw)}{after}"
    if zero_shot is not None:
        metric = task.get("metric", "score")
        yield f"as it is, without any training, the source reaches {metric} {number(zero_shot)} on train"
