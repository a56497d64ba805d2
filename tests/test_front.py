"""The front is light: importing autoxfer, or asking for help, loads nothing heavy."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import autoxfer

HEAVY = {"torch", "mlflow", "optuna", "pandas", "sklearn", "scipy", "numpy", "timm", "pydantic"}
HELP = """
import sys
sys.argv = ["autoxfer", "--help"]
try:
    from autoxfer.cli import main
    main()
except SystemExit as stop:
    assert not stop.code
"""


def loaded_by(code: str) -> set[str]:
    """Say which heavy libraries a fresh interpreter, away from the checkout, holds after running ``code``."""
    code += "\nimport sys\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return HEAVY.intersection(done.stdout.splitlines()[-1].split())


def test_importing_autoxfer_loads_nothing_heavy() -> None:
    assert loaded_by("import autoxfer; autoxfer.__version__; dir(autoxfer)") == set()


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by(HELP) == set()


def test_the_check_bites() -> None:
    assert loaded_by("import autoxfer; autoxfer.Recipe; import numpy") == {"numpy"}


@pytest.mark.slow
def test_help_appears_within_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", HELP], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.5


@pytest.mark.parametrize("name", autoxfer.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(autoxfer, name) is not None


def test_type_checkers_are_told_of_every_public_name() -> None:
    tree = ast.parse(Path(autoxfer.__file__).read_text())
    told = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told - {None} == set(autoxfer.__all__) - {"__version__"}


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'strategi'"):
        _ = autoxfer.strategi
