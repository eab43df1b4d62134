"""ACDC (Conmy et al. 2023) as a method: the search is in discovery/search.py, its sweep in thresholds.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgewise.discovery.method import Found, Method
from edgewise.discovery.thresholds import acdc_sweep
from edgewise.patching import Experiment


def _sweep(experiment: Experiment, thresholds: Sequence[float], **search: Any) -> Iterator[Found]:
    for found in acdc_sweep(experiment, thresholds, **search):
        yield found.threshold, found.discovery.circuit, found.same_as


METHOD = Method(
    name="acdc",
    summary="prune edges one by one from the logits back",
    cost="one part of a forward pass per tested edge",
    paper="Conmy et al. 2023",
    when="a small circuit in which every edge has been tested together with the others",
    memory="search",
    by="threshold",
    sweep=_sweep,
)
