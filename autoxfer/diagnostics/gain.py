r"""How much of the target the features can express, and what a probe of them should gain over scratch.

After Tahir, Ganguli and Rotskoff, "Features are fate: a theory of transfer learning in high-dimensional regression",
ICML 2025, https://arxiv.org/abs/2410.08194. Of k features that miss a part rho of the target, with noise sigma^2:

    overlap:  O = 1 - error of the cross-fitted probe / error of the best constant       (their cos^2 of the angle)
    probe:    R(n) = rho + (sigma^2 + rho) k / (n - k - 1)                               (excess risk)
    gain:     T(n) = R_scratch(n) - R(n)

What is observed is a risk with its noise, E = R + sigma^2 = v (n - 1) / (n - k - 1) with v = sigma^2 + rho. So v comes
from the error of the probe as cross-fitted on m < n examples, v = E(m) (m - k - 1) / (m - 1). The noise drops out of
the difference with a scratch error that is observed likewise, and rho and sigma need not be known apart.

Differs from the paper: a ridge stands for the plain least squares, and k is its effective number of parameters;
classes are 0/1 columns. Gains are given as a share of the labels' variance. The scratch error is that of the baseline
where it is known; before the search, of a ridge on the inputs themselves, extrapolated along its learning curve by a
power law of the number of examples. That is a weak opponent where a convolutional network would be a strong one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.diagnostics.crossfit import Folds, RidgeFit, ridge_out_of_fold

Floats = NDArray[np.float64]

SHARES = (0.25, 0.5, 1.0)  # of the other folds' examples: the sizes of the learning curve


def overlap(loss: float, constant_loss: float) -> float:
    """Compute the share of the best constant's loss that the probe takes away; 0 where there is none to take."""
    return 1.0 - loss / constant_loss if constant_loss > 0 else 0.0


def class_entropy(labels: NDArray[Any]) -> float:
    """Compute the log loss of the class frequencies themselves."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def probe_error(fit: RidgeFit, n: int) -> float:
    """Predict a probe's squared error, noise included, at ``n`` examples from its error where it was cross-fitted."""
    m, k = fit.n_examples, fit.n_parameters
    if m < 2 or n < 2:
        return fit.error
    unexplained = fit.error * max(m - k - 1, 1.0) / (m - 1)
    return unexplained * (n - 1) / max(n - k - 1, 1.0)


def scratch_error(inputs: Floats, targets: Floats, fold: Folds) -> float:
    """Predict the squared error of a ridge on the inputs (n, d) at all n examples, from those at three smaller sizes.

    The power law is held between no improvement at all and one over the number of examples.
    """
    fits = [ridge_out_of_fold(inputs, targets, fold, share=share) for share in SHARES]
    if min(fit.error for fit in fits) <= 0:
        return 0.0
    sizes, errors = np.log([fit.n_examples for fit in fits]), np.log([fit.error for fit in fits])
    spread = float(np.square(sizes - sizes.mean()).sum())
    slope = float(((sizes - sizes.mean()) * errors).sum()) / spread if spread else 0.0
    return float(np.exp(errors[-1] + np.clip(slope, -1.0, 0.0) * (np.log(len(targets)) - sizes[-1])))


def predicted_gain(fit: RidgeFit, scratch: float, variance: float, n: int) -> float:
    """Predict scratch's squared error less the probe's at ``n`` examples, as a share of the labels' ``variance``."""
    return (scratch - probe_error(fit, n)) / variance if variance > 0 else 0.0
