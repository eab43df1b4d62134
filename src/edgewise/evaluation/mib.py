"""The measures of the Mechanistic Interpretability Benchmark's circuit track (Mueller et al. 2025), as its code has
them.

Faithfulness f of a circuit is (m(C) - m(no edge)) / (m(model) - m(no edge)). Circuits are cut from scores at ten
shares p of all edges; the x-axis is p, not what is left after pruning:

* CPR, the circuit performance ratio: the area under f, edges chosen by signed score. Higher is better, without bound.
* CMD, the circuit-model distance: the area under |1 - f|, edges chosen by the score's size. 0 is best.

Both by trapezoids from p = 0.001 to 1, so f = 1 throughout has CPR 0.999 and CMD 0. Half of either area comes from p
above 0.5; the same areas on a logarithmic axis, which weigh every decade of sizes alike, stand beside them, divided by
its length. The benchmark's graph has no port edges, and a key and a value input per query head.

By nodes p is a share of all nodes that write, the embedding among them, and of the nodes chosen all edges are present.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from edgewise.discovery import by_integer_programming, greedy
from edgewise.errors import EdgewiseError
from edgewise.evaluation.share import SMALLEST_WAY
from edgewise.graph import Circuit, OutputCircuit, node_scores, of_nodes
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.models import Decoder
from edgewise.patching import Experiment
from edgewise.tasks import Task

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
METRIC = "logit_diff"

StepProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class AtShare:
    """One size of circuit.

    Attributes:
        share, asked: of all edges (nodes), and the whole number of them that this makes (rounded down).
        n_edges: how many are left when what dangles is pruned.
        faithfulness: 0 is the ablated run, 1 the model.
    """

    share: float
    asked: int
    n_edges: int
    faithfulness: float


@dataclass(frozen=True)
class MibScores:
    """Both measures of one scored circuit.

    Attributes:
        signed, absolute: faithfulness at every share, edges chosen by score and by the score's size.
        cpr, cmd: the benchmark's areas, from `signed` and `absolute`.
        cpr_log, cmd_log: the same over log p, divided by the length of that axis.
        average: mean faithfulness of `signed`, as the benchmark's files have it.
        unit: what `n_graph_edges` and sizes count: `edges`, or `nodes` of a circuit of whole nodes.
    """

    metric: str
    n_graph_edges: int
    signed: tuple[AtShare, ...]
    absolute: tuple[AtShare, ...]
    cpr: float
    cmd: float
    cpr_log: float
    cmd_log: float
    average: float
    unit: str = "edges"


def mib_scores(
    model: Decoder,
    task: Task,
    scored: Circuit,
    *,
    metric: str = METRIC,
    select: Literal["top", "ilp"] = "top",
    progress: StepProgress | None = None,
) -> MibScores:
    """CPR and CMD of a circuit with a score for every edge, or every node. Port edges of its graph are left aside.

    Absent edges carry the corrupted prompt's activations, as in the benchmark, whatever the search ablated. Of edges
    with one score those are taken that torch's sort of single-precision scores puts first, as in its code.

    Args:
        select: how edges are chosen: `top`, as in the benchmark, or `ilp`, by integer programming (Nikankin et al.
            2025).

    Raises:
        EdgewiseError: no scores, another model's graph, a split embedding, or a task where ablating everything does not
            change the metric.
    """
    if scored.graph.neurons or isinstance(scored, OutputCircuit):
        raise EdgewiseError("they are of edges, or of nodes with all that they write, not of neurons")
    scored = ungrouped(without_ports(scored))
    if select == "ilp" and scored.whole_nodes:
        raise EdgewiseError("integer programming chooses edges, and these are scores of nodes")
    items = scored.most
    if scored.graph.split_embedding:
        raise EdgewiseError("the benchmark's graph has one embedding; this one has tokens and positions apart")
    experiment = Experiment(model, task, metric=metric, ablation="resample", graph=scored.graph)
    scored = scored.on(experiment.graph)
    full, ablated = experiment.full(), experiment.ablated()
    if abs(full - ablated) <= SMALLEST_WAY:
        raise EdgewiseError(f"ablating every edge leaves {metric} as it is, so no circuit has a faithfulness")
    done = 0

    def at_shares(absolute: bool) -> tuple[AtShare, ...]:
        nonlocal done
        found = []
        for share in SHARES:
            asked = int(share * items)
            circuit = _chosen(scored, asked, select, absolute=absolute)
            value = (experiment.value(circuit) - ablated) / (full - ablated)
            found.append(AtShare(share, asked, circuit.size, value))
            done += 1
            if progress is not None:
                progress(done, 2 * len(SHARES))
        return tuple(found)

    signed, absolute = at_shares(False), at_shares(True)
    return replace(scores_from(metric, items, signed, absolute), unit=scored.unit)


def _chosen(scored: Circuit, count: int, select: str, *, absolute: bool) -> Circuit:
    if select == "ilp" and 0 < count < scored.most:  # of everything there is nothing to choose
        return by_integer_programming(scored, count, absolute=absolute).circuit
    return strongest(scored, count, absolute=absolute)


def strongest(scored: Circuit, count: int, *, absolute: bool) -> Circuit:
    """The benchmark's choice of `count` edges, less what dangles."""
    graph = scored.graph
    if scored.scores is None:
        raise EdgewiseError("the circuit has no scores to choose edges by")
    if scored.whole_nodes:
        return _strongest_nodes(scored, count, absolute=absolute)
    scores = torch.from_numpy(scored.scores.copy()).float()
    scores = scores.abs() if absolute else scores
    scores[~torch.from_numpy(graph.edges.copy())] = -math.inf
    chosen = np.zeros(graph.edges.size, dtype=bool)
    chosen[torch.argsort(scores.flatten(), descending=True)[:count].numpy()] = True
    return Circuit(graph, chosen.reshape(graph.edges.shape), graph.port_edges, scored.scores).connected()


def _strongest_nodes(scored: Circuit, count: int, *, absolute: bool) -> Circuit:
    """The benchmark's choice of `count` nodes, the embedding being one like any other.

    Its code keeps all of them: to its pruning every node of a row that is present looks as if something led there.
    """
    found = node_scores(scored)
    assert found is not None
    scores = torch.from_numpy(found.copy()).float()
    rows = np.zeros(len(found), dtype=bool)
    rows[torch.argsort(scores.abs() if absolute else scores, descending=True)[:count].numpy()] = True
    return of_nodes(scored.graph, rows, found)


def scores_from(
    metric: str, n_graph_edges: int, signed: tuple[AtShare, ...], absolute: tuple[AtShare, ...]
) -> MibScores:
    """The areas that follow from faithfulness at every share."""
    by_score, by_size = ([one.faithfulness for one in each] for each in (signed, absolute))
    distance = [abs(1 - one) for one in by_size]
    return MibScores(
        metric=metric,
        n_graph_edges=n_graph_edges,
        signed=signed,
        absolute=absolute,
        cpr=area(by_score),
        cmd=area(distance),
        cpr_log=area(by_score, logarithmic=True),
        cmd_log=area(distance, logarithmic=True),
        average=float(np.mean(by_score)),
    )


def area(values: Sequence[float], shares: Sequence[float] = SHARES, *, logarithmic: bool = False) -> float:
    """The area under values at some shares, by trapezoids; over log p it is divided by the length of the axis."""
    x = [math.log(share) for share in shares] if logarithmic else list(shares)
    total = sum(
        (b - a) * (left + right) / 2 for (a, b), (left, right) in zip(pairwise(x), pairwise(values), strict=True)
    )
    return total / (x[-1] - x[0]) if logarithmic else total


@dataclass(frozen=True)
class MibRoc:
    """A scored circuit against a reference circuit, as the benchmark judges InterpBench's models.

    Attributes:
        true_positive_rates, false_positive_rates: at the ten shares, edges grown from the logits by the score's size.
        auroc: the area by trapezoids over the false positive rate divided by its last value; the benchmark adds no (0,
        0).
    """

    true_positive_rates: tuple[float, ...]
    false_positive_rates: tuple[float, ...]
    auroc: float


def mib_auroc(scored: Circuit, reference: Circuit) -> MibRoc:
    """The benchmark's AUROC of scores against a reference circuit of the same graph; port edges are left aside.

    Its code leaves open which of several edges of one score is taken first; here it is the earlier one.

    Raises:
        EdgewiseError: no scores, different graphs, or a reference that is empty or everything.
    """
    scored, reference = (ungrouped(without_ports(one)) for one in (scored, reference))
    scored.require_graph(reference.graph)
    n_edges, n_true = reference.graph.n_edges, reference.n_edges
    if not 0 < n_true < n_edges:
        raise EdgewiseError(f"a reference circuit of {n_true:,} of {n_edges:,} edges tells nothing apart")
    rates = []
    for share in SHARES:
        circuit = greedy(scored, min(n_edges, math.ceil(share * n_edges)), absolute=True).circuit
        right = (circuit & reference).n_edges
        rates.append((right / n_true, (circuit.n_edges - right) / (n_edges - n_true)))
    true, false = (tuple(column) for column in zip(*rates, strict=True))
    last = false[-1]
    total = sum((b - a) / last * (left + right) / 2 for (left, a), (right, b) in pairwise(rates)) if last else 0.0
    return MibRoc(true, false, total)
