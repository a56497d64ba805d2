"""Asking a model hub without waiting for one that does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PROBE_S = 3.0  # seconds until a hub that does not answer counts as unreachable


@contextmanager
def quick_to_give_up() -> Iterator[None]:
    """Read the cache only where the hub does not answer at once; the hub's client would retry for a minute."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415 - heavy

    offline = constants.HF_HUB_OFFLINE
    if not offline:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_S)
        except Exception:  # whatever its client raises, the hub did not answer
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
