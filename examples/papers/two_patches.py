"""The network and the data of "Theory of parameter transfer": two patches, one of signal and one of noise.

Yuan et al., arXiv 2509.22056; cards C-1 and C-2. The notation is card C-2's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_FILTERS = 10  # m
SECOND = np.repeat([1.0, -1.0], N_FILTERS) / N_FILTERS  # the second layer, (2m,)
START = 0.01  # standard deviation of a new filter's weights
RATE, MAX_STEPS, ENOUGH = 2.0, 1500, 0.01  # of gradient descent; it stops at this loss

Floats = NDArray[np.float64]
Signals = tuple[Floats, Floats]  # u, v: (d,) each


@dataclass(frozen=True)
class Sample:
    """Examples of a task: patches labels * signal and noise."""

    signal: Floats  # u + v: (d,)
    noise: Floats  # (n, d), orthogonal to u and to v
    labels: Floats  # (n,) of -1 and 1

    def seen_by(self, filters: Floats) -> tuple[Floats, Floats]:
        """Give what filters, (2m, d), see in the signal, (2m,), and in each noise, (2m, n)."""
        return filters @ self.signal, filters @ self.noise.T


def tasks(overlap: float, length: float, d: int) -> tuple[Signals, Signals]:
    """Give a source and a target that share a signal u of ``overlap``; |u + v| is ``length`` for both."""
    axes, own = np.eye(3, d), np.sqrt(length**2 - overlap**2)
    return (overlap * axes[0], own * axes[1]), (overlap * axes[0], own * axes[2])


def sample(rng: np.random.Generator, n: int, signals: Signals, level: float = 1.0) -> Sample:
    """Draw examples, their noise of standard deviation ``level``."""
    labels = rng.choice([-1.0, 1.0], n)
    noise = level * rng.standard_normal((n, len(signals[0])))
    for signal in signals:
        if signal.any():
            noise -= np.outer(noise @ signal, signal) / (signal @ signal)
    return Sample(signals[0] + signals[1], noise, labels)


def margins(in_signal: Floats, in_noise: Floats, examples: Sample) -> Floats:
    """Give y f(x) for each example: (n,)."""
    by_filter = np.maximum(in_signal[:, None] * examples.labels, 0) + np.maximum(in_noise, 0)
    found: Floats = examples.labels * (SECOND @ by_filter)
    return found


def train(filters: Floats, examples: Sample) -> Floats:
    """Descend the logistic loss by its full gradient: (2m, d) -> (2m, d).

    Every step adds a combination of the patches, so that following the combinations is enough.
    """
    labels, gram, energy = examples.labels, examples.noise @ examples.noise.T, examples.signal @ examples.signal
    in_signal, in_noise = examples.seen_by(filters)
    of_signal, of_noise = np.zeros_like(in_signal), np.zeros_like(in_noise)  # what has been added
    for _ in range(MAX_STEPS):
        signal_now, noise_now = in_signal + of_signal * energy, in_noise + of_noise @ gram
        margin = margins(signal_now, noise_now, examples)
        if np.logaddexp(0, -margin).mean() < ENOUGH:
            break
        step = RATE * np.outer(SECOND, labels / (1 + np.exp(margin)) / len(labels))
        of_signal += (step * (signal_now[:, None] * labels > 0)) @ labels
        of_noise += step * (noise_now > 0)
    return filters + np.outer(of_signal, examples.signal) + of_noise @ examples.noise


def new(rng: np.random.Generator, d: int) -> Floats:
    """Make new filters: (2m, d)."""
    return START * rng.standard_normal((2 * N_FILTERS, d))


def shuffled(rng: np.random.Generator) -> NDArray[np.int64]:
    """Order the filters of either class at random: (2, m)."""
    return np.stack([rng.permutation(N_FILTERS), N_FILTERS + rng.permutation(N_FILTERS)])


def inherit(fresh: Floats, source: Floats, order: NDArray[np.int64], alpha: float) -> Floats:
    """Copy the share ``alpha`` of the source's filters that come first in the order."""
    rows = order[:, : round(alpha * N_FILTERS)].ravel()
    mixed = fresh.copy()
    mixed[rows] = source[rows]
    return mixed


def mistakes(networks: list[Floats], examples: Sample) -> NDArray[np.bool_]:
    """Say which examples each network gets wrong: (networks, n)."""
    return np.stack([margins(*examples.seen_by(filters), examples) <= 0 for filters in networks])
