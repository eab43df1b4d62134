"""A circuit span by span, and what attention carries on from one span to another."""

from dataclasses import replace

import numpy as np
import pytest
from graph.random_graphs import circuits, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.graph import Circuit, Graph, at_span, carried
from edgewise.graph.convert import at_every_span, lumped

SPANS = ("first", "second", "third")


def lines(spans: tuple[str, ...], *names: str, **shape) -> set[str]:
    circuit = Circuit.from_names(Graph(3, 4, spans=spans, **shape), names)
    return {f"{one.reader}@{spans[one.at]} {''.join(one.kinds)} {one.node}@{spans[one.to]}" for one in carried(circuit)}


def test_keys_and_values_reach_the_spans_at_which_their_head_is_read_and_no_earlier_ones():
    found = lines(
        SPANS,
        *("input->a0.h0<v>@first", "input->a0.h0<k>@second", "input->a0.h0<v>@second"),
        *("a0.h0->m1@first", "a0.h0->logits@third"),
    )
    assert found == {"a0.h0@first v a0.h0@third", "a0.h0@second kv a0.h0@third"}


def test_where_a_query_reads_the_head_is_used_too_and_what_queries_and_mlps_read_goes_nowhere():
    found = lines(
        SPANS, "input->a1.h2<k>@first", "input->a1.h2<q>@second", "input->m1@first", "m1->logits@third", "m1->m2@second"
    )
    assert found == {"a1.h2@first k a1.h2@second"}


def test_a_port_edge_alone_is_a_key_that_is_seen():
    found = lines(SPANS, "a0.h1<k>@first->a0.h1", "a0.h1<q>@second->a0.h1", "a0.h1->logits@third", ports=True)
    assert found == {"a0.h1@first k a0.h1@second", "a0.h1@first k a0.h1@third"}


def test_the_rest_of_the_positions_lies_between_the_others():
    names = ("input->a0.h0<v>@END", "input->a0.h0<v>@rest", "a0.h0->m0@name", "a0.h0->m0@rest", "a0.h0->m0@END")
    assert lines(("name", "rest", "END"), *names) == {
        *("a0.h0@END v a0.h0@rest", "a0.h0@rest v a0.h0@name", "a0.h0@rest v a0.h0@END")
    }


def test_what_would_reach_nothing_in_this_order_reaches_what_there_is():
    assert lines(SPANS, "input->a0.h0<v>@third", "a0.h0->logits@first") == {"a0.h0@third v a0.h0@first"}
    assert lines(SPANS, "input->a0.h0<v>@third") == set()


def test_a_shared_value_is_seen_by_the_heads_that_share_it_also_at_its_own_span():
    found = lines(
        SPANS, "input->a0.g1<v>@first", "a0.h2->m1@first", "a0.h3->m1@second", "a0.h0->m1@third", n_kv_heads=2
    )
    assert found == {"a0.g1@first v a0.h2@first", "a0.g1@first v a0.h3@second"}


def test_a_whole_head_reads_its_key_and_value_with_its_query():
    assert lines(SPANS, "input->a0.h0@first", "a0.h0->logits@third", whole_heads=True) == {
        "a0.h0@first head a0.h0@third"
    }


@settings(max_examples=30, deadline=None)
@given(circuits(2, 2), st.integers(0, 9))
def test_the_parts_at_all_spans_are_the_circuit(circuit, seed):
    assert carried(circuit) == []
    everywhere = at_every_span(circuit, replace(circuit.graph, spans=SPANS))
    some = scored(everywhere.remove(*everywhere.names()[::3]), seed)
    assert some.scores is not None
    parts = [at_span(some, number) for number in range(len(SPANS))]
    together = parts[0] | parts[1] | parts[2]
    assert together == lumped(some)
    assert sum(part.n_edges for part in parts) == some.n_edges
    for number, part in enumerate(parts):
        assert part.graph == circuit.graph
        np.testing.assert_array_equal(part.scores, some.graph.by_span(some.scores)[..., number])


@pytest.mark.parametrize("spans", [(), ("all",)])
def test_one_span_has_nothing_to_carry_on(spans):
    names = [name + ("@all" if spans else "") for name in ("input->a0.h0<v>", "a0.h0->logits")]
    assert carried(Circuit.from_names(Graph(1, 1, spans=spans), names)) == []
