"""What a winner's folder holds, and reading it back: nothing that was changed, nothing that hides code."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoxfer.dataset import Column, Schema
from autoxfer.errors import InputError
from autoxfer.tokens import Tokenizer

WEIGHTS, DESCRIPTION, PROGRAM = "model.safetensors", "model.json", "model.pt2"
TOKENIZER = "tokenizer_{}.json"  # of the schema's tokenizers, by their place among them
FORMAT_VERSION = 1


def read_description(place: Path) -> dict[str, Any]:
    """Read ``model.json`` and check that the files beside it are the ones that it describes.

    The schema comes with the content of its tokenizers, which are files of their own.
    """
    path = place / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"format_version {FORMAT_VERSION}", f"{version}; another autoxfer wrote it", str(path))
        hashes = {Path(name).name: str(facts["sha256"]) for name, facts in description["files"].items()}
        read_schema(description["schema"])
        _ = hashes[PROGRAM], description["output"]["shape"][1], description["winner"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError("a winner's description in JSON", f"{type(error).__name__}: {error}", str(path)) from error
    for name, sha256 in hashes.items():
        _verify(place / name, sha256)
    for k, tokenizer in enumerate(description["schema"].get("tokenizers", ())):
        name = TOKENIZER.format(k)
        tokenizer["content"] = (place / name).read_text(encoding="utf-8") if name in hashes else ""
    return dict(description)


def is_whole(place: Path, winner: Mapping[str, Any]) -> bool:
    """Whether all files are there, unchanged, and describe this winner."""
    try:
        return bool(read_description(place)["winner"] == winner)
    except (InputError, OSError):
        return False


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError(f"the file that {DESCRIPTION} lists", "no such file", str(path))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"SHA-256 {expected[:12]} as in {DESCRIPTION}", f"{found[:12]}; the file was changed", str(path)
        )


def load_program(place: Path, description: Mapping[str, Any]) -> torch.export.ExportedProgram:
    """Load ``model.pt2`` on the CPU; code that hides in it is refused."""
    path = place / PROGRAM
    _refuse_pickles(path)
    try:
        return torch.export.load(path)
    except Exception as error:  # torch's loader raises anything for an archive of another version
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        wrote = description.get("torch_version", "another version")
        found = f"one that torch {torch.__version__} cannot read (written by torch {wrote}): {first}"
        raise InputError("a program of torch.export", found, str(path)) from error


def _refuse_pickles(path: Path) -> None:
    """Let only raw tensors, text and what ``weights_only`` reads pass: torch.export.load unpickles the rest."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not _harmless(archive, name):
                    raise InputError("a program without pickled code", f"the record {name}", str(path))
    except zipfile.BadZipFile as error:
        raise InputError("a program of torch.export", "no archive", str(path)) from error


def _harmless(archive: zipfile.ZipFile, name: str) -> bool:
    inner = name.partition("/")[2]  # below the archive's own name
    if inner.endswith("_config.json"):
        entries = json.loads(archive.read(name)).get("config", {}).values()
        return all(entry.get("use_pickle") is False for entry in entries)
    if inner.startswith("data/sample_inputs/"):
        with archive.open(name) as record:
            try:
                torch.load(record, map_location="cpu", weights_only=True)
            except Exception:
                return False
        return True
    if inner.startswith(("data/weights/weight_", "data/constants/tensor_", "models/")):
        return True
    return inner in ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")


def read_schema(plain: Mapping[str, Any]) -> Schema:
    """Rebuild a schema from JSON."""
    columns = tuple(Column(c["name"], c["kind"], tuple(c["categories"])) for c in plain["columns"])
    tokenizers = tuple(Tokenizer(**each) for each in plain.get("tokenizers", ()))
    sequences = {
        "shape": tuple(plain["shape"]),
        "classes": tuple(plain["classes"]),
        "columns": columns,
        "tokenizers": tokenizers,
        "targets": tuple(plain.get("targets", ())),
    }
    return Schema(**{**plain, **sequences})
