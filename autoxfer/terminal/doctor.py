"""Looks at the machine and the installation: what is there, what is missing, what to do about it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from autoxfer.errors import InputError

LITTLE_DISK = 1.0  # GB
USES = {"vision": "timm:NAME", "text": "hf:NAME and texts"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "broken"]
    text: str


def examine(runs: Path, mlflow: Path | None) -> list[Finding]:
    """Look at everything; what goes wrong while looking is a finding too."""
    findings: list[Finding] = []
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("runs", lambda: _runs(runs)),
        ("activations", _activations),
        ("mlflow", lambda: _mlflow(runs, mlflow)),
        ("plugins", _plugins),
    )
    for name, look in looks:
        try:
            findings += look()
        except InputError as error:
            findings.append(Finding(name, "broken", str(error)))
        except Exception as error:
            findings.append(Finding(name, "broken", f"{type(error).__name__}: {' '.join(str(error).split())}"))
    return findings


def _python() -> Iterator[Finding]:
    state: Literal["ok", "broken"] = "ok" if sys.version_info >= (3, 11) else "broken"
    yield Finding("python", state, f"{platform.python_version()} on {platform.platform(terse=True)}")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement  # noqa: PLC0415

    for requirement in map(Requirement, requires("autoxfer") or ()):
        extra = re.search(r"extra == ['\"](\w+)", str(requirement.marker))
        use = USES.get(extra[1]) if extra else None
        wanted = str(requirement.specifier) or "any version"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            if not extra:
                yield Finding(requirement.name, "broken", f"not installed, {wanted} is needed")
            elif use:
                told = f'not installed; for {use}: pip install "autoxfer[{extra[1]}]"'
                yield Finding(requirement.name, "note", told)
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        if fits and (use or not extra):
            yield Finding(requirement.name, "ok", f"{found} ({wanted})")
        elif not fits:
            yield Finding(requirement.name, "note" if extra else "broken", f"{found}, but {wanted} is needed")


def _torch() -> Iterator[Finding]:
    import torch  # noqa: PLC0415

    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    yield Finding("device", "ok", f"{build}, {'; '.join(_devices()) or 'CPU only'}")
    yield Finding("threads", "ok", f"{torch.get_num_threads()} of {os.cpu_count()} processors")


def _devices() -> Iterator[str]:
    import torch  # noqa: PLC0415

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        yield f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _runs(runs: Path) -> Iterator[Finding]:
    place = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding("runs", "broken", f"{place} cannot be written to: {error.strerror or error}")
        return
    free = shutil.disk_usage(place).free / 1e9
    yield Finding("runs", "ok" if free >= LITTLE_DISK else "broken", f"{runs.absolute()}, {free:.1f} GB free")


def _activations() -> Iterator[Finding]:
    from autoxfer.activations import open_store  # noqa: PLC0415

    store = open_store()
    if store is None:
        yield Finding("activations", "note", "computed anew by every run: AUTOXFER_CACHE is off")
    else:
        yield Finding("activations", "ok", f"{store.folder}, {store.size() / 1e9:.1f} of {store.limit / 1e9:g} GB")


def _mlflow(runs: Path, mlflow: Path | None) -> Iterator[Finding]:
    from autoxfer import tracking  # noqa: PLC0415

    settings = tracking.read_settings(mlflow, runs)
    if not settings.enabled:
        yield Finding("MLflow", "note", "switched off in mlflow.yaml")
    elif settings.database is not None and not settings.database.exists():
        yield Finding("MLflow", "ok", f"{settings.uri}, made by the first run ({settings.origin})")
    else:
        tracking.check(settings)
        yield Finding("MLflow", "ok", f"{settings.uri} ({settings.origin})")


def _plugins() -> Iterator[Finding]:
    from autoxfer.plugins import load_plugins  # noqa: PLC0415

    records = load_plugins().records
    loaded = [record.name for record in records if record.state == "loaded"]
    yield Finding("plugins", "ok", f"{len(loaded)} loaded: {', '.join(loaded)}")
    for record in records:
        if record.state != "loaded":
            state: Literal["note", "broken"] = "broken" if record.state == "refused" else "note"
            yield Finding(f"plugin {record.name}", state, f"{record.state} ({record.origin}): {record.reason}")
