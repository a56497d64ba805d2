"""What ``autoxfer pretrain`` says: a line for each trial, and how to use what was made."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from autoxfer import seen
from autoxfer.config import load_config
from autoxfer.events import Event, TrialFinished, Warned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from autoxfer.config import RunConfig
    from autoxfer.pretraining import Pretrained

TRIALS = 5


def read(
    file: Path | None,
    overrides: Sequence[str],
    model: str,
    *,
    data: str | None,
    target: Sequence[str] | None,
    disable: Sequence[str],
    trials: int | None,
    seed: int | None,
) -> RunConfig:
    """Check a run file, or the options in its place; the one source is the network to train. Raises InputError."""
    as_yaml = model if model.lstrip().startswith("{") else json.dumps(model)
    budget = [] if file is not None and trials is None else [f"budget.trials={TRIALS if trials is None else trials}"]
    more = [*budget, f"sources=[{as_yaml}]", *([] if seed is None else [f"seed={seed}"])]
    config = load_config(file, data=data, target=target, disable=disable)
    return load_config(config, [*overrides, *more])


def tell(event: Event) -> None:
    """Say how a trial went, on stderr."""
    if isinstance(event, TrialFinished):
        outcome = event.trial.outcome
        told = outcome.reason if outcome.score is None else f"{outcome.score.value:.4g} on tune"
        print(f"trial {event.trial.number + 1}: {told} ({outcome.seconds:.0f} s)", file=sys.stderr)
    elif isinstance(event, Warned):
        print(f"warning: {event.text}", file=sys.stderr)


def lines(made: Pretrained) -> list[str]:
    """Say what was made, and how it goes into a run."""
    card = made.card
    counts = ", ".join(f"{n:,} {part}" for part, n in card["trained_on"]["examples"].items())
    pairs = ", ".join(f"{key}: {_yaml(value)}" for key, value in made.source.items())
    effort = f"best of {card['trials']} trials ({counts}; {made.seconds:.0f} s)"
    return [
        f"{card['metric']} {card['tune']:.4g} on tune, {effort}",
        f"wrote {made.weights} and {made.weights.with_suffix('.json').name} beside it",
        f"use it: autoxfer run --data OTHER --source {shlex.quote('{' + pairs + '}')}",
    ]


def as_object(made: Pretrained) -> dict[str, Any]:
    """Give the same for --json."""
    return {
        "weights": str(made.weights),
        "card": seen.bare(made.card),
        "source": dict(made.source),
        "warnings": list(made.warnings),
        "seconds": made.seconds,
    }


def _yaml(value: Any) -> str:
    text = str(value)
    plain = isinstance(value, str) and ": " not in text and not set(text) & set("{}[],#&*!|>%@`'\"")
    return text if plain else json.dumps(value)
