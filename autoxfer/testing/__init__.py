"""The conformance kit for authors of strategies: every promise of the contract, tried on tiny problems on the CPU.

In a test of your own package:

    from autoxfer.testing import parametrize

    @parametrize(MyStrategy)
    def test_my_strategy_keeps_its_promises(check):
        check()

or, without pytest, ``check_strategy(MyStrategy)``. A promise that a strategy cannot keep is declared with its reason,
``expected_failures={"it_exports_with_any_batch_size": "uses torch.unique"}``, and fails once it is kept after all.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

from autoxfer.errors import InputError, Unsupported
from autoxfer.plugins.admission import strategy_fault
from autoxfer.strategy import Strategy
from autoxfer.testing.promises import PROMISES, Promise
from autoxfer.testing.scenes import SCENES, Scene, scene

if TYPE_CHECKING:
    from pytest import MarkDecorator  # noqa: PT013 - for type checkers only

__all__ = ["Check", "Report", "check_strategy", "checks", "parametrize", "run_checks"]


@final
@dataclass(frozen=True)
class Check:
    """One promise of one strategy on one tiny problem; call it to see whether it is kept."""

    strategy: type[Strategy]
    promise: Promise
    scene: Scene

    @property
    def name(self) -> str:
        """The promise's name, as in ``expected_failures``."""
        return str(getattr(self.promise, "__name__", self.promise))

    @property
    def about(self) -> str:
        """The promise in one sentence."""
        return inspect.cleandoc(self.promise.__doc__ or "")

    def __str__(self) -> str:
        return f"{getattr(self.strategy, 'name', self.strategy)}-{self.name}-{self.scene}"

    def __call__(self) -> None:
        """Raise AssertionError, or whatever the strategy raises, if the promise is broken."""
        self.promise(self.strategy, self.scene)


@final
@dataclass(frozen=True)
class Report:
    """What came of one check."""

    check: Check
    outcome: Literal["kept", "broken", "expected", "kept after all"]
    reason: str = ""  # why it is broken, or was expected to be

    @property
    def passed(self) -> bool:
        """Whether this is as it should be."""
        return self.outcome in ("kept", "expected")


def checks(strategy: type[Strategy]) -> list[Check]:
    """List every promise on every tiny problem that the strategy serves.

    Raises AssertionError where it is no strategy at all (no frozen dataclass, another API, ...) or serves none of them.
    """
    fault = strategy_fault(strategy)
    assert not fault, fault
    served, reasons = [], []
    places = [scene(modality, task) for modality, task in SCENES]
    if strategy.many_sources:
        places += [scene(modality, task, 2) for modality, task in SCENES]
    for place in places:
        try:
            strategy.space(place.problem_for(strategy))
        except Unsupported as reason:
            reasons.append(f"{place}: {reason}")
            continue
        except (Exception, SystemExit):  # a broken promise, which the checks will report
            pass
        served.append(place)
    assert served, f"{strategy.name} serves none of the tiny problems: {'; '.join(reasons)}"
    return [Check(strategy, promise, place) for place in served for promise in PROMISES]


def run_checks(strategy: type[Strategy], expected_failures: Mapping[str, str] | None = None) -> Iterator[Report]:
    """Run one check after the other. Raises InputError for an expected failure that is no promise's name."""
    expected = _known(expected_failures)
    for check in checks(strategy):
        reason = expected.get(check.name)
        try:
            check()
        except (Exception, SystemExit) as error:
            broken = f"{type(error).__name__}: {error}".removeprefix("AssertionError: ")
            yield Report(check, "broken", broken) if reason is None else Report(check, "expected", reason)
        else:
            yield Report(check, "kept") if reason is None else Report(check, "kept after all", reason)


def check_strategy(strategy: type[Strategy], expected_failures: Mapping[str, str] | None = None) -> list[Report]:
    """Run every check. Raises AssertionError that lists all that is not as it should be."""
    reports = list(run_checks(strategy, expected_failures))
    wrong = [f"{report.check} {report.outcome}: {report.reason}" for report in reports if not report.passed]
    assert not wrong, f"{len(wrong)} of {len(reports)} promises:\n" + "\n".join(wrong)
    return reports


def parametrize(strategy: type[Strategy], expected_failures: Mapping[str, str] | None = None) -> MarkDecorator:
    """Make a decorator that gives a pytest test its argument ``check``, once for every check."""
    import pytest  # noqa: PLC0415 - only tests need it

    expected = _known(expected_failures)
    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(
                check,
                id=str(check),
                marks=[pytest.mark.xfail(strict=True, reason=expected[check.name])] if check.name in expected else [],
            )
            for check in checks(strategy)
        ],
    )


def _known(expected: Mapping[str, str] | None) -> Mapping[str, str]:
    names = [getattr(promise, "__name__", "") for promise in PROMISES]
    for name in expected or {}:
        if name not in names:
            raise InputError(f"one of the promises {', '.join(names)}", repr(name), "expected_failures")
    return expected or {}
