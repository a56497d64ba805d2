"""Where trials run: an executor and its number of slots. Internal for now; "local" is the only engine of 0.1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from autoxfer.errors import InputError


@final
@dataclass(frozen=True)
class Engine:
    """An executor, and how many jobs it works on at once: the size of a generation of trials."""

    executor: Executor
    slots: int


@final
class InlineExecutor(Executor):
    """Runs each job in the calling process, within ``submit``: nothing to start, every cache shared."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` now; an interruption (KeyboardInterrupt, SystemExit) is not kept but raised."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _local() -> Iterator[Engine]:
    with InlineExecutor() as executor:
        yield Engine(executor, slots=1)


_ENGINES = {"local": _local}


@contextmanager
def open_engine(name: str) -> Iterator[Engine]:
    """Start the engine ``name``, and shut it down on leaving. Raises InputError where there is no such engine."""
    if name not in _ENGINES:
        raise InputError(f"one of {', '.join(sorted(_ENGINES))}", repr(name), "engine")
    with _ENGINES[name]() as engine:
        yield engine
