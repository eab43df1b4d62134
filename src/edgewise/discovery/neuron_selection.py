"""From a score per neuron to a circuit of neurons: by threshold, or so many.

All MLPs' neurons are ranked together, so that one MLP may keep many of them and another none.
"""

from __future__ import annotations

import numpy as np

from edgewise.discovery.selection import Selected, ranked
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, NeuronCircuit, of_neurons


def choose_neurons(
    scored: Circuit,
    *,
    count: int | None = None,
    threshold: float | None = None,
    absolute: bool = False,
    above: float = 0.0,
) -> Selected:
    """The neurons whose score is at least `threshold`, or the `count` best, of those that a circuit has.

    Args:
        absolute: by the size of scores.
        above: of so many, take no neuron whose strength is not above this: a score of zero or less says that the
            neuron is not needed. Of equal ones the earlier goes first.

    Raises:
        EdgewiseError: the circuit is not of neurons or has no scores, or the threshold is no number.
    """
    if not isinstance(scored, NeuronCircuit) or scored.neuron_scores is None:
        raise EdgewiseError("the circuit has no scores of neurons to choose by")
    scores = scored.neuron_scores
    strength = (np.abs(scores) if absolute else scores).ravel()
    chosen, cut = ranked(strength, np.flatnonzero(scored.neurons), count, threshold, above)
    neurons = np.zeros(scores.size, dtype=bool)
    neurons[chosen] = True
    return Selected(of_neurons(scored.graph, neurons.reshape(scores.shape), scores), len(chosen), 0, cut)
