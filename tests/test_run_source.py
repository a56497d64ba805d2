"""Winners of earlier runs as sources: lifted from their programs, found by folder, run or registered name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.run_source import RunLoader
from torch import Tensor, nn

import autoxfer
from autoxfer.cli import main
from autoxfer.composed import Composed
from autoxfer.dataset import Column, Schema
from autoxfer.errors import InputError
from autoxfer.export import save_winner
from autoxfer.layering import anew
from autoxfer.preparation import Unpack
from autoxfer.records import SourceSpec
from autoxfer.source import Source
from autoxfer.tokens import Tokenizer, Vocabulary
from autoxfer.winnerfiles import load_program, read_description

INFO = {"run_id": "r", "strategy": "fine_tune", "source": "s", "certified": True}
PICTURES = Schema("image", "classification", (12, 12, 3), "uint8", ("ant", "bee", "cow"))
NUMBERS = Schema("vector", "regression", (6,), "float32")
TABLE = Schema(
    "table",
    "classification",
    (2,),
    "float32",
    ("no", "yes"),
    (Column("age", "numeric"), Column("town", "categorical", ("Bonn", "Ulm"))),
)
WORDS = Tokenizer("words", Vocabulary(("a", "b", "c", "d"), ()).content, 5)
OTHER = Tokenizer("words", Vocabulary(("x", "y"), ()).content, 4, "s")
TEXTS = Schema("text", "classification", (9,), "int32", ("neg", "pos"), tokenizers=(WORDS, OTHER))


class Read(nn.Module):
    """Stands for what reads a source's input."""

    def forward(self, natural: Tensor) -> tuple[Tensor, ...]:
        return (natural,)


class Block(nn.Module):
    """Convolution with batch normalisation, dropout and a scale of its own, added to what came."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.5))
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.dropout(self.norm(self.conv(x)).relu())


class Tokens(nn.Module):
    """Attention over patches and a class token, which needs the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        y = self.norm(x)
        y = y + torch.arange(10, device=y.device)[:, None] / 10  # positions, made where it was exported
        split = [f(y).view(y.shape[0], 10, 2, 4).transpose(1, 2) for f in (self.query, self.key, self.value)]
        x = x + nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).reshape(y.shape[0], 10, 8)
        logits: Tensor = self.head(x[:, 0])
        return logits


class Branches(nn.Module):
    """Two branches, each with a head, as residual integration has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(6, 4), nn.Linear(6, 5)
        self.head, self.second = nn.Linear(4, 1), nn.Linear(5, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.one(x).relu()) + self.second(self.other(x).tanh())
        return out


class Ids(nn.Module):
    """Reads the ids from ``start`` on."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self.words, self.head = nn.Embedding(10, 6), nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.words(ids[:, self.start :].clamp(min=0).long()).mean(1))
        return out


def _blocks() -> nn.Module:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.GroupNorm(2, 4), nn.Linear(4, 3))
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), Block(4), Block(4), *pooled)


def _row() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))


NETWORKS: dict[str, tuple[Schema, Callable[[], nn.Module], float | Tensor, float]] = {
    "convolutions": (PICTURES, _blocks, 0.0, 1.0),
    "attention": (PICTURES, Tokens, 0.0, 1.0),
    "numbers in their own units": (NUMBERS, Branches, 7.0, 3.0),
    "a table": (TABLE, _row, 0.0, 1.0),
    "texts": (TEXTS, lambda: Ids(5), 0.0, 1.0),
}


def stored(schema: Schema, n: int = 5) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    if schema.modality == "image":
        return rng.integers(0, 256, (n, *schema.shape)).astype(np.uint8)
    if schema.modality == "text":
        return rng.integers(-1, 2, (n, *schema.shape)).astype(np.int32)
    if schema.modality == "table":
        return np.stack([rng.normal(size=n), rng.integers(0, 2, n)], 1).astype(np.float32)
    return rng.normal(size=(n, *schema.shape)).astype(np.float32)


def ship(folder: Path, kind: str, module: nn.Module | None = None) -> nn.Module:
    """Write a winner's files, and give the network that they hold."""
    schema, make, center, spread = NETWORKS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = module or make()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()  # type: ignore[union-attr]
    reader: Any = Read()
    whole = Composed(Unpack(schema), reader, module, center, spread).eval()
    save_winner(folder, whole, schema, stored(schema)[:2], INFO)
    return whole


def load(folder: Path, **given: Any) -> Source:
    return RunLoader().load(SourceSpec("old", f"run:{folder}", **given))


@pytest.fixture(scope="module")
def winners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, nn.Module]]:
    """One winner of each kind."""
    made = {}
    for kind in NETWORKS:
        folder = tmp_path_factory.mktemp("winner")
        made[kind] = folder, ship(folder, kind)
    return made


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_lifted_winner_answers_as_the_network_that_was_shipped(winners: Any, kind: str) -> None:
    (folder, whole), schema = winners[kind], NETWORKS[kind][0]
    source = load(folder)
    examples = torch.from_numpy(stored(schema, 7))
    natural = Unpack(schema)(examples)
    if kind == "texts":
        natural = natural[:, 5:]
    with torch.no_grad():
        names = [tap.name for tap in source.taps]
        activations = source.extract(names)(natural)
        assert source.head is not None
        torch.testing.assert_close(source.head(activations[-1]), whole(examples), rtol=1e-4, atol=1e-5)
        for tap, activation in zip(source.taps[:-1], activations[:-1], strict=True):
            follows = source.suffix(tap.name).eval()(activation)
            torch.testing.assert_close(follows, activations[-1], rtol=1e-4, atol=1e-5)
    assert source.classes == schema.classes
    assert source.fingerprint == load(folder).fingerprint


def test_a_lifted_winner_is_cut_where_one_tensor_is_alive(winners: Any) -> None:
    names = [[tap.name for tap in load(winners[kind][0]).taps] for kind in ("convolutions", "attention")]
    assert names[0] == ["input", "module.0", "module.1.conv", "last"]
    assert names[1] == ["input", "module.patches", "last"]


def test_a_lifted_winner_computes_wherever_it_is_moved(winners: Any) -> None:
    for kind in ("convolutions", "attention"):
        body = load(winners[kind][0]).suffix().to("meta")
        assert body(torch.empty(2, 3, 12, 12, device="meta")).is_meta


def test_layers_are_layers_again_and_dropout_and_statistics_work_in_training(winners: Any) -> None:
    body = load(winners["convolutions"][0]).suffix()
    kinds = [type(part) for part in body.modules()]
    assert [kinds.count(kind) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Dropout, nn.GroupNorm)] == [3, 2, 2, 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.rand(4, 3, 12, 12)
        before = {name: buffer.clone() for name, buffer in body.named_buffers() if "running" in name}
        one, other = body.train()(x), body(x)
    assert not torch.equal(one, other)
    assert all(not torch.equal(body.get_buffer(name), value) for name, value in before.items())
    one.sum().backward()
    assert all(parameter.grad is not None for parameter in body.parameters())


def test_a_new_network_has_the_architecture_and_none_of_the_weights(winners: Any) -> None:
    for kind in ("convolutions", "attention", "texts"):
        source = load(winners[kind][0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            new = source.fresh()
        old = source.suffix()
        assert [name for name, _ in new.named_parameters()] == [name for name, _ in old.named_parameters()]
        for name, parameter in new.named_parameters():
            if parameter.dim() > 1 and not name.endswith("scale"):
                assert not torch.equal(parameter, old.get_parameter(name)), name
    assert isinstance(anew(nn.Linear(2, 2)), nn.Linear)


def test_a_table_is_read_by_the_names_of_its_columns(winners: Any) -> None:
    source = load(winners["a table"][0])
    assert source.columns == ("age", "town=Bonn", "town=Ulm")
    select = source.preprocess((4,), ("town=Ulm", "town=Bonn", "height", "age"))
    assert torch.equal(select(torch.tensor([[1.0, 0.0, 9.0, 44.0]])), torch.tensor([[44.0, 0.0, 1.0]]))
    with pytest.raises(InputError, match="a table with age, which the source reads"):
        source.preprocess((2,), ("town=Ulm", "town=Bonn"))


def test_a_text_winner_brings_its_tokenizer_and_takes_shorter_texts(winners: Any) -> None:
    source = load(winners["texts"][0])
    assert source.tokenizer == OTHER
    ids = torch.tensor([[1, 2]], dtype=torch.int32)
    with torch.no_grad():
        short = source.of_length(2).extract(["last"])(ids)[0]
        filled = source.extract(["last"])(nn.functional.pad(ids, (0, 2), value=-1))[0]
    assert torch.equal(short, filled)


def test_other_weights_are_another_source(winners: Any, tmp_path: Path) -> None:
    ship(tmp_path, "convolutions", _blocks())
    assert load(tmp_path).fingerprint != load(winners["convolutions"][0]).fingerprint


def _spoil(folder: Path, how: str) -> dict[str, Any]:
    if how == "changed":
        with (folder / "model.pt2").open("ab") as file:
            file.write(b"x")
    elif how == "unfinished":
        (folder / "model.json").unlink()
        (folder / "config.yaml").write_text("task: {}")
    elif how == "no winner":
        (folder / "model.json").unlink()
    elif how == "no network":
        shutil.rmtree(folder)
        ship(folder, "numbers in their own units", _Mean())
    elif how == "two readers":
        shutil.rmtree(folder)
        ship(folder, "texts", Ids(0))
    elif how == "no folder":
        shutil.rmtree(folder)
    return {"options": {"options": {"pooling": "cls"}}, "weights": {"weights": Path("w.safetensors")}}.get(how, {})


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("changed", "the file was changed"),
        ("unfinished", "a run that has not finished"),
        ("no winner", "no model.json"),
        ("no folder", "no folder"),
        ("no network", "a winner that is a network, found fine_tune without a layer"),
        ("two readers", "reads the ids of one tokenizer, found 2"),
        ("options", "neither options nor input"),
        ("weights", "no weights beside run:FOLDER"),
    ],
)
def test_what_is_no_whole_winner_is_refused(winners: Any, tmp_path: Path, how: str, told: str) -> None:
    folder = Path(shutil.copytree(winners["convolutions"][0], tmp_path / "winner"))
    given = _spoil(folder, how)
    with pytest.raises(InputError, match=told):
        load(folder, **given)


def test_a_mixed_winner_is_refused_before_its_program_is_read(winners: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(winners["a table"][0], tmp_path / "winner"))
    description = json.loads((folder / "model.json").read_text())
    description["schema"]["modality"] = "mixed"
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="pictures, vectors, tables or texts alone"):
        load(folder)


def test_another_modality_or_shape_is_one_clear_message(winners: Any) -> None:
    source = load(winners["convolutions"][0])
    with pytest.raises(InputError, match="images, which the source reads as 3x12x12, found shape 6"):
        source.preprocess((6,))
    with pytest.raises(InputError, match="examples of 6 values, as the source reads, found 5 values"):
        load(winners["numbers in their own units"][0]).preprocess((5,))


def test_a_run_is_found_by_its_name_among_the_runs(winners: Any, tmp_path: Path) -> None:
    shutil.copytree(winners["a table"][0], tmp_path / "runs" / "20260101-a" / "winner")
    source = RunLoader().load(SourceSpec("old", "run:20260101-a", directory=tmp_path))
    assert source.card["winner"] == INFO


def test_the_program_itself_is_untouched(winners: Any) -> None:
    folder, whole = winners["convolutions"]
    source = load(folder)
    with torch.no_grad():
        for parameter in source.suffix().parameters():
            parameter.zero_()
    program = load_program(folder, read_description(folder)).module()
    examples = torch.from_numpy(stored(PICTURES))
    torch.testing.assert_close(program(examples), whole(examples).softmax(1))
    assert replace(source.taps[0], shape=()).shape == ()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two halves of the digits."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    np.savez(tmp_path / "one.npz", images=images[:900], labels=digits.target[:900])
    np.savez(tmp_path / "two.npz", images=images[900:], labels=digits.target[900:])
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "AUTOXFER_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


SECOND = {
    "task": {"data": "two.npz", "splits": {"train": 40, "tune": 100, "guard": 400}},
    "strategies": [{"scratch": {"steps": 60}}, "linear_probe", {"fine_tune": {"steps": 20}}],
    "budget": {"trials": 1, "min_trials": 1},
    "device": "cpu",
}


@pytest.mark.slow
def test_the_champion_of_one_run_is_a_source_of_the_next(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = autoxfer.run({"task": {"data": "one.npz", "name": "digits"}, "budget": {"trials": 1}, "device": "cpu"})
    assert first.record.mlflow.version == "1"
    registered = "mlflow:models:/digits@champion"
    result = autoxfer.run({**SECOND, "sources": [registered, {"name": "local", "model": f"run:{first.folder}"}]})
    entries = {entry.study: entry for entry in result.record.entries}
    assert {entry.status for entry in entries.values()} == {"complete"}
    for strategy in ("linear_probe", "fine_tune"):
        assert entries[f"{strategy}@digits-champion"].tune == pytest.approx(entries[f"{strategy}@local"].tune, abs=0.1)
    for model in (registered, f"run:{first.folder}"):  # which knows these very examples
        with pytest.raises(InputError, match="which learned from about 100% of tune"):
            autoxfer.run({**SECOND, "task": {"data": "one.npz"}, "sources": [model]})
    config = (result.folder / "config.yaml").read_text()
    assert "mlflow:models:/digits/1" in config  # what the alias named when the run began
    for model, told in {
        "mlflow:models:/digits@chmpion": "an alias of 'digits' (champion)",
        "mlflow:models:/digits/7": "a version of 'digits' (1)",
        "mlflow:models:/numbers@champion": "a registered model (digits, two)",
        "mlflow:digits": "models:/NAME@ALIAS, models:/NAME/VERSION",
    }.items():
        with pytest.raises(SystemExit) as stop:
            main(["run", "--data", "two.npz", "--source", model])
        assert stop.value.code == 2
        assert told in capfd.readouterr().err


@pytest.mark.slow
def test_a_model_that_another_tool_registered_is_not_opened(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import mlflow  # noqa: PLC0415

    (home / "runs").mkdir()
    uri = f"sqlite:///{home}/runs/mlflow.db"
    (home / "pickled").mkdir()
    (home / "pickled" / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (home / "pickled" / "MLmodel").write_text("flavors: {}\n")
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("other")
    client.create_model_version("other", (home / "pickled").as_uri())
    with pytest.raises(SystemExit) as stop:
        main(["run", "--data", "two.npz", "--source", "mlflow:models:/other/1"])
    told = capfd.readouterr().err
    assert stop.value.code == 2
    assert "a model that autoxfer registered" in told
    assert "model.pkl" in told
    assert not (home / "ran").exists()


def test_a_registry_that_is_not_there_is_one_clear_message(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--data", "two.npz", "--source", "mlflow:models:/digits@champion"])
    assert stop.value.code == 2
    assert "a registry that holds models" in capfd.readouterr().err
    assert not (home / "runs" / "mlflow.db").exists()
