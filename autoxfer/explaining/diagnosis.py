"""What a learning curve says of a study beside scratch's. Pure.

An article on negative transfer proposes to call it bias imposed by the pretraining where the train loss is above
scratch's, the validation loss too, their relative gap below .15, and the validation loss falls by less than 5% over the
last doubling. Of the curves below that finds none, not even the probes of a source with shuffled labels: with 64
features and 50 examples their relative gap is .48 to .98, and their loss still falls by 9 to 28%. What tells them apart
is that scratch falls faster, by 44 to 79%. So here

    bias      tune and train loss above scratch's, and the tune loss falls by less than 5% over the last doubling, or
              by less than three quarters of scratch's fall
    variance  otherwise, where the tune loss is above the train loss and still falls by 5% or more
    healthy   train and tune loss close to each other, the tune loss not above scratch's
    unclear   anything else

"Above" and "close" are meant in shares of the loss of a constant prediction, .05 on tune and .005 on train; a relative
gap would call every network that fits its examples exactly a case of variance, however good.

Found on real data (``autoxfer explain`` of each run; scratch is variance where nothing else is said):

- ``autoxfer run examples/negative_transfer/run.yaml``, seeds 0 to 3, 50 train examples: the probe is bias in 4 of 4, of
  the other 20 LoRA and fine-tuning once, all else variance
- ``autoxfer run examples/digits/run.yaml``, seeds 0 and 1, 50 examples: 11 of 12 healthy, one probe unclear
- ``examples/pairs.py --pair lenet-mnist_permuted --trials 6``, 200 examples: probe, LoRA and partial transfer bias,
  adapters, fine-tuning and residual variance
- ``examples/pairs.py --pair lenet-fashion --trials 6``, 150 examples: LoRA bias, probe, fine-tuning and residual
  variance, adapters and partial transfer unclear
- the LeNet on its own MNIST, 3 trials: with 20 examples scratch and probe variance, residual healthy; with 3,000
  scratch, probe and fine-tuning all healthy
- the same with permuted pixels, 3,000 examples, at most 400 steps: fine-tuning bias, the probe variance

The thresholds were chosen on these very curves. The last line shows a limit: beside a scratch that was trained too
briefly to fit its examples (train loss .39), a probe does not look biased. Tune losses of 50
examples are noisy: a diagnosis, no test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

Kind = Literal["bias", "variance", "healthy", "unclear"]

LITTLE = 0.05  # share of the chance loss below which two losses count as equal
FIT = 0.005  # the same for the train loss, which has no luck of the draw in it
FLAT = 0.05  # share by which the tune loss falls over the last doubling, below which more data change little
BEHIND = 0.75  # a fall below this share of scratch's falls behind it


@final
@dataclass(frozen=True)
class Curve:
    """A recipe's losses by the number of train examples: mean cross-entropy, or mean squared error."""

    sizes: tuple[int, ...]
    train_loss: tuple[float, ...]  # on the examples that it was trained on; NaN where training failed
    tune_loss: tuple[float, ...]

    @classmethod
    def of(cls, points: Mapping[int, tuple[float, float]]) -> Curve:
        """Put points in the order of their sizes."""
        known = sorted(points)
        return cls(tuple(known), tuple(points[n][0] for n in known), tuple(points[n][1] for n in known))

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Curve:
        """Take one from a file, where what is not a number stands as null."""
        losses = [tuple(math.nan if x is None else float(x) for x in value[f"{on}_loss"]) for on in ("train", "tune")]
        sizes = tuple(int(size) for size in value["sizes"])
        if {len(part) for part in losses} != {len(sizes)}:
            raise ValueError("a curve needs two losses for each size")
        return cls(sizes, *losses)

    def points(self) -> dict[int, tuple[float, float]]:
        """Give the losses by size."""
        return dict(zip(self.sizes, zip(self.train_loss, self.tune_loss, strict=True), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@final
@dataclass(frozen=True)
class Diagnosis:
    """What a curve says, and the numbers that say it."""

    kind: Kind
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Name them as curves.json does."""
        return {"diagnosis": self.kind, "reason": self.reason}


def diagnose(curve: Curve, scratch: Curve, chance: float) -> Diagnosis:
    """Say whether a recipe is held back by what it took over, by too few examples, or by neither.

    ``chance`` is the loss of a constant prediction: differences are measured in it, since losses have no scale of
    their own.
    """
    points, baseline = _finite(curve), _finite(scratch)
    n = max(baseline, default=0)
    if n not in points or len(points) < 2 or len(baseline) < 2 or not chance > 0:
        return Diagnosis("unclear", "its losses are not known at enough sizes")
    train, tune = points[n]
    train_scratch, tune_scratch = baseline[n]
    gap, fall, fall_scratch = (tune - train) / chance, _fall(points), _fall(baseline)
    behind = (tune - tune_scratch) / chance
    worse = behind >= LITTLE and (train - train_scratch) / chance >= FIT  # scratch itself never is
    if worse and fall < max(FLAT, BEHIND * fall_scratch):
        return Diagnosis("bias", _biased(train, train_scratch, fall, fall_scratch))
    told = f"train loss {train:.2g}, tune loss {tune:.2g}, {_moved(fall)} over the last doubling of the examples"
    if gap >= LITTLE and fall >= FLAT:
        return Diagnosis("variance", f"{told}: it fits its own examples better than new ones, and more would help")
    if gap < LITTLE and behind < LITTLE:
        near = f"train loss {train:.2g}, tune loss {tune:.2g}, where a constant prediction has {chance:.2g}"
        return Diagnosis("healthy", f"{near}: the two are close beside that, and on tune it is no worse than scratch")
    return Diagnosis("unclear", f"{told}, scratch's is {tune_scratch:.2g}: none of the usual patterns")


def _finite(curve: Curve) -> dict[int, tuple[float, float]]:
    return {size: losses for size, losses in curve.points().items() if all(map(math.isfinite, losses))}


def _fall(points: Mapping[int, tuple[float, float]]) -> float:
    """Share by which the tune loss fell over the last doubling; where the sizes are further apart, per doubling."""
    before, last = sorted(points)[-2:]
    if points[before][1] <= 0 or points[last][1] <= 0:
        return 0.0
    return float(1 - (points[last][1] / points[before][1]) ** (1 / math.log2(last / before)))


def _biased(train: float, train_scratch: float, fall: float, fall_scratch: float) -> str:
    fit = f"it fits even its own examples less well than scratch (train loss {train:.2g} against {train_scratch:.2g})"
    falls = f"tune loss {_moved(fall)} over the last doubling, scratch's {_moved(fall_scratch)}"
    return f"{fit} and gains less from more of them ({falls}): what it took from the source holds it back"


def _moved(fall: float) -> str:
    return f"{'down' if fall >= 0 else 'up'} {abs(fall):.0%}"
