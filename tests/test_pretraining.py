"""``autoxfer pretrain``: a source from a data set, with a card, in the form that a run reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.compact_source import CompactLoader
from autoxfer_builtins.python_source import PythonLoader
from safetensors.torch import load_file, save_file

from autoxfer import seen
from autoxfer.architectures import Compact
from autoxfer.cli import main
from autoxfer.errors import InputError
from autoxfer.records import SourceSpec

CODE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, n=1, width=8):
        super().__init__(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, n))

def pair():
    return nn.Linear(3, 2)

def other():
    return nn.Linear(4, 1)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a table of numbers to predict, far from standard units, and with pictures."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = 500 + 40 * (x @ [1.0, -2.0, 0.5])
    rows = [f"{a},{b},{c},{target}" for (a, b, c), target in zip(x, y, strict=True)]
    (tmp_path / "numbers.csv").write_text("\n".join(["a,b,c,target", *rows]))
    texts = [f"word{k} other{k % 7},{'no' if k % 2 else 'yes'}" for k in range(40)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *texts]))
    mixed = [f"the word {k} and its number {k % 7},{k % 5},{'no' if k % 2 else 'yes'}" for k in range(40)]
    (tmp_path / "mixed.csv").write_text("\n".join(["text,age,label", *mixed]))
    images = rng.integers(0, 90, (90, 8, 8)).astype(np.uint8)
    labels = np.arange(90) % 3
    images[np.arange(90), labels * 2] += 120
    np.savez(tmp_path / "pictures.npz", images=images, labels=labels, class_names=np.array(["ant", "bee", "cow"]))
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOXFER_PLUGINS", raising=False)
    return tmp_path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_a_compact_network_is_trained_saved_and_read_again(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["-o", "device=cpu", "-o", "task.splits={tune: 30}", "--trials", "1", "--seed", "3", "--json"]
    assert call("pretrain", "--data", "pictures.npz", "--model", "compact", "--out", "made", *options) == 0
    answer = json.loads(capfd.readouterr().out)
    card = json.loads((home / "made" / "pictures.json").read_text())
    assert answer["card"] == seen.bare(card) != card  # the sketch is for the next run, not for people
    assert card["classes"] == ["ant", "bee", "cow"]
    assert card["tune"] > 0.9
    assert card["trained_on"]["examples"] == {"train": 60, "tune": 30}
    assert card["trained_on"]["seed"] == 3
    assert len(card["trained_on"]["fingerprint"]) == 64
    assert card["command"].startswith("autoxfer")
    assert answer["source"] == {"name": "pictures", "model": "compact", "weights": "made/pictures.safetensors"}
    source = CompactLoader().load(SourceSpec("p", "compact", Path("made/pictures.safetensors"), directory=home))
    images = np.load("pictures.npz")["images"]
    natural = torch.from_numpy(images / 255.0).float()[:, None]
    with torch.no_grad():
        features = source.extract(["last"])(source.preprocess((1, 8, 8))(natural))[0]
        assert source.head is not None
        right = source.head(features).argmax(1).numpy() == np.load("pictures.npz")["labels"]
    assert right.mean() > 0.9
    assert len(source.taps) > 2


def test_a_network_of_the_users_own_answers_in_the_labels_units(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "target", "--trials", "1", "-o", "device=cpu", "--name", "net"]
    assert call("pretrain", "--data", "numbers.csv", "--model", "nets.py:Net", "--out", ".", *options) == 0
    told = capfd.readouterr()
    assert "wrote net.safetensors and net.json beside it" in told.out
    assert "--source '{name: net, model: nets.py:Net, weights: net.safetensors}'" in told.out
    assert "trial 1: " in told.err
    source = PythonLoader().load(SourceSpec("net", "nets.py:Net", Path("net.safetensors"), directory=home))
    assert source.columns == ("a", "b", "c")
    table = np.loadtxt("numbers.csv", delimiter=",", skiprows=1)
    with torch.no_grad():
        features = source.extract(["last"])(
            source.preprocess((3,), ("a", "b", "c"))(torch.tensor(table[:, :3]).float())
        )
        assert source.head is not None
        error = source.head(features[0])[:, 0].numpy() - table[:, 3]
    assert np.abs(error).mean() < 40


def test_seed_and_run_file_decide(home: Path) -> None:
    (home / "run.yaml").write_text("task: {data: numbers.csv, target: target}\nbudget: {trials: 1}\ndevice: cpu\n")
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        model = "{model: 'nets.py:Net', options: {width: 4}}"
        assert call("pretrain", "run.yaml", "--model", model, "--out", ".", "--name", name, "--seed", seed) == 0
    one, again, other = (load_file(f"{name}.safetensors") for name in ("one", "again", "other"))
    assert one["0.weight"].shape == (4, 3)
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_a_source_of_several_outputs_is_trained_from_several_columns(home: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(120, 5))
    np.savetxt(home / "two.csv", rows, delimiter=",", header="a,b,c,left,right", comments="")
    targets = ("--target", "left", "--target", "right")
    arguments = ("pretrain", "--data", "two.csv", *targets, "--model", "nets.py:pair", "--trials", "1", "--out", ".")
    assert call(*arguments, "-o", "device=cpu", "--name", "both") == 0
    assert load_file("both.safetensors")["weight"].shape == (2, 3)


NUMBERS = ("--data", "numbers.csv", "--target", "target")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data", "texts.csv", "--model", "nets.py:Net", "--target", "label"), "compact or compact_wide for texts"),
        (("--data", "texts.csv", "--model", "{model: compact, options: {width: 3}}"), "no options for compact"),
        (("--data", "mixed.csv", "--model", "compact", "--target", "label"), "pictures, vectors, a table or texts"),
        ((*NUMBERS, "--model", "nets.py:pair"), "a network with 1 outputs"),
        ((*NUMBERS, "--model", "nets.py:other"), "a network that reads the data's 3"),
        ((*NUMBERS, "--model", "nets.py:Nett"), "a factory in nets.py"),
        ((*NUMBERS, "--model", "hf:folder"), "a network to train: compact, file.py:Factory or timm:NAME"),
        ((*NUMBERS, "--model", "{model: compact, options: {width: 3}}"), "no options for compact"),
        ((*NUMBERS, "--model", "compact", "--name", "linear"), "no built-in network's"),
        ((*NUMBERS, "--model", "compact", "--name", "a/b"), "a name of letters"),
        ((*NUMBERS, "--model", "compact", "--name", "taken"), "a new name (--name) or folder"),
        ((*NUMBERS, "--model", "compact", "-o", "task.splits={tune: 120}"), "a tune split within 120 examples"),
        ((*NUMBERS, "--model", "compact", "--trials", "0"), "a whole number of at least 1"),
        ((*NUMBERS, "--model", "compact", "--out", "nets.py"), "a folder"),
        (("--model", "compact"), "a run file, or --data"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(
    home: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    (home / "taken.json").write_text("{}")
    given = arguments if "--out" in arguments else (*arguments, "--out", ".")
    assert call("pretrain", *given) == 2
    shown = capfd.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.err
    assert "trial" not in shown.err.partition("error")[0]
    assert not list(home.glob("*.safetensors"))


def test_compact_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    def refusal(state: dict[str, torch.Tensor], **given: Any) -> str:
        save_file(state, tmp_path / "net.safetensors")
        spec = SourceSpec("net", "compact", Path("net.safetensors"), {"shape": [3]}, directory=tmp_path, **given)
        with pytest.raises(InputError) as caught:
            CompactLoader().load(spec)
        return str(caught.value)

    fits = {name: tensor.clone() for name, tensor in Compact((3,), 32)(2).state_dict().items()}
    assert "no head.weight" in refusal({"fc.weight": torch.zeros(2, 3)})
    assert "weights that fit the network" in refusal({**fits, "body.1.weight": torch.zeros(128, 4)})
    assert "no options" in refusal(fits, options={"width": 3})
    with pytest.raises(InputError, match="weights, as autoxfer pretrain writes them"):
        CompactLoader().load(SourceSpec("net", "compact"))


@pytest.mark.slow
def test_what_was_pretrained_on_one_half_helps_on_the_other(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    np.savez("one.npz", images=images[:900], labels=digits.target[:900])
    np.savez("two.npz", images=images[900:], labels=digits.target[900:])
    made = ("--data", "one.npz", "--model", "compact", "--out", "made", "--trials", "1", "-o", "device=cpu")
    assert call("pretrain", *made, "--json") == 0
    source = json.dumps(json.loads(capfd.readouterr().out)["source"])
    run = ["--data", "two.npz", "--source", source, "--json", "--quiet", "-o", "budget={trials: 5}", "-o", "device=cpu"]
    run += ["-o", "task.splits={train: 40, tune: 100, guard: 500}"]
    assert call("run", *run, "-o", "strategies=[{scratch: {steps: 60}}, linear_probe]") == 0
    result = json.loads(capfd.readouterr().out)
    scores = {entry["strategy"]: entry["guard"] for entry in result["entries"]}
    assert scores["linear_probe"] > scores["scratch"]
