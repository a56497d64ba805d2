from __future__ import annotations

import threading

import pytest

from autoxfer.engines import InlineExecutor, open_engine
from autoxfer.errors import InputError


def test_the_local_engine_runs_one_job_at_a_time_in_this_thread() -> None:
    with open_engine("local") as engine:
        assert engine.slots == 1
        assert engine.executor.submit(threading.get_ident).result() == threading.get_ident()


def test_a_job_that_raises_keeps_its_exception_in_the_future() -> None:
    with InlineExecutor() as executor:
        future = executor.submit(int, "x")
        assert isinstance(future.exception(), ValueError)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_raised_at_once(interruption: type[BaseException]) -> None:
    def interrupt() -> None:
        raise interruption

    with InlineExecutor() as executor, pytest.raises(interruption):
        executor.submit(interrupt)


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"engine: expected one of local, found 'ray'"), open_engine("ray"):
        pass
