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
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch

from edgewise.discovery import by_integer_programming, greedy
from edgewise.errors import EdgewiseError, unknown
from edgewise.evaluation.share import SMALLEST_WAY
from edgewise.graph import Circuit, OutputCircuit, node_scores, of_nodes
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.models import Decoder
from edgewise.patching import Experiment, memory_of
from edgewise.tasks import Task

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
METRIC = "logit_diff"
PIECE_BYTES = 2**31
"""What an experiment keeps of the prompts that are measured together, unless it may take less."""

MibSelection = Literal["top", "greedy", "ilp"]
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
        full, ablated: the metric of the model and with every edge ablated, as it is measured: lower is better.
        accuracy: the share of prompts whose answer the model itself puts above the wrong one.
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
    full: float = math.nan
    ablated: float = math.nan
    accuracy: float | None = None


def mib_scores(
    model: Decoder,
    task: Task,
    scored: Circuit,
    *,
    metric: str = METRIC,
    select: MibSelection = "top",
    max_memory: int | None = None,
    earlier: Sequence[float] = (),
    measured: Callable[[float], None] | None = None,
    progress: StepProgress | None = None,
) -> MibScores:
    """CPR and CMD of a circuit with a score for every edge, or every node. Port edges of its graph are left aside.

    Absent edges carry the corrupted prompt's activations, as in the benchmark, whatever the search ablated. Of edges
    with one score those are taken that torch's sort of single-precision scores puts first, as in its code. Prompts are
    measured in pieces (`pieces_of`), so that there may be thousands.

    Args:
        select: how edges are chosen: `top`, as in the benchmark; `greedy`, grown from the logits, as it does for
            information flow routes; or `ilp`, by integer programming (Nikankin et al. 2025).
        max_memory: bytes that it may use beyond the model's weights; by default what the machine has.
        earlier: what `measured` was told by an earlier call with the same arguments, which is not measured again.
        measured: called with each number that is measured, piece after piece.

    Raises:
        EdgewiseError: no scores, another model's graph, a split embedding, or a task where ablating everything does not
            change the metric.
    """
    if scored.graph.neurons or isinstance(scored, OutputCircuit):
        raise EdgewiseError("they are of edges, or of nodes with all that they write, not of neurons")
    if select not in get_args(MibSelection):
        raise unknown("way to choose edges", select, get_args(MibSelection))
    scored = ungrouped(without_ports(scored))
    if select != "top" and scored.whole_nodes:
        how = {"ilp": "integer programming chooses", "greedy": "greedy selection grows a circuit of"}[select]
        raise EdgewiseError(f"{how} edges, and these are scores of nodes")
    if scored.graph.split_embedding:
        raise EdgewiseError("the benchmark's graph has one embedding; this one has tokens and positions apart")
    graph = scored.graph

    def on_rows(first: int, stop: int) -> Experiment:
        part = task.of_rows(first, stop)
        return Experiment(model, part, metric=metric, ablation="resample", graph=graph, max_memory=max_memory)

    pieces = pieces_of(model, task, scored, max_memory)
    experiment = on_rows(0, 1) if earlier else on_rows(*pieces[0])
    scored = scored.on(experiment.graph)
    items = scored.most
    asked = [int(share * items) for share in SHARES]
    circuits = [[_chosen(scored, count, select, absolute=absolute) for count in asked] for absolute in (False, True)]
    whole = Circuit.full(scored.graph)
    every = list(dict.fromkeys([whole, *circuits[0], *circuits[1]]))
    numbers, width = list(earlier), 2 + len(every)  # of each piece: accuracy, every edge ablated, and circuits
    if len(numbers) > width * len(pieces):
        raise EdgewiseError("what was measured earlier is of other circuits, or of other prompts")
    for number, piece in enumerate(pieces):
        if len(numbers) >= (number + 1) * width:
            continue
        experiment = on_rows(*piece) if earlier or number else experiment
        for at in range(len(numbers) - number * width, width):
            if at == 0:
                accuracy = experiment.accuracy()
                value = math.nan if accuracy is None else accuracy
            else:
                value = experiment.ablated() if at == 1 else experiment.value(every[at - 2])
            numbers.append(value)
            if measured is not None:
                measured(value)
            if len(pieces) == 1 and at == 2:
                _require_way(value, numbers[1], metric)
            if progress is not None:
                progress(number * width + at + 1, width * len(pieces))
    rows = np.array(numbers).reshape(len(pieces), width)
    places = task.prompts.scored_rows
    weights = [int(((places >= first) & (places < stop)).sum()) for first, stop in pieces]
    right, ablated, *values = (float(one) for one in np.average(rows, axis=0, weights=weights))
    of = dict(zip(every, values, strict=True))
    full = of[whole]
    _require_way(full, ablated, metric)
    signed, absolute = (
        tuple(
            AtShare(share, count, circuit.size, (of[circuit] - ablated) / (full - ablated))
            for share, count, circuit in zip(SHARES, asked, chosen, strict=True)
        )
        for chosen in circuits
    )
    return scores_from(
        metric,
        items,
        signed,
        absolute,
        unit=scored.unit,
        full=full,
        ablated=ablated,
        accuracy=None if math.isnan(right) else right,
    )


def pieces_of(model: Decoder, task: Task, scored: Circuit, max_memory: int | None = None) -> list[tuple[int, int]]:
    """The rows of prompts that are measured together, `(first, stop)`: what is kept of them fits into `PIECE_BYTES`.

    Or into half of `max_memory`, where that is less.
    """
    plan = memory_of(model, task, scored.graph)
    most = PIECE_BYTES if max_memory is None else min(PIECE_BYTES, max_memory // 2)
    step = max(1, most * len(task) // max(1, plan.held))
    return [(first, min(first + step, len(task))) for first in range(0, len(task), step)]


def _require_way(full: float, ablated: float, metric: str) -> None:
    if abs(full - ablated) <= SMALLEST_WAY:
        raise EdgewiseError(f"ablating every edge leaves {metric} as it is, so no circuit has a faithfulness")


def _chosen(scored: Circuit, count: int, select: str, *, absolute: bool) -> Circuit:
    if select != "top" and 0 < count < scored.most:  # of everything there is nothing to choose
        choose = greedy if select == "greedy" else by_integer_programming
        return choose(scored, count, absolute=absolute).circuit
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
    metric: str, n_graph_edges: int, signed: tuple[AtShare, ...], absolute: tuple[AtShare, ...], **about: Any
) -> MibScores:
    """The areas that follow from faithfulness at every share; `about` has the other fields."""
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
        **about,
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
