"""tracr's programs with positions told apart: what ACDC keeps is in the program, at the positions that it works at.

The paper says of its position-split runs (App. I) that no edge beyond the program's is found. What that is stands
here as tracr's RASP has it, operation by operation, and not as the known circuit of the task.
"""

import pytest

from edgewise.discovery import acdc
from edgewise.models import load_model
from edgewise.patching import Experiment
from edgewise.tasks import load_task

REVERSE = {
    # length = SelectorWidth(Select(tokens, tokens, TRUE)): how much of all positions, seen alike, is BOS.
    *("tok->a0.h0<q>", "tok->a0.h0<k>", "tok->a0.h0<v>", "a0.h0->m0", "tok->m0"),
    # opposite = length - indices - 1
    *("m0->m1", "tok->m1", "pos->m1", "m1->m2"),
    # Aggregate(Select(indices, opposite, ==), tokens)
    *("m2->a3.h0<q>", "pos->a3.h0<k>", "tok->a3.h0<v>", "a3.h0->logits"),
}
XPROPORTION = {
    # is_x = Map(== "x", tokens)
    "tok->m0",
    # prevs = Select(indices, indices, <=), which leaves BOS out; Aggregate(prevs, is_x)
    *("tok->a1.h0<q>", "pos->a1.h0<q>", "tok->a1.h0<k>", "pos->a1.h0<k>", "m0->a1.h0<v>", "a1.h0->logits"),
}


def found(task, ablation):
    """The edges that are kept, by name, each with its positions."""
    model = load_model(f"tracr-{task}")
    experiment = Experiment(model, load_task(f"tracr-{task}", model), positions="each", ablation=ablation, ports=False)
    circuit = acdc(experiment, 1e-4).circuit
    assert experiment.graph.n_spans == len(experiment.task.prompts.clean[0])
    positions = {}
    for name in circuit.names():
        edge, position = name.split("@")
        positions.setdefault(edge, set()).add(int(position))
    assert experiment.value(circuit) == pytest.approx(0, abs=1e-6)
    return positions


@pytest.mark.parametrize("ablation", ["zero", "resample"])
@pytest.mark.parametrize(("task", "program"), [("reverse", REVERSE), ("xproportion", XPROPORTION)])
def test_no_edge_beyond_the_programs_is_kept(task, program, ablation):
    assert set(found(task, ablation)) <= program


def test_all_of_reverse_is_kept_where_the_program_works():
    positions, letters = found("reverse", "zero"), {1, 2, 3}
    # Of what is seen alike at all positions, BOS counts, and all keys have to be alike for that. No query is needed.
    assert positions.pop("tok->a0.h0<v>") == {0}
    assert positions.pop("tok->a0.h0<k>") == {0} | letters
    assert positions == dict.fromkeys(REVERSE - {"tok->a0.h0<v>", "tok->a0.h0<k>", "tok->a0.h0<q>"}, letters)


def test_of_a_length_that_is_always_the_same_nothing_is_kept_in_corrupted_prompts():
    positions, letters = found("reverse", "resample"), {1, 2, 3}
    assert positions.pop("pos->a3.h0<k>") == {0} | letters  # BOS's place, too, is some other one's there
    after_the_length = {"pos->m1", "m1->m2", "m2->a3.h0<q>", "tok->a3.h0<v>", "a3.h0->logits"}
    assert positions == dict.fromkeys(after_the_length, letters)


@pytest.mark.parametrize("ablation", ["zero", "resample"])
def test_xproportion_is_kept_at_every_token_but_bos(ablation):
    positions, tokens = found("xproportion", ablation), {1, 2, 3, 4}
    # The first token is always looked at by all; tokens in the query never tell anything that its place does not.
    assert positions.pop("tok->a1.h0<k>") == ({2, 3, 4} if ablation == "resample" else tokens)
    assert positions == dict.fromkeys(XPROPORTION - {"tok->a1.h0<k>", "tok->a1.h0<q>"}, tokens)
