"""Kill runs at random instants, resume each until it ends, and print what that cost.

    python examples/evidence/kill.py --kills 100

Half of the kills come by the clock, anywhere in a run's life; the others fall upon the very instant at which a file of
the run is opened for writing, put in place or removed. Every run is compared with one that nobody disturbed. The
processes are forked from one that has done a run already, so that a run lasts seconds. ``--json`` prints one object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: threads do not survive a fork
for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[name]

import mlflow  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402

import autoxfer.cli  # noqa: E402
from autoxfer import tracking  # noqa: E402
from autoxfer.terminal.progress import STAGES  # noqa: E402
from autoxfer.tuning import Journal  # noqa: E402
from autoxfer.winnerfiles import is_whole  # noqa: E402

DIGITS = Path(__file__).resolve().parents[1] / "digits"
RUN = {
    "task": {"data": str(DIGITS / "digits.npz"), "splits": {"train": 50, "tune": 50, "guard": 400, "test": 200}},
    "sources": [
        {"name": "digits", "model": f"{DIGITS}/nets.py:SmallCNN", "weights": str(DIGITS / "digits_source.safetensors")}
    ],
    "strategies": [{"scratch": {"steps": [5, 10]}}, "linear_probe", {"fine_tune": {"steps": [5, 10]}}],
    "budget": {"trials": 3, "min_trials": 3},
    "device": "cpu",
}
AT_MOST = 300  # seconds for one process


@dataclass
class Tally:
    """What was seen."""

    kills: int = 0
    runs: int = 0
    stages: Counter[str] = field(default_factory=Counter)  # where the kills fell
    lost: int = 0  # finished trials that a later process did not find as they were
    repeated: int = 0  # finished trials that were run once more
    registrations: int = 0  # versions, runs and models in MLflow beyond those of an undisturbed run
    differences: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # processes that ended by themselves, and not well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="a run file in place of the small built-in one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    run = arguments.run.resolve() if arguments.run else None
    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        os.chdir(temporary)  # no mlflow.yaml lies here
        if run is None:
            run = Path(temporary, "run.yaml")
            run.write_text(json.dumps(RUN))
        started = time.monotonic()
        tally = torment(run, Path(temporary), arguments.kills, random.Random(arguments.seed), show=not arguments.json)
    value = {**vars(tally), "seconds": round(time.monotonic() - started)}
    print(json.dumps(value) if arguments.json else "\n".join(f"{key:14} {item}" for key, item in value.items()))
    return int(bool(tally.lost or tally.repeated or tally.registrations or tally.differences or tally.broken))


def torment(run: Path, place: Path, kills: int, rng: random.Random, *, show: bool = False) -> Tally:
    """Let one run be, then kill others until there were enough kills."""
    settings = tracking.read_settings(None, place / "first")
    tracking.check(settings)
    shutil.copyfile(place / "first" / "mlflow.db", place / "empty.db")
    # What this run imports, every fork has; without gradients, since torch refuses to fork once it has computed one.
    with contextlib.redirect_stdout(sys.stderr), mock.patch.object(torch.Tensor, "backward"):
        autoxfer.run(run, runs=place / "first")
    tally = Tally()
    whole = Victim(run, place / "whole", tally, rng)
    whole.runs.mkdir()
    shutil.copyfile(place / "empty.db", whole.runs / "mlflow.db")
    whole.go_on()
    if tally.broken:
        return tally
    expected, registered = whole.facts(), whole.registered()
    while tally.kills < kills and not tally.broken:
        runs = place / f"runs-{tally.runs}"
        runs.mkdir()
        if tally.runs % 4:  # every fourth run makes its own database, and may be killed at that
            shutil.copyfile(place / "empty.db", runs / "mlflow.db")
        victim = Victim(run, runs, tally, rng, whole.life, whole.n_writes)
        victim.suffer(min(rng.randint(3, 8), kills - tally.kills))
        tally.runs += 1
        if tally.broken:
            break
        found = victim.facts()
        tally.differences += [f"{key} of run {tally.runs}" for key, value in expected.items() if found[key] != value]
        tally.registrations += abs(victim.registered() - registered)
        if show:
            print(f"run {tally.runs}: {tally.kills} kills so far, {len(tally.differences)} differences", flush=True)
        shutil.rmtree(runs)
    return tally


@dataclass
class Victim:
    """One run, and the processes that work on it one after the other."""

    config: Path
    runs: Path
    tally: Tally
    rng: random.Random
    life: float = 0.0  # seconds of an undisturbed run
    n_writes: int = 0  # file operations of an undisturbed run
    finished: dict[Any, Any] = field(default_factory=dict)  # the trials that a killed process had finished

    def suffer(self, kills: int) -> None:
        """Kill as many processes, unless one is done before; then let the run end."""
        life, n_writes = self.life, self.n_writes
        for done in range(kills):
            rest = 0.8**done  # the more was done before, the sooner it ends
            by_clock = self.rng.random() < 0.5
            after = self.rng.uniform(0, rest * life) if by_clock else AT_MOST
            if not self.go_on(after, 0 if by_clock else self.rng.randint(1, max(3, int(rest * n_writes)))):
                break
            self.tally.kills += 1
            self.tally.stages[self.stage()] += 1
            self.look()
        else:
            self.go_on()
        self.look()
        folder = self.folder()
        self.tally.repeated += 0 if folder is None else n_repeated(folder / "journal.log")

    def go_on(self, after: float = AT_MOST, at_write: int = 0) -> bool:
        """Start the run, or resume it; true if it was killed after so many seconds or at that file operation."""
        started = time.monotonic()
        folder = self.folder()
        what = [str(self.config)] if folder is None else ["--resume", folder.name]
        count = self.runs / "writes"
        status = self.fork(lambda: command(["run", *what, "--runs", str(self.runs)], at_write, count), after)
        if status == -signal.SIGKILL:
            return True
        if status:
            self.tally.broken.append(f"exit code {status}: {self.log.read_text()[-2000:]}")
            return False
        self.life, self.n_writes = time.monotonic() - started, int(count.read_text())
        return False

    def fork(self, work: Callable[[], object], after: float = AT_MOST) -> int:
        """Do ``work`` in a process of its own; its exit code, negative where a signal ended it."""
        self.runs.mkdir(exist_ok=True)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                torch.set_num_threads(1)  # mends its pool of threads, before two of them find it broken by the fork
                output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(output, 1)
                os.dup2(output, 2)
                code = work() or 0  # type: ignore[assignment]
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        deadline = time.monotonic() + after
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @property
    def log(self) -> Path:
        """Where the last process wrote what it said."""
        return self.runs / "said"

    def stage(self) -> str:
        """Say where the last process was when it was killed."""
        said = self.log.read_text()
        return max(STAGES, key=lambda name: said.rfind(STAGES[name]))

    def folder(self) -> Path | None:
        """Find the run's folder; None where it was killed before it had one."""
        return next((path.parent for path in self.runs.glob("*/config.yaml")), None)

    def look(self) -> None:
        """Compare the finished trials with those that the last look found."""
        folder = self.folder()
        if folder is None or not (folder / "journal.log").exists():
            return
        with TemporaryDirectory() as temporary:  # a copy: opening the journal repairs it
            copy = shutil.copy(folder / "journal.log", temporary)
            journal = Journal(Path(copy))
            names = [line["study_name"] for line in lines(folder / "journal.log") if "study_name" in line]
            found = {name: journal.closed(journal.open_study(name)) for name in names}
        trials = {(name, trial.number): trial for name, closed in found.items() for trial in closed}
        self.tally.lost += sum(trials.get(key) != trial for key, trial in self.finished.items())
        self.finished = trials

    def facts(self) -> dict[str, Any]:
        """Gather what must be the same for every run of one configuration."""
        folder = self.folder()
        assert folder is not None
        result = json.loads((folder / "result.json").read_text())
        model = json.loads((folder / "winner" / "model.json").read_text())
        trials = pd.read_parquet(folder / "trials.parquet").drop(columns="seconds")
        best = {path.parent.name: tensors(path) for path in sorted(folder.glob("studies/*/best.safetensors"))}
        hidden = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
        return {
            "result.json": without(result, "run_id", "seconds", "timings", "forecast", "tracking_uri", "time"),
            "best.safetensors": best,
            "trials.parquet": trials.to_json(),
            "losses.parquet": pd.read_parquet(folder / "losses.parquet").to_json(double_precision=15),
            "winner's weights": tensors(folder / "winner" / "model.safetensors"),
            "winner's description": without(model, "run_id", "files"),
            "winner's files": is_whole(folder / "winner", model["winner"]),
            "left-overs": hidden,
        }

    def registered(self) -> int:
        """Count runs, models and versions in MLflow."""
        count = self.runs / "registered"
        self.fork(lambda: count.write_text(str(count_registered(self.runs))) * 0)
        return int(count.read_text())


def command(arguments: Sequence[str], at_write: int, count: Path) -> None:
    """Run the command line in this process, which kills itself at its ``at_write``-th file operation."""
    seen = 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.mkdir"):
            seen += str(details[0]).startswith(str(count.parent))
            if seen == at_write > 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        autoxfer.cli.main(arguments)
    finally:
        n = seen
        count.write_text(str(n))


def count_registered(runs: Path) -> int:
    """Count what stands in the database of ``runs``."""
    mlflow.set_tracking_uri(f"sqlite:///{runs}/mlflow.db")
    client = mlflow.MlflowClient()
    experiments = [found.experiment_id for found in client.search_experiments()]
    versions, models = client.search_model_versions(), client.search_logged_models(experiments)
    return len(client.search_runs(experiments)) + len(versions) + len(models)


def lines(journal: Path) -> list[dict[str, Any]]:
    """Read a journal as it is on disk, but for a line that was torn."""
    return [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]]


def n_repeated(journal: Path) -> int:
    """Count the outcomes that were written for a trial that had one; writing the same one again does no harm."""
    outcomes: dict[int, set[str]] = {}
    for line in lines(journal):
        if "outcome" in line.get("user_attr", {}):
            outcomes.setdefault(line["trial_id"], set()).add(json.dumps(line["user_attr"]))
    return sum(len(different) - 1 for different in outcomes.values())


def without(value: Any, *names: str) -> Any:
    """Leave out the keys that differ between any two runs."""
    if isinstance(value, dict):
        return {key: without(item, *names) for key, item in value.items() if key not in names}
    return [without(item, *names) for item in value] if isinstance(value, list) else value


def tensors(path: Path) -> tuple[Any, dict[str, bytes]]:
    """Read a safetensors file: its metadata, and every tensor as bytes."""
    with safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


if __name__ == "__main__":
    sys.exit(main())
