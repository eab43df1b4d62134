"""Spans: the positions that a task names, in built-in tasks and in rows of one's own."""

import json

import pytest
import torch

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.tasks import load_task
from edgewise.tasks.spans import numbered, told_apart, with_spans


@pytest.fixture(scope="module")
def model():
    return ew.load_model("tiny-ioi")


def words(model, task, row, span):
    """The text of a span in a prompt."""
    ids = task.prompts.clean[row][task.prompts.spans[row] == task.span_names.index(span)]
    return model.tokenizer.decode(ids.tolist()).strip()


def test_ioi_names_who_is_who(model):
    task = load_task("ioi", model, examples=20)
    assert task.span_names[-1] == "END"
    assert set(task.span_names) == {"IO", "S1", "S1+1", "S2", "END", "rest"}
    for row, text in enumerate(task.text):
        assert words(model, task, row, "IO") == text.answers[0].strip()
        assert words(model, task, row, "S1") == words(model, task, row, "S2") == text.wrong[0].strip()
        assert words(model, task, row, "S1+1") == text.clean.split()[4]
        assert words(model, task, row, "END") == text.clean.split()[-1]
    assert bool(((task.prompts.spans >= 0) == task.prompts.mask).all())


def test_greater_than_names_the_year():
    model = ew.load_model("tiny-greater-than")
    task = load_task("greater-than", model, examples=12)
    for row, text in enumerate(task.text):
        said = text.clean.split()
        assert words(model, task, row, "noun") == said[1]
        assert (words(model, task, row, "XX") + words(model, task, row, "YY")).replace(" ", "") == said[6]
        assert words(model, task, row, "END").replace(" ", "") == said[-1]


ROW = {
    "clean": "Then, Mary and John went to the",
    "corrupt": "Then, John and Mary went to the",
    "answer": None,
    "wrong": None,
}


def own(model, *rows):
    return load_task([{**ROW, **row} for row in rows], model)


def test_rows_name_parts_by_text_tokens_characters_and_marks(model):
    first = ROW["clean"].index("Mary")
    ways = [
        {"spans": {"who": "Mary", "last": [len(model.tokenizer(ROW["clean"])["input_ids"]) - 1, None]}},
        {"spans": {"who": {"characters": [first, first + 4]}, "last": "the"}},
        {"clean": "Then, {who:Mary} and John went to {last:the}", "spans": "marked"},
    ]
    ways[0]["spans"]["last"][1] = ways[0]["spans"]["last"][0] + 1
    tasks = [own(model, way) for way in ways]
    for task in tasks:
        assert task.text[0].clean == ROW["clean"]
        assert task.span_names == ("who", "rest", "last") or task.span_names == ("rest", "who", "last")
        assert words(model, task, 0, "who") == "Mary"
        assert words(model, task, 0, "last") == "the"
        assert torch.equal(task.prompts.spans, tasks[0].prompts.spans)
    assert own(model, {}).span_names == ()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"spans": {"a": "Mary", "b": [1, 5]}}], "spans 'a' and 'b' of prompt 1 overlap"),
        ([{"spans": {"a": "Mary"}}, {"spans": {"b": "Mary"}}], "prompt 2 has no span 'a', which prompt 1 has"),
        ([{"spans": {"a": "Mary"}}, {}], "prompt 2 has no span 'a', which prompt 1 has"),
        ([{}, {"spans": {"a": "Mary"}}], "prompt 1 has no span 'a', which prompt 2 has"),
        ([{"spans": {"a": "Kate"}}], "has no 'Kate'"),
        ([{"spans": {"a": [3, 99]}}], "span 'a' is the tokens 3 to 99 of a clean prompt that has"),
        ([{"spans": {"a": {"characters": [90, 99]}}}], "span 'a' is the characters 90 to 99"),
        ([{"spans": {"a": [3]}}], r"span 'a' should be part of the clean prompt's text"),
        ([{"spans": {"a": [3, 3]}}], r"span 'a' should be part of the clean prompt's text"),
        ([{"spans": {"a b": "Mary"}}], "a span's name is 1 to 40 characters"),
        ([{"spans": {"rest": "Mary"}}], "a span is called 'rest'"),
        ([{"spans": "marked"}], "no part of the clean prompt is"),
        ([{"clean": "{a:Mary} and {a:John} went to the", "spans": "marked"}], "two parts .* are marked as span 'a'"),
        ([{"spans": 3}], "an object of names and parts, or 'marked'"),
    ],
)
def test_what_is_wrong_with_spans_is_said(model, rows, says):
    with pytest.raises(EdgewiseError, match=says):
        own(model, *rows)


def test_positions_are_told_apart_as_asked(model):
    task = load_task("ioi", model, examples=4)
    assert told_apart(task, "together") == (task, ())
    assert told_apart(task, "spans")[1] == task.span_names
    each, names = told_apart(task, "each")
    assert names == tuple(str(place) for place in range(15))
    assert torch.equal(each.prompts.spans[0], torch.arange(15))
    assert with_spans(task, names).span_names == names
    with pytest.raises(EdgewiseError, match="names no spans"):
        told_apart(own(model, {}), "spans")
    with pytest.raises(EdgewiseError, match="needs prompts of one length; these have"):
        told_apart(own(model, {}, {"clean": "Then, Mary", "corrupt": "Then, John"}), "each")
    with pytest.raises(EdgewiseError, match="'everywhere'"):
        told_apart(task, "everywhere")
    with pytest.raises(EdgewiseError, match="the circuit has the spans a, b; task 'ioi' has"):
        with_spans(task, ("a", "b"))
    with pytest.raises(EdgewiseError, match="the circuit has 3 positions, and the prompts of task 'ioi' 15"):
        with_spans(task, ("0", "1", "2"))


def test_numbers_follow_the_rows(model):
    task = load_task("ioi", model, examples=6)
    assert torch.equal(task.first(2).prompts.spans, task.prompts.spans[:2])
    drawn = task.resampled(3)
    for row, text in enumerate(drawn.text):
        assert torch.equal(drawn.prompts.spans[row], task.prompts.spans[task.text.index(text)])


def test_a_span_outside_its_prompt_is_refused(model):
    prompts = own(model, {}).prompts
    with pytest.raises(
        EdgewiseError, match="span 'a' of prompt 1 is tokens 2 to 98, where the prompt has the tokens 0 to"
    ):
        numbered(prompts, [{"a": range(2, 99)}])


@pytest.mark.parametrize(
    "options", [{"positions": "spans"}, {"heads": "whole"}, {"positions": "each", "heads": "whole"}]
)
def test_a_search_is_kept_and_found_again(model, tmp_path, options):
    task = load_task("ioi", model, examples=4)
    run = ew.discover(model, task, threshold=0.5, out=tmp_path / "run", **options)
    assert 0 < run.circuit.n_edges < run.circuit.graph.n_edges
    again = ew.load_run(tmp_path / "run")
    assert again.circuit == run.circuit
    assert again.circuit.graph == run.circuit.graph
    assert [one.edge for one in again.trace] == [one.edge for one in run.trace]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {name: record["settings"][name] for name in options} == options
    measured = again.evaluate(load_task("ioi", model, examples=4, split="test"))
    assert measured.n_edges == run.circuit.n_edges
    assert measured.n_graph_edges == run.circuit.graph.n_edges
    if "positions" not in options:  # thousands of edges, one by one
        plain = ew.discover(model, task, threshold=0.5, engine="plain", **options)
        assert plain.circuit == run.circuit
