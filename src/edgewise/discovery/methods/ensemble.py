"""Several methods' scores as one: the mean of their ranks, or of their scores at one scale.

Parallel ensembles of the MIB shared task (BlackboxNLP 2025), whose winner averaged attribution and edge pruning. Edge
pruning that starts from attribution, as it does here, is the shared task's sequential ensemble; with attribution as
another member the two make its hybrid.

* `rank`: a score's sign times its size's rank among the method's edges, from 0 to 1. Where the size of scores means
  nothing without their sign, the rank of the score.
* `score`: scores over the root of their mean square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise.discovery.method import Method, Option, Scored, StepProgress
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, node_scores, of_nodes
from edgewise.graph.by_node import Level
from edgewise.graph.circuit import Floats
from edgewise.patching import Experiment

MEMBERS = "edge-attribution-ig, clean-corrupted, relp"
AVERAGES = ("rank", "score")


def ensemble(
    experiment: Experiment,
    *,
    members: str | Sequence[str] = MEMBERS,
    average: str = "rank",
    target: int | None = None,
    seed: int = 0,
    level: Level = "edge",
    max_memory: int | None = None,
    progress: StepProgress | None = None,
) -> Scored:
    """Score edges (or nodes) by several methods together.

    Args:
        members: names of methods, a list or by commas, each with its own defaults.
        average: of what: `rank` or `score`.
        target: the size that members press masks to, where they do.
        seed: of members that draw something.
        max_memory: bytes that each may use beyond the model's weights.

    Raises:
        EdgewiseError: fewer than two members, a member that is no method that scores edges (nodes), an unknown average,
            or whatever a member raises.
    """
    from edgewise.discovery.methods import METHODS, method_named  # which has this method too

    if average not in AVERAGES:
        raise unknown("average", average, AVERAGES)
    given = [one.strip() for one in members.split(",")] if isinstance(members, str) else members
    names = list(dict.fromkeys(method_named(one) for one in given if one))
    if len(names) < 2 or METHOD.name in names:
        raise EdgewiseError(f"an ensemble is of two methods or more, none of them an ensemble, not of {given}")
    for name in names:
        if METHODS[name].scorers[level] is None:
            raise EdgewiseError(f"method {name!r} gives no scores of {level}s, so it can be no member of an ensemble")
    graph, found, about = experiment.graph, [], []
    for number, name in enumerate(names):
        method = METHODS[name]
        shared = {"target": target, "seed": seed}
        options: dict[str, Any] = {option: value for option, value in shared.items() if option in method.options}

        def report(done: int, of: int, before: int = number) -> None:
            if progress is not None:
                progress(before * of + done, len(names) * of)

        scored = method.scores(
            experiment, level=level, max_memory=max_memory, progress=report, **{**method.options, **options}
        )
        found.append(_leveled(scored.circuit, average, method.sized))
        about.append({"method": name, **scored.details})
    mean = np.mean(found, axis=0)
    details = {"members": about, "average": average}
    if level == "node":
        return Scored(of_nodes(graph, np.ones(len(mean), dtype=bool), mean), details)
    edges, ports = mean[: graph.edges.size].reshape(graph.edges.shape), mean[graph.edges.size :]
    return Scored(Circuit.full(graph).with_scores(edges, ports), details)


def _leveled(scored: Circuit, average: str, sized: bool) -> Floats:
    """A method's scores at a scale that others' have too: of nodes, or of every pair of edge matrix and port edges."""
    if scored.whole_nodes:
        found = node_scores(scored)
        assert found is not None
        return _at_one_scale(found, average, sized)
    graph = scored.graph
    assert scored.scores is not None
    assert scored.port_scores is not None
    leveled = np.zeros(graph.edges.size + len(graph.inputs))
    # Port edges among themselves: there are far fewer of them, each worth a whole input.
    for first, scores, exists in (
        (0, scored.scores.ravel(), graph.edges.ravel()),
        (graph.edges.size, scored.port_scores, graph.port_edges),
    ):
        leveled[first : first + len(exists)][exists] = _at_one_scale(scores[exists], average, sized)
    return leveled


def _at_one_scale(scores: Floats, average: str, sized: bool) -> Floats:
    from scipy.stats import rankdata  # takes a moment to import

    if not len(scores):
        return scores
    if average == "score":
        return scores / (np.sqrt(np.mean(scores**2)) or 1.0)
    if not sized:
        return rankdata(scores) / len(scores)
    return np.sign(scores) * rankdata(np.abs(scores)) / len(scores)


def _nodes(experiment: Experiment, **options: Any) -> Scored:
    return ensemble(experiment, level="node", **options)


METHOD = Method(
    name="ensemble",
    summary="several methods' scores as one, by rank or at one scale",
    cost="that of its members",
    paper="MIB shared task 2025",
    when="the most faithful circuits, where time allows several methods",
    takes=(
        Option("members", MEMBERS, "methods, by commas"),
        Option("average", "rank", "of what: ranks, or scores at one scale", choices=AVERAGES),
        Option("target", None, "how many edges members press masks to, if they do", 1),
        Option("seed", 0, "of members that draw something", least=0),
    ),
    counts="parts",
    score=ensemble,
    score_nodes=_nodes,
    metric_units=False,
    memory="every edge",
)
