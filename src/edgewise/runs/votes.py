"""A search made again and again, as one result: which edges its circuits agree on.

Searches differ in the order of edges (ACDC, which goes by it), or in the examples, drawn anew with replacement. Each
edge then has a share of searches that keep it, and a circuit is had at any vote: the edges that at least so many of
them keep. How far two searches agree is the mean Jaccard index over pairs, with an interval by resampling searches. (A
pair of one search with itself, which resampling makes, is left out, as it always agrees.)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, check_seed
from edgewise.evaluation.bootstrap import FEWEST_EXAMPLES, Interval, jaccard
from edgewise.evaluation.random_circuits import chosen_of
from edgewise.files import write_text
from edgewise.graph import Circuit, NeuronCircuit, node_scores, of_neurons, of_nodes
from edgewise.graph.circuit import Floats
from edgewise.graph.eap_json import to_dict
from edgewise.patching import Ablation, Experiment
from edgewise.runs.request import SearchRequest
from edgewise.runs.run import Run
from edgewise.runs.stability import require_examples, require_times, search_again
from edgewise.runs.stability_file import STABILITY, VOTED

RESAMPLES, CONFIDENCE = 2000, 0.95
LEVELS = (1.0, 0.9, 0.75, 0.5)
"""Votes at which circuits are measured, beside the one asked for."""

What = Literal["orders", "examples"]


@dataclass(frozen=True)
class Searched:
    """One of the searches.

    Attributes:
        seed: of its order, or of its draw of examples.
        size: of its circuit, in edges (nodes, neurons).
        metric: of its circuit on its own examples.
        jaccard: how far it agrees with the run's own circuit.
    """

    seed: int
    size: int
    metric: float
    jaccard: float


@dataclass(frozen=True)
class AtVote:
    """The circuit of what at least this share of the searches keep.

    Attributes:
        metric: on the run's own examples.
        jaccard: how far it agrees with the run's own circuit.
    """

    vote: float
    size: int
    metric: float
    jaccard: float


@dataclass(frozen=True)
class Votes:
    """What searches made again agree on.

    Attributes:
        what: what differs from one to the next: `orders` of edges, or `examples`.
        circuits: what each found; not part of the file.
        searches: about each.
        vote: the one that was asked for.
        circuit: what at least so many keep, with the share of every edge (node, neuron) as its score.
        jaccard: the mean over pairs of searches.
        interval: of that, at 95%; None with fewer than 8 searches.
        levels: circuits at several votes, the strictest first.
    """

    what: What
    circuits: tuple[Circuit, ...]
    searches: tuple[Searched, ...]
    vote: float
    circuit: Circuit
    jaccard: float
    interval: Interval | None
    levels: tuple[AtVote, ...]

    def at(self, vote: float) -> Circuit:
        """The circuit of what at least this share of the searches keep; its scores are shares."""
        return voted(self.circuits, vote)

    def shares(self) -> dict[str, float]:
        """The share of searches that keep each edge (node, neuron) that any of them keeps, the most frequent first."""
        return shares_of(self.circuit)

    def to_dict(self) -> dict[str, Any]:
        """What `stability.json` holds."""
        return {
            "what": self.what,
            "vote": self.vote,
            "unit": self.circuit.unit,
            "jaccard": self.jaccard,
            "interval": None if self.interval is None else asdict(self.interval),
            "confidence": CONFIDENCE,
            "searches": [asdict(one) for one in self.searches],
            "levels": [asdict(one) for one in self.levels],
            "shares": self.shares(),
        }

    def save(self, folder: str | Path) -> None:
        """Write `stability.json` and `votes.json` into a run folder, in place of older ones."""
        for name, content in self.files().items():
            write_text(Path(folder) / name, content)

    def files(self) -> dict[str, str]:
        """Both files, by name."""
        return {STABILITY: json.dumps(self.to_dict(), indent=1) + "\n", VOTED: json.dumps(to_dict(self.circuit))}


def vote(
    run: Run,
    *,
    orders: int | None = None,
    bootstrap: int | None = None,
    votes: float = 0.5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Votes:
    """Search again as a run did, in other orders of edges or on other draws of its examples.

    Args:
        orders: so many searches in random orders of layers and heads, with seeds `seed + 1`, `seed + 2`, …
        bootstrap: so many on examples drawn with replacement, with the same seeds.
        votes: the share of searches that an edge needs to be in the circuit.
        progress: called with searches done and all of them.

    Raises:
        EdgewiseError: both are asked for or none, fewer than 2 searches, a vote that is no share, orders of a method
            that goes by none, one example to draw from, a metric of one's own; or whatever `discover` raises.
    """
    what, times = check_votes(run.record["settings"].get("method", "acdc"), orders, bootstrap, votes, seed)
    search = SearchRequest.from_dict(run.record["settings"])
    model, task = run.model, run.task
    seeds = range(seed + 1, seed + times + 1)
    if what == "orders":
        shuffled = replace(search, layer_order="shuffle", head_order="shuffle")
        searches = ((task, replace(shuffled, seed=one)) for one in seeds)
    else:
        require_examples(task)
        searches = ((task.resampled(one), search) for one in seeds)
    found = search_again(model, searches, times, progress)
    circuits, own = tuple(one for one, _ in found), chosen_of(run.circuit)
    settings = run.record["settings"]
    carried = Ablation(settings["ablation"], settings.get("ablation_seed", 0), None, run.constants)
    case = Experiment(model, task, ablation=carried, metric=settings["metric"], graph=run.circuit.graph)
    levels = []
    for level in sorted({*LEVELS, votes, 1 / times}, reverse=True):
        circuit = voted(circuits, level)
        levels.append(AtVote(level, circuit.size, case.value(circuit), jaccard(chosen_of(circuit), own)))
    agree = pairs_of([chosen_of(one) for one in circuits])
    return Votes(
        what=what,
        circuits=circuits,
        searches=tuple(
            Searched(one, circuit.size, metric, jaccard(chosen_of(circuit), own))
            for one, (circuit, metric) in zip(seeds, found, strict=True)
        ),
        vote=votes,
        circuit=voted(circuits, votes),
        jaccard=_mean_of_pairs(agree, np.ones((1, times)))[0],
        interval=jaccard_interval(agree, seed),
        levels=tuple(levels),
    )


def check_votes(
    method: str, orders: int | None, bootstrap: int | None, votes: float, seed: int = 0
) -> tuple[What, int]:
    """What is to differ from one search to the next, and how many there are.

    Raises:
        EdgewiseError: as `vote`.
    """
    if (orders is None) == (bootstrap is None):
        raise EdgewiseError("a search is made again in other orders (--orders) or on other examples (--bootstrap): one")
    times = bootstrap if orders is None else orders
    assert times is not None
    require_times(times)
    if not 0 < votes <= 1:
        raise EdgewiseError(f"a vote (--votes) is a share of the searches, above 0 and up to 1, not {votes}")
    check_seed(seed)
    if orders is not None and method != "acdc":
        raise EdgewiseError(f"only ACDC depends on an order of edges, not {method!r}; --bootstrap draws other examples")
    return ("examples", times) if orders is None else ("orders", times)


def voted(circuits: tuple[Circuit, ...], votes: float) -> Circuit:
    """The circuit of what at least a share of circuits have, over their graph; its scores are these shares.

    Raises:
        EdgewiseError: the circuits are over several graphs.
    """
    first = circuits[0]
    for one in circuits:
        one.require_graph(first.graph)

    def share(arrays: list[NDArray[Any]]) -> Floats:
        return np.asarray(np.mean(np.stack(arrays), axis=0, dtype=np.float64))

    def kept(shares: Floats) -> NDArray[np.bool_]:
        return (shares >= votes - 1e-9) & (shares > 0)

    neurons = [one.neurons for one in circuits if isinstance(one, NeuronCircuit)]
    if neurons:
        shares = share(list(neurons))
        return of_neurons(first.graph, kept(shares), shares)
    if first.whole_nodes:
        shares = share([one.rows for one in circuits])
        return of_nodes(first.graph, kept(shares), shares)
    edges, ports = share([one.edges for one in circuits]), share([one.ports for one in circuits])
    return Circuit(first.graph, kept(edges), kept(ports), edges, ports)


def shares_of(circuit: Circuit) -> dict[str, float]:
    """The scores of a voted circuit by name, the largest first, without those that are 0."""
    graph = circuit.graph
    if isinstance(circuit, NeuronCircuit):
        assert circuit.neuron_scores is not None
        places = np.argwhere(circuit.neuron_scores > 0).tolist()
        found = {graph.unit_name(layer, one): float(circuit.neuron_scores[layer, one]) for layer, one in places}
    elif circuit.whole_nodes:
        scores = node_scores(circuit)
        assert scores is not None
        found = {node.name: float(one) for node, one in zip(graph.sources, scores, strict=True) if one > 0}
    else:
        assert circuit.scores is not None
        assert circuit.port_scores is not None
        any_kept = Circuit(graph, circuit.scores > 0, circuit.port_scores > 0)
        found = {}
        for name in any_kept.names():
            row, column = graph.locate(name)
            found[name] = float(circuit.port_scores[column] if row is None else circuit.scores[row, column])
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def pairs_of(sets: list[NDArray[np.bool_]]) -> Floats:
    """`[circuits, circuits]`: the Jaccard index of each two."""
    agree = np.ones((len(sets), len(sets)))
    for number, one in enumerate(sets):
        for other in range(number):
            agree[number, other] = agree[other, number] = jaccard(one, sets[other])
    return agree


def jaccard_interval(agree: Floats, seed: int = 0) -> Interval | None:
    """The percentile interval of the mean over pairs, from resampled searches; None with fewer than 8 searches."""
    times = len(agree)
    if times < FEWEST_EXAMPLES:
        return None
    counts = np.random.default_rng(seed).multinomial(times, np.full(times, 1 / times), size=RESAMPLES)
    means = _mean_of_pairs(agree, counts.astype(np.float64))
    low, high = np.quantile(means[np.isfinite(means)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def _mean_of_pairs(agree: Floats, counts: Floats) -> Floats:
    """The mean over pairs of different circuits, each circuit taken as often as a row of `counts` says."""
    own = (counts**2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        total = np.einsum("bi,ij,bj->b", counts, agree, counts) - own  # of itself each is 1
        return np.asarray(total / (counts.sum(axis=1) ** 2 - own))
