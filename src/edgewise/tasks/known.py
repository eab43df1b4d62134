"""True circuits: those that people worked out by hand, as rules over groups of components, and a user's own.

A rule says that every sender of some groups feeds some inputs of every receiver of others, as far as the sender comes
earlier in the model. A head needs its query (key, value), that is, its port edge is in, if that input reads anything.
Groups and rules are those of the ACDC paper's ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph import Circuit, Graph, as_shown
from edgewise.graph.convert import lumped, onto
from edgewise.graph.groups import GroupFound, Groups, group_of, groups_found
from edgewise.models import Decoder


@dataclass(frozen=True)
class Rule:
    """Every node of the groups `senders` feeds every node of `receivers`, heads at the inputs named in `at`.

    A group is one of the circuit's own, a node's name, or `embedding`, `MLPs` or `logits`.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    at: str = "qkv"


@dataclass(frozen=True)
class Comparison:
    """A circuit beside the known one.

    Attributes:
        source: who worked the known one out.
        n_edges: edges of the known one, in the circuit's graph.
        found: how many of them the circuit has.
        groups: what it has of every group of components.
    """

    source: str
    n_edges: int
    found: int
    groups: tuple[GroupFound, ...]


class Truth:
    """What circuits are held against.

    Attributes:
        source: who worked it out, or what the user calls it.
        groups: names of components `a9.h9`, `m0` by the name of their group.
        circuit: its edges, in a graph of its own.
    """

    source: str
    groups: Groups
    circuit: Circuit

    def on(self, graph: Graph) -> Circuit:
        """The true circuit in a graph of its model.

        Raises:
            EdgewiseError: the graph is another model's.
        """
        raise NotImplementedError

    @property
    def n_edges(self) -> int:
        """Edges of the circuit in its own graph, port edges included: the number that the ACDC paper gives."""
        return self.circuit.n_edges

    def group_of(self, node: str) -> str | None:
        """The group that a node belongs to."""
        return group_of(self.groups).get(node)

    def groups_in(self, circuit: Circuit) -> tuple[GroupFound, ...]:
        """What a circuit has of every group."""
        return groups_found(self.groups, circuit)

    def compare(self, circuit: Circuit) -> Comparison:
        """A circuit beside this one, in the circuit's own graph: without port edges if that has none.

        Of edges at spans of positions, those that are present somewhere count.

        Raises:
            EdgewiseError: the circuit is over another model's graph.
        """
        known = lumped(as_shown(self.on(circuit.graph)))
        found = (known & lumped(as_shown(circuit))).n_edges
        return Comparison(self.source, known.n_edges, found, self.groups_in(circuit))


@dataclass(frozen=True)
class GivenCircuit(Truth):
    """A circuit that a user gave to be held against, in whatever graph it is over.

    Raises:
        EdgewiseError: nothing is in it.
    """

    source: str
    circuit: Circuit
    groups: Groups = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.circuit:
            raise EdgewiseError(f"the known circuit {quoted(self.source)} is empty, so nothing can be held against it")

    def on(self, graph: Graph) -> Circuit:
        """The circuit in a graph of its model: with its port edges, shared keys and shared values (`onto`)."""
        try:
            return onto(self.circuit, graph)
        except EdgewiseError:
            raise EdgewiseError(
                f"the known circuit {quoted(self.source)} is over another graph ({self.circuit.graph.describe()}) than "
                f"the one that is searched or measured ({graph.describe()})"
            ) from None


@dataclass(frozen=True)
class KnownCircuit(Truth):
    """A task's true circuit in one model, as far as people know it.

    Attributes:
        rules: what makes its edges.
        graph: the graph of the model it was found in, port edges included.
        n_tokens: how many tokens that model reads; it tells other models of the same size.
    """

    source: str
    groups: Groups
    rules: tuple[Rule, ...]
    graph: Graph
    n_tokens: int

    @cached_property
    def circuit(self) -> Circuit:  # type: ignore[override]
        """The circuit, port edges included."""
        return self.on(self.graph)

    def on(self, graph: Graph) -> Circuit:
        """The circuit in a graph of that model, with or without port edges.

        Raises:
            EdgewiseError: the graph is another model's.
        """
        shape, own = (
            (one.n_layers, one.n_heads, one.n_kv_heads, one.mlps, one.parallel, one.split_embedding)
            for one in (graph, self.graph)
        )
        if shape != own:
            raise EdgewiseError(f"the known circuit is one of {self.graph.describe()}, not of {graph.describe()}")
        edges = np.zeros_like(graph.edges)
        for rule in self.rules:
            rows = [graph.source_index[name] for group in rule.senders for name in self._members(group, graph)]
            columns = [
                column
                for group in rule.receivers
                for name in self._members(group, graph)
                for column in graph.inputs_of(graph.node(name))
                if graph.inputs[column].kind in (*rule.at, "head", "mlp", "logits")
            ]
            edges[np.ix_(rows, columns)] = True
        edges &= graph.edges
        return Circuit(graph, edges, graph.port_edges & edges.any(axis=0))

    def _members(self, group: str, graph: Graph) -> tuple[str, ...]:
        if group in self.groups:
            return self.groups[group]
        if group == "embedding":
            return tuple(node.name for node in graph.sources[: graph.n_embeddings])
        if group == "MLPs":
            return tuple(node.name for node in graph.sources if node.kind == "mlp")
        return (group,)


def heads_named(*names: str) -> tuple[str, ...]:
    """Heads as papers write them, `9.6`, by the names of a graph, `a9.h6`."""
    return tuple("a{}.h{}".format(*name.split(".")) for name in names)


def _mlps(*layers: int) -> tuple[str, ...]:
    return tuple(f"m{layer}" for layer in layers)


_GPT2_SMALL = Graph(12, 12, ports=True)

# FACTS of the paper's code, section by section: IOI (after Wang et al. 2023).
_TO_LOGITS = ("name mover", "backup name mover", "negative name mover")
IOI = KnownCircuit(
    source="Wang et al. 2023",
    groups={
        "name mover": heads_named("9.9", "10.0", "9.6"),
        "backup name mover": heads_named("10.10", "10.6", "10.2", "10.1", "11.2", "9.7", "9.0", "11.9"),
        "negative name mover": heads_named("10.7", "11.10"),
        "S-inhibition": heads_named("7.3", "7.9", "8.6", "8.10"),
        "induction": heads_named("5.5", "5.8", "5.9", "6.9"),
        "duplicate token": heads_named("0.1", "0.10", "3.0"),
        "previous token": heads_named("2.2", "4.11"),
    },
    rules=(
        # Nobody looked into the MLPs, so all that leads into and out of them is taken to matter.
        Rule(("embedding", "MLPs"), ("MLPs", "logits")),
        Rule(("MLPs",), (*_TO_LOGITS, "S-inhibition", "induction", "duplicate token", "previous token")),
        Rule((*_TO_LOGITS, "S-inhibition", "induction", "duplicate token", "previous token"), ("MLPs",)),
        Rule(("embedding",), ("previous token", "duplicate token")),
        Rule(("embedding",), ("S-inhibition",), "q"),
        Rule(("embedding",), _TO_LOGITS, "kv"),
        Rule(("previous token",), ("induction",), "kv"),
        Rule(("induction", "duplicate token"), ("S-inhibition",), "kv"),
        Rule(("S-inhibition",), _TO_LOGITS, "q"),
        Rule(_TO_LOGITS, ("logits",)),
    ),
    graph=_GPT2_SMALL,
    n_tokens=50257,
)

# Greater-Than (after Hanna et al. 2023). The groups' names are those of the ACDC paper.
GREATER_THAN = KnownCircuit(
    source="Hanna et al. 2023",
    groups={
        "heads 0.3, 0.5": heads_named("0.3", "0.5"),
        "head 0.1": heads_named("0.1"),
        "early MLPs": _mlps(0, 1, 2, 3),
        "mid heads": heads_named("5.5", "6.1", "6.9", "7.10", "8.11", "9.1"),
        "late MLPs": _mlps(8, 9, 10, 11),
    },
    rules=(
        Rule(("embedding",), ("head 0.1", "heads 0.3, 0.5", "early MLPs")),
        Rule(("head 0.1",), ("early MLPs", "mid heads")),
        Rule(("heads 0.3, 0.5", "early MLPs"), ("mid heads",)),
        Rule(("early MLPs",), ("early MLPs",)),
        Rule(("mid heads",), ("late MLPs", "logits")),
        Rule(("late MLPs",), ("late MLPs", "logits")),
        # What Hanna et al. leave clean in the mid heads' queries.
        Rule(_mlps(*range(9)), _mlps(*range(9))),
        Rule(_mlps(*range(9)), ("mid heads",), "q"),
    ),
    graph=_GPT2_SMALL,
    n_tokens=50257,
)

# Docstring (after Heimersheim and Janiak 2023). Argument movers are their name; the others say what a group does here.
DOCSTRING = KnownCircuit(
    source="Heimersheim and Janiak 2023",
    groups={
        "argument mover": heads_named("3.0", "3.6"),
        "feeds movers' queries": heads_named("1.4"),
        "feeds movers' keys": heads_named("1.2", "2.0"),
        "carries tokens": heads_named("0.5"),
    },
    rules=(
        Rule(("embedding",), ("carries tokens",), "v"),
        Rule(("embedding", "carries tokens"), ("feeds movers' queries", "argument mover"), "v"),
        Rule(("embedding", "carries tokens"), ("feeds movers' keys",), "qk"),
        Rule(("feeds movers' queries",), heads_named("2.0"), "v"),
        Rule(("feeds movers' queries",), ("argument mover",), "q"),
        Rule(("feeds movers' keys",), ("argument mover",), "k"),
        Rule(("argument mover",), ("logits",)),
    ),
    graph=Graph(4, 8, mlps=False, ports=True),
    n_tokens=48262,
)

# tracr's two programs and the OR gate: their circuits follow from how they are built.
TRACR_REVERSE = KnownCircuit(
    source="Lindner et al. 2023",
    groups={
        "finds the length": ("a0.h0", "m0"),
        "length minus position": ("m1", "m2"),
        "fetches the letter": ("a3.h0",),
    },
    rules=(
        Rule(("tok",), ("a0.h0",), "v"),
        Rule(("a0.h0", "tok"), ("m0",)),
        Rule(("m0", "tok", "pos"), ("m1",)),
        Rule(("m1",), ("m2",)),
        Rule(("m2",), ("a3.h0",), "q"),
        Rule(("pos",), ("a3.h0",), "k"),
        Rule(("tok",), ("a3.h0",), "v"),
        Rule(("a3.h0",), ("logits",)),
    ),
    graph=Graph(4, 1, split_embedding=True, ports=True),
    n_tokens=5,
)
TRACR_XPROPORTION = KnownCircuit(
    source="Lindner et al. 2023",
    groups={"marks the x": ("m0",), "averages": ("a1.h0",)},
    rules=(
        Rule(("tok",), ("m0",)),
        Rule(("tok", "pos"), ("a1.h0",), "qk"),
        Rule(("m0",), ("a1.h0",), "v"),
        Rule(("a1.h0",), ("logits",)),
    ),
    graph=Graph(2, 1, split_embedding=True, ports=True),
    n_tokens=6,
)
OR_GATE = KnownCircuit(
    source="ACDC paper, appendix M",
    groups={"inputs": ("a0.h0", "a0.h1"), "the gate": ("m0",)},
    rules=(Rule(("inputs",), ("the gate",)), Rule(("the gate",), ("logits",))),
    graph=Graph(1, 2, ports=True),
    n_tokens=1,
)

KNOWN_CIRCUITS: dict[str, KnownCircuit] = {
    "ioi": IOI,
    "greater-than": GREATER_THAN,
    "docstring": DOCSTRING,
    "tracr-reverse": TRACR_REVERSE,
    "tracr-xproportion": TRACR_XPROPORTION,
    "or-gate": OR_GATE,
}
"""Known circuits by task."""


def known_circuit(task: str, model: Decoder) -> KnownCircuit | None:
    """The known circuit of a task in a model, or None where nobody knows it.

    A model is taken for the one that a circuit was found in if it has as many layers, heads and tokens, so that a
    fine-tuned copy, or a permuted one, is held against it too.
    """
    known = KNOWN_CIRCUITS.get(task)
    if known is None:
        return None
    graph = known.graph
    own = model.graph(ports=graph.ports, split_embedding=graph.split_embedding)
    return known if (own.shape, model.config.n_tokens) == (graph.shape, known.n_tokens) else None
