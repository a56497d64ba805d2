"""How well a source fits the target: features and labels of the train split in, numbers out.

They order what is searched and explain what came of it; they never accept and never reject. All examples count alike
here, whatever ``task.weight`` says. How far they can be trusted
was measured on handwritten digits with sources of six qualities (clean, 40% and 80% of the labels random, untrained,
permuted pixels, 20 examples), 60 target examples, 10 draws, by ``examples/evidence/diagnostics.py --draws 10 --pair``
``same`` (the source's own ten classes, other pictures: the clean source gains 10 points over scratch, the worst loses
20) and ``other`` (classes that the source has never seen: every source loses, 5 to 16 points). Spearman's correlation
with the true gain of a linear probe over all sources of all draws, and the points lost by trying first the source that
a diagnostic puts first in place of the best:

| diagnostic                     | same | lost | other | lost |
|--------------------------------|------|------|-------|------|
| LogME                          |  .80 |  0.0 |   .58 |  1.6 |
| overlap                        |  .86 |  1.0 |   .64 |  1.5 |
| cross-validated probe          |  .86 |  0.0 |   .56 |  3.6 |
| predicted gain                 |  .85 |  0.0 |   .48 |  2.1 |
| H-score                        |  .26 | 14.1 |   .64 |  0.3 |
| LEEP                           |  .72 |  0.0 |  -.37 |  7.7 |
| NCE                            |  .78 |  0.0 |  -.21 |  7.3 |
| effective rank                 | -.17 | 17.2 |   .47 |  0.3 |
| alignment, raw                 |  .45 |  2.5 |  -.21 |  7.5 |
| alignment, centred             |  .54 |  0.0 |  -.49 |  7.7 |
| mean place, LogME and overlap  |  .87 |  0.0 |   .47 |  1.5 |

LogME, the overlap and the probe point the right way in both cases; the others are right in one and mislead in the
other, above all what asks the source's own classes about classes that it does not have. So sources are ordered by the
mean of their places by LogME and by overlap, which err differently: one knows of the numbers of features, the other of
held-out examples. The overlap alone would have done as well here; the draws are too few to
tell. The predicted gain orders well, but flatters the source, as its scratch is a linear model: it had the true sign
for 68% of the sources in the first case and 92% in the second. All of this is estimated from few examples: a harmful
source may well come first, and the guard is there for that.
"""

from autoxfer.diagnostics.crossfit import stratified
from autoxfer.diagnostics.examination import WIDEST, Assessment, Case, Head, examine
from autoxfer.diagnostics.gain import scratch_error
from autoxfer.diagnostics.labels import Labels
from autoxfer.diagnostics.ranking import arrange, rank_sources
from autoxfer.diagnostics.spectrum import Turned, standardised

__all__ = [
    "WIDEST",
    "Assessment",
    "Case",
    "Head",
    "Labels",
    "Turned",
    "arrange",
    "examine",
    "rank_sources",
    "scratch_error",
    "standardised",
    "stratified",
]
