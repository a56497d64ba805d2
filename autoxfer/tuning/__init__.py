"""The search of one study; the only home of Optuna's studies.

``spaces`` holds what may be searched, ``sampling`` chooses, ``warm`` takes over what an earlier run found, ``pruning``
stops, ``journal`` remembers, ``study`` runs the loop.
"""

from __future__ import annotations

from autoxfer.tuning.journal import Begun, Journal
from autoxfer.tuning.pruning import Baseline, bars, beaten, floors
from autoxfer.tuning.sampling import propose
from autoxfer.tuning.spaces import clip, default_steps, narrow, recipe_defaults, recipe_space
from autoxfer.tuning.study import Study, attempt, trials_table, tune
from autoxfer.tuning.warm import Earlier, WarmStart

__all__ = [
    "Baseline",
    "Begun",
    "Earlier",
    "Journal",
    "Study",
    "WarmStart",
    "attempt",
    "bars",
    "beaten",
    "clip",
    "default_steps",
    "floors",
    "narrow",
    "propose",
    "recipe_defaults",
    "recipe_space",
    "trials_table",
    "tune",
]
