"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: several workers with all cores each are slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore = ["stranger"]  # a package of its own, which test_stranger.py installs and tests

SHARED = Path(os.environ.get("AUTOXFER_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and weights beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets and weights are not beside this checkout")
    return folder
