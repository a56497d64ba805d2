"""What a practitioner should know of a source's features, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

TOP_SHARE = 0.9  # of all spread on one axis, from which features count as collapsed
PER_FEATURE = 10  # train examples below which carrying a feature costs more than it may bring
SUFFICIENT = 0.75  # overlap from which few directions seem to be the right ones
ADVICE = "an earlier tap, or training beside them (residual), may keep what they have lost"


def cautions(
    n: int, p: int, effective_rank: float, top_share: float, *, n_classes: int, overlap: float | None
) -> Iterator[str]:
    """Warn of collapsed features and of too many of them; ``n_classes`` 0 is regression."""
    advice = f": they are collapsed; {ADVICE}"
    if overlap is not None and overlap >= SUFFICIENT:
        advice = f"; but a probe of them takes away {overlap:.0%} of the loss, so that they seem to be the right ones"
    if n_classes and effective_rank < n_classes - 1:
        yield (
            f"the features spread as over {effective_rank:.1f} directions, and {n_classes} classes "
            f"would need {n_classes - 1} of the same width{advice}"
        )
    elif top_share > TOP_SHARE:
        yield f"one direction holds {top_share:.0%} of the features' spread{advice}"
    if n < PER_FEATURE * p:
        yield (
            f"{n:,} train examples for {p:,} features, fewer than {PER_FEATURE} each: what carries all of them pays "
            "for it; strong penalties, or principal components, limit the price"
        )
