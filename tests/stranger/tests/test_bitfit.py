"""The strategy keeps every promise of the contract, and its own."""

from __future__ import annotations

import pytest
from autoxfer.testing import Check, checks
from autoxfer_bitfit import BitFit


@pytest.mark.parametrize("check", checks(BitFit), ids=str)
def test_bitfit_keeps_the_promises_of_a_strategy(check: Check) -> None:
    check()
