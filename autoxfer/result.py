"""What a run leaves, for Python: the record, the leaderboard, the winner ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

from autoxfer.prediction import Predictor, load
from autoxfer.records import Verdict
from autoxfer.report import RunRecord
from autoxfer.studies import BASELINE

if TYPE_CHECKING:
    import pandas as pd


@final
@dataclass(frozen=True)
class Result:
    """What a run leaves: the record, and the winner ready to predict."""

    record: RunRecord
    folder: Path

    @cached_property
    def winner(self) -> Predictor:
        """The shipped model: ``predict(x)`` and ``predict_proba(x)`` on raw examples."""
        return load(self.folder)

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """The guard's answer by study."""
        return {entry.study: entry.verdict for entry in self.record.entries if entry.verdict is not None}

    def leaderboard(self) -> pd.DataFrame:
        """One row per study, best tune score first."""
        import pandas as pd  # noqa: PLC0415

        rows = [
            {
                "strategy": entry.strategy,
                "source": entry.source,
                "status": entry.status,
                "tune": entry.tune,
                "guard": entry.guard,
                "test": entry.test,
                "gain": None if entry.verdict is None else entry.verdict.effect,
                "p_value": None if entry.verdict is None else entry.verdict.p_value,
                "verdict": "baseline" if entry.strategy == BASELINE else entry.verdict and entry.verdict.decision,
                "exploratory": entry.verdict is not None and entry.verdict.exploratory,
                "trials": entry.n_trials,
                "seconds": entry.seconds,
            }
            for entry in self.record.entries
        ]
        ascending = self.record.task["direction"] == "minimize"
        return pd.DataFrame(rows).sort_values("tune", ascending=ascending, na_position="last", ignore_index=True)
