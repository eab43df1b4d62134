"""On the shipped induction model ACDC finds the textbook circuit, and each head it keeps does what its role says."""

import pytest
import tiny
import torch

import edgewise as ew
from edgewise import discover, load_model, load_task
from edgewise.models.decoder import positions_of
from edgewise.models.forward import forward


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-induction")


@pytest.fixture(scope="module")
def task(model):
    return load_task("induction", model)


@pytest.fixture(scope="module")
def found(model, task):
    return discover(model, task, threshold=0.05)


def patterns(model, task):
    """Attention on the clean prompts, `[layers][rows, heads, query, key]`."""
    prompts = task.prompts
    at, run = positions_of(prompts.clean), forward(model, prompts.clean, prompts.mask)
    allowed = tiny.first_allowed(model, prompts.mask)
    entering, _ = tiny.by_layer(model, run.streams[:-1])
    return [
        layer.attention.pattern(layer.query(x[:, :, None], at), layer.key(x[:, :, None], at), allowed)
        for layer, x in zip(tiny.layers_of(model), entering, strict=True)
    ]


def previous_token_score(pattern):
    """Mean attention from each position to the one before it, `[heads]`."""
    return torch.stack([pattern[:, :, place, place - 1] for place in range(1, pattern.shape[-1])]).mean(dim=(0, 1))


def induction_score(pattern, task):
    """Mean attention, at the scored places, to what followed the same token earlier, `[heads]`."""
    seen = []
    for row, place in zip(task.prompts.scored_rows.tolist(), task.prompts.scored_positions.tolist(), strict=True):
        tokens = task.prompts.clean[row].tolist()
        after = [other + 1 for other in range(place) if tokens[other] == tokens[place]]
        seen.append(pattern[row, :, place, after].sum(dim=-1))
    return torch.stack(seen).mean(dim=0)


def test_the_model_can_do_it(found):
    assert found.record["result"]["accuracy_full"] > 0.99


def test_the_previous_token_heads_output_makes_the_induction_heads_key(found, model, task):
    heads = [node for node in found.circuit.nodes() if node.startswith("a")]
    first = [head for head in heads if head.startswith("a0.")]
    second = [head for head in heads if head.startswith("a1.")]
    assert first
    assert second
    for head in second:
        assert f"{head}->logits" in found.circuit
        assert f"{head}<k>->{head}" in found.circuit
        assert any(f"{sender}->{head}<k>" in found.circuit for sender in first)
    before, after = patterns(model, task)
    for head in first:
        assert previous_token_score(before)[int(head.split("h")[1])] > 0.6
    for head in second:
        assert induction_score(after, task)[int(head.split("h")[1])] > 0.6
    # And those scores tell heads apart: not all of the model's heads have them.
    assert previous_token_score(after).max() < 0.3
    assert induction_score(before, task).max() < 0.3


def test_the_circuit_is_faithful_and_small(found):
    result = found.record["result"]
    assert result["n_edges"] == result["n_edges_connected"] < 15
    assert result["metric"] < 0.01 * result["metric_ablated"]
    assert result["metric_ablated"] > 5


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.5])
def test_no_threshold_finds_a_faithful_circuit_in_the_permuted_network(model, found, threshold):
    permuted = ew.permuted(model, 0)
    task = load_task("induction", permuted)
    with pytest.warns(match="right; there may be no circuit to find"):
        control = discover(permuted, task, threshold=threshold)
    # The divergence is from the trained model: even the whole permuted network is far from it.
    assert control.record["result"]["metric_full"] > 5
    assert control.metric > 100 * found.metric


@pytest.mark.parametrize("threshold", [0.05, 1.0])
def test_with_spans_every_edge_is_where_the_textbook_has_it(model, threshold):
    """The previous-token head carries A to B, where the induction head looks when it is asked by A at the end."""
    found = discover(model, load_task("induction", model, variant="once"), threshold=threshold, positions="spans")
    heads = [name for name in found.circuit.nodes() if name.startswith("a")]
    previous, induction = heads
    assert (previous[:3], induction[:3]) == ("a0.", "a1.")
    edges = [
        *(f"input->{previous}<v>@A", f"{previous}->{induction}<k>@B"),
        *(f"input->{induction}<v>@B", f"input->{induction}<q>@END", f"{induction}->logits@END"),
    ]
    ports = [(previous, "v", "A"), (induction, "k", "B"), (induction, "v", "B"), (induction, "q", "END")]
    wanted = {*edges, *(f"{head}<{kind}>@{span}->{head}" for head, kind, span in ports)}
    assert set(found.circuit.names()) == wanted
