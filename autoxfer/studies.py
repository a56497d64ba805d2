"""What a run compares: one study for each strategy and source, with its search space and its first trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from optuna.distributions import BaseDistribution, CategoricalDistribution

from autoxfer import rehearsal, tuning
from autoxfer.architectures import WIDTHS
from autoxfer.errors import InputError, PluginError, Unsupported
from autoxfer.features import Features
from autoxfer.plugins import Plugins
from autoxfer.strategy import Problem, Strategy

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.source import Source

BASELINE = "scratch"


@final
@dataclass(frozen=True)
class StudyPlan:
    """One (strategy, source): what will be searched."""

    strategy: type[Strategy]
    source: str | None
    problem: Problem
    space: Mapping[str, BaseDistribution]
    defaults: tuple[Mapping[str, Any], ...]  # the first trials


def chosen_strategies(config: RunConfig, plugins: Plugins) -> dict[type[Strategy], Mapping[str, Any]]:
    """Find the strategies of the run and what the user narrowed; the baseline is always among them, and first."""
    if config.strategies is None:
        wanted: dict[str, Mapping[str, Any]] = {name: {} for name in sorted(plugins.strategies)}
    else:
        wanted = {item.name: item.params for item in config.strategies}
    named = {BASELINE: wanted.get(BASELINE, {})} | wanted
    return {plugins.strategy(name): settings for name, settings in named.items()}


def plan_studies(
    config: RunConfig,
    chosen: Mapping[type[Strategy], Mapping[str, Any]],
    general: Problem,
    features: Features,
    rehearsed: Collection[str] | None = None,  # studies whose first candidate has run on like examples: these alone
) -> tuple[dict[str, StudyPlan], dict[str, str]]:
    """Plan every study that can serve the problem and whose first candidate runs; and say why the others cannot.

    Raises InputError where nothing is left to compare with scratch, or the user's own parameters cannot be built.
    """
    studies, unavailable = _studies(config, chosen, general, features.sources)
    if rehearsed is not None:
        return {name: plan for name, plan in studies.items() if name in rehearsed}, unavailable
    return _rehearsed(config, studies, unavailable, chosen, features), unavailable


def _studies(
    config: RunConfig,
    chosen: Mapping[type[Strategy], Mapping[str, Any]],
    general: Problem,
    sources: Mapping[str, Source],
) -> tuple[dict[str, StudyPlan], dict[str, str]]:
    studies: dict[str, StudyPlan] = {}
    unavailable: dict[str, str] = {}
    for strategy, narrowed in chosen.items():
        for source in sources if strategy.needs_source else [None]:
            name = strategy.name if source is None else f"{strategy.name}@{source}"
            problem = dataclasses.replace(general, sources=() if source is None else (sources[source],))
            try:
                space, defaults = _space(strategy, problem, narrowed, f"strategies: {strategy.name}")
            except Unsupported as reason:
                unavailable[name] = str(reason)
                continue
            studies[name] = StudyPlan(strategy, source, problem, space, defaults)
    _check_transfers(config, studies, unavailable, sources)
    return studies, unavailable


def _check_transfers(
    config: RunConfig, studies: Mapping[str, StudyPlan], unavailable: Mapping[str, str], sources: Mapping[str, Source]
) -> None:
    """Refuse a run whose user named strategies of which none is left to compare with scratch. Raises InputError."""
    if not any(plan.strategy.needs_source for plan in studies.values()) and config.strategies is not None:
        if not sources:
            raise InputError("at least one source, for a strategy other than scratch", "none", "sources")
        named = "; ".join(f"{name}: {why}" for name, why in unavailable.items())
        raise InputError("at least one transfer strategy beside scratch", named or "none", "strategies")


def _rehearsed(
    config: RunConfig,
    studies: Mapping[str, StudyPlan],
    unavailable: dict[str, str],  # what fails is added
    chosen: Mapping[type[Strategy], Mapping[str, Any]],
    features: Features,
) -> dict[str, StudyPlan]:
    """Keep the studies whose first candidate runs. Raises InputError where it is the user's wishes that fail."""
    kept: dict[str, StudyPlan] = {}
    for name, plan in studies.items():
        first = tuning.clip(plan.defaults[0], plan.space)
        why = rehearsal.fault(plan.strategy, first, plan.problem, features)
        if not why:
            kept[name] = plan
        elif wishes := chosen[plan.strategy]:
            told = ", ".join(f"{key}: {first[key]!r}" for key in wishes)
            expected = f"parameters with which {name} can be built"
            raise InputError(expected, f"{told}: {why}", f"strategies: {plan.strategy.name}")
        elif plan.strategy.name == BASELINE:
            raise PluginError(f"the baseline cannot be built: {why}")
        else:
            unavailable[name] = f"its first candidate cannot be built: {why}"
    _check_transfers(config, kept, unavailable, features.sources)
    for source in {plan.source: plan for plan in kept.values() if plan.source is not None}.values():
        rehearsal.check_shippable(str(source.source), source.problem, features)
    return kept


def _space(
    strategy: type[Strategy], problem: Problem, narrowed: Mapping[str, Any], where: str
) -> tuple[dict[str, BaseDistribution], tuple[dict[str, Any], ...]]:
    """Join the strategy's space, its fixed fields and the recipe's; make the defaults that are tried first."""
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(strategy)}  # type: ignore[arg-type]
    space = strategy.space(problem) | tuning.recipe_space(strategy.recipe, problem.n_train, problem.modality)
    unsearched = {name: default for name, default in fields.items() if name not in space}
    space = tuning.narrow(space, narrowed, fields=unsearched, where=where)
    # Trials name every value, so that a result can be read without knowing this version's defaults.
    space |= {name: CategoricalDistribution([default]) for name, default in unsearched.items() if name not in space}
    defaults = fields | tuning.recipe_defaults(strategy.recipe, problem.n_train)
    starts = [defaults]
    if strategy.name == BASELINE:  # after the compact network, what is solved and every source's own architecture
        starts += [defaults | {"architecture": name} for name in problem.architectures if name not in WIDTHS]
    return space, tuple(starts)
