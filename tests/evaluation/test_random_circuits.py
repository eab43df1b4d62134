"""Random circuits are made of whole paths, and of the size that was asked for."""

import numpy as np
import pytest

from edgewise.errors import EdgewiseError
from edgewise.evaluation.random_circuits import inflated, random_circuit, random_path
from edgewise.graph import Circuit, Graph

GRAPHS = [
    Graph(3, 2, ports=True),
    Graph(2, 4, n_kv_heads=2, ports=True),
    Graph(2, 4, n_kv_heads=1),
    Graph(3, 1, split_embedding=True, ports=True),
    Graph(2, 2, mlps=False),
    Graph(2, 2, parallel=True),
]


@pytest.mark.parametrize("graph", GRAPHS, ids=Graph.describe)
def test_a_random_path_leads_from_an_embedding_to_the_logits(graph):
    generator = np.random.default_rng(0)
    lengths = set()
    for _ in range(50):
        path = random_path(graph, generator)
        assert path == path.connected()
        assert path.edges[: graph.n_embeddings].sum() == 1
        assert path.edges[:, -1].sum() == 1
        assert path.edges.sum(axis=0).max() == path.edges.sum(axis=1).max() == 1
        lengths.add(path.n_edges)
    assert len(lengths) > 1


@pytest.mark.parametrize("graph", GRAPHS, ids=Graph.describe)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_a_random_circuit_has_as_many_edges_as_asked_and_hardly_more(graph, share):
    wanted = round(share * graph.n_edges)
    circuit = random_circuit(graph, wanted, seed=3)
    longest = graph.n_layers * (2 + graph.ports) + 1
    assert wanted <= circuit.n_edges < wanted + longest
    assert circuit == circuit.connected()
    assert circuit == random_circuit(graph, wanted, seed=3)
    if 0.05 < share < 1 and graph.n_edges > 30:
        assert circuit != random_circuit(graph, wanted, seed=4)


def test_a_random_circuit_keeps_to_the_edges_that_it_is_given():
    graph = GRAPHS[0]
    known = random_circuit(graph, 12, seed=0)
    outside = (~known).connected()
    for seed in range(5):
        circuit = random_circuit(graph, 8, seed, within=~known)
        assert circuit <= outside
        assert (circuit & known).n_edges == 0
    with pytest.raises(EdgewiseError, match="can have 0 to 0 edges here, not 1"):
        random_circuit(graph, 1, 0, within=Circuit.empty(graph))


def test_sizes_that_no_circuit_has_are_refused():
    graph = GRAPHS[0]
    for size in (graph.n_edges + 1, -1):
        with pytest.raises(EdgewiseError, match=f"can have 0 to {graph.n_edges} edges here, not {size}"):
            random_circuit(graph, size, 0)


def test_an_inflated_circuit_has_one_more_path_and_names_an_edge_of_it():
    graph = GRAPHS[0]
    circuit = random_circuit(graph, 12, seed=0)
    larger, added = inflated(circuit, np.random.default_rng(0))
    assert circuit <= larger
    assert added in larger
    assert added not in circuit
    assert inflated(Circuit.full(graph), np.random.default_rng(0)) is None
