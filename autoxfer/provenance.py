"""Where a run comes from: its configuration, machine, packages, data and sources, noted so that it can be resumed."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import yaml

from autoxfer.errors import InputError
from autoxfer.runfolder import RunFolder, write_json, write_whole

if TYPE_CHECKING:
    from autoxfer.setting import Setting

T = TypeVar("T")


def describe(setting: Setting, folder: RunFolder) -> None:
    """Write down what a run is, so that it can be resumed and understood."""
    text = yaml.safe_dump(setting.config.resolved(), sort_keys=False, allow_unicode=True)
    write_json(folder.environment, _environment(setting))
    if setting.earlier.studies:
        setting.earlier.write(folder.earlier)
    write_whole(folder.config, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def confirm(setting: Setting, folder: RunFolder) -> None:
    """Make sure that data and sources are those that the run began with. Raises InputError where they are not."""
    before = _recorded(folder, "fingerprints", dict)
    for name, found in _fingerprints(setting).items():
        if before.get(name) != found:
            raise InputError(f"the {name} that the run began with", "other content", str(folder.path))


def _fingerprints(setting: Setting) -> dict[str, str]:
    prints = {"data": setting.fingerprint}
    prints.update({f"source {name}": source.fingerprint for name, source in setting.sources.items()})
    return prints


def _environment(setting: Setting) -> dict[str, Any]:
    packages = ("autoxfer", "torch", "optuna", "mlflow", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "device": str(setting.features.device),
        "device_name": torch.cuda.get_device_name() if setting.features.device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "fingerprints": _fingerprints(setting),
        "sources": {name: dict(source.card) for name, source in setting.sources.items()},
    }


def restore_threads(folder: RunFolder) -> None:
    """Compute with as many threads as the run began with: their number changes the last bits of every sum."""
    torch.set_num_threads(_recorded(folder, "threads", int))


def _recorded(folder: RunFolder, key: str, kind: type[T]) -> T:
    """Read what the run noted about its surroundings. Raises InputError where the file is damaged."""
    try:
        value = json.loads(folder.environment.read_text(encoding="utf-8"))[key]
    except OSError as error:
        found = error.strerror or str(error)
    except (ValueError, LookupError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
    else:
        if isinstance(value, kind):
            return value
        found = f"{key}: {value!r}"
    raise InputError(f"the run's {key}, in JSON", found, str(folder.environment))
