"""A source from an earlier run: ``run:FOLDER``, or ``mlflow:models:/NAME@ALIAS``, which is fetched before it gets here.

What is read are the winner's files: a program, tensors and JSON. Nothing of it is code, and no pickle is opened.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer.cutting import Chain, tensors
from autoxfer.dataset import Schema
from autoxfer.layering import anew
from autoxfer.lifting import Lifted, lift
from autoxfer.source import fingerprint
from autoxfer.tokens import PADDING, Tokenizer
from autoxfer.winnerfiles import DESCRIPTION, load_program, read_description, read_schema

RUN, MLFLOW = "run:", "mlflow:"
UNPACK = "module.unpack"  # where a winner's program turns stored examples into natural ones


@final
class RunLoader(SourceLoader):
    """Makes a source of what an earlier run has shipped: its layers, its head, its classes."""

    name: ClassVar[str] = "run"

    def loads(self, spec: SourceSpec) -> bool:
        """Whether the model starts with ``run:`` or ``mlflow:``."""
        return spec.model.startswith((RUN, MLFLOW))

    def load(self, spec: SourceSpec) -> Source:
        """Load it. Raises InputError: no such run, a file that was changed, a winner without a network."""
        where = f"sources.{spec.name}"
        if spec.options or spec.input:
            found = ", ".join(map(str, (*spec.options, *spec.input)))
            raise InputError("neither options nor input: a run's winner describes itself", found, where)
        folder = _folder(spec, where)
        description = read_description(folder)
        schema = read_schema(description["schema"])
        if schema.modality == "mixed":
            found = "one of texts beside numbers"
            raise InputError("a winner over pictures, vectors, tables or texts alone", found, f"{where}.model")
        try:
            lifted = lift(load_program(folder, description), UNPACK)
        except InputError:
            raise
        except Exception as error:  # a program may hold anything that torch can compute
            found = f"{type(error).__name__}: {error}"
            raise InputError("a winner whose program can be read as a network", found, f"{where}.model") from error
        if not any(parameter.dim() > 1 for parameter in lifted.body.parameters()) and lifted.head is None:
            strategy = description["winner"].get("strategy", "its strategy")
            raise InputError("a winner that is a network", f"{strategy} without a layer", f"{where}.model")
        make = _of_texts if schema.modality == "text" else _of_numbers
        source = make(spec, lifted, schema, _card(spec, description))
        code = f"{source.fingerprint} {lifted.network.code}"
        source.fingerprint = hashlib.sha256(code.encode()).hexdigest()
        return source


def _folder(spec: SourceSpec, where: str) -> Path:
    """Find the winner's folder: fetched already, a path, or a run's name among the runs. Raises InputError."""
    name = spec.model.removeprefix(RUN)
    if spec.model.startswith(MLFLOW):
        if spec.weights is None:
            raise InputError("a model that was fetched from the registry", "none", f"{where}.model")
        places = [spec.directory / spec.weights]
    elif spec.weights is not None:
        raise InputError("no weights beside run:FOLDER, which holds them", str(spec.weights), f"{where}.weights")
    else:
        runs = [spec.directory / "runs" / name, Path("runs") / name] if Path(name).name == name else []
        places = [spec.directory / Path(name).expanduser(), *runs]
    for place in places:
        for folder in (place, place / "winner"):
            if (folder / DESCRIPTION).is_file():
                return folder
    seen = [place for place in places if place.is_dir()]
    unfinished = any((place / "config.yaml").is_file() for place in seen)
    found = "a run that has not finished" if unfinished else f"no {DESCRIPTION}" if seen else f"no folder {name!r}"
    raise InputError("a finished run's folder, its name in runs/, or a winner's folder", found, f"{where}.model")


def _card(spec: SourceSpec, description: Mapping[str, Any]) -> dict[str, Any]:
    winner = description["winner"]
    known = {key: winner[key] for key in ("run_id", "strategy", "source", "certified") if key in winner}
    learned = {key: description[key] for key in ("trained_on",) if key in description}
    return {"model": spec.model, "winner": known, **learned}


def _of_numbers(spec: SourceSpec, lifted: Lifted, schema: Schema, card: Mapping[str, Any]) -> Source:
    """Cut a network over pictures, vectors or tables; it standardises its examples by itself."""
    return Source.from_network(
        spec.name,
        lambda: anew(lifted.network),
        lifted.network,
        input_shape=lifted.shape,
        classes=schema.classes if schema.task == "classification" and lifted.head is not None else (),
        columns=schema.natural_columns if schema.modality == "table" else (),
        card=card,
    )


def _of_texts(spec: SourceSpec, lifted: Lifted, schema: Schema, card: Mapping[str, Any]) -> Source:
    """Take a network over texts whole; its tokenizer comes along. Raises InputError where it reads two."""
    tokenizer, span = _read_span(lifted.body, schema, f"sources.{spec.name}.model")
    body = Ids(lifted.body, span, lifted.shape[0])
    with torch.no_grad():
        n_features = body(torch.zeros(2, tokenizer.length, dtype=torch.int32)).shape[1]
    own = {name: name for name in tensors(body)}
    classes = schema.classes if schema.task == "classification" and lifted.head is not None else ()
    head = None if lifted.head is None else lifted.head.eval().requires_grad_(False)
    chain = Chain(("last",), (body,), ((n_features,),), head, {}, (own,))
    reading = {"tokenizer": hashlib.sha256(tokenizer.content.encode()).hexdigest(), "length": tokenizer.length}
    return Source(
        spec.name,
        chain,
        lambda: anew(body),
        input_shape=(tokenizer.length,),
        mean=(0.0,),
        std=(1.0,),
        classes=classes,
        tokenizer=tokenizer,
        card={**card, "input": reading, "segments": ["last"]},
        fingerprint=fingerprint(nn.ModuleDict(OrderedDict(body=body, head=head or nn.Identity())), reading),
    )


@final
class Ids(nn.Module):
    """One tokenizer's ids, put where the network expects them among those of all."""

    def __init__(self, body: nn.Module, span: tuple[int, int], width: int) -> None:
        super().__init__()
        self.body, self.span, self.width = body, span, width

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, at most the span's length) -> (batch, features)."""
        before = self.span[0]
        after = self.width - before - ids.shape[1]
        out: Tensor = self.body(functional.pad(ids, (before, after), value=PADDING))
        return out


def _read_span(body: nn.Module, schema: Schema, where: str) -> tuple[Tokenizer, tuple[int, int]]:
    """Find the one tokenizer whose ids the network reads, by changing the others'. Raises InputError for two."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 9, (4, schema.shape[0]), generator=generator, dtype=torch.int32)
    read, start = [], 0
    with torch.no_grad():
        expected = body(ids)
        for tokenizer in schema.tokenizers:
            end = start + tokenizer.length
            other = ids.clone()
            other[:, start:end] = 9 - other[:, start:end]
            if not torch.equal(body(other), expected):
                read.append((tokenizer, (start, end)))
            start = end
    if len(read) != 1:
        found = f"{len(read)} ({', '.join(t.source or 'its own words' for t, _ in read)})"
        raise InputError("a winner that reads the ids of one tokenizer", found, where)
    return read[0]


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer the winners of earlier runs."""
    return [RunLoader]
