"""Known circuits are the paper's, edge for edge, and say what a circuit has of them."""

import dataclasses
import json
import re

import pytest
import tiny
import transformers

from edgewise import load_model, load_task
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.models.decoder import Unembedding
from edgewise.tasks import TASKS
from edgewise.tasks.known import KNOWN_CIRCUITS, known_circuit

PAPER_NAMES = {
    "ioi": ("ioi", 1041, 963),
    "greater-than": ("greaterthan", 262, 235),
    "docstring": ("docstring", 37, 24),
    "tracr-xproportion": ("tracr-proportion", 10, 7),
    "tracr-reverse": ("tracr-reverse", 15, 11),
}


def own_name(sender, receiver):
    """`a0.1`, `a7.3.k_in` -> `a0.h1->a7.h3<k>`; `a7.3.k_in`, `a7.3.k` -> `a7.h3<k>->a7.h3`."""

    def name(place):
        if place == "out":
            return "logits"
        if place == "embed":
            return "input"
        if place.startswith(("m", "tok", "pos")):
            return place.removesuffix(".in")
        layer, head, kind = re.fullmatch(r"a(\d+)\.(\d+)(?:\.([qkv])(?:_in)?)?", place).groups()
        return f"a{layer}.h{head}" + (f"<{kind}>" if kind else "")

    if re.fullmatch(r"a\d+\.\d+\.[qkv]", receiver):
        return f"{name(sender)}->{name(sender).split('<')[0]}"
    return f"{name(sender)}->{name(receiver)}"


@tiny.needs_shared
@pytest.mark.parametrize("task", PAPER_NAMES)
def test_known_circuits_are_the_papers_edge_for_edge(task):
    paper, count, without_ports = PAPER_NAMES[task]
    listed = json.loads((tiny.SHARED / "paper/canonical_edges.json").read_text())[paper]
    known = KNOWN_CIRCUITS[task]
    assert set(known.circuit.names()) == {own_name(*edge) for edge in listed["edges_sender_receiver"]}
    assert known.n_edges == len(known.circuit.names()) == count == listed["n_edges"]
    graph = known.graph
    bare = Graph(graph.n_layers, graph.n_heads, mlps=graph.mlps, split_embedding=graph.split_embedding, ports=False)
    assert known.on(bare).n_edges == without_ports
    every_edge = set(bare.names(bare.edges, bare.port_edges))
    assert set(known.on(bare).names()) == set(known.circuit.names()) & every_edge


def test_counts_by_kind_are_those_the_paper_gives_for_ioi():
    circuit = KNOWN_CIRCUITS["ioi"].circuit
    names = circuit.names()

    def count(pattern):
        return sum(re.fullmatch(pattern, name) is not None for name in names)

    assert [count(rf"m\d+->a\S+<{kind}>") for kind in "qkv"] == [189, 189, 189]
    assert [count(rf"a\S+->a\S+<{kind}>") for kind in "qkv"] == [52, 36, 36]
    assert [count(rf"input->a\S+<{kind}>") for kind in "qkv"] == [9, 18, 18]
    assert [count(r"a\S+->m\d+"), count(r"m\d+->m\d+"), count(r"input->m\d+")] == [123, 66, 12]
    assert [count(r"a[^<]+->logits"), count(r"m\d+->logits"), count("input->logits")] == [13, 12, 1]
    assert int(circuit.ports.sum()) == 78


@pytest.mark.parametrize(
    ("layers", "heads", "mlps", "split", "plain", "total"),
    [
        (12, 12, True, False, 32_491, 32_923),
        (4, 8, False, False, 1_281, 1_377),
        (2, 8, False, False, 257, 305),
        (2, 1, True, True, 32, 38),
        (4, 1, True, True, 94, 106),
        (1, 2, True, False, 13, 19),
        (12, 12, True, True, 32_936, 33_368),
    ],
    ids=["gpt2", "attn-only-4l", "redwood", "xproportion", "reverse", "or-gate", "gpt2-split"],
)
def test_graphs_of_the_papers_models_have_its_edge_counts(layers, heads, mlps, split, plain, total):
    shape = dict(mlps=mlps, split_embedding=split)
    assert Graph(layers, heads, ports=True, **shape).n_edges == total
    assert Graph(layers, heads, ports=False, **shape).n_edges == plain


def test_a_circuit_is_told_what_it_has_of_every_group():
    known = KNOWN_CIRCUITS["ioi"]
    names = ["a7.h3->a9.h9<q>", "a9.h9->logits", "input->a1.h1<q>", "a8.h6->a9.h9<q>"]
    found = {one.group: one for one in known.groups_in(Circuit.from_names(known.graph, names))}
    assert found["S-inhibition"].found == ("a7.h3", "a8.h6")
    assert found["S-inhibition"].members == ("a7.h3", "a7.h9", "a8.h6", "a8.h10")
    assert found["name mover"].found == ("a9.h9",)
    assert found["induction"].found == ()
    assert sum(len(one.members) for one in found.values()) == 26
    groups = [known.group_of(node) for node in ("a9.h9", "a4.h11", "a1.h1", "m0")]
    assert groups == ["name mover", "previous token", None, None]
    full = known.groups_in(known.circuit)
    assert all(one.found == one.members for one in full)


def test_only_a_model_of_the_right_shape_gets_the_known_circuit():
    def gpt2(layers=12, heads=12, tokens=50257):
        config = transformers.GPT2Config(
            n_layer=layers, n_head=heads, n_embd=heads * 2, vocab_size=tokens, n_positions=32
        )
        return load_model(transformers.GPT2LMHeadModel(config))

    right = gpt2()
    assert known_circuit("ioi", right) is KNOWN_CIRCUITS["ioi"]
    assert known_circuit("greater-than", right.permuted(3)).n_edges == 262
    for other in (gpt2(layers=6), gpt2(heads=6), gpt2(tokens=50258)):
        assert known_circuit("ioi", other) is None
    assert known_circuit("induction", right) is None
    with pytest.raises(EdgewiseError, match="12 layers of 12 heads"):
        KNOWN_CIRCUITS["ioi"].on(Graph(6, 12))


@pytest.mark.parametrize(("task", "count"), [("tracr-reverse", 15), ("tracr-xproportion", 10), ("or-gate", 3)])
def test_tasks_carry_their_known_circuit(task, count):
    loaded = load_task(task, load_model(task))
    assert loaded.known_circuit.n_edges == count
    assert loaded.known_circuit is KNOWN_CIRCUITS[task]


def test_the_shipped_ioi_model_is_too_small_for_the_known_circuit():
    assert load_task("ioi", load_model("tiny-ioi"), examples=2).known_circuit is None


def test_a_model_with_too_few_outputs_for_the_answers_is_refused():
    model = load_model("tiny-ioi")
    few = Unembedding(model.unembedding.weight[:20])
    short = dataclasses.replace(
        model,
        unembedding=few,
        config=dataclasses.replace(model.config, d_vocab=20),
        run_source=lambda *given: model.run_source(*given)[..., :20],
    )
    with pytest.raises(
        EdgewiseError, match=r"has an answer with the token id \d+, but model 'tiny-ioi' has only 20 out"
    ):
        load_task("ioi", short)


def test_the_papers_models_get_the_papers_sizes_and_thresholds():
    ioi = TASKS["ioi"]
    assert [ioi.examples_for(name) for name in ("gpt2", "openai-community/gpt2", "tiny-ioi")] == [100, 100, 32]
    assert [ioi.threshold_for(name) for name in ("gpt2", "tiny-ioi")] == [0.0575, 0.01]
    assert TASKS["induction"].examples_for("redwood_attn_2l") == 50
    pronoun = TASKS["gender-pronoun"]
    assert (pronoun.threshold_for("gpt2"), pronoun.examples_for("gpt2")) == (0.05, 100)
    assert pronoun.threshold_for("tiny-pronoun") == 0.01
