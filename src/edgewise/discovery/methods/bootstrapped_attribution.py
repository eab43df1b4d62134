"""Attribution scores of edges whose sign holds for other prompts too (Nikankin et al. 2025).

An edge's score is a sum over prompts. Prompts are drawn anew with replacement, and the share of draws in which the sum
has the score's sign says how sure the sign is; an edge that is less sure than asked for gets a score of zero. What is
left are the scores of the method that was asked for, to the bit or to rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgewise.discovery.attribution import STEPS, Points, along, attribute, clean_or_path
from edgewise.discovery.method import Method, Option, Scored, StepProgress
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit
from edgewise.patching import Experiment

OF = ("edge-attribution-ig", "edge-attribution")
RESAMPLES, AGREEMENT = 1000, 0.95
AT_ONCE = 2**16
"""Edges whose draws are summed up together."""


def bootstrapped_attribution(
    experiment: Experiment,
    *,
    of: str = OF[0],
    resamples: int = RESAMPLES,
    agreement: float = AGREEMENT,
    seed: int = 0,
    max_memory: int | None = None,
    progress: StepProgress | None = None,
) -> Scored:
    """Score edges by attribution, without those whose sign is unsure.

    Args:
        of: which attribution: `edge-attribution-ig` along the path of inputs, or `edge-attribution`.
        resamples: how often prompts are drawn.
        agreement: the share of draws in which the sign has to be the score's.
        seed: of the draws.
        max_memory: bytes that the scores of each prompt may take.

    Raises:
        EdgewiseError: as `edge_attribution`; an unknown attribution, fewer than two prompts, an agreement that is no
            share, or scores that do not fit into memory.
    """
    if of not in OF:
        raise unknown("attribution", of, OF)
    if resamples < 1 or not 0 <= agreement <= 1:
        raise EdgewiseError(
            f"a bootstrap needs at least 1 draw and an agreement from 0 to 1, not {resamples} and {agreement}"
        )
    n, graph = len(experiment.task), experiment.graph
    if n < 2:
        raise EdgewiseError("a bootstrap needs at least two prompts to draw from")
    taken = 4 * n * (graph.edges.size + len(graph.inputs))
    if max_memory is not None and taken > max_memory:
        raise EdgewiseError(
            f"the scores of each of {n:,} prompts take {taken / 1e6:.1f} MB, more than --max-memory; take fewer prompts"
        )
    points: Points = along(experiment, "inputs", STEPS) if of == OF[0] else clean_or_path(experiment)
    each: list[Tensor] = []
    left = None if max_memory is None else max_memory - taken
    scored = attribute(experiment.within(left, "gradients"), points, progress, each=each)
    every = torch.stack(each)
    generator = np.random.default_rng(seed)
    draws = torch.from_numpy(generator.multinomial(n, np.full(n, 1 / n), size=resamples)).to(every.dtype)
    whole = every.sum(dim=0)
    sure = torch.empty(len(whole), dtype=torch.float64)
    for first in range(0, len(whole), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        same = torch.sign(draws @ every[:, part]) == torch.sign(whole[part])
        sure[part] = same.double().mean(dim=0)
    kept = (sure >= agreement).numpy()
    edges, ports = kept[: graph.edges.size].reshape(graph.edges.shape), kept[graph.edges.size :]
    circuit = scored.circuit
    assert circuit.scores is not None
    assert circuit.port_scores is not None
    details = {"of": of, "resamples": resamples, "agreement": agreement, "seed": seed}
    details["unsure"] = int((~edges & graph.edges).sum() + (~ports & graph.port_edges).sum())
    found = Circuit.full(graph).with_scores(circuit.scores * edges, circuit.port_scores * ports)
    return Scored(found, {**scored.details, **details})


METHOD = Method(
    name="bootstrapped-attribution",
    summary="attribution scores of edges whose sign holds for other prompts too",
    cost="as the attribution that it is of, one prompt after another",
    paper="Nikankin et al. 2025",
    when="few or uneven prompts, whose attribution is noisy",
    takes=(
        Option("of", OF[0], "which attribution", choices=OF),
        Option("resamples", RESAMPLES, "how often prompts are drawn", least=1, most=1_000_000),
        Option("agreement", AGREEMENT, "the share of draws that agree about the sign", least=0, most=1),
        Option("seed", 0, "of the draws", least=0),
    ),
    score=bootstrapped_attribution,
    memory="every edge",
)
