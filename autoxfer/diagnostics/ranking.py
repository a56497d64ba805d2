"""In which order studies are searched: the baseline, then source by source, the most promising first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoxfer.diagnostics.examination import Assessment

FIRST = ("linear_probe", "fine_tune", "residual")  # within a source: the cheapest, then what helps most often


def rank_sources(assessments: Mapping[str, Assessment]) -> list[str]:
    """Order sources by the mean of their places by LogME and by overlap; of equals the first named comes first.

    What is not known counts as the worst.
    """
    names = list(assessments)
    places = [_places([getattr(assessments[name], key) for name in names]) for key in ("logme", "overlap")]
    mean = {name: sum(place[index] for place in places) for index, name in enumerate(names)}
    return sorted(names, key=lambda name: mean[name])


def arrange(studies: Mapping[str, tuple[str, str | None]], assessments: Mapping[str, Assessment]) -> tuple[str, ...]:
    """Order studies, name -> (strategy, source), of which the first is the baseline and stays first."""
    baseline, *transfers = studies
    ranks = {name: place for place, name in enumerate(rank_sources(assessments))}

    def key(study: str) -> tuple[int, int]:
        strategy, source = studies[study]
        rank = ranks.get(str(source), len(ranks))  # what is not tied to one source comes last
        return rank, FIRST.index(strategy) if strategy in FIRST else len(FIRST)

    return (baseline, *sorted(transfers, key=key))


def _places(values: Sequence[float | None]) -> list[float]:
    """Give each value its place, 0 the best; equals share theirs."""
    known = [float("-inf") if value is None else value for value in values]
    return [sum(other > value for other in known) + (known.count(value) - 1) / 2 for value in known]
