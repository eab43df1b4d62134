"""The same search made again, from other examples and in other orders."""

import pytest
import torch

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.runs import SearchRequest
from edgewise.runs.stability import by_examples, by_order, compare_all


@pytest.fixture(scope="module")
def pronoun():
    model = ew.load_model("tiny-pronoun")
    task = ew.load_task("gender-pronoun", model, examples=12)
    return model, task, ew.discover(model, task)


def test_a_resampled_task_has_rows_of_the_task_and_nothing_else(pronoun):
    _, task, _ = pronoun
    again = task.resampled(3)
    assert len(again) == len(task)
    rows = [tuple(row) for row in task.prompts.clean.tolist()]
    drawn = [rows.index(tuple(row)) for row in again.prompts.clean.tolist()]
    assert len(set(drawn)) < len(rows)
    assert [text.clean for text in again.text] == [task.text[row].clean for row in drawn]
    for new, old in enumerate(drawn):
        at, was = ((one.prompts.scored_rows == row).nonzero()[0, 0] for one, row in ((again, new), (task, old)))
        assert torch.equal(again.prompts.answers[at], task.prompts.answers[was])
        assert again.prompts.scored_positions[at] == task.prompts.scored_positions[was]
    assert torch.equal(task.resampled(3).prompts.clean, again.prompts.clean)
    assert not torch.equal(task.resampled(4).prompts.clean, again.prompts.clean)


def test_rows_keep_all_their_scored_places_when_they_are_drawn_twice():
    model = ew.load_model("tiny-induction")
    prompts = ew.load_task("induction", model, examples=4).prompts
    taken = prompts.take(torch.tensor([2, 0, 2]))
    assert len(taken) == 3
    for new, old in enumerate((2, 0, 2)):
        mine, theirs = taken.scored_rows == new, prompts.scored_rows == old
        assert mine.sum() == theirs.sum() > 1
        assert torch.equal(taken.scored_positions[mine], prompts.scored_positions[theirs])
        assert torch.equal(taken.answers[mine], prompts.answers[theirs])


def test_search_again_is_the_runs_own_search(pronoun):
    model, task, run = pronoun
    settings = SearchRequest.from_dict(run.record["settings"])
    assert ew.discover(model, task, request=settings).circuit == run.circuit
    scored = ew.discover(model, task, method="edge-attribution-ig", edges=20, options={"steps": 3})
    settings = SearchRequest.from_dict(scored.record["settings"])
    assert settings.edges == 20
    assert settings.options["steps"] == 3
    assert ew.discover(model, task, request=settings).circuit == scored.circuit
    own = ew.discover(model, task, threshold=0.1, metric=lambda logits, reference: logits[:, 0])
    with pytest.raises(EdgewiseError, match="a metric of its own"):
        SearchRequest.from_dict(own.record["settings"])


def test_circuits_from_other_examples(pronoun):
    model, task, run = pronoun
    told = []
    found = by_examples(
        model,
        task,
        run.circuit,
        SearchRequest.from_dict(run.record["settings"]),
        times=4,
        progress=lambda *one: told.append(one),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.what == "examples"
    assert len(found.circuits) == len(found.with_first) == 4
    assert found.circuits[1] == ew.discover(model, task.resampled(1), threshold=task.threshold).circuit
    assert 0 < found.common <= min(one.n_edges for one in found.circuits)
    assert found.union >= max(one.n_edges for one in found.circuits)
    assert 0.3 < found.jaccard <= 1
    assert found.frequencies[0][1] == 1
    assert sum(share for _, share in found.frequencies) * 4 == sum(one.n_edges for one in found.circuits)


def test_circuits_in_other_orders(pronoun):
    model, task, run = pronoun
    found = by_order(model, task, run.circuit, SearchRequest.from_dict(run.record["settings"]), times=5)
    assert found.with_first[0] == 1, "the first order is the run's own"
    assert found.circuits[2] == ew.discover(model, task, layer_order="reverse").circuit
    assert found.circuits[4] == ew.discover(model, task, layer_order="shuffle", head_order="shuffle", seed=4).circuit


def test_overlap_is_worked_out_pair_by_pair():
    graph = Graph(1, 2)
    one, other, third = (
        Circuit.from_names(graph, names)
        for names in (["input->m0", "m0->logits"], ["input->m0"], ["input->m0", "input->logits", "m0->logits"])
    )
    found = compare_all("order", one, [one, other, third])
    assert found.jaccard == pytest.approx((1 / 2 + 2 / 3 + 1 / 3) / 3)
    assert found.with_first == pytest.approx((1, 1 / 2, 2 / 3))
    assert (found.common, found.union) == (1, 3)
    assert found.frequencies == (
        ("input->m0", 1.0),
        ("m0->logits", pytest.approx(2 / 3)),
        ("input->logits", pytest.approx(1 / 3)),
    )


def test_what_cannot_be_made_again_is_refused(pronoun):
    model, task, run = pronoun
    settings = SearchRequest.from_dict(run.record["settings"])
    with pytest.raises(EdgewiseError, match="at least 2 times to be compared, not 1"):
        by_examples(model, task, run.circuit, settings, times=1)
    with pytest.raises(EdgewiseError, match="drawn anew where there are at least 2"):
        by_examples(model, task.first(1), run.circuit, settings, times=2)
    with pytest.raises(EdgewiseError, match="only ACDC depends on an order"):
        by_order(model, task, run.circuit, SearchRequest("edge-attribution"), times=2)
