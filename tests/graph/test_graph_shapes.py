"""What follows from a graph's shape: how many edges, which ones, in what order, and what is said of the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs

from edgewise.errors import EdgewiseError
from edgewise.graph import Graph, parse_input, parse_node

SHARED = Path(__file__).resolve().parents[3] / "shared"


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "count"),
    [
        pytest.param(Graph(12, 12), 32_491, id="gpt2-small"),
        pytest.param(Graph(12, 12, ports=True), 32_923, id="gpt2-small-with-ports"),
        pytest.param(Graph(12, 12, split_embedding=True), 32_936, id="gpt2-small-split"),
        pytest.param(Graph(12, 12, split_embedding=True, ports=True), 33_368, id="gpt2-small-split-with-ports"),
        pytest.param(Graph(4, 8, mlps=False), 1_281, id="attn-only-4l"),
        pytest.param(Graph(4, 8, mlps=False, ports=True), 1_377, id="attn-only-4l-with-ports"),
        pytest.param(Graph(2, 8, mlps=False), 257, id="redwood-attn-2l"),
        pytest.param(Graph(2, 8, mlps=False, ports=True), 305, id="redwood-attn-2l-with-ports"),
        pytest.param(Graph(2, 1, split_embedding=True), 32, id="tracr-xproportion"),
        pytest.param(Graph(2, 1, split_embedding=True, ports=True), 38, id="tracr-xproportion-with-ports"),
        pytest.param(Graph(4, 1, split_embedding=True), 94, id="tracr-reverse"),
        pytest.param(Graph(4, 1, split_embedding=True, ports=True), 106, id="tracr-reverse-with-ports"),
        pytest.param(Graph(1, 2), 13, id="or-gate"),
        pytest.param(Graph(1, 2, ports=True), 19, id="or-gate-with-ports"),
    ],
)
def test_the_papers_graphs_have_the_papers_numbers_of_edges(graph: Graph, count: int) -> None:
    assert graph.n_edges == count
    assert len(graph.names()) == count


@pytest.mark.parametrize(
    ("layers", "heads", "count"),
    [
        pytest.param(6, 4, 1_108, id="interpbench"),
        pytest.param(26, 8, 74_218, id="gemma-2-2b"),
        pytest.param(24, 14, 179_749, id="qwen2.5-0.5b"),
        pytest.param(24, 16, 231_877, id="gpt2-medium"),
        pytest.param(32, 32, 1_592_881, id="llama-3.1-8b"),
        pytest.param(48, 25, 2_235_025, id="gpt2-xl"),
    ],
)
def test_models_of_today_have_the_fields_numbers_of_edges(layers: int, heads: int, count: int) -> None:
    assert Graph(layers, heads).n_edges == count


def test_gpt2_smalls_edges_split_over_readers_as_the_paper_counts_them() -> None:
    graph = Graph(12, 12)
    into = dict.fromkeys(("q", "k", "v", "mlp", "logits"), 0)
    for column, place in enumerate(graph.inputs):
        into[place.kind] += int(graph.edges[:, column].sum())
    assert into == {"q": 10_440, "k": 10_440, "v": 10_440, "mlp": 1_014, "logits": 157}


def test_shared_keys_and_values_are_counted_once() -> None:
    # One layer of 4 query heads over 2 key/value heads: 4 q + 2 k + 2 v inputs read the embedding, m0 reads it and
    # 4 heads, the logits read all 6 nodes. With ports: one more for each of the 8 attention inputs.
    assert Graph(1, 4, n_kv_heads=2).n_edges == 8 + 5 + 6
    assert Graph(1, 4, n_kv_heads=2, ports=True).n_edges == 8 + 5 + 6 + 8


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("L", "H"), [(1, 1), (2, 3), (12, 12), (6, 4)])
def test_rows_and_columns_stand_where_the_mib_benchmark_has_them(L: int, H: int) -> None:
    graph = Graph(L, H)
    assert len(graph.sources) == 1 + L * (H + 1)
    assert len(graph.inputs) == L * (3 * H + 1) + 1
    rows = {"input": 0}
    columns = {"logits": L * (3 * H + 1)}
    for layer in range(L):
        rows[f"m{layer}"] = 1 + layer * (H + 1) + H
        columns[f"m{layer}"] = layer * (3 * H + 1) + 3 * H
        for head in range(H):
            rows[f"a{layer}.h{head}"] = 1 + layer * (H + 1) + head
            for letter, block in (("q", 0), ("k", 1), ("v", 2)):
                columns[f"a{layer}.h{head}<{letter}>"] = layer * (3 * H + 1) + block * H + head
    assert graph.source_index == rows
    assert graph.input_index == columns


def test_names_come_in_the_order_of_eap_igs_own_file() -> None:
    path = SHARED / "interop" / "ioi-eap-ig.json"
    if not path.exists():
        pytest.skip(tiny.NO_SHARED)
    theirs = list(json.loads(path.read_text())["edges"])
    assert len(theirs) == 32_491
    assert Graph(12, 12).names() == theirs


@given(graphs(4, 6))
@settings(deadline=None)
def test_a_graphs_size_follows_from_its_shape_and_names_take_time_by_their_number(graph: Graph) -> None:
    assert graph.n_edges == int(graph.edges.sum() + graph.port_edges.sum())
    names = graph.names()
    assert len(names) == len(set(names)) == graph.n_edges
    chosen = np.zeros_like(graph.edges)
    chosen[::2, ::3] = graph.edges[::2, ::3]
    some = set(graph.names(chosen))
    assert graph.names(chosen) == [name for name in names if name in some]


def test_a_graph_that_no_memory_holds_is_refused_before_anything_is_made() -> None:
    for layers, heads in ((10**6, 1), (1, 10**6), (10**30, 10**30)):
        with pytest.raises(EdgewiseError, match="more senders and inputs than fit into memory"):
            Graph(layers, heads)
    assert Graph(126, 128, n_kv_heads=8).n_edges == Graph(126, 128, n_kv_heads=8).n_edges > 10**8
    with pytest.raises(EdgewiseError, match="0 or more, not -1"):
        Graph(1, 1, d_model=-1)


def test_a_parallel_blocks_mlp_is_listed_with_its_heads() -> None:
    # EAP-IG adds the edges of a parallel block sender by sender: to each head's q, k and v, then to the MLP.
    assert Graph(2, 1, parallel=True).names() == [
        *("input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "input->m0"),
        *("input->a1.h0<q>", "input->a1.h0<k>", "input->a1.h0<v>", "input->m1"),
        *("a0.h0->a1.h0<q>", "a0.h0->a1.h0<k>", "a0.h0->a1.h0<v>", "a0.h0->m1"),
        *("m0->a1.h0<q>", "m0->a1.h0<k>", "m0->a1.h0<v>", "m0->m1"),
        *("input->logits", "a0.h0->logits", "m0->logits", "a1.h0->logits", "m1->logits"),
    ]


def test_port_edges_are_named_last_head_by_head() -> None:
    graph = Graph(1, 4, n_kv_heads=2, mlps=False, ports=True)
    assert graph.names()[-8:] == [
        *("a0.h0<q>->a0.h0", "a0.g0<k>->a0.g0", "a0.g0<v>->a0.g0", "a0.h1<q>->a0.h1"),
        *("a0.h2<q>->a0.h2", "a0.g1<k>->a0.g1", "a0.g1<v>->a0.g1", "a0.h3<q>->a0.h3"),
    ]


# --- which edges exist ------------------------------------------------------------------------------------------------

# When things happen in layer L, in a forward pass told as a clock.
HEADS_READ, HEADS_WRITE, MLP_READS, MLP_WRITES, LAYER = 1, 2, 3, 4, 10


def written_at(node: str) -> int:
    if node in ("input", "tok", "pos"):
        return 0
    layer = int(re.findall(r"\d+", node)[0])
    return layer * LAYER + (HEADS_WRITE if node.startswith("a") else MLP_WRITES)


def read_at(place: str, parallel: bool) -> int:
    if place == "logits":
        return 1_000_000
    layer = int(re.findall(r"\d+", place)[0])
    return layer * LAYER + (HEADS_READ if place.startswith("a") or parallel else MLP_READS)


def node_names(graph: Graph) -> Iterator[str]:
    yield from ("tok", "pos") if graph.split_embedding else ("input",)
    for layer in range(graph.n_layers):
        yield from (f"a{layer}.h{head}" for head in range(graph.n_heads))
        if graph.mlps:
            yield f"m{layer}"


def input_names(graph: Graph) -> Iterator[str]:
    letter = "h" if graph.n_heads == graph.n_kv_heads else "g"
    for layer in range(graph.n_layers):
        yield from (f"a{layer}.h{head}<q>" for head in range(graph.n_heads))
        yield from (f"a{layer}.{letter}{head}<k>" for head in range(graph.n_kv_heads))
        yield from (f"a{layer}.{letter}{head}<v>" for head in range(graph.n_kv_heads))
        if graph.mlps:
            yield f"m{layer}"
    yield "logits"


@given(graphs())
@settings(deadline=None)
def test_nodes_and_inputs_are_those_of_the_shape_in_order(graph: Graph) -> None:
    assert [node.name for node in graph.sources] == list(node_names(graph))
    assert [place.name for place in graph.inputs] == list(input_names(graph))


@given(graphs())
@settings(deadline=None)
def test_an_edge_exists_exactly_where_the_sender_writes_before_the_input_reads(graph: Graph) -> None:
    expected = [
        [written_at(source) < read_at(place, graph.parallel) for place in input_names(graph)]
        for source in node_names(graph)
    ]
    assert np.array_equal(graph.edges, np.array(expected))
    ports = [graph.ports and place.startswith("a") for place in input_names(graph)]
    assert np.array_equal(graph.port_edges, np.array(ports))
    assert graph.n_edges == np.sum(expected) + np.sum(ports) > 0


@given(graphs())
@settings(deadline=None)
def test_every_edge_is_named_once_and_found_again_by_its_name(graph: Graph) -> None:
    names = graph.names()
    found = [graph.locate(name) for name in names]
    edges = {place for place in found if place[0] is not None}
    ports = {column for row, column in found if row is None}
    assert len(names) == len(edges) + len(ports)
    assert edges == set(zip(*np.nonzero(graph.edges), strict=True))
    assert ports == set(np.flatnonzero(graph.port_edges))


def test_names_can_be_asked_for_some_edges_only() -> None:
    graph = Graph(1, 1, ports=True)
    edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    edges[graph.source_index["m0"], graph.input_index["logits"]] = True
    edges[graph.source_index["input"], graph.input_index["m0"]] = True
    ports[graph.input_index["a0.h0<k>"]] = True
    assert graph.names(edges, ports) == ["input->m0", "m0->logits", "a0.h0<k>->a0.h0"]
    assert graph.names(edges) == ["input->m0", "m0->logits"]


# --- who reads what ---------------------------------------------------------------------------------------------------


@given(graphs())
@settings(deadline=None)
def test_a_query_head_reads_its_own_query_and_its_groups_key_and_value(graph: Graph) -> None:
    share = graph.n_heads // graph.n_kv_heads
    letter = "h" if share == 1 else "g"
    readers: dict[str, list[str]] = {place: [] for place in input_names(graph)}
    for node in node_names(graph):
        numbers = [int(number) for number in re.findall(r"\d+", node)]
        if node.startswith("a"):
            layer, head = numbers
            group = f"a{layer}.{letter}{head // share}"
            expected = [f"{node}<q>", f"{group}<k>", f"{group}<v>"]
        else:
            expected = [node] if node.startswith("m") else []
        assert [graph.inputs[column].name for column in graph.inputs_of(parse_node(node))] == expected
        for place in expected:
            readers[place].append(node)
    for place, nodes in readers.items():
        rows = graph.nodes_reading(graph.inputs[graph.input_index[place]])
        assert [graph.sources[row].name for row in rows] == nodes


@given(graphs(), st.sampled_from(["q", "k", "v"]), st.data())
@settings(deadline=None)
def test_a_layers_queries_keys_and_values_stand_side_by_side(graph: Graph, kind: str, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, graph.n_layers - 1))
    columns = graph.columns(kind, layer)  # type: ignore[arg-type]
    expected = [name for name in input_names(graph) if re.fullmatch(rf"a{layer}\.[hg]\d+<{kind}>", name)]
    assert [place.name for place in graph.inputs[columns]] == expected


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "name", "message"),
    [
        (Graph(2, 4), "input->a0.h9<q>", "2 layers of 4 heads.*no input 'a0.h9<q>'; did you mean 'a0.h"),
        (Graph(2, 4), "m5->logits", "2 layers of 4 heads.*no sending node 'm5'; did you mean 'm"),
        (Graph(2, 4), "tok->m0", "no sending node 'tok'"),
        (Graph(2, 4, split_embedding=True), "input->m0", "tok and pos split.*no sending node 'input'"),
        (Graph(2, 4), "logits->m0", "no sending node 'logits'"),
        (Graph(2, 4), "a0.h0->a0.h1<q>", "no edge 'a0.h0->a0.h1<q>': a0.h0 does not come before a0.h1<q>"),
        (Graph(2, 4), "m1->m1", "no edge 'm1->m1': m1 does not come before m1"),
        (Graph(2, 4), "a1.h0->m0", "no edge 'a1.h0->m0': a1.h0 does not come before m0"),
        (Graph(2, 4, parallel=True), "a1.h0->m1", "no edge 'a1.h0->m1': a1.h0 does not come before m1"),
        (Graph(2, 4, mlps=False), "input->m0", "no MLPs.*no input 'm0'"),
        (Graph(2, 4), "a0.h0<q>->a0.h0", "'a0.h0<q>->a0.h0' is a port edge, and this graph .* has none"),
        (Graph(2, 4, n_kv_heads=2), "input->a0.h0<k>", "4 heads over 2 key/value heads.*'a0.h0<k>'.*'a0.g0<k>'"),
        (Graph(2, 4), "input->a0.g0<k>", "no input 'a0.g0<k>'.*'a0.h0<k>'"),
    ],
)
def test_an_edge_that_the_graph_lacks_is_refused_with_the_reason(graph: Graph, name: str, message: str) -> None:
    with pytest.raises(EdgewiseError, match=message):
        graph.locate(name)


def test_nodes_and_inputs_are_looked_up_by_name() -> None:
    graph = Graph(2, 4, n_kv_heads=2)
    assert graph.node("a1.h3") == parse_node("a1.h3")
    assert graph.node("logits") == parse_node("logits")
    assert graph.input("a1.g1<v>") == parse_input("a1.g1<v>")
    with pytest.raises(EdgewiseError, match=r"no node 'a2\.h0'"):
        graph.node("a2.h0")
    with pytest.raises(EdgewiseError, match=r"no input 'a1\.g2<v>'"):
        graph.input("a1.g2<v>")


@pytest.mark.parametrize(("layers", "heads", "shared"), [(0, 4, 4), (-1, 4, 4), (2, 0, 0), (2, 4, -2)])
def test_a_graph_of_nothing_is_refused(layers: int, heads: int, shared: int) -> None:
    with pytest.raises(EdgewiseError, match="at least one layer and one head"):
        Graph(layers, heads, n_kv_heads=shared)


@pytest.mark.parametrize("shared", [3, 8])
def test_query_heads_that_cannot_share_evenly_are_refused(shared: int) -> None:
    with pytest.raises(EdgewiseError, match=f"4 query heads cannot share {shared} key/value heads evenly"):
        Graph(2, 4, n_kv_heads=shared)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (Graph(12, 12), "12 layers of 12 heads"),
        (Graph(1, 1), "1 layer of 1 head"),
        (Graph(2, 1, mlps=False, ports=True), "2 layers of 1 head, no MLPs, with port edges"),
        (Graph(3, 8, n_kv_heads=2), "3 layers of 8 heads over 2 key/value heads"),
        (Graph(3, 8, parallel=True, split_embedding=True), "3 layers of 8 heads, parallel blocks, tok and pos split"),
    ],
)
def test_a_graph_describes_itself(graph: Graph, words: str) -> None:
    assert graph.describe() == words


def test_the_edge_matrix_cannot_be_written_to() -> None:
    graph = Graph(1, 1, ports=True)
    with pytest.raises(ValueError, match="read-only"):
        graph.edges[0, 0] = False
    with pytest.raises(ValueError, match="read-only"):
        graph.port_edges[0] = False
