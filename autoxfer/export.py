"""The winner's files: weights, a description and a program that runs without the code that built it.

``model.safetensors`` holds the state of the network, ``model.json`` what it takes and gives, ``model.pt2`` the whole
computation from a stored batch to probabilities (or predictions), preprocessing included. Of texts ``tokenizer_0.json``
and so on turn words into the ids that are stored.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autoxfer import __version__
from autoxfer.dataset import Schema
from autoxfer.errors import AutoxferError
from autoxfer.records import Task
from autoxfer.runfolder import write_json, write_whole
from autoxfer.seen import CARD
from autoxfer.winnerfiles import DESCRIPTION, FORMAT_VERSION, PROGRAM, TOKENIZER, WEIGHTS

_TOLERANCE = 1e-5  # of the exported program against the module, relative to the largest output


@final
class Served(nn.Module):
    """A composed network as it is served: stored batch -> probabilities (B, classes or labels), or predictions."""

    def __init__(self, module: nn.Module, task: Task) -> None:
        super().__init__()
        self.module = module
        self.task = task

    def forward(self, stored: Tensor) -> Tensor:
        """Turn a stored batch (B, *schema.shape) into what the user reads."""
        output: Tensor = self.module(stored)
        if self.task == "multilabel":
            return torch.sigmoid(output)
        return torch.softmax(output, dim=1) if self.task == "classification" else output


def save_winner(
    folder: Path,
    module: nn.Module,
    schema: Schema,
    example: NDArray[Any],
    info: Mapping[str, Any],
    *,
    trained_on: Mapping[str, Any] | None = None,  # as ``seen`` reads it
) -> None:
    """Write the winner's files into ``folder``; the description last, so that it stands only beside whole files.

    ``module`` maps a stored batch (B, *schema.shape) in ``schema.dtype`` to logits (B, classes or labels) or to
    predictions (B, outputs); ``example`` holds at least 2 stored examples, as a batch of 1 would freeze its dimension.

    Raises ValueError where ``example`` does not fit the schema, AutoxferError where the network cannot be exported.
    """
    _check_example(schema, example)
    # A copy: the caller's module keeps its device, its mode and its gradients.
    trained = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    stored = torch.from_numpy(np.ascontiguousarray(example))
    expected = trained(stored)
    served = Served(merged(trained), schema.task).eval()
    _compare(served.module(stored), expected)
    program = trace(served, stored)
    contents = {WEIGHTS: _weights(served.module), PROGRAM: _archive(program), **_texts(schema)}
    description = _describe(schema, int(program.module()(stored).shape[1]), info, contents)
    if trained_on is not None:
        description[CARD] = trained_on
    for name, content in contents.items():
        write_whole(folder / name, partial(Path.write_bytes, data=content))
    write_json(folder / DESCRIPTION, description)


def merged(network: nn.Module) -> nn.Module:
    """Put what training kept apart into one: modules with a method ``merged``, weights with a parametrisation.

    The former give a module that does the same, such as a layer with its low-rank change added to its weight.
    """
    for name, part in list(network.named_modules()):
        simpler = getattr(part, "merged", None)
        if name and callable(simpler):
            network.set_submodule(name, simpler().requires_grad_(False))
    for part in list(network.modules()):
        for name in list(part.parametrizations) if parametrize.is_parametrized(part) else []:  # type: ignore[arg-type]
            parametrize.remove_parametrizations(part, str(name), leave_parametrized=True)
    return network.requires_grad_(False)


def _check_example(schema: Schema, example: NDArray[Any]) -> None:
    if len(example) < 2 or example.shape[1:] != schema.shape or example.dtype != np.dtype(schema.dtype):
        raise ValueError(
            f"the example must hold 2 or more stored examples of shape {schema.shape} in {schema.dtype}; "
            f"got {example.shape} in {example.dtype}"
        )


def trace(served: nn.Module, stored: Tensor) -> torch.export.ExportedProgram:
    """Trace a network with a batch of any size, and compare the program with the network it came from.

    ``stored`` is a batch of 2 or more; the network gives (batch, outputs). Raises AutoxferError where that fails.
    """
    try:
        # DYNAMIC fails where the network fixes the batch size; AUTO would fix it without a word.
        dynamic = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(served, (stored,), dynamic_shapes=dynamic)
        module = program.module()
        for batch in (stored, stored[:1], torch.cat([stored] * 3)):
            _compare(module(batch), served(batch))
    except AutoxferError:
        raise
    except Exception as error:  # torch.export raises whatever the network's code raised while it was traced
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AutoxferError(f"the winner cannot be exported by torch.export: {first}") from error
    return program


def _compare(program: Tensor, module: Tensor) -> None:
    if program.shape != module.shape or module.ndim != 2:
        raise AutoxferError(
            "the winner must give outputs of shape (batch, outputs); "
            f"its program gives {tuple(program.shape)}, the network {tuple(module.shape)}"
        )
    difference = (program - module).abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, module.abs().max().item()):
        raise AutoxferError(f"the winner's exported program differs from the network by {difference:.3g}")


def _weights(module: nn.Module) -> bytes:
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    return save({name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()})


def _archive(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _texts(schema: Schema) -> dict[str, bytes]:
    """Give what turns texts into ids files of their own: ``tokenizer_0.json``, ..."""
    return {TOKENIZER.format(k): each.content.encode() for k, each in enumerate(schema.tokenizers) if each.content}


def _describe(schema: Schema, outputs: int, info: Mapping[str, Any], contents: Mapping[str, bytes]) -> dict[str, Any]:
    bare = tuple(dataclasses.replace(each, content="") for each in schema.tokenizers)
    return {
        "format_version": FORMAT_VERSION,
        "autoxfer_version": __version__,
        "torch_version": torch.__version__,
        "schema": dataclasses.asdict(dataclasses.replace(schema, tokenizers=bare)),
        "input": {"dtype": schema.dtype, "shape": [-1, *schema.shape]},
        "output": {
            "kind": "predictions" if schema.task == "regression" else "probabilities",
            "dtype": "float32",
            "shape": [-1, outputs],
        },
        "winner": dict(info),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items()
        },
    }
