"""A circuit that fails is not presented as a result: how it fails, why, what to try."""

from __future__ import annotations

import pytest

from edgewise.graph import Decision
from edgewise.runs.verdict import drift, verdict


def record(settings=None, **result):
    """A run of ACDC at threshold 0.1 that kept 58 of 71,101 edges and is worth what `result` says."""
    made = {"method": "acdc", "edges": None, "threshold": 0.1, "ablation": "resample", "metric": "kl_div"}
    counts = {"n_edges": 58, "n_graph_edges": 71101, "scoring": None}
    return {"settings": {**made, "model": {"permuted_seed": None}, **(settings or {})}, "result": {**counts, **result}}


SCORED = {"method": "exact", "edges": 300, "threshold": None, "ablation": "mean"}
FAILED = {"recovered": 0.26, "accuracy": 0.9, "accuracy_full": 0.958}


@pytest.mark.parametrize(
    "result",
    [
        {"recovered": 0.5, "accuracy": 1.0, "accuracy_full": 1.0},
        {"recovered": None, "accuracy": None, "accuracy_full": None},
        {"recovered": 0.8, "accuracy": 0.5, "accuracy_full": 1.0},
    ],
)
def test_a_circuit_that_keeps_half_is_not_said_to_fail(result) -> None:
    assert verdict(record(**result), []) is None


def test_a_control_and_an_empty_circuit_of_scores_are_not_either() -> None:
    assert verdict(record({"model": {"permuted_seed": 0}}, **FAILED), []) is None
    assert verdict(record(SCORED, n_edges=0, scoring={}, **FAILED), []) is None
    assert verdict(record(n_edges=0, **FAILED), []) is not None


def test_it_is_said_what_the_circuit_recovers_and_which_threshold_to_try() -> None:
    assert verdict(record(**FAILED), []) == (
        "the circuit of 58 edges recovers 26.0%, less than half of the way from the ablated run to the model. Try "
        "--threshold 0.025 or another ablation than 'resample' (docs/methods.md)"
    )


def test_of_a_wanted_size_a_larger_one_is_offered_up_to_the_whole_graph() -> None:
    said = verdict(record(SCORED, scoring={}, n_edges=298, recovered=-0.22), [])
    assert said == (
        "the circuit of 298 edges does worse than the ablated run (it recovers -22.0%). Try --edges 1200, another "
        "method or another ablation than 'mean' (docs/methods.md)"
    )
    small = {"scoring": {}, "n_edges": 298, "n_graph_edges": 500, "recovered": 0.1}
    assert "Try --edges 500," in str(verdict(record(SCORED, **small), []))
    assert "Try another method or" in str(verdict(record({**SCORED, "edges": 500}, **small), []))
    nodes = {"level": "node", "edges": 5}
    said = verdict(record(nodes, n_nodes=5, n_graph_nodes=21, n_edges=9, recovered=0.1), [])
    assert "the circuit of 5 nodes" in str(said)
    assert "Try --edges 20 or" in str(said)


def test_it_fails_too_if_it_is_right_half_as_often_as_the_model() -> None:
    said = verdict(record(recovered=0.8, accuracy=0.167, accuracy_full=0.958), [])
    assert "is right 16.7% of the time, less than half as often as the model (95.8%)" in str(said)


def removals(*effects, kept=()):
    """A trace in which edges went at these costs, and others were kept at those."""
    return [
        *(Decision(f"m{number}->logits", 0.0, effect, False) for number, effect in enumerate(effects)),
        *(Decision(f"a{number}.h0->logits", 0.0, effect, True) for number, effect in enumerate(kept)),
    ]


def test_many_small_removals_that_cost_more_than_any_kept_edge_are_named_as_the_reason() -> None:
    trace = removals(*[0.05] * 40, kept=(0.3, 1.5))
    assert drift(trace, "kl_div", "edges") == (
        "40 removals, each below the threshold, cost 2 of kl_div in all, more than any edge that was kept (1.5)"
    )
    said = verdict(record(**FAILED), trace)
    assert "to the model: 40 removals" in str(said)
    assert "Try --threshold 0.025, --budget, --within or another" in str(said)
    assert str(said).endswith("(docs/methods.md, losses that do not add up)")
    said = verdict(record({"budget": 0.7}, **FAILED), trace)
    assert "Try --threshold 0.025, --within or another" in str(said)


@pytest.mark.parametrize(
    "trace",
    [
        [],
        removals(0.05, 0.05, kept=(0.3,)),
        removals(0.4, -0.3, kept=(0.3,)),  # what the one costs, the other gives back
        removals(0.9, kept=(0.3,)),  # one is no drift
        removals(0.1, 0.1, 0.1),  # nothing was kept to compare with
    ],
)
def test_else_there_is_no_drift(trace) -> None:
    assert drift(trace, "kl_div", "edges") is None


def test_of_several_passes_an_edge_that_went_in_the_last_was_not_kept() -> None:
    trace = [Decision("m0->logits", 0.0, 2.0, True), Decision("m1->logits", 0.0, 0.5, True)]
    trace += [Decision("m0->logits", 0.0, 0.4, False), *removals(0.3)]
    assert "2 removals, each below the threshold, cost 0.7" in str(drift(trace, "l2", "edges"))
