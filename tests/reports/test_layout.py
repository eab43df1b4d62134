"""Where the nodes of a circuit stand."""

import subprocess
import sys

import numpy as np
import pytest

from edgewise.graph import Circuit, Graph
from edgewise.reports.layout import MOST_COLUMNS, Layout, place
from edgewise.tasks.known import GREATER_THAN, IOI, TRACR_REVERSE


def random_circuit(graph: Graph, n_edges: int, seed: int = 0) -> Circuit:
    rows, columns = np.nonzero(graph.edges)
    chosen = np.random.default_rng(seed).choice(len(rows), size=min(n_edges, len(rows)), replace=False)
    edges = np.zeros_like(graph.edges)
    edges[rows[chosen], columns[chosen]] = True
    return Circuit(graph, edges, np.zeros_like(graph.port_edges))


CIRCUITS = {
    "ioi": IOI.circuit,
    "greater-than": GREATER_THAN.circuit,
    "tracr-reverse": TRACR_REVERSE.circuit,
    "parallel": random_circuit(Graph(3, 4, parallel=True), 40),
    "no MLPs": random_circuit(Graph(3, 4, mlps=False), 30),
    "shared key/value heads": random_circuit(Graph(4, 8, n_kv_heads=2), 60),
    "as many heads as a large model": random_circuit(Graph(6, 48, n_kv_heads=8), 1500),
    "one layer, one head": Circuit.full(Graph(1, 1)),
    "only the embedding and the logits": Circuit.from_names(Graph(2, 2), ["input->logits"]),
    "no path at all": random_circuit(Graph(6, 8, n_kv_heads=4), 3),
}


@pytest.fixture(params=list(CIRCUITS.values()), ids=list(CIRCUITS))
def circuit(request) -> Circuit:
    return request.param


def test_every_node_of_the_circuit_stands_somewhere_once(circuit):
    names = [node.name for node in place(circuit).nodes]
    assert len(names) == len(set(names))
    assert {name for name in names if ".g" not in name} == set(circuit.nodes())


def test_every_shared_key_value_head_that_is_read_into_stands_below_its_readers():
    circuit = CIRCUITS["shared key/value heads"]
    layout = place(circuit)
    reading = {edge.split("->")[1].split("<")[0] for edge in circuit.names() if ".g" in edge}
    assert {node.name for node in layout.nodes if node.kind == "group"} == reading
    for group in (node for node in layout.nodes if node.kind == "group"):
        heads = [node for node in layout.nodes if node.kind == "head" and node.layer == group.layer]
        assert all(group.top > head.bottom for head in heads)


def test_no_two_boxes_touch_and_all_are_in_the_picture(circuit):
    layout = place(circuit)
    for number, one in enumerate(layout.nodes):
        assert one.left >= 0
        assert one.right <= layout.width
        assert one.top >= 0
        assert one.bottom <= layout.height
        for other in layout.nodes[number + 1 :]:
            apart = max(one.left - other.right, other.left - one.right, one.top - other.bottom, other.top - one.bottom)
            assert apart >= 10, f"{one.name} and {other.name}"


def test_every_edge_leads_upwards(circuit):
    layout = place(circuit)
    for name in circuit.names():
        source, target = (layout.by_name[part.split("<")[0]] for part in name.split("->"))
        if source is not target:
            assert source.top > target.bottom or (circuit.graph.parallel and source.layer != target.layer), name


def test_a_head_stands_in_the_same_column_in_every_layer():
    layout = place(IOI.circuit)
    columns: dict[int, set[float]] = {}
    for node in layout.nodes:
        if node.kind == "head":
            columns.setdefault(node.head, set()).add(node.x)
    assert all(len(places) == 1 for places in columns.values())
    ordered = [columns[head].pop() for head in sorted(columns)]
    assert ordered == sorted(ordered)


def test_an_mlp_stands_above_its_heads_and_beside_them_where_the_two_are_parallel():
    by_name = place(Circuit.full(Graph(2, 2))).by_name
    assert by_name["a0.h1"].top > by_name["m0"].bottom > by_name["a1.h0"].bottom
    by_name = place(Circuit.full(Graph(2, 2, parallel=True))).by_name
    assert by_name["a0.h1"].y == by_name["m0"].y


def test_what_the_circuit_does_not_have_takes_no_room():
    few = ["input->m7", "m7->a9.h3<q>", "a9.h3->logits"]
    far, near = (place(Circuit.from_names(Graph(layers, 12), few)) for layers in (40, 10))
    assert far == near
    assert place(Circuit.empty(Graph(4, 4))).nodes == ()


def test_a_layer_of_many_heads_takes_several_rows_in_reading_order():
    layout = place(Circuit.full(Graph(1, 40)))
    heads = [node for node in layout.nodes if node.kind == "head"]
    rows = sorted({head.y for head in heads})
    assert len(rows) == -(-40 // MOST_COLUMNS)
    assert [head.head for head in sorted(heads, key=lambda head: (head.y, head.x))] == list(range(40))


def test_groups_are_said_of_the_nodes_in_them():
    groups = {name: group for group, members in IOI.groups.items() for name in members}
    layout = place(IOI.circuit, groups)
    assert {node.name: node.group for node in layout.nodes if node.group} == groups
    assert place(IOI.circuit).by_name["a9.h9"].group is None


def test_the_same_circuit_gives_the_same_layout(circuit):
    again = Circuit.from_names(circuit.graph, circuit.names()[::-1])
    assert place(circuit) == place(again)
    assert isinstance(place(again), Layout)


def test_placing_does_not_wait_for_torch():
    code = "import sys, edgewise.reports.layout, edgewise.runs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
