"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: several workers with all cores each are slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

CACHE = tempfile.TemporaryDirectory(prefix="autoxfer-cache-", ignore_cleanup_errors=True)  # not the developer's own
os.environ.setdefault("AUTOXFER_CACHE", CACHE.name)

collect_ignore = ["stranger"]  # a package of its own, which test_stranger.py installs and tests

SHARED = Path(os.environ.get("AUTOXFER_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(autouse=True)
def _no_tracking_is_left_behind() -> Iterator[None]:
    """Forget where a test pointed MLflow: it notes that in the environment, which the next run would follow."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    yield
    after = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    if after == before:
        return
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    for name in after.keys() - before.keys():
        os.environ.pop(name, None)
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and weights beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets and weights are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny transformer that knows a few words, newly initialised."""
    transformers = pytest.importorskip("transformers", reason='the extra "text" is not installed')
    import torch  # noqa: PLC0415 - late, as above
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    words = ["[PAD]", "[UNK]", "it", "was", "the", "of", "and", "red", "green", "blue", "number"]
    path = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(path)
    return path


class MlflowServer:
    """A real MLflow server, which can be stopped and started again on the same port with the same store."""

    def __init__(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.place = place
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        store = ["--backend-store-uri", f"sqlite:///{self.place}/mlflow.db"]
        artifacts = ["--artifacts-destination", str(self.place / "artifacts"), "--workers", "1"]
        without_jobs = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # six processes, not needed here
        log = self.place / "log"
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [*command, *store, *artifacts],
                cwd=self.place,
                env=without_jobs,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for _ in range(240):
            assert self.process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return
            time.sleep(0.5)

    def stop(self) -> None:
        """End it with all its workers, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait(30)
            self.process = None


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server that runs."""
    place = tmp_path / "server"
    place.mkdir()
    server = MlflowServer(place)
    server.start()
    yield server
    server.stop()
