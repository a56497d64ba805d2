"""The strategy keeps every promise of the contract, and its own."""

from __future__ import annotations

from autoxfer_bitfit import BitFit

from autoxfer.testing import Check, parametrize


@parametrize(BitFit)
def test_bitfit_keeps_the_promises_of_a_strategy(check: Check) -> None:
    check()
