"""The next trial's parameters, as a pure function of seed and history.

Every proposal rebuilds a small study in memory from the finished trials and asks a freshly seeded TPE sampler once.
So there is no state that a killed run could lose: the same history gives bitwise the same parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoxfer.records import Trial, derive_seed
from autoxfer.tuning.spaces import Space

N_STARTUP = 5  # trials, the defaults among them, before TPE models anything
_ATTEMPTS = 5


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from announcing every study; the user's own setting comes back."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def propose(
    space: Space,
    closed: Sequence[Trial],  # finished trials
    pending: Sequence[Mapping[str, Any]],  # parameters of the trials that run meanwhile
    seed: int,  # of this trial
    n_startup: int = N_STARTUP,
) -> dict[str, Any] | None:
    """Choose parameters that no trial had before; None where a finite space is exhausted."""
    tried = {_key(space, params) for params in [*(trial.params for trial in closed), *pending]}
    size = _size(space)
    if size is not None and len(tried) >= size:
        return None
    for attempt in range(_ATTEMPTS):
        params = _ask(space, closed, pending, derive_seed(seed, attempt), n_startup)
        if size is None or _key(space, params) not in tried:
            return params
    assert size is not None
    start = int(np.random.default_rng(seed).integers(min(size, 2**62)))
    return next(point for k in range(size) if _key(space, point := _point(space, (start + k) % size)) not in tried)


def _ask(
    space: Space, closed: Sequence[Trial], pending: Sequence[Mapping[str, Any]], seed: int, n_startup: int
) -> dict[str, Any]:
    order = sorted(
        (trial for trial in closed if trial.outcome.state == "complete"),
        key=lambda trial: (trial.outcome.score.rank, -trial.outcome.score.loss),  # type: ignore[union-attr]
    )
    places = {trial.number: place for place, trial in enumerate(order)}
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=seed, n_startup_trials=n_startup))
    study.add_trials(_view(space, trial, places) for trial in closed)
    study.add_trials(_running(space, params) for params in pending)
    return dict(study.ask(fixed_distributions=dict(space)).params)


def _view(space: Space, trial: Trial, places: Mapping[int, int]) -> FrozenTrial:
    """Show a finished trial to the sampler.

    TPE looks at the order of the values alone, so a complete trial's value is its place: equal metrics are ordered by
    loss. A failed trial looks like one that still runs: TPE keeps away from it, and learns no value from it.
    """
    params = {name: trial.params[name] for name in space}
    if trial.outcome.state == "failed":
        return _running(space, params)
    if trial.outcome.state == "pruned":
        curve = {round(1000 * share): rank for share, rank in trial.outcome.curve}
        return create_trial(
            state=TrialState.PRUNED, params=params, distributions=dict(space), intermediate_values=curve
        )
    return create_trial(value=float(places[trial.number]), params=params, distributions=dict(space))


def _running(space: Space, params: Mapping[str, Any]) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, params=dict(params), distributions=dict(space))


def _size(space: Space) -> int | None:
    """Count the combinations of a finite space; None for an infinite one."""
    sizes = [_n_values(distribution) for distribution in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _n_values(distribution: BaseDistribution) -> int | None:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.single():
        return 1
    if distribution.step is None:
        return None
    return int((distribution.high - distribution.low) / distribution.step + 1e-8) + 1


def _key(space: Space, params: Mapping[str, Any]) -> tuple[float, ...]:
    """Name a combination: the index of each value where there are finitely many, otherwise the value."""
    return tuple(_index(distribution, params[name]) for name, distribution in space.items())


def _index(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.to_internal_repr(value))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return float(value)
    return float(round((value - distribution.low) / distribution.step))


def _point(space: Space, index: int) -> dict[str, Any]:
    """Count through a finite space: the parameters of its ``index``-th combination."""
    params: dict[str, Any] = {}
    for name, distribution in space.items():
        index, digit = divmod(index, _n_values(distribution) or 1)
        if isinstance(distribution, CategoricalDistribution):
            params[name] = distribution.choices[digit]
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            params[name] = min(distribution.low + digit * (distribution.step or 0), distribution.high)
    return params
