"""The search of one study; the only home of Optuna's studies.

``spaces`` holds what may be searched, ``sampling`` chooses, ``journal`` remembers, ``study`` runs the loop.
"""

from __future__ import annotations

from autoxfer.tuning.journal import Begun, Journal
from autoxfer.tuning.spaces import clip, default_steps, narrow, recipe_defaults, recipe_space
from autoxfer.tuning.study import Study, attempt, floors, trials_table, tune

__all__ = [
    "Begun",
    "Journal",
    "Study",
    "attempt",
    "clip",
    "default_steps",
    "floors",
    "narrow",
    "recipe_defaults",
    "recipe_space",
    "trials_table",
    "tune",
]
