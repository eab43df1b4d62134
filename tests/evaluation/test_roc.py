"""ROC points against the known circuits of tracr's programs: one way for every method."""

import pytest

from edgewise import load_model, load_task
from edgewise.discovery import acdc, head_importance, sweep
from edgewise.discovery.subnetwork_probing import PAPER_LAMBDAS, subnetwork_probing
from edgewise.errors import EdgewiseError
from edgewise.evaluation import roc_point, roc_points
from edgewise.graph import Circuit
from edgewise.patching import Experiment


@pytest.fixture(scope="module", params=["tracr-reverse", "tracr-xproportion"])
def setting(request):
    model = load_model(request.param)
    task = load_task(request.param, model)
    return Experiment(model, task, ablation="zero"), task.known_circuit.circuit


def test_the_ends_of_the_plot(setting):
    _, known = setting
    full = roc_point(Circuit.full(known.graph), known)
    assert (full.true_positive_rate, full.false_positive_rate, full.n_found) == (1, 1, known.graph.n_edges)
    assert full.precision == known.n_edges / known.graph.n_edges
    empty = roc_point(Circuit.empty(known.graph), known)
    assert (empty.true_positive_rate, empty.false_positive_rate, empty.precision) == (0, 0, 1)
    exact = roc_point(known, known)
    assert (exact.true_positive_rate, exact.false_positive_rate, exact.precision) == (1, 0, 1)


def test_acdc_is_at_the_corner_and_the_papers_baselines_are_not(setting):
    experiment, known = setting
    found = acdc(experiment, 0.01)
    corner = roc_point(found.circuit, known)
    assert (corner.true_positive_rate, corner.false_positive_rate) == (1, 0)
    scored, units = head_importance(experiment)
    circuits = [circuit for _, circuit in sweep(scored)]
    points = roc_points(circuits, known)
    assert (points[0].true_positive_rate, points[0].false_positive_rate) == (1, 1)
    assert points[-1].n_found == known.graph.n_embeddings, "the embedding is never masked"
    sizes = [point.n_found for point in points]
    assert sizes == sorted(sizes, reverse=True)
    assert 3 < len(points) <= len(units) + 2
    assert not any(point.true_positive_rate == 1 and point.false_positive_rate == 0 for point in points)
    probe = subnetwork_probing(experiment, regularisation=1.0, steps=100, learning_rate=0.05)
    point = roc_point(probe.circuit, known)
    assert 0 < point.n_found < known.graph.n_edges
    assert 0 < point.false_positive_rate < 1


def test_the_papers_published_count_gives_its_published_point():
    """SP on tracr-reverse: 43 edges with TPR 1.000 and FPR .3077 are 15 right ones and 28 of the other 91."""
    model = load_model("tracr-reverse")
    known = load_task("tracr-reverse", model).known_circuit.circuit
    others = [name for name in Circuit.full(known.graph).names() if name not in known]
    point = roc_point(known.add(*others[:28]), known)
    assert point.n_found == 43
    assert point.true_positive_rate == 1
    assert point.false_positive_rate == pytest.approx(0.3077, abs=5e-5)


def test_circuits_of_different_graphs_make_no_point():
    known, other = (load_task(name, load_model(name)).known_circuit.circuit for name in ("tracr-reverse", "or-gate"))
    with pytest.raises(EdgewiseError, match="another graph"):
        roc_point(other, known)


def test_the_papers_lambdas():
    assert len(PAPER_LAMBDAS) == 32
    assert PAPER_LAMBDAS[0] == pytest.approx(0.01)
    assert PAPER_LAMBDAS[10:13] == (pytest.approx(1.0), 2, 3)
    assert PAPER_LAMBDAS[-1] == 250
