"""Train a source from a data set: the loop, the recipe and the search of scratch, and a card beside the weights."""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution
from torch import Tensor, nn

from autoxfer.architectures import RESERVED, WIDTHS
from autoxfer.config.checks import NAME
from autoxfer.cutting import cut
from autoxfer.errors import AutoxferError, InputError
from autoxfer.events import Event
from autoxfer.material import Material, read
from autoxfer.plugins import load_plugins
from autoxfer.plugins.answers import load_source, network_factory
from autoxfer.pool import open_pool
from autoxfer.preparation import Standardise
from autoxfer.records import SourceSpec, derive_seed
from autoxfer.runfolder import RunFolder, write_json, write_whole
from autoxfer.searching import job_of, search
from autoxfer.seen import CARD, LIST
from autoxfer.setting import Setting, assemble
from autoxfer.splitting import Splits
from autoxfer.strategy import Input, Raw
from autoxfer.studies import BASELINE

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.dataset import Dataset
    from autoxfer.source import SourceLoader

TUNE = 0.2  # share of the examples to choose on, where neither the data nor the run file say
STANDS_FOR = "compact"  # the architecture in whose place the network is searched


@final
@dataclass(frozen=True)
class Pretrained:
    """What was made."""

    weights: Path
    card: Mapping[str, Any]  # the JSON beside them
    source: Mapping[str, Any]  # as it goes into a run file
    warnings: tuple[str, ...]
    seconds: float


@final
@dataclass(frozen=True)
class Given:
    """A network that is made by a factory (strategy.Architecture)."""

    make: Callable[[], nn.Module]

    @property
    def input(self) -> Input:
        """It reads the examples, standardised."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """As it is."""
        with torch.random.fork_rng(devices=[]):
            return sum(parameter.numel() for parameter in self.make().parameters())

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make one; what it has of dropout is its own."""
        return self.make()


def pretrain(
    config: RunConfig, out: Path, name: str, *, command: str = "", tell: Callable[[Event], None] = lambda event: None
) -> Pretrained:
    """Train the one network among the configuration's sources, and write ``out/name.safetensors`` with its card.

    Raises InputError before any training for whatever is wrong with data, model or folder.
    """
    started = time.monotonic()
    weights = _place(out, name)
    (spec,) = config.to_source_specs()
    loader = load_plugins(disabled=config.plugins.disable).loader_for(spec)
    config = config.model_copy(update={"sources": (), "strategies": None})
    material = read(config)
    schema = material.dataset.schema
    if schema.modality == "mixed":
        found = "texts beside columns (task.ignore leaves columns out)"
        raise InputError("pictures, vectors, a table or texts to train a source on", found, "task.data")
    if schema.modality == "text" and spec.model not in WIDTHS:
        raise InputError(f"{' or '.join(WIDTHS)} for texts", repr(spec.model), f"sources.{spec.name}.model")
    setting = _setting(config, material, loader, spec)
    with tempfile.TemporaryDirectory() as temporary, torch.random.fork_rng(devices=[]):
        folder = RunFolder(Path(temporary))
        bench = setting.bench(folder)
        (result,) = search(setting, folder, bench, tell)
        best = result.best
        if best is None or best.outcome.score is None:
            reasons = [trial.outcome.reason for trial in result.trials if trial.outcome.reason]
            raise AutoxferError(f"no trial was completed: {reasons[0] if reasons else 'out of time'}")
        module = bench.rebuild(job_of(setting, BASELINE, best)).module.cpu().eval()
    _fold(module, setting)
    params = {key: value for key, value in best.params.items() if key not in ("architecture", "dropout")}
    card = _card(setting, spec, name, module) | {
        "metric": setting.metric.name,
        "tune": best.outcome.score.value,
        "params": params,
        "trials": len(result.trials),
        "command": command,
    }
    _write(weights, module, card)
    made = dataclasses.replace(spec, name=name, weights=weights.absolute(), input={})
    load_source(loader, made)  # what was written can be read
    options = {"options": dict(spec.options)} if spec.options else {}
    source = {"name": name, "model": spec.model, "weights": str(weights), **options}
    return Pretrained(weights, card, source, setting.warnings, time.monotonic() - started)


def _place(out: Path, name: str) -> Path:
    """Say where the weights go. Raises InputError for a name that is none, or is taken; what is there stays."""
    if not re.fullmatch(NAME, name) or name in RESERVED:
        raise InputError("a name of letters, digits, '.', '_' and '-', no built-in network's", repr(name), "--name")
    weights = out / f"{name}.safetensors"
    for path in (weights, weights.with_suffix(".json")):
        if path.exists():
            raise InputError("a new name (--name) or folder", f"{path}, which is there already", "--out")
    if out.exists() and not out.is_dir():
        raise InputError("a folder", "a file", f"--out {out}")
    return weights


def _setting(config: RunConfig, material: Material, loader: SourceLoader, spec: SourceSpec) -> Setting:
    """Set up scratch's search with the one network. Raises InputError where it does not fit the data."""
    setting = assemble(config, material, _splits(material.dataset, config.task.splits or {}, config.seed))
    plan = setting.studies[BASELINE]
    shape, n_outputs = plan.problem.shape, plan.problem.n_outputs
    make = network_factory(loader, spec, shape, n_outputs)
    if setting.stored.modality == "text":  # as many word vectors as there are words
        make = partial(plan.problem.architectures[spec.model], n_outputs)
    _check(make, shape, n_outputs, f"sources.{spec.name}.model")
    fixed: dict[str, str | float] = {"architecture": STANDS_FOR, "dropout": 0.0}
    plan = dataclasses.replace(
        plan,
        problem=dataclasses.replace(plan.problem, architectures={STANDS_FOR: Given(make)}),
        space={**plan.space, **{key: CategoricalDistribution([value]) for key, value in fixed.items()}},
        defaults=({**plan.defaults[0], **fixed},),
    )
    warnings = (*material.dataset.warnings, *setting.splits.warnings)
    return dataclasses.replace(setting, studies={BASELINE: plan}, warnings=warnings)


def _splits(dataset: Dataset, sizes: Mapping[str, float | int], seed: int) -> Splits:
    """Deal train and tune; parts of the data set's own for guard and test stay out of it."""
    pool = open_pool(dataset)
    rng = np.random.default_rng(derive_seed(seed, "split"))
    if "tune" in pool.own:
        return Splits({"train": pool.rows, "tune": pool.own["tune"]}, tuple(pool.warnings))
    size = sizes.get("tune", TUNE)
    n_tune = size if isinstance(size, int) else round(size * len(pool.rows))
    if not 0 < n_tune < len(pool.rows):
        raise InputError(f"a tune split within {len(pool.rows):,} examples", f"{n_tune:,}", "task.splits.tune")
    rows = pool.draw(pool.rows, {"train": len(pool.rows) - n_tune, "tune": n_tune}, rng)
    if dataset.schema.task == "classification":
        absent = np.setdiff1d(dataset.labels[pool.rows], dataset.labels[rows["train"]])
        if len(absent):
            found = f"none of class {dataset.schema.classes[int(absent[0])]!r}"
            raise InputError("every class among the examples to train on", found, "task.splits")
    return Splits(rows, tuple(pool.warnings))


def _check(make: Callable[[], nn.Module], shape: tuple[int, ...], n_outputs: int, where: str) -> None:
    """Run a new network once. Raises InputError where it does not take the examples, or give what they need."""
    size = "x".join(map(str, shape))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = make().eval()
        try:
            out: Any = network(torch.zeros(2, *shape))
        except Exception as error:  # a network's own code may raise anything
            found = f"{type(error).__name__}: {error}"
            raise InputError(f"a network that reads the data's {size}", found, where) from error
    given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if given != (2, n_outputs):
        expected = f"a network with {n_outputs} outputs, as the data have classes or numbers to predict"
        raise InputError(expected, f"{given} for 2 examples", where)


def _fold(module: nn.Module, setting: Setting) -> None:
    """Let a linear head answer in the label's own units, as the head of any other source does."""
    target = setting.targets["tune"]
    spread, center = (
        torch.as_tensor(value, dtype=torch.float32).reshape(-1) for value in (target.spread, target.center)
    )
    if bool((spread == 1).all()) and bool((center == 0).all()):
        return
    texts = setting.stored.modality == "text"
    head: Any = module.get_submodule("head") if texts else cut(module, setting.studies[BASELINE].problem.shape).head
    for part in module.modules() if head is not None else ():
        if isinstance(part, nn.Linear) and part.bias is not None and torch.equal(part.weight, head.weight):
            with torch.no_grad():
                part.weight.mul_(spread[:, None])
                part.bias.mul_(spread).add_(center)
            return


def _card(setting: Setting, spec: SourceSpec, name: str, module: nn.Module) -> dict[str, Any]:
    """Describe the source: what it reads, what it answers, where it comes from."""
    schema, preparation = setting.dataset.schema, setting.features.preparation
    standardise = preparation.standardise.cpu()
    reading: dict[str, Any] = {"shape": list(preparation.natural_shape)}
    if isinstance(standardise, Standardise):
        reading |= {"mean": standardise.mean.flatten().tolist(), "std": standardise.deviation.flatten().tolist()}
    words = preparation.vocabulary
    if schema.modality == "table":
        reading["columns"] = list(schema.natural_columns)
    return {
        "name": name,
        "model": spec.model,
        "options": dict(spec.options),
        "input": reading,
        "classes": list(schema.classes) if schema.task == "classification" else [],
        "task": schema.task,
        CARD: {
            "data": setting.config.task.data,
            "fingerprint": setting.fingerprint,
            "examples": {part: len(rows) for part, rows in setting.splits.rows.items()},
            "seed": setting.config.seed,
            LIST: setting.learned(None),
        },
        "parameters": sum(math.prod(parameter.shape) for parameter in module.parameters()),
        "versions": {package: version(package) for package in ("autoxfer", "torch")},
        **({} if words is None else {"vocabulary": list(words.words)}),
    }


def _write(weights: Path, module: nn.Module, card: Mapping[str, Any]) -> None:
    from safetensors.torch import save  # noqa: PLC0415

    state = {key: tensor.detach().clone().contiguous() for key, tensor in module.state_dict().items()}
    write_json(weights.with_suffix(".json"), dict(card))
    content = save(state, {"format": "pt"})
    write_whole(weights, lambda path: path.write_bytes(content))
