"""A winner answers raw examples over HTTP and elsewhere exactly as the run reported, and outlives bad requests."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

import autoxfer
from autoxfer import preparation
from autoxfer.config import load_config
from autoxfer.dataset import Column, Schema
from autoxfer.export import save_winner
from autoxfer.prediction import load
from autoxfer.report import RunRecord
from autoxfer.setting import Setting, prepare
from autoxfer.tracking import serving as serving_module
from autoxfer.tracking.model import save_model

KINDS = ("image", "vector", "table", "text")
SPLITS = {"train": 60, "tune": 60, "guard": 120, "test": 60}


def write_table(path: Path) -> None:
    """Write 300 rows of numbers, gaps, names of towns and a question mark; the label hangs on all of them."""
    draw = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "hours", "town", "member", "class"])
        for _ in range(300):
            age, hours, town = int(draw.integers(18, 90)), draw.normal(), str(draw.choice(["Bonn", "Köln", "Ulm"]))
            label = "buys" if age / 30 + hours + 2 * (town == "Ulm") > 2.5 else "leaves"
            gaps = draw.random(4) < 0.1
            cells = [age, f"{hours:.3f}", town, int(draw.integers(0, 2))]
            rows.writerow(["" if gap else cell for gap, cell in zip(gaps, cells, strict=True)] + [label])


def write_vectors(path: Path) -> None:
    """Write 300 vectors of two classes, called low and high."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(300, 7)).astype(np.float32)
    labels = (features[:, :3].sum(1) + 0.5 * draw.normal(size=300) > 0).astype(np.int64)
    np.savez(path, features=features, labels=labels, class_names=np.array(["low", "high"]))


def write_texts(path: Path) -> None:
    """Write 300 sentences of praise and blame, a word in ten of the other side."""
    draw = np.random.default_rng(0)
    words = {"praise": ["good", "fine", "superb"], "blame": ["bad", "dull", "weak"], "": ["film", "plot", "a", "the"]}
    rows = []
    for _ in range(300):
        label, other = draw.permutation(["praise", "blame"])
        picked = [draw.choice(words[label if draw.random() < 0.9 else other]) for _ in range(2)]
        rows.append({"text": " ".join([*picked, *draw.choice(words[""], 4)]), "label": label})
    pd.DataFrame(rows).to_csv(path, index=False)


@dataclass(frozen=True)
class Finished:
    """A run, what it was about, and where its champion stands."""

    record: RunRecord
    folder: Path
    setting: Setting
    table: Path

    def raw(self, split: str) -> Any:
        """Give a split's examples as a user would send them: nested lists, or records with gaps."""
        rows = self.setting.rows(split)
        if self.setting.dataset.schema.modality == "text":
            return [str(text) for text in self.setting.dataset.examples[rows]]
        if self.setting.dataset.schema.modality != "table":
            return self.setting.dataset.examples[rows].tolist()
        frame = pd.read_csv(self.table, dtype=object).drop(columns="class").iloc[rows]
        numbers = frame.assign(**{name: frame[name].astype(float) for name in ("age", "hours")})
        return numbers.astype(object).where(numbers.notna(), None).to_dict(orient="records")

    def names(self, split: str) -> list[str]:
        """Give a split's labels by name."""
        labels = self.setting.dataset.labels[self.setting.rows(split)]
        return [self.setting.dataset.schema.classes[label] for label in labels]


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp(request.param)
    write_table(place / "people.csv")
    write_vectors(place / "vectors.npz")
    write_texts(place / "texts.csv")
    data = {"image": "sklearn:digits", "vector": "vectors.npz", "table": "people.csv", "text": "texts.csv"}[
        request.param
    ]
    config = load_config(
        {
            "task": {"data": data, "name": request.param, "metric": "accuracy", "splits": SPLITS},
            "budget": {"trials": 2, "min_trials": 1},
            "device": "cpu",
            "directory": str(place),
        }
    )
    result = autoxfer.run(config, runs=place / "runs")
    assert result.record.task["modality"] == request.param
    return Finished(result.record, result.folder, prepare(config), place / "people.csv")


every_kind = pytest.mark.parametrize("finished", KINDS, indirect=True)


@contextlib.contextmanager
def serving(tracking_uri: str, model: str, place: Path) -> Iterator[str]:
    """Run `mlflow models serve` as a user does; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # MLflow runs uvicorn
    with (place / "serve.log").open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=place,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, (place / "serve.log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/ping", timeout=1):
                break
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def post(address: str, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    """Send one request; give the status and the answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/invocations", content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def body(raw: Sequence[Any]) -> dict[str, Any]:
    return {"dataframe_records" if isinstance(raw[0], dict) else "inputs": raw}


def malformed(raw: Sequence[Any]) -> Iterator[Any]:
    """Give requests that no server should take."""
    yield b"no JSON at all"
    yield b"\xff\xfe"
    yield []
    yield {"inputs": []}
    yield {"examples": raw[:1]}
    yield {"inputs": raw[:1], "instances": raw[:1]}
    yield {"inputs": "text"}
    if isinstance(raw[0], str):
        yield {"inputs": [1, 2]}
        yield {"inputs": [["a", "list"]]}
        yield {"dataframe_records": [{"words": "another column"}]}
        return
    if isinstance(raw[0], dict):
        yield body([{name: cell for name, cell in row.items() if name != "town"} for row in raw[:2]])
        yield body([{**raw[0], "age": "old"}])
        yield body([{**raw[0], "age": [1, 2]}])
        yield {"inputs": {"age": [1.0, 2.0], "hours": [1.0], "town": ["Ulm", "Ulm"], "member": ["1", "0"]}}
        yield {"inputs": {name: ["Ulm", "Bonn"] for name in raw[0]}}  # MLflow makes one row of lists of it
        return
    yield {"inputs": [row[:-1] for row in raw[:2]]}
    yield {"inputs": [raw[0], raw[1][:-1]]}
    yield {"inputs": raw[0]}
    yield {"inputs": np.full_like(np.array(raw[:1]), 1, dtype=object).astype(str).tolist()}
    yield {"inputs": np.full(np.shape(raw[:1]), None).tolist()}
    yield {"inputs": np.full(np.shape(raw[:1]), float("nan")).tolist()}
    if isinstance(raw[0][0], list):  # pixels
        yield {"inputs": np.full(np.shape(raw[:1]), 0.5).tolist()}
        yield {"inputs": np.full(np.shape(raw[:1]), 256).tolist()}
        yield {"inputs": np.full(np.shape(raw[:1]), -1).tolist()}


@pytest.mark.slow
@every_kind
def test_a_champion_answers_over_http_exactly_as_the_run_reported(finished: Finished, tmp_path: Path) -> None:
    record, classes = finished.record, finished.setting.dataset.schema.classes
    with serving(record.mlflow.tracking_uri, f"models:/{record.mlflow.name}@champion", tmp_path) as address:
        for split, reported in (("guard", record.winner.guard), ("test", record.winner.test)):
            raw, names = finished.raw(split), finished.names(split)
            answers = []
            for start in range(0, len(raw), 100):
                status, answer = post(address, body(raw[start : start + 100]))
                assert status == 200, answer
                answers += answer["predictions"]
            assert np.mean([row["label"] == name for row, name in zip(answers, names, strict=True)]) == reported
            probabilities = np.array([[row[f"probability_{name}"] for name in classes] for row in answers])
            np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
            assert [classes[best] for best in probabilities.argmax(1)] == [row["label"] for row in answers]
            np.testing.assert_allclose(load(finished.folder).predict_proba(raw), probabilities, rtol=0, atol=1e-6)
        status, alone = post(address, body(raw[:1]))
        assert status == 200
        assert alone["predictions"][0]["label"] == answers[0]["label"]
        assert post(address, {"instances": raw[:3]})[1]["predictions"][0]["label"] == answers[0]["label"]
        for request in malformed(raw):
            status, answer = post(address, request)
            assert 400 <= status < 500, (request, status, answer)
        if finished.setting.dataset.schema.modality == "table":
            rows = pd.DataFrame(raw[:50])
            lines = {"dataframe_split": {"columns": list(rows), "data": [list(row.values()) for row in raw[:50]]}}
            expected = post(address, body(raw[:50]))[1]
            assert post(address, lines)[1] == expected
            assert post(address, rows.to_parquet(), "application/vnd.apache.parquet")[1] == expected
        if finished.setting.dataset.schema.modality == "image":
            floats = np.array(raw[:2], dtype=np.float32).tolist()
            assert post(address, body(floats)) == post(address, body(raw[:2]))
        assert post(address, body(raw[:1]), "application/octet-stream")[0] == 415
        assert post(address, body(raw[:1]))[1] == alone


def test_a_regression_is_served_as_numbers_and_a_bad_request_is_the_users_fault(tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    columns = (Column("age", "numeric"), Column("town", "categorical", ("Bonn", "Ulm")))
    schema = Schema("table", "regression", (2,), "float32", columns=columns, target="income")
    stored = np.array([[30, 0], [np.nan, 1]], dtype=np.float32)
    made = preparation.prepare(schema, stored)
    save_winner(tmp_path, nn.Sequential(made.unpack, nn.Linear(3, 1)), schema, stored, {})
    served = serving_module._load_pyfunc(str(tmp_path))
    frame = pd.DataFrame({"town": ["Ulm", None], "age": [30, None]})
    answer = served.predict(frame)
    assert list(answer.columns) == ["prediction"]
    np.testing.assert_array_equal(answer["prediction"], load(tmp_path).predict(frame))
    with pytest.raises(MlflowException, match="request: expected the columns age, town") as refused:
        served.predict(frame[["age"]])
    assert refused.value.get_http_status_code() == 400


def test_a_frame_is_taken_with_whole_numbers_which_a_signature_that_csv_needs_would_refuse(tmp_path: Path) -> None:
    import mlflow  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from mlflow.models import utils  # noqa: PLC0415
    from mlflow.types import ColSpec  # noqa: PLC0415
    from mlflow.types.schema import Schema as Columns  # noqa: PLC0415

    columns = (Column("age", "numeric"), Column("zip", "categorical", ("007", "2")))
    schema = Schema("table", "regression", (2,), "float32", columns=columns, target="income")
    stored = np.array([[30, 0], [np.nan, 1]], dtype=np.float32)
    save_winner(
        tmp_path / "winner",
        nn.Sequential(preparation.prepare(schema, stored).unpack, nn.Linear(3, 1)),
        schema,
        stored,
        {},
    )
    logged = SimpleNamespace(artifact_location=str(tmp_path / "logged"), model_id="m-1")
    save_model(tmp_path / "winner", tmp_path / "model", logged, "run")
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert served.metadata.metadata["columns"] == {"age": "numeric", "zip": "categorical"}
    frame = pd.DataFrame({"age": [30, 41], "zip": [2, 7]})
    np.testing.assert_array_equal(served.predict(frame)["prediction"], load(tmp_path / "winner").predict(frame))
    assert np.isfinite(served.predict(pd.DataFrame({"age": ["?", ""], "zip": ["Oslo", None]}))["prediction"]).all()
    for column, kind in (("age", "double"), ("zip", "string")):
        with pytest.raises(MlflowException, match="Can not safely convert int64"):  # once it can, say so and take CSV
            utils._enforce_schema(frame, Columns([ColSpec(kind, column, required=False)]))


STRICT = (
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION",
)  # as MLflow 3.17 names it; issue 3


@pytest.mark.slow
@every_kind
def test_a_champion_loads_where_nothing_that_could_run_code_does(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow  # noqa: PLC0415
    import torch  # noqa: PLC0415

    for name in STRICT:
        monkeypatch.setenv(name, "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", finished.record.mlflow.tracking_uri)
    model = f"models:/{finished.record.mlflow.name}@champion"
    stored = torch.from_numpy(finished.setting.features.stored("guard").numpy())
    expected = load(finished.folder).predict_proba(finished.raw("guard"))
    with torch.no_grad():
        np.testing.assert_array_equal(mlflow.pytorch.load_model(model)(stored).double().numpy(), expected)
    served = mlflow.pyfunc.load_model(model)
    raw = finished.raw("guard")
    answer = served.predict(pd.DataFrame(raw) if isinstance(raw[0], dict) else np.array(raw))
    np.testing.assert_array_equal(answer.drop(columns="label").to_numpy(), expected)
    assert not [path for path in finished.folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pth", ".pt")]
    place = Path(mlflow.artifacts.download_artifacts(model))
    kinds = {path.suffix for path in (place / "data").rglob("*") if path.is_file()}
    assert kinds == {".json", ".pt2", ".safetensors"}
    assert [line for line in (place / "requirements.txt").read_text().split() if line.startswith("autoxfer==")]
