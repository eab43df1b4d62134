"""A request is one object, of which Python's keywords, the shell's options and a run's settings are made."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import get_args

import numpy as np
import pytest
import tiny
import typer.main

import edgewise as ew
from edgewise.cli.commands import every_command
from edgewise.discovery import ENGINES
from edgewise.errors import EdgewiseError
from edgewise.patching import ABLATIONS
from edgewise.runs import ModelRequest, Request, SearchRequest, TaskRequest
from edgewise.runs import search_request as requests

FIELDS = dataclasses.fields(SearchRequest)


def test_the_keywords_of_discover_are_the_fields_of_a_search() -> None:
    keywords = dict(inspect.signature(ew.discover).parameters)
    for name in ("model", "task", "request", "progress", "command", "out"):
        del keywords[name]
    assert {name: (one.annotation, one.default) for name, one in keywords.items()} == {
        one.name: (str(one.type).replace("Bytes", "int"), one.default) for one in FIELDS
    }
    planned = set(inspect.signature(ew.plan_discovery).parameters) - {"model", "task", "request"}
    assert planned < set(keywords)


def test_discover_says_what_each_keyword_is() -> None:
    described = inspect.getdoc(ew.discover) or ""
    for one in FIELDS:
        assert f"{one.name}: " in described or f"{one.name}, " in described, one.name


def test_the_names_that_types_allow_are_those_there_are() -> None:
    assert set(get_args(requests.AblationName)) == set(ABLATIONS)
    assert set(get_args(requests.EngineName)) == set(ENGINES)


def test_every_field_is_an_option_of_discover_on_the_shell() -> None:
    taken = {one.name: one for one in typer.main.get_command(every_command()).commands["discover"].params}  # type: ignore[attr-defined]
    fields = [one for kind in (ModelRequest, TaskRequest, SearchRequest) for one in dataclasses.fields(kind)]
    for one in fields:
        if one.name not in ("options", "split"):
            shown = taken[one.name].help.replace("\\[", "[")  # as rich wants it
            assert shown == one.metadata.get("help", taken["seed"].help)
            assert taken[one.name].default == one.default or one.name == "task"


REQUESTS = (
    SearchRequest(threshold=0.1, layer_order="reverse", head_order="shuffle", seed=3, engine="plain", absolute=True),
    SearchRequest(threshold=0.1, within=50, budget=0.7, passes=2),
    SearchRequest("edge-attribution-ig", edges=5, select="greedy", ablation="zero", options={"steps": 2}),
    SearchRequest(threshold=0.1, ablation="noise", ablation_seed=4),
    SearchRequest("head-importance", share=0.25, metric="l2", ports=False),
    SearchRequest("edge-pruning", edges=4, seed=1, options={"seed": 8, "steps": 7}),
    SearchRequest(level="node", threshold=0.1, passes=2, ports=False),
)


@pytest.mark.parametrize("asked", REQUESTS, ids=lambda asked: asked.method)
def test_a_search_is_itself_again_from_its_dictionary(asked: SearchRequest) -> None:
    asked = dataclasses.replace(asked, options=asked.options or {})
    assert SearchRequest.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked


@pytest.mark.parametrize("asked", REQUESTS[:5], ids=lambda asked: asked.method)
def test_a_run_can_be_made_again_from_its_settings(asked: SearchRequest) -> None:
    model, task = tiny.gpt2(layers=1), tiny.task()
    run = ew.discover(model, task, request=asked)
    again = ew.discover(model, task, request=SearchRequest.from_dict(run.record["settings"]))
    assert again.circuit == run.circuit
    assert again.record["settings"] == run.record["settings"]
    by_keywords = ew.discover(model, task, **{one.name: getattr(asked, one.name) for one in FIELDS})
    assert by_keywords.record["settings"] == run.record["settings"]


SETTINGS = {
    "method": "acdc",
    "threshold": 0.02,
    "edges": None,
    "method_options": {},
    "ablation": "resample",
    "metric": "kl_div",
    "ports": True,
    "layer_order": "normal",
    "head_order": "normal",
    "order_seed": 0,
    "absolute": False,
    "engine": "incremental",
    "task": {"task": "ioi", "examples": 50},
    "model": {"name": "tiny-ioi"},
}


def test_a_run_made_before_there_were_selections_can_be_made_again() -> None:
    expected = SearchRequest(threshold=0.02, ablation="resample", metric="kl_div", options={})
    assert SearchRequest.from_dict(SETTINGS) == expected


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"engine": "warp"}, "unknown engine 'warp'"),
        ({"threshold": "low"}, "--threshold should be a number, not 'low'"),
        ({"ports": 1}, "--ports should be True or False, not 1"),
        ({"order_seed": None}, "--seed should be a whole number, not None"),
        ({"edges": 0}, "--edges should be at least 1, not 0"),
        ({"method_options": {"step": 3}}, "has no option 'step'"),
        ({"method_options": []}, "options should be given by name"),
        (
            {"method": "sp", "method_options": {"steps": "many"}},
            "steps of method 'subnetwork-probing' should be a whole",
        ),
    ],
)
def test_settings_that_make_no_search_are_refused(broken: dict[str, object], words: str) -> None:
    with pytest.raises(EdgewiseError, match=words):
        SearchRequest.from_dict({**SETTINGS, **broken})


@pytest.mark.parametrize("name", ["method", "ports", "engine", "order_seed"])
def test_settings_that_lack_something_are_refused(name: str) -> None:
    with pytest.raises(EdgewiseError, match=f"the run's settings are broken: '{name}' is missing"):
        SearchRequest.from_dict({key: value for key, value in SETTINGS.items() if key != name})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"threshold": "0.1"}, "--threshold should be a number, not '0.1'"),
        ({"edges": 3.5}, "--edges should be a whole number, not 3.5"),
        ({"max_memory": "3GB"}, "--max-memory should be a whole number, not '3GB'"),
        ({"method": None}, "--method should be a name, not None"),
        ({"edges": 3, "method": "eap-ig", "options": {"steps": True}}, "steps of method .* should be a whole number"),
        ({"threshold": 0.1, "metric": 3}, "a metric is a name or a function, not 3"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_in_a_sentence(given: dict[str, object], words: str) -> None:
    with pytest.raises(EdgewiseError, match=words):
        ew.discover(tiny.gpt2(layers=1), tiny.task(), **given)


def test_a_search_is_given_once() -> None:
    with pytest.raises(EdgewiseError, match="as one request or by keywords, not both"):
        ew.discover(tiny.gpt2(layers=1), tiny.task(), threshold=0.1, request=SearchRequest(threshold=0.1))


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    run = ew.discover(tiny.gpt2(layers=1), tiny.task(), threshold=np.float32(0.5), seed=np.int64(2))
    assert json.loads(json.dumps(run.record))["settings"]["threshold"] == 0.5


def test_a_request_is_refused_as_a_whole_before_anything_is_loaded() -> None:
    for broken, words in (
        (Request(ModelRequest(permuted=-1), TaskRequest("ioi")), "seed of a permutation"),
        (Request(task=TaskRequest("ioi", examples=0)), "--examples"),
        (Request(task=TaskRequest("ioi"), search=SearchRequest(metric="kl")), "unknown metric 'kl'"),
    ):
        with pytest.raises(EdgewiseError, match=words):
            broken.check()
