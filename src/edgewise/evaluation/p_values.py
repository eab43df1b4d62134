"""The p-values of the hypothesis tests (Shi et al. 2024)."""

from __future__ import annotations

import numpy as np

from edgewise.graph.circuit import Floats


def fewest_examples(epsilon: float, level: float) -> int:
    """With how many examples the equivalence test can reject at all."""
    examples = 1
    while equivalence_p_value(0.0, examples, epsilon) >= level:
        examples += 1
    return examples


def equivalence_p_value(outdone: float, examples: int, epsilon: float) -> float:
    """The largest chance, while | P(s(C) > s(M)) - 1/2 | <= epsilon, of a share as far from 1/2 as the one seen.

    Args:
        outdone: on how many examples the circuit outdoes the model, ties counting half.
    """
    from scipy.stats import binom

    counts = np.arange(examples + 1)
    far = np.abs(counts / examples - 0.5) >= abs(outdone / examples - 0.5) - 1e-12
    return float(min(1.0, binom.pmf(counts[far], examples, 0.5 + epsilon).sum()))


def minimality_p_value(effect: float, others: Floats, quantile: float) -> float:
    """The chance of outdoing no more random edges than this, if it outdid a share of `quantile` of them."""
    from scipy.stats import binomtest

    return float(binomtest(int((effect > others).sum()), len(others), quantile, alternative="less").pvalue)


def better_p_value(wins: int, circuits: int, quantile: float) -> float:
    """The chance of outdoing as many random circuits as this, if it outdid a share of `quantile` of them."""
    from scipy.stats import binomtest

    return float(binomtest(wins, circuits, quantile, alternative="greater").pvalue)


def hsic_test(x: Floats, y: Floats, permutations: int, seed: int) -> tuple[float, float]:
    """The Hilbert-Schmidt independence criterion of two samples, and its permutation p-value (Gretton et al. 2007).

    Gaussian kernels as wide as the median distance between a sample's values. A sample that does not vary is
    independent of everything.

    Args:
        x, y: `[examples]`.
    """
    one, other = _centred_kernel(x), _centred_kernel(y)
    if one is None or other is None:
        return 0.0, 1.0
    n = len(x)
    observed = float((one * other).sum()) / (n - 1) ** 2
    generator = np.random.default_rng(seed)
    at_least = 0
    for _ in range(permutations):
        order = generator.permutation(n)
        at_least += float((one * other[order][:, order]).sum()) / (n - 1) ** 2 >= observed * (1 - 1e-12)
    return observed, (1 + at_least) / (1 + permutations)


def _centred_kernel(values: Floats) -> Floats | None:
    distances = np.abs(values[:, None] - values[None, :])
    apart = distances[np.triu_indices(len(values), 1)]
    width = float(np.median(apart)) or float(apart.mean())
    if width < 1e-9 * max(1.0, float(np.abs(values).max())):
        return None
    kernel = np.exp(-(distances**2) / (2 * width**2))
    return kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
