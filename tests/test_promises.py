"""The conformance kit over every strategy that is installed."""

from __future__ import annotations

import pytest

from autoxfer.plugins import load_plugins
from autoxfer.testing import Check, checks

INSTALLED = load_plugins().strategies

# (strategy, promise) -> why it cannot be kept
EXPECTED: dict[tuple[str, str], str] = {}


def _param(check: Check) -> object:
    reason = EXPECTED.get((check.strategy.name, check.name))
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(check, id=str(check), marks=marks)


@pytest.mark.parametrize("check", [_param(check) for name in sorted(INSTALLED) for check in checks(INSTALLED[name])])
def test_every_installed_strategy_keeps_its_promises(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    "name",
    [
        *("adapters", "distill", "fine_tune", "kernel_readout", "linear_probe", "lora"),
        *("partial_transfer", "residual", "scratch", "soup", "zero_shot"),
    ],
)
def test_the_built_in_strategies_are_among_them(name: str) -> None:
    assert INSTALLED[name].__module__.startswith("autoxfer_builtins.")
