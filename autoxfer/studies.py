"""What a run compares: one study for each strategy and source, with its search space and its first trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from optuna.distributions import BaseDistribution, CategoricalDistribution

from autoxfer import rehearsal, tuning
from autoxfer.architectures import WIDTHS
from autoxfer.errors import InputError, PluginError, Unsupported, describe
from autoxfer.features import Features
from autoxfer.plugins import Plugins
from autoxfer.strategy import Problem, Strategy

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.source import Source

BASELINE = "scratch"
TOGETHER = "+"  # between the names of sources that one study takes together; no name holds it
MOST_PER_EXAMPLE = 10  # features of several sources together beyond which there is a warning


@final
@dataclass(frozen=True)
class StudyPlan:
    """One (strategy, source): what will be searched."""

    strategy: type[Strategy]
    source: str | None  # "even"; "even+odd" for both together
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
        for source, taken in _shares(strategy, sources):
            name = strategy.name if source is None else f"{strategy.name}@{source}"
            problem = dataclasses.replace(general, sources=taken)
            try:
                _check_different(taken)
                space, defaults = _space(strategy, problem, narrowed, f"strategies: {strategy.name}")
            except Unsupported as reason:
                unavailable[name] = str(reason)
                continue
            except InputError as error:
                if len(taken) < 2:
                    raise
                unavailable[name] = str(error)  # what was wished for suits each source alone, and is tried there
                continue
            studies[name] = StudyPlan(strategy, source, problem, space, defaults)
    _check_transfers(config, chosen, studies, unavailable, sources)
    return studies, unavailable


def _shares(strategy: type[Strategy], sources: Mapping[str, Source]) -> Iterator[tuple[str | None, tuple[Source, ...]]]:
    """Give what each study of a strategy takes: no source, every one alone, and all together for those that can."""
    if not strategy.needs_source:
        yield None, ()
        return
    for name, source in sources.items():
        yield name, (source,)
    if strategy.many_sources and len(sources) > 1:
        yield TOGETHER.join(sources), tuple(sources.values())


def _check_different(sources: Iterable[Source]) -> None:
    """Refuse to join a source with itself under another name. Raises Unsupported."""
    names: dict[str, str] = {}
    for source in sources:
        same = names.setdefault(source.fingerprint, source.name)
        if same != source.name:
            raise Unsupported(f"{same} and {source.name} are one and the same network: together they say no more")


def crowded(studies: Mapping[str, StudyPlan]) -> tuple[str, ...]:
    """Warn where sources together have far more features than there are examples to weigh them by."""
    joined = {name: plan.problem for name, plan in studies.items() if len(plan.problem.sources) > 1}
    for problem in joined.values():
        n_features = sum(source.n_features for source in problem.sources)
        if n_features > MOST_PER_EXAMPLE * problem.n_train:
            many = f"{len(problem.sources)} sources together have {n_features:,} features"
            return (f"{', '.join(joined)}: {many} for {problem.n_train:,} train examples, which may be too many",)
    return ()


def _check_transfers(
    config: RunConfig,
    chosen: Iterable[type[Strategy]],
    studies: Mapping[str, StudyPlan],
    unavailable: Mapping[str, str],
    sources: Mapping[str, Source],
) -> None:
    """Refuse a run whose user named strategies, or sources, that leave nothing to compare with scratch.

    Raises InputError.
    """
    if config.strategies is None or not (sources or any(strategy.needs_source for strategy in chosen)):
        return
    if not any(plan.strategy.needs_source for plan in studies.values()):
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
        elif (wishes := chosen[plan.strategy]) and len(plan.problem.sources) < 2:
            told = ", ".join(f"{key}: {first[key]!r}" for key in wishes)
            expected = f"parameters with which {name} can be built"
            raise InputError(expected, f"{told}: {why}", f"strategies: {plan.strategy.name}")
        elif plan.strategy.name == BASELINE:
            raise PluginError(f"the baseline cannot be built: {why}")
        else:
            unavailable[name] = f"its first candidate cannot be built: {why}"
    _check_transfers(config, chosen, kept, unavailable, features.sources)
    used = {source.name: plan.problem for plan in kept.values() for source in plan.problem.sources}
    for name, problem in used.items():
        rehearsal.check_shippable(name, problem, features)
    return kept


def _space(
    strategy: type[Strategy], problem: Problem, narrowed: Mapping[str, Any], where: str
) -> tuple[dict[str, BaseDistribution], tuple[dict[str, Any], ...]]:
    """Join the strategy's space, its fixed fields and the recipe's; make the defaults that are tried first."""
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(strategy)}  # type: ignore[arg-type]
    space = _own_space(strategy, problem) | tuning.recipe_space(strategy.recipe, problem.n_train, problem.modality)
    unsearched = {name: default for name, default in fields.items() if name not in space}
    space = tuning.narrow(space, narrowed, fields=unsearched, where=where)
    # Trials name every value, so that a result can be read without knowing this version's defaults.
    space |= {name: CategoricalDistribution([default]) for name, default in unsearched.items() if name not in space}
    defaults = fields | tuning.recipe_defaults(strategy.recipe, problem.n_train)
    starts = [defaults]
    if strategy.name == BASELINE:  # after the compact network, what is solved and every source's own architecture
        starts += [defaults | {"architecture": name} for name in problem.architectures if name not in WIDTHS]
    return space, tuple(starts)


def _own_space(strategy: type[Strategy], problem: Problem) -> dict[str, BaseDistribution]:
    """Ask a strategy what it searches. Raises Unsupported where it cannot serve, or its own code fails."""
    try:
        space = strategy.space(problem)
    except (Unsupported, InputError):
        raise
    except (Exception, SystemExit) as error:  # whatever a plugin's code raises: the other strategies go on
        raise Unsupported(f"its space fails: {describe(error)}") from error
    if not isinstance(space, dict) or not all(isinstance(each, BaseDistribution) for each in space.values()):
        raise Unsupported(f"its space has to be a dict of Optuna's distributions, not {space!r:.200}")
    return space
