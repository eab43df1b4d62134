"""Every method, from a model's folder to the run's page and back, on families whose heads are coupled and on others."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from cli.word_models import save_tokenizer, write_prompts
from family_models import source

import edgewise as ew
from edgewise.discovery import METHODS, acdc
from edgewise.evaluation import mib_scores
from edgewise.evaluation.effort import Options
from edgewise.evaluation.hypotheses import run_tests
from edgewise.graph import Circuit, load_circuit
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.patching import Experiment
from edgewise.reports.page import make_page, measure, read_sources
from edgewise.runs.mib_export import load_pt, mib_cell, pt_bytes

COUPLED = ("gemma2", "olmo2")
OTHERS = ("mixtral", "gpt_oss", "falcon")
OPTIONS = {
    "acdc": dict(threshold=0.0005),
    "edge-pruning": dict(edges=25, options={"steps": 4}),
    "subnetwork-probing": dict(options={"regularisation": 0.1, "steps": 4}),
    "uniform-gradient-sampling": dict(edges=25, options={"steps": 4}),
}
CASES = [(family, method) for family in COUPLED for method in METHODS]
CASES += [(family, method) for family in OTHERS for method in ("acdc", "edge-attribution-ig")]
IN_TURN = {(COUPLED[number % 2], method) for number, method in enumerate(METHODS)}
IN_TURN |= {("mixtral", "acdc"), ("gpt_oss", "edge-attribution-ig"), ("falcon", "acdc")}
"""Every method once, and every family: the other cases are among the slow tests."""


@pytest.fixture(scope="module")
def loaded(request, tmp_path_factory):
    """A tiny model of a family, read from its folder, and prompts in whole words."""
    folder = tmp_path_factory.mktemp("families") / request.param
    source(request.param).save_pretrained(folder)
    save_tokenizer(folder)
    model = ew.load_model(str(folder))
    assert model.graph().coupled == (request.param in COUPLED)
    return model, ew.load_task(str(write_prompts(folder / "rows.jsonl")), model)


@pytest.mark.filterwarnings("ignore::edgewise.errors.EdgewiseWarning")
@pytest.mark.parametrize(
    ("loaded", "method"), tiny.slow_unless(lambda *case: case in IN_TURN, CASES), indirect=["loaded"]
)
def test_a_run_is_the_same_when_it_is_loaded_drawn_and_measured_again(loaded, method, tmp_path):
    model, task = loaded
    run = ew.discover(model, task, method=method, **OPTIONS.get(method, dict(edges=25)))
    assert run.circuit or method == "information-flow"  # which takes what reaches a random model's answer, if anything
    back = ew.load_run(run.save(tmp_path / "run"))
    assert back.circuit == run.circuit
    assert back.circuit.graph == run.circuit.graph == model.graph(ports=True)
    if run.circuit.scores is not None:
        assert np.array_equal(back.circuit.scores, run.circuit.scores)
    again = ew.evaluate(back.model, back.task, back.circuit)
    assert again.measured[again.metric].circuit == pytest.approx(run.metric, rel=1e-4, abs=1e-6)
    (one,) = read_sources([tmp_path / "run"])
    page = make_page([one], [measure(one, back.model, back.task)])
    assert f'"coupled":{json.dumps(model.graph().coupled)}' in page.replace('": ', '":')
    assert back.circuit.draw(tmp_path / "run.svg").startswith("<svg")


@pytest.mark.parametrize("loaded", ["gemma2", pytest.param("olmo2", marks=pytest.mark.slow)], indirect=True)
def test_an_exported_circuit_is_worth_what_it_was(loaded, tmp_path):
    """The benchmark's forms have no word for coupled heads; on a model that has them, they are coupled all the same."""
    model, task = loaded
    run = ew.discover(model, task, method="edge-attribution-ig", edges=25, metric="logit_diff")
    own = ungrouped(without_ports(run.circuit))
    assert own.graph.coupled
    # An edge that acts through siblings alone, which a graph of heads by themselves takes for a dead end.
    reading = own.graph.source_index["a1.h0"]
    edges = own.edges.copy()
    edges[reading] = False
    edges[0, own.graph.input_index["a1.h0<q>"]] = True
    edges[own.graph.source_index["a1.h1"], -1] = True
    own = replace(own, edges=edges)
    apart = Circuit(replace(own.graph, coupled=False), own.edges, own.ports)
    assert own.connected().n_edges > apart.connected().n_edges

    cell = mib_cell(run.record, own)
    assert not cell.circuit.graph.coupled
    ew.save_circuit(cell.circuit, tmp_path / "importances.json")
    assert set(json.loads((tmp_path / "importances.json").read_text())) == {"cfg", "nodes", "edges"}
    (tmp_path / "importances.pt").write_bytes(pt_bytes(cell.circuit))
    read = load_pt(tmp_path / "importances.pt")
    assert read == load_circuit(tmp_path / "importances.json") == own

    found, wanted = (ew.evaluate(model, task, one) for one in (read, own))
    assert (found.measured, found.n_edges_connected) == (wanted.measured, wanted.n_edges_connected)
    assert mib_scores(model, task, read) == mib_scores(model, task, own)
    experiment = Experiment(model, task, graph=read.graph)
    assert experiment.graph.coupled
    options = Options(circuits=29, seconds=None)
    assert run_tests(experiment, read, options) == run_tests(experiment, own, options)
    kept = [acdc(experiment, 0.001, start=read, engine=engine).circuit for engine in ("incremental", "plain")]
    assert kept[0] == kept[1]
