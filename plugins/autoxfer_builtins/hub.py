"""Asking a model hub without waiting for one that does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PROBE_S = 3.0  # seconds until a hub that does not answer counts as unreachable


@contextmanager
def quick_to_give_up() -> Iterator[bool]:
    """Read the cache only where the hub does not answer at once; the hub's client would retry for a minute.

    Gives whether it answers.
    """
    from huggingface_hub import constants, get_session  # noqa: PLC0415 - heavy

    offline = constants.HF_HUB_OFFLINE
    answers = not offline
    if answers:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_S)
        except Exception:  # whatever its client raises, the hub did not answer
            constants.HF_HUB_OFFLINE, answers = True, False
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = offline


def why(error: Exception, *, answered: bool) -> str:
    """Say in a few words why the hub did not help."""
    if not answered:
        return "the hub does not answer from here, and its cache does not hold it"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
