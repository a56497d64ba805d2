"""What a trial may take: memory, of which less is made do with by halves, and seconds, after which it is stopped."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar, final

import torch

T = TypeVar("T")

# As PyTorch's allocators, cuBLAS and cuDNN say it.
_SAID = re.compile(r"out of memory|not enough memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
_AGAIN = 5.0  # seconds after which a limit strikes again, where code swallowed it


@final
class Portion:
    """How many examples are computed at a time: halved whenever memory runs out, and remembered."""

    def __init__(self, size: int) -> None:
        self.size = size

    def attempt(self, work: Callable[[int], T]) -> T:
        """Call ``work`` with the number of examples, again with half of them while memory runs out.

        Raises MemoryError where one example at a time is too much.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = (str(error).strip() or type(error).__name__).splitlines()[0]
            # Only here are the error and its frames gone, and the tensors that they held.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.size <= 1:
                raise MemoryError(f"out of memory with one example at a time: {said}")
            self.size //= 2


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an error of the memory from any other."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError within the block when its time is up; None = no limit.

    The alarm interrupts Python code, sleeping and waiting included. What hangs inside one call of compiled code is
    stopped when that call returns, and a block outside the main thread, or on Windows, not at all.
    """
    alarmed = seconds is not None and hasattr(signal, "setitimer")
    if seconds is None or not alarmed or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        where = "" if frame is None else f", in {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        raise TimeoutError(f"the trial took more than budget.trial_seconds = {seconds:g}{where}")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # should it strike on the way out
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
