"""Methods by name: what each is, what it costs, who thought of it, and when to use it.

ACDC gives a circuit; every other method gives a score per edge, from which a circuit is cut (selection.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewise.discovery import edge_pruning, subnetwork_probing
from edgewise.discovery.attribution_patching import attribution_patching
from edgewise.discovery.edge_attribution import (
    STEPS,
    Attribution,
    clean_corrupted,
    edge_attribution,
    edge_attribution_ig,
    relp,
)
from edgewise.discovery.exact import exact_effects
from edgewise.discovery.head_importance import head_importance
from edgewise.discovery.information_flow import information_flow
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit
from edgewise.patching import Experiment, MemoryKind

StepProgress = Callable[[int, int], None]
"""Called with how much of the work is done, and of how much."""


@dataclass(frozen=True)
class Scored:
    """What a scoring method found.

    Attributes:
        circuit: the full circuit with a score for every edge.
        details: how the scores were made, for the record.
        above: a score at which an edge is not needed.
        own: the circuit that the method itself rounds to, if it does.
    """

    circuit: Circuit
    details: Mapping[str, Any] = field(default_factory=dict)
    above: float = 0.0
    own: Circuit | None = None


@dataclass(frozen=True)
class Method:
    """A way to find circuits.

    Attributes:
        cost: in passes through the model over all prompts.
        options: what it takes besides the experiment, by name, with the default.
        counts: what its progress counts.
        score: how it scores edges, called with an experiment, a progress callback or None, the most bytes to use or
            None, and its options by name; None for ACDC, which decides.
        metric_units: its scores are in the metric's units, so that a task's threshold makes sense for them.
        units: its scores are of whole queries, keys, values and MLPs, so that edges of one score come and go together.
        sized: the size of a score without its sign means something.
        rounds: it has a circuit of its own, so that neither threshold nor number of edges is needed.
        memory: what takes memory in it (see `plan_memory`).
    """

    name: str
    summary: str
    cost: str
    paper: str
    when: str
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: str = "prompts"
    score: Callable[..., Scored] | None = None
    metric_units: bool = True
    units: bool = False
    sized: bool = True
    rounds: bool = False
    memory: MemoryKind = "gradients"


def _attribution(found: Attribution) -> Scored:
    return Scored(found.scored, {"gradient_at": found.gradient_at, "passes": found.passes})


def _eap(experiment: Experiment, progress: StepProgress | None, max_memory: int | None) -> Scored:
    return _attribution(edge_attribution(experiment, progress=progress))


def _eap_ig(experiment: Experiment, progress: StepProgress | None, max_memory: int | None, **options: Any) -> Scored:
    return _attribution(edge_attribution_ig(experiment, progress=progress, **options))


def _clean_corrupted(experiment: Experiment, progress: StepProgress | None, max_memory: int | None) -> Scored:
    return _attribution(clean_corrupted(experiment, progress=progress))


def _relp(experiment: Experiment, progress: StepProgress | None, max_memory: int | None) -> Scored:
    return _attribution(relp(experiment, progress=progress))


def _exact(experiment: Experiment, progress: StepProgress | None, max_memory: int | None) -> Scored:
    return Scored(exact_effects(experiment, max_memory=max_memory, progress=progress))


def _attribution_patching(
    experiment: Experiment, progress: StepProgress | None, max_memory: int | None, **options: Any
) -> Scored:
    scored, _ = attribution_patching(experiment, progress=progress, **options)
    return Scored(scored, options)


def _edge_pruning(
    experiment: Experiment, progress: StepProgress | None, max_memory: int | None, *, target: int | None, **options: Any
) -> Scored:
    if target is None:
        raise EdgewiseError("edge pruning needs a target: the number of edges that its masks are pressed to")
    target = min(target, experiment.graph.n_edges)
    found = edge_pruning.edge_pruning(experiment, target, progress=progress, **options)
    details = {"target": target, **options, "loss_metric": found.metric, "expected_edges": round(found.expected, 1)}
    return Scored(found.scored, details, above=-math.inf)


def _information_flow(experiment: Experiment, progress: StepProgress | None, max_memory: int | None) -> Scored:
    return Scored(information_flow(experiment, progress=progress))


def _head_importance(
    experiment: Experiment, progress: StepProgress | None, max_memory: int | None, **options: Any
) -> Scored:
    scored, _ = head_importance(experiment, progress=progress, **options)
    return Scored(scored, options)


def _subnetwork_probing(
    experiment: Experiment, progress: StepProgress | None, max_memory: int | None, **options: Any
) -> Scored:
    probe = subnetwork_probing.subnetwork_probing(experiment, progress=progress, **options)
    metric, regulariser = probe.loss
    details = {**options, "loss_metric": metric, "loss_regulariser": regulariser}
    return Scored(probe.circuit, details, above=-math.inf, own=probe.circuit)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="acdc",
            memory="search",
            summary="prune edges one by one from the logits back",
            cost="one part of a forward pass per tested edge",
            paper="Conmy et al. 2023",
            when="a small circuit in which every edge has been tested together with the others",
        ),
        Method(
            name="exact",
            summary="ablate every edge alone and measure",
            cost="one part of a forward pass per edge",
            paper="activation patching",
            when="the ground truth that scores are judged against; small models",
            counts="edges",
            score=_exact,
            memory="every edge",
        ),
        Method(
            name="edge-attribution",
            summary="estimate every edge's effect by its gradient at the clean run (EAP)",
            cost="2 forward, 1 backward (KL and l2, flat there: as edge-attribution-ig)",
            paper="Syed et al. 2023",
            when="a first look at a large model",
            score=_eap,
        ),
        Method(
            name="edge-attribution-ig",
            summary="the same with gradients averaged along a path (EAP-IG)",
            cost="1 forward and, for each step, a forward and a backward; path activations: 1 + 2 layers times that",
            paper="Hanna et al. 2024",
            when="scores of all edges of a large model",
            options={"path": "inputs", "steps": STEPS},
            score=_eap_ig,
        ),
        Method(
            name="clean-corrupted",
            summary="the same with gradients at the clean and the corrupted run",
            cost="3 forward, 2 backward",
            paper="Hanna et al. 2024",
            when="cheaper than a path",
            score=_clean_corrupted,
        ),
        Method(
            name="relp",
            summary="edge attribution with a backward pass by the rules of relevance propagation",
            cost="as edge-attribution",
            paper="Jafari et al. 2025",
            when="a first look at a large model with MLPs",
            score=_relp,
        ),
        Method(
            name="attribution-patching",
            summary="estimate the effect of each query, key, value and MLP by gradients (AtP)",
            cost="2 forward, 1 backward (KL and l2: 5 of each)",
            paper="Nanda 2023; Kramar et al. 2024",
            when="which heads and MLPs matter, in a large model",
            options={"qk_fix": True},
            score=_attribution_patching,
            units=True,
            sized=False,
        ),
        Method(
            name="information-flow",
            summary="how much of each stream comes from each sender (IFR); knows no metric",
            cost="1 forward",
            paper="Ferrando and Voita 2024",
            when="to compare with the MIB benchmark",
            score=_information_flow,
            metric_units=False,
        ),
        Method(
            name="head-importance",
            summary="importance of each query, key, value and MLP, normalised by layer (HISP)",
            cost="2 forward, 1 backward (KL and l2: 5 of each)",
            paper="Michel et al. 2019; ACDC paper, appendix D.2",
            when="to compare with the paper",
            options={"variant": "default"},
            score=_head_importance,
            metric_units=False,
            units=True,
            sized=False,
        ),
        Method(
            name="edge-pruning",
            summary="learn a mask for every edge, pressed to a wanted number of edges",
            cost="a circuit run and its backward per step: 300 by default",
            paper="Bhaskar et al. 2024",
            when="the most faithful circuit of a given size, on models that a soft circuit run fits",
            options={
                "target": None,
                "steps": edge_pruning.STEPS,
                "learning_rate": edge_pruning.LEARNING_RATE,
                "warm_start": True,
                "seed": 0,
            },
            counts="steps",
            score=_edge_pruning,
            memory="masks",
            metric_units=False,
            sized=False,
        ),
        Method(
            name="subnetwork-probing",
            summary="learn a mask for each query, key, value and MLP (SP)",
            cost="a forward and a backward per step: 3,000 by default",
            paper="Cao et al. 2021; ACDC paper, appendix D.1",
            when="to compare with the paper; units that work together",
            options={
                "regularisation": subnetwork_probing.LAMBDA,
                "steps": subnetwork_probing.STEPS,
                "learning_rate": subnetwork_probing.LEARNING_RATE,
                "variant": "default",
                "seed": 0,
            },
            counts="steps",
            score=_subnetwork_probing,
            memory="probing",
            metric_units=False,
            units=True,
            sized=False,
            rounds=True,
        ),
    )
}

ALIASES = {
    "eap": "edge-attribution",
    "eap-ig": "edge-attribution-ig",
    "atp": "attribution-patching",
    "hisp": "head-importance",
    "sp": "subnetwork-probing",
}
"""Names that papers use, for the method of the full name."""


def method_named(name: str) -> str:
    """The full name of a method, which is what records hold.

    Raises:
        EdgewiseError: there is no such method.
    """
    full = ALIASES.get(name.lower(), name)
    if full not in METHODS:
        raise unknown("method", name, (*METHODS, *ALIASES))
    return full
