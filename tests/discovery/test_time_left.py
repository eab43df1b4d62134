"""The time left of a search, held against searches whose every test was timed (`tests/data`)."""

import json
from pathlib import Path

import pytest

from edgewise.discovery import acdc
from edgewise.discovery.time_left import TimeLeft, ToCome
from edgewise.graph import Graph
from edgewise.models import load_model
from edgewise.patching import Experiment
from edgewise.tasks import load_task

TRACES = sorted((Path(__file__).parents[1] / "data").glob("trace-*.json"))


@pytest.mark.parametrize("trace", TRACES, ids=lambda path: path.stem)
def test_at_half_time_the_estimate_is_within_twice_the_truth(trace):
    record = json.loads(trace.read_text())
    graph = Graph(**record["graph"])
    kept = {graph.locate(name) for name in record["kept"]}
    come, left, ports, tests = ToCome(graph), TimeLeft(), set(), 0
    for name, count, seconds in record["visits"]:
        column = graph.input_index[name]
        port = bool(graph.port_edges[column]) and column not in ports
        ports.add(column)
        rows = [None] if port else graph.edges[:, column].nonzero()[0].tolist()
        assert len(rows) == count
        for row in rows:
            come.test(column, row, (row, column) in kept)
        tests += count
        low, high = left.range(seconds, tests, come.expected())
        if seconds >= record["seconds"] / 2:
            break
    truth = record["seconds"] - seconds
    assert truth / 2 <= (low + high) / 2 <= 2 * truth
    assert low <= high


@pytest.mark.parametrize("task", ["ioi", "greater-than", "induction"])
@pytest.mark.parametrize("ports", [True, False])
def test_what_is_certain_to_come_does_come(task, ports):
    model, told = load_model(f"tiny-{task}"), []
    found = acdc(Experiment(model, load_task(task, model), ports=ports), 0.01, progress=told.append)
    sure = [one.tests + one.to_come[0] for one in told]
    assert all(one <= found.tests for one in sure)
    assert max(sure[: len(sure) // 2]) > found.tests / 4, "nothing is certain"


def test_what_is_certain_to_come_does_come_where_positions_are_told_apart():
    model, told = load_model("tiny-ioi"), []
    experiment = Experiment(model, load_task("ioi", model, examples=1), positions="spans")
    found = acdc(experiment, 2.0, progress=told.append)
    assert all(one.tests + one.to_come[0] <= found.tests for one in told)
    assert any(one.to_come[0] > 10 for one in told)
