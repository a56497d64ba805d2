"""autoxfer's own pruner for the opponents' plain Optuna loops: what it saves, it saves for everyone."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from autoxfer.records import Outcome, Trial
from autoxfer.tuning.pruning import floors


class Rungs(BasePruner):
    """``autoxfer.tuning.pruning.floors``, for trials that report the rank on the tune split ``n`` times."""

    def __init__(self, n: int) -> None:
        self.n = n

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Stop what is behind the finished trials at a rung."""
        step = trial.last_step or 0
        if step >= self.n:  # it is done anyway
            return False
        closed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        best = max(trial.intermediate_values.values())
        return any(step / self.n >= rung and best < floor for rung, floor in floors(map(self._plain, closed)))

    def _plain(self, trial: FrozenTrial) -> Trial:
        curve = tuple((step / self.n, rank) for step, rank in sorted(trial.intermediate_values.items()))
        state = "complete" if trial.state == TrialState.COMPLETE else "pruned"
        return Trial(trial.number, trial.params, Outcome(state, None, curve))
