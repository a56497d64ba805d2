"""A stranger's package, installed by pip, is seen, keeps its promises, and competes in a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STRANGER = ROOT / "tests" / "stranger"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables under which the stranger's package is installed, by pip and without a network."""
    package, target = (tmp_path_factory.mktemp(name) for name in ("package", "target"))
    shutil.copytree(STRANGER, package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(package)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1", "AUTOXFER_PLUGINS": "bitfit"}


def autoxfer(installed: dict[str, str], folder: Path, *arguments: str) -> dict[str, object]:
    """Run the command line with ``--json`` and give its object."""
    command = [sys.executable, "-m", "autoxfer", *arguments, "--json"]
    done = subprocess.run(command, env=installed, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_an_installed_stranger_is_listed_with_its_distribution(installed: dict[str, str], tmp_path: Path) -> None:
    listed = autoxfer(installed, tmp_path, "plugins")["plugins"]
    assert isinstance(listed, list)
    (record,) = [record for record in listed if record["name"] == "bitfit"]
    assert (record["distribution"], record["version"], record["state"]) == ("autoxfer-bitfit", "0.1.0", "loaded")
    assert list(record["strategies"]) == ["bitfit"]


def test_the_strangers_own_tests_pass_with_the_kit_that_ships(installed: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(STRANGER / "tests", tmp_path / "tests")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(tmp_path / "tests"),
    ]
    environment = {name: value for name, value in installed.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_stranger_competes_in_a_run_with_a_verdict_of_its_own(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    settings = {
        "task": {"data": "digits.npz", "splits": {"train": 50, "tune": 50, "guard": 200, "test": 100}},
        "sources": [{"name": "digits", "model": "nets.py:SmallCNN", "weights": "digits_source.safetensors"}],
        "strategies": ["scratch", {"bitfit": {"head_rate": [1.0, 3.0], "steps": 20}}],
        "budget": {"trials": 2},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(settings))  # JSON is YAML
    for path in (ROOT / "examples" / "digits").iterdir():
        if path.is_file() and path.name != "run.yaml":
            shutil.copy(path, tmp_path)
    result = autoxfer(installed, tmp_path, "run", "run.yaml")
    entries = result["entries"]
    assert isinstance(entries, list)
    (entry,) = [entry for entry in entries if entry["strategy"] == "bitfit"]
    assert (entry["source"], entry["status"], entry["n_failed"]) == ("digits", "complete", 0)
    assert entry["params"]["head_rate"] in (1.0, 3.0)
    assert entry["verdict"]["decision"] in ("accepted", "harmful", "undecided", "untested")
