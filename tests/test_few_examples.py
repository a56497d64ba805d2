"""What the defaults make of two hundred labelled examples: a large gain is seen and accepted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoxfer.cli import main

N = 200
NETWORK = """
import torch
from torch import nn

class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(12, 5), Sine(), nn.Linear(5, 5))
"""
RUN = """
task: {data: few.npz}
sources:
  - {name: waves, model: "nets.py:Net", weights: waves.safetensors, input: {shape: [12]}}
strategies: [scratch, linear_probe]
budget: {trials: 5}
device: cpu
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task that a source has solved before: which of five waves is the highest, in noise of seven more dimensions."""
    rng = np.random.default_rng(0)
    waves = 2.2 * np.linalg.qr(rng.normal(size=(12, 5)))[0].T
    examples = rng.normal(size=(N, 12)).astype(np.float32)
    np.savez(tmp_path / "few.npz", features=examples, labels=np.sin(examples @ waves.T).argmax(1))
    head = nn.Linear(5, 5)
    save_file(
        {
            "0.weight": torch.from_numpy(waves).float().contiguous(),
            "0.bias": torch.zeros(5),
            "2.weight": head.weight.detach().clone(),
            "2.bias": head.bias.detach().clone(),
        },
        tmp_path / "waves.safetensors",
    )
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(command: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 0
    return capfd.readouterr().out


@pytest.mark.slow
def test_a_transfer_from_35_to_90_percent_is_accepted_with_200_examples(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = said(["run", "run.yaml"], capfd).splitlines()
    first, last = lines[1].split(), lines[2].split()
    assert (first[:3], first[-1]) == (["*", "linear_probe", "waves"], "accepted")
    assert last[0] == "scratch"
    assert 0.2 < float(last[2]) < 0.5
    assert float(first[4]) > 0.8
    assert any("linear_probe@waves: fixed" in line and "of 80, p < 0.0001 at level 0.05" in line for line in lines)


def test_the_plan_for_200_examples_says_what_they_can_find(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = said(["plan", "run.yaml"], capfd)
    assert "splits: 80 train, 40 tune, 80 guard" in page
    assert "80 (now)  160  320" in page
    assert "reliably" not in page
    assert "warning" not in page


def test_the_plan_says_why_a_split_has_another_size_than_was_asked_for(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "asked for" not in said(["plan", "run.yaml", "-o", "task.splits={guard: 81}"], capfd)
    with np.load("few.npz") as few:
        features, labels = (np.repeat(few[name][:100], 2, axis=0) for name in ("features", "labels"))
    np.savez("few.npz", features=features, labels=labels)
    page = said(["plan", "run.yaml", "-o", "task.splits={guard: 81}"], capfd)
    assert re.search(r"^splits: .*, 8[02] guard \(81 asked for; copies stay together\)$", page, re.MULTILINE)


def test_plan_and_run_warn_of_a_guard_that_finds_nothing(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = said(["plan", "run.yaml", "-o", "task.splits={guard: 0.1}"], capfd)
    assert "warning: the guard's 20 examples find not even a gain of 20 points reliably; about " in page
