"""ACDC takes the paper's decisions in the paper's order (FACTS section 2)."""

import json
import math
import re

import numpy as np
import pytest
import tiny
import torch

from edgewise.discovery import Order, acdc, acdc_with_edges, visits
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.models import load_model
from edgewise.patching import Experiment
from edgewise.tasks import TASKS, load_task

TWO_BY_TWO = Graph(2, 2, ports=True)


def as_facts(visit):
    """A visit in the notation of FACTS 2.2: out, m1.in, a1.1, a1.1.v (port edge), a1.1.v_in (input)."""
    if visit.name == "logits":
        return "out"
    if visit.kind == "node":
        return re.sub(r"\.h(\d+)", r".\1", visit.name)
    if visit.name.startswith("m"):
        return f"{visit.name}.in"
    match = re.fullmatch(r"a(\d+)\.h(\d+)<([qkv])>", visit.name)
    return f"a{match[1]}.{match[2]}.{match[3]}" + ("" if visit.kind == "port" else "_in")


def test_receivers_are_visited_in_the_order_of_facts_2_2():
    layer_1 = (
        "m1, m1.in, a1.1, a1.0, a1.1.v, a1.0.v, a1.1.k, a1.0.k, a1.1.q, a1.0.q, "
        "a1.1.v_in, a1.0.v_in, a1.1.k_in, a1.0.k_in, a1.1.q_in, a1.0.q_in"
    )
    wanted = ["out", *layer_1.split(", "), *re.sub(r"\b([am])1", r"\g<1>0", layer_1).split(", "), "input"]
    assert [as_facts(visit) for visit in visits(TWO_BY_TWO)] == wanted


def test_a_split_embedding_is_visited_pos_before_tok():
    names = [visit.name for visit in visits(Graph(1, 1, split_embedding=True))]
    assert names[-2:] == ["pos", "tok"]


def parents(layers="normal", heads="normal", graph=TWO_BY_TWO, seed=0):
    return [graph.sources[row].name for row in Order(layers, heads, seed).parents(graph)]


def test_parents_are_tried_in_the_order_of_facts_2_3():
    assert parents() == ["m1", "a1.h1", "a1.h0", "m0", "a0.h1", "a0.h0", "input"]
    assert parents(heads="reverse") == ["m1", "a1.h0", "a1.h1", "m0", "a0.h0", "a0.h1", "input"]
    assert parents(layers="reverse") == ["input", "a0.h1", "a0.h0", "m0", "a1.h1", "a1.h0", "m1"]
    assert parents(graph=Graph(1, 1, split_embedding=True)) == ["m0", "a0.h0", "tok", "pos"]


def test_shuffled_orders_follow_the_seed():
    big = Graph(4, 6)
    one, again, other = (parents("shuffle", "shuffle", big, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(one) == sorted(parents(graph=big))
    heads_only = parents("normal", "shuffle", big, 3)
    assert [name.split(".")[0] for name in heads_only] == [name.split(".")[0] for name in parents(graph=big)]


def naive_acdc(experiment, threshold, order, absolute=False):
    """The loop of FACTS 2.1 on explicit sets of named edges: nodes are x (q, k, v activations), inputs and outputs."""
    graph = experiment.graph
    present = set(graph.names())
    trace, position = [], {graph.sources[row].name: index for index, row in enumerate(order.parents(graph))}

    def metric():
        return experiment.value(Circuit.from_names(graph, present))

    def has_outgoing(visit):
        if visit.kind == "port":
            readers = [graph.sources[row].name for row in graph.nodes_reading(graph.input(visit.name))]
            return any(edge.startswith(f"{reader}->") for reader in readers for edge in present)
        if graph.ports and "<" in visit.name:
            return any(edge.startswith(f"{visit.name}->") for edge in present)
        readers = [graph.sources[row].name for row in graph.nodes_reading(graph.input(visit.name))]
        return any(edge.startswith(f"{reader}->") for reader in readers for edge in present)

    current = metric()
    for visit in visits(graph):
        if visit.kind == "node":
            continue
        if visit.kind == "port":
            edges = [edge for edge in present if edge.startswith(f"{visit.name}->")]
        else:
            edges = [edge for edge in present if edge.endswith(f"->{visit.name}")]
            edges.sort(key=lambda edge: position[edge.split("->")[0]])
        if visit.name != "logits" and not has_outgoing(visit):
            present -= set(edges)
            continue
        for edge in edges:
            present.discard(edge)
            new = metric()
            change = abs(new - current) if absolute else new - current
            keep = not change < threshold
            trace.append((edge, current, new, keep))
            if keep:
                present.add(edge)
            else:
                current = new
    return present, trace


CASES = [
    ("gpt2", dict(ports=True), 0.002, Order()),
    ("gpt2", dict(ports=False), 0.005, Order("reverse", "normal")),
    ("llama", dict(ports=True), 0.03, Order("normal", "reverse")),
    ("llama", dict(ports=False), 0.03, Order("shuffle", "shuffle", 3)),
    ("plain-attention-only", dict(ports=True), 0.001, Order()),
    ("plain-bidirectional", dict(ports=True, ablation="zero"), 0.05, Order()),
    ("plain", dict(ports=True, ablation="mean"), 0.003, Order()),
    ("llama-with-biases", dict(ports=True, metric="logit_diff"), 0.05, Order()),
]


FEWER_HEADS = {"gpt2": dict(heads=2), "llama": dict(heads=2, kv_heads=1), "llama-with-biases": dict(heads=2)}
"""The loop takes a run for every edge, and names all that are left for each, so the cases of every run have few."""


@pytest.mark.parametrize("fewer", [FEWER_HEADS, pytest.param({}, marks=pytest.mark.slow)], ids=["few-heads", "all"])
@pytest.mark.parametrize(("family", "options", "threshold", "order"), CASES)
def test_acdc_is_the_loop_of_facts_2_1(family, options, threshold, order, fewer):
    model = tiny.FAMILIES[family](dtype=torch.float64, layers=2, **fewer.get(family, {}))
    split = family == "plain"
    experiment = Experiment(model, tiny.task(split_embedding=split), **options)
    found = acdc(experiment, threshold, order=order)
    present, trace = naive_acdc(experiment, threshold, order)
    assert set(found.circuit.names()) == present
    assert [(one.edge, one.kept) for one in found.trace] == [(edge, keep) for edge, _, _, keep in trace]
    assert [one.after for one in found.trace] == pytest.approx([new for _, _, new, _ in trace], rel=1e-9, abs=1e-12)
    assert 0 < len(present) < experiment.graph.n_edges
    if family != "llama":
        assert found.tests < experiment.graph.n_edges, "some edges should fall without a test"


def test_the_absolute_rule_keeps_edges_that_help_by_their_absence():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64, layers=2), tiny.task(metric="logit_diff"))
    signed, absolute = acdc(experiment, 0.02), acdc(experiment, 0.02, absolute=True)
    assert set(absolute.circuit.names()) == naive_acdc(experiment, 0.02, Order(), absolute=True)[0]
    assert any(one.effect < -0.02 and not one.kept for one in signed.trace)
    assert all(one.kept for one in absolute.trace if abs(one.effect) >= 0.02)


def test_the_trace_tells_the_whole_search():
    experiment = Experiment(tiny.llama(dtype=torch.float64, layers=2), tiny.task())
    found = acdc(experiment, 0.03)
    assert found.trace[0].before == pytest.approx(found.metric_full, abs=1e-12)
    current = found.trace[0].before
    for one in found.trace:
        assert one.before == current
        assert one.kept == (not one.after - one.before < 0.03)
        current = one.before if one.kept else one.after
    assert found.metric == current
    assert experiment.value(found.circuit) == pytest.approx(found.metric, rel=1e-9)
    tested = [one.edge for one in found.trace]
    assert len(tested) == len(set(tested)) == found.tests
    for one in found.trace:
        row, column = experiment.graph.locate(one.edge)
        score = found.circuit.port_scores[column] if row is None else found.circuit.scores[row, column]
        assert score == one.effect


def test_a_threshold_just_met_keeps_the_edge():
    experiment = Experiment(load_model("or-gate"), load_task("or-gate", load_model("or-gate")))
    assert {one.edge: one.effect for one in acdc(experiment, 0.5).trace}["m0->logits"] == 1.0
    assert "m0->logits" in acdc(experiment, 1.0).circuit
    assert acdc(experiment, math.nextafter(1.0, 2)).circuit.n_edges == 0


def test_a_huge_threshold_keeps_nothing_and_a_hugely_negative_one_everything():
    experiment = Experiment(tiny.gpt2(layers=2), tiny.task())
    nothing, everything = acdc(experiment, 1e6), acdc(experiment, -1e6)
    assert nothing.circuit == Circuit.empty(experiment.graph)
    assert nothing.tests == experiment.graph.n_senders(experiment.graph.inputs[-1])
    assert nothing.metric == tiny.near(nothing.metric_ablated)
    assert everything.circuit == Circuit.full(experiment.graph)
    assert everything.metric == everything.metric_full


# -- truths ----------------------------------------------------------------------------------------------------------


def canonical(task):
    """The known circuit of FACTS 5.4 in edgewise's names."""
    entries = json.loads((tiny.SHARED / "paper" / "canonical_edges.json").read_text())[task]["edges_sender_receiver"]
    names = set()
    for sender, receiver in entries:
        head = re.fullmatch(r"a(\d+)\.(\d+)\.([qkv])(_in)?", receiver)
        target = {"out": "logits"}.get(receiver, receiver.removesuffix(".in"))
        if head:
            target = f"a{head[1]}.h{head[2]}<{head[3]}>"
            if not head[4]:
                names.add(f"{target}->a{head[1]}.h{head[2]}")
                continue
        names.add(re.sub(r"^a(\d+)\.(\d+)$", r"a\1.h\2", sender) + f"->{target}")
    return names


def run(task, variant="default", ablation=None, seed=0, **options):
    model = load_model(TASKS[task].default_model(variant))
    return acdc(
        Experiment(model, load_task(task, model, variant=variant, seed=seed), ablation=ablation), 0.01, **options
    )


@tiny.needs_shared
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("task", "variant", "key", "count"),
    [
        ("tracr-reverse", "default", "tracr-reverse", 15),
        ("tracr-xproportion", "default", "tracr-proportion", 10),
        ("tracr-xproportion", "paper", "tracr-proportion", 10),
    ],
)
def test_zero_ablation_finds_the_known_circuits_of_the_tracr_programs(task, variant, key, count, seed):
    found = run(task, variant, "zero", seed)
    assert set(found.circuit.names()) == canonical(key)
    assert found.circuit.n_edges == count
    assert found.metric < 1e-6 < 0.05 < found.metric_ablated


@tiny.needs_shared
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_resampling_finds_what_facts_5_4_says_can_be_seen(seed):
    reverse = set(run("tracr-reverse", ablation="resample", seed=seed).circuit.names())
    unseen = {"a0.h0->m0", "a0.h0<v>->a0.h0", "m0->m1", "tok->a0.h0<v>", "tok->m0", "tok->m1"}
    assert reverse == canonical("tracr-reverse") - unseen
    assert len(reverse) == 9
    for variant in ("default", "paper"):
        proportion = set(run("tracr-xproportion", variant, "resample", seed).circuit.names())
        assert proportion == canonical("tracr-proportion") - {"tok->a1.h0<q>"}
    assert len(set(run("tracr-reverse", "published", "resample", seed).circuit.names())) == 3
    assert len(set(run("tracr-xproportion", "published", "resample", seed).circuit.names())) == 6


@tiny.needs_shared
@pytest.mark.parametrize(
    ("task", "key"), [("tracr-reverse", "tracr-reverse"), ("tracr-xproportion", "tracr-proportion")]
)
def test_the_known_circuits_are_found_in_tracrs_own_compiled_weights_too(task, key):
    model = load_model(tiny.SHARED / "models" / task)
    loaded = load_task(task, model, variant="paper" if task == "tracr-xproportion" else "default")
    found = acdc(Experiment(model, loaded, ablation="zero"), 0.01)
    assert set(found.circuit.names()) == canonical(key)
    assert found.circuit == loaded.known_circuit.circuit


def test_one_side_of_the_or_gate_survives_and_which_depends_on_the_order():
    assert run("or-gate").circuit.names() == ["a0.h0->m0", "m0->logits"]
    assert run("or-gate", order=Order(heads="reverse")).circuit.names() == ["a0.h1->m0", "m0->logits"]


# -- a wanted size -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [1, 20, pytest.param(60, marks=pytest.mark.slow)])
def test_a_wanted_size_is_met_from_below(edges):
    experiment = Experiment(tiny.llama(layers=2), tiny.task())
    found = acdc_with_edges(experiment, edges)
    assert found.circuit.n_edges <= edges
    assert found.circuit.n_edges >= 0.8 * edges
    assert acdc(experiment, found.threshold).circuit == found.circuit
    assert found.tests > len(found.trace)
    assert (found.threshold, found.circuit.n_edges) in found.tried
    assert all(size > edges or size <= found.circuit.n_edges for _, size in found.tried)


def test_a_size_of_everything_is_met():
    experiment = Experiment(tiny.gpt2(layers=1, heads=2), tiny.task())
    assert acdc_with_edges(experiment, 10**6).circuit.n_edges > 0


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(EdgewiseError, match="finite number"):
        acdc(Experiment(tiny.gpt2(layers=1), tiny.task()), threshold)


def test_unknown_orders_and_engines_are_refused():
    with pytest.raises(EdgewiseError, match="unknown order 'shufle'; did you mean 'shuffle'"):
        Order("shufle")
    with pytest.raises(EdgewiseError, match="unknown engine 'plan'; did you mean 'plain'"):
        acdc(Experiment(tiny.gpt2(layers=1), tiny.task()), 0.1, engine="plan")


def test_a_metric_that_is_no_number_stops_the_search_at_the_edge_that_made_it_so():
    calls = []

    def breaks_at_the_fifth(logits, reference):
        calls.append(None)
        return torch.full((len(logits),), math.nan if len(calls) == 5 else 0.0)

    experiment = Experiment(tiny.gpt2(layers=2), tiny.task(), metric=breaks_at_the_fifth)
    # the ablated run, the full model, then three edges
    with pytest.raises(EdgewiseError, match=r"came out as nan after removing a1\.h2->logits"):
        acdc(experiment, 0.1)


def test_progress_is_told_and_ends_with_every_edge_decided():
    experiment, heard = Experiment(tiny.gpt2(layers=2), tiny.task()), []
    found = acdc(experiment, 0.05, progress=heard.append)
    assert heard[-1].decided == heard[-1].edges == experiment.graph.n_edges
    assert heard[-1].kept == found.circuit.n_edges
    assert heard[-1].tests == found.tests
    assert heard[-1].metric == found.metric
    assert np.all(np.diff([one.decided for one in heard]) >= 0)
