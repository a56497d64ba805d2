"""A trial makes do with the memory that there is, and is stopped when its time is up."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoxfer.limits import Portion, is_out_of_memory, limited
from autoxfer.records import Job, Outcome, Recipe
from autoxfer.strategy import Candidate, Raw
from autoxfer.testing.scenes import Scene, scene
from autoxfer.training import GradientTrainer
from autoxfer.tuning import attempt

RECIPE = Recipe(lr=0.01, steps=12, batch=16)
JOB = Job("lora@even", 0, "lora", "even", {}, 0)
ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


class Greedy(nn.Module):
    """A linear network for which memory runs out beyond so many examples at once."""

    def __init__(self, n_outputs: int, room: int, error: Exception = ALLOCATORS[0]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(6, n_outputs)
        self.room = room
        self.error = error
        self.seen: list[int] = []

    def forward(self, raw: Tensor) -> Tensor:
        self.seen.append(len(raw))
        if len(raw) > self.room:
            raise self.error
        output: Tensor = self.head(raw)
        return output


def train(tiny: Scene, module: nn.Module, **settings: object) -> tuple[GradientTrainer, Candidate]:
    candidate = Candidate(module, (Raw(),), **settings)  # type: ignore[arg-type]
    return GradientTrainer(tiny.features, tiny.problem, tiny.labels, tiny.tune, RECIPE, seed=3), candidate


@pytest.mark.parametrize("error", ALLOCATORS, ids=lambda error: f"{type(error).__name__}-{str(error)[:12]}")
def test_every_allocators_words_are_understood(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("room", [8, 5, 1])
def test_a_batch_in_parts_is_the_same_batch(task: str, room: int) -> None:
    tiny = scene("vector", task)  # type: ignore[arg-type]
    charge = {"penalty": lambda module: 0.01 * module.head.weight.square().sum()}
    ends = []
    for limit in (10_000, room):
        loop, candidate = train(tiny, Greedy(tiny.problem.n_outputs, limit), **charge)
        ends.append(loop.run(candidate))
    whole, parts = ends
    torch.testing.assert_close(dict(parts.state), dict(whole.state))
    assert [share for share, _ in parts.curve] == [share for share, _ in whole.curve]
    assert "examples_at_once" not in whole.notes
    assert parts.notes["examples_at_once"] == {8: 8, 5: 4, 1: 1}[room]


def test_what_fitted_once_is_remembered() -> None:
    tiny = scene("vector", "classification")
    module = Greedy(tiny.problem.n_outputs, 8)
    loop, candidate = train(tiny, module)
    loop.run(candidate)
    assert sum(n > 8 for n in module.seen) <= 8  # one for training, some for scoring; not one a step
    assert set(module.seen[-4:]) <= set(range(1, 9))


def test_a_trial_for_which_one_example_is_too_much_has_failed() -> None:
    tiny = scene("vector", "classification")

    def execute(job: Job) -> Outcome:
        loop, candidate = train(tiny, Greedy(tiny.problem.n_outputs, 0))
        return Outcome("complete", loop.run(candidate).score)

    outcome = attempt(execute, JOB)
    assert outcome.state == "failed"
    assert outcome.reason.startswith("MemoryError: out of memory with one example at a time: CUDA out of memory")


def test_any_other_error_is_not_tried_again() -> None:
    tiny = scene("vector", "classification")
    module = Greedy(tiny.problem.n_outputs, 0, RuntimeError("shapes cannot be multiplied"))
    loop, candidate = train(tiny, module)
    with pytest.raises(RuntimeError, match="multiplied"):
        loop.run(candidate)
    assert len(module.seen) == 1


def test_the_memory_of_a_failed_attempt_is_free_before_the_next() -> None:
    held: list[int] = []

    class Counted:
        def __enter__(self) -> None:
            held.append(1)

        def __del__(self) -> None:
            if held:
                held.pop()

    def work(size: int) -> int:
        assert not held
        kept = Counted()
        kept.__enter__()
        if size > 1:
            raise MemoryError
        return size

    assert Portion(4).attempt(work) == 1


def test_a_trial_that_hangs_is_stopped_and_says_where() -> None:
    def hang(job: Job) -> Outcome:
        with limited(job.seconds):
            while True:
                time.sleep(60)

    started = time.monotonic()
    outcome = attempt(hang, replace(JOB, seconds=0.05))
    assert time.monotonic() - started < 5
    assert outcome.state == "failed"
    assert "the trial took more than budget.trial_seconds = 0.05, in test_limits.py:" in outcome.reason


def test_code_that_swallows_the_first_stop_gets_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoxfer.limits._AGAIN", 0.05)
    with pytest.raises(TimeoutError), limited(0.05):  # noqa: PT012
        with contextlib.suppress(TimeoutError):
            time.sleep(60)
        time.sleep(60)


def test_nothing_strikes_after_the_end() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with limited(0.05):
        pass
    with limited(None):
        time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_another_thread_works_without_a_limit() -> None:
    ended: list[bool] = []

    def work() -> None:
        with limited(0.01):
            time.sleep(0.05)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
