"""What a search would find out late is found out before it: candidates that cannot be built or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from autoxfer_builtins.linear_probe import LinearProbe
from autoxfer_builtins.scratch import Scratch
from safetensors.torch import save_file
from torch import nn

from autoxfer.config import load_config
from autoxfer.errors import PluginError
from autoxfer.setting import Setting, prepare
from autoxfer.strategy import Candidate, Raw


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows = "\n".join(f"{i % 7},{i % 5},{'ny'[i % 7 > 3]}" for i in range(80))
    (tmp_path / "t.csv").write_text(f"x,y,label\n{rows}\n")
    (tmp_path / "nets.py").write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(2, 3))\n")
    save_file({"0.weight": torch.ones(3, 2), "0.bias": torch.zeros(3)}, tmp_path / "net.safetensors")
    return tmp_path


def setting(project: Path, *strategies: str) -> Setting:
    source = {"name": "net", "model": "nets.py:net", "weights": "net.safetensors", "input": {"shape": [2]}}
    return prepare(
        load_config(
            {
                "task": {"data": "t.csv"},
                "sources": [source],
                "strategies": list(strategies),
                "device": "cpu",
                "directory": str(project),
            }
        )
    )


def fails(*_: Any) -> Candidate:
    raise RuntimeError("no such layer")


def test_a_strategy_that_cannot_be_built_is_left_out_and_the_others_compete(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearProbe, "build", fails)
    found = setting(project, "linear_probe", "fine_tune")
    assert set(found.studies) == {"scratch", "fine_tune@net"}
    assert "RuntimeError: no such layer" in found.unavailable["linear_probe@net"]
    assert any("no such layer" in warning for warning in found.warnings)


def test_a_candidate_with_outputs_of_another_shape_is_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinearProbe, "build", lambda *_: Candidate(nn.Linear(2, 5), (Raw(),)))
    found = setting(project, "linear_probe", "fine_tune")
    assert "(2, 5), not (2, 2)" in found.unavailable["linear_probe@net"]


def test_a_baseline_that_cannot_be_built_stops_everything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scratch, "build", fails)
    with pytest.raises(PluginError, match="no such layer"):
        setting(project, "linear_probe")


def test_rehearsing_leaves_the_random_state_alone(project: Path) -> None:
    state = torch.random.get_rng_state()
    setting(project, "linear_probe")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (fails, "its space fails: RuntimeError: no such layer"),
        (lambda *_: ["lr"], "a dict of Optuna's distributions, not ['lr']"),
        (lambda *_: {"rank": [1, 2]}, "a dict of Optuna's distributions, not {'rank': [1, 2]}"),
    ],
)
def test_a_strategy_whose_space_fails_is_left_out_and_the_others_compete(
    project: Path, monkeypatch: pytest.MonkeyPatch, space: Any, told: str
) -> None:
    monkeypatch.setattr(LinearProbe, "space", space)
    found = setting(project, "linear_probe", "fine_tune")
    assert set(found.studies) == {"scratch", "fine_tune@net"}
    assert told in found.unavailable["linear_probe@net"]


def test_a_strategy_that_wants_to_end_the_program_is_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves(*_: Any) -> Candidate:
        raise SystemExit(3)

    monkeypatch.setattr(LinearProbe, "build", leaves)
    assert "SystemExit: 3" in setting(project, "linear_probe", "fine_tune").unavailable["linear_probe@net"]


def test_scratch_alone_needs_no_source(project: Path) -> None:
    config = {"task": {"data": "t.csv"}, "strategies": ["scratch"], "device": "cpu", "directory": str(project)}
    assert set(prepare(load_config(config)).studies) == {"scratch"}
