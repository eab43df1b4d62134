"""The incremental engine takes its twin's decisions (`twins.py`) in trained and hand-built models.

However candidates are batched; and it keeps what was decided when it is stopped.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import tiny
import torch
from twins import both, decisions, same_decisions

from edgewise.discovery import ENGINES, Discovery, Interrupted, Order, acdc, acdc_with_edges
from edgewise.models import load_model
from edgewise.models.forward import forward
from edgewise.patching import ABLATIONS, Experiment, IncrementalEngine, OutOfMemoryError, ablation, memory
from edgewise.tasks import TASKS, load_task

TRACR_SEARCHES = [
    (task, variant, ablation)
    for task in ("tracr-reverse", "tracr-xproportion")
    for variant in TASKS[task].variants
    for ablation in ("zero", "resample")
]


FORWARD, BACKWARD = Order(), Order("reverse", "reverse")
SOME = [(1e-4, BACKWARD), (0.01, FORWARD)]
EVERY = list(itertools.product((1e-4, 0.01, 0.3), (FORWARD, BACKWARD)))


@pytest.mark.parametrize("searches", [SOME, pytest.param(EVERY, marks=pytest.mark.slow)], ids=["some", "every"])
@pytest.mark.parametrize(("task", "variant", "ablation"), [*TRACR_SEARCHES, ("or-gate", "default", "zero")])
def test_hand_built_models_give_the_decisions_of_the_twin(task, variant, ablation, searches):
    model = load_model(TASKS[task].default_model(variant))
    experiment = Experiment(model, load_task(task, model, variant=variant), ablation=ablation)
    found = {}
    for threshold, order in searches:
        fast, slow = both(experiment, threshold, order=order)
        assert same_decisions(fast, slow, torch.float32)
        found[threshold] = fast.circuit.n_edges
    assert found[0.01] > 0


IOI_SEARCHES = [
    (0.03, {}),
    (0.03, {"ablation": "zero"}),
    (0.3, {"ablation": "mean"}),
    (0.5, {"metric": "logit_diff"}),
    (0.1, {"metric": "prob_diff", "ports": False}),
]


@pytest.mark.parametrize(
    ("threshold", "options"),
    [
        *IOI_SEARCHES[:1],
        *(pytest.param(*one, marks=pytest.mark.slow) for one in IOI_SEARCHES[1:-1]),
        *IOI_SEARCHES[-1:],
    ],
)
def test_ioi_on_the_shipped_model_gives_the_decisions_of_the_twin(threshold, options):
    model = load_model("tiny-ioi")
    experiment = Experiment(model, load_task("ioi", model, examples=3), **options)
    fast, slow = both(experiment, threshold)
    assert same_decisions(fast, slow, torch.float32)
    assert 0 < fast.circuit.n_edges < fast.tests < experiment.graph.n_edges


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [1e-4, 1e-3, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_all_of_ioi_on_the_shipped_model_gives_the_decisions_of_the_twin(threshold, ablation):
    model = load_model("tiny-ioi")
    task = load_task("ioi", model)
    assert len(task) == 32
    fast, slow = both(Experiment(model, task, ablation=ablation), threshold)
    assert same_decisions(fast, slow, torch.float32)
    assert fast.circuit.n_edges > 0


def stories(examples, **options):
    folder = tiny.SHARED / "models" / "stories260k"
    model = load_model(folder)
    return Experiment(model, load_task(folder / "gender_pronoun.jsonl", model, examples=examples), **options)


STORIES_SEARCHES = [(0.3, {}), (2.0, {"metric": "logit_diff", "ports": False}), (1.0, {"ablation": "mean"})]


@tiny.needs_shared
@pytest.mark.parametrize(
    ("threshold", "options"),
    [*STORIES_SEARCHES[:1], *(pytest.param(*one, marks=pytest.mark.slow) for one in STORIES_SEARCHES[1:])],
)
def test_a_trained_llama_gives_the_decisions_of_the_twin(threshold, options):
    experiment = stories(3, **options)
    assert len(experiment.task.prompts.mask.sum(dim=1).unique()) > 1, "prompts of several lengths"
    fast, slow = both(experiment, threshold)
    assert same_decisions(fast, slow, torch.float32)
    assert 0 < fast.circuit.n_edges < fast.tests < experiment.graph.n_edges


@pytest.mark.slow
@tiny.needs_shared
@pytest.mark.parametrize(
    ("threshold", "options"), [(0.01, {}), (0.03, {"metric": "logit_diff"}), (0.1, {"ablation": "mean"})]
)
def test_all_stories_on_a_trained_llama_give_the_decisions_of_the_twin(threshold, options):
    experiment = stories(None, **options)
    assert len(experiment.task) == 40
    fast, slow = both(experiment, threshold)
    assert same_decisions(fast, slow, torch.float32)
    assert 0 < fast.circuit.n_edges < fast.tests < experiment.graph.n_edges


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("llama-with-biases", marks=pytest.mark.slow),
        "plain",
        "plain-attention-only",
    ],
)
def test_a_circuit_of_a_wanted_size_is_found_with_the_thresholds_of_the_twin(family):
    experiment = Experiment(tiny.FAMILIES[family](dtype=torch.float64, layers=2), tiny.task())
    fast, slow = (acdc_with_edges(experiment, 15, engine=engine) for engine in ("incremental", "plain"))
    assert [size for _, size in fast.tried] == [size for _, size in slow.tried]
    assert [threshold for threshold, _ in fast.tried] == pytest.approx([threshold for threshold, _ in slow.tried])
    assert fast.circuit == slow.circuit
    assert 10 <= fast.circuit.n_edges <= 15
    assert decisions(fast) == decisions(slow)


@pytest.fixture
def engines(monkeypatch):
    """The incremental engines that searches make, as they make them."""
    made: list[IncrementalEngine] = []

    def make(experiment: Experiment, max_memory: int | None) -> IncrementalEngine:
        made.append(IncrementalEngine(experiment, max_memory))
        return made[-1]

    monkeypatch.setitem(ENGINES, "incremental", make)
    return made


SEARCHES = [
    ("gpt2", dict(ports=True), 0.0003),
    ("llama", dict(ports=False), 0.03),
    ("plain-attention-only", dict(ports=True, metric="logit_diff"), 0.01),
    ("plain-bidirectional", dict(ports=False, ablation="zero"), 0.01),
]


def search_of(family, options):
    heads = {"heads": 2} if family == "gpt2" else {}
    return Experiment(tiny.FAMILIES[family](dtype=torch.float64, **heads), tiny.task(1, rows=4), **options)


def agree(found: Discovery, wanted: Discovery) -> None:
    """The same decisions and the same values, however candidates were batched."""
    assert decisions(found) == decisions(wanted)
    assert [one.after for one in found.trace] == pytest.approx([one.after for one in wanted.trace], rel=1e-9, abs=1e-11)
    assert found.circuit == wanted.circuit
    assert 0 < found.circuit.n_edges < found.tests < found.circuit.graph.n_edges


@pytest.mark.parametrize(
    "most", [1, pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("family", "options", "threshold"), SEARCHES)
def test_how_many_candidates_are_guessed_at_a_time_changes_nothing(
    family, options, threshold, most, monkeypatch, engines
):
    experiment = search_of(family, options)
    wanted = acdc(experiment, threshold)
    monkeypatch.setattr(memory, "MOST_CANDIDATES", most)
    agree(acdc(experiment, threshold), wanted)
    free, limited = engines
    assert limited.computed <= most * limited.blocks
    assert free.blocks < limited.blocks or most > 3
    if most == 1:
        edges = sum("<" not in one.edge.split("->")[0] for one in wanted.trace)
        assert limited.blocks == limited.computed == edges, "nothing is computed twice, and port edges stand alone"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_most_guesses_are_right(family, engines):
    experiment = Experiment(tiny.FAMILIES[family](), tiny.task())
    found = acdc(experiment, 0.3 * experiment.ablated())
    assert engines[0].blocks < found.tests / 2
    assert engines[0].computed < 2 * found.tests


@pytest.mark.parametrize(("family", "options", "threshold"), SEARCHES)
def test_a_full_gpu_makes_blocks_smaller_and_changes_nothing(family, options, threshold, monkeypatch, engines):
    experiment = search_of(family, options)
    wanted, refused = acdc(experiment, threshold), []
    metric = IncrementalEngine.metrics

    def with_room_for_two(engine, final):
        if len(final) > 2:
            refused.append(len(final))
            raise torch.OutOfMemoryError
        return metric(engine, final)

    monkeypatch.setattr(IncrementalEngine, "metrics", with_room_for_two)
    agree(acdc(experiment, threshold), wanted)
    assert 0 < len(refused) < 6, "what was too much once is not tried again"
    assert engines[1].most <= 2


def fails_after(monkeypatch, calls, error):
    """From the engine's metric number `calls` on, `error` is raised."""
    metric, made = IncrementalEngine.metrics, itertools.count()

    def failing(engine, final):
        if next(made) >= calls:
            raise error
        return metric(engine, final)

    monkeypatch.setattr(IncrementalEngine, "metrics", failing)


@pytest.mark.parametrize("ports", [True, False])
def test_a_gpu_without_room_for_one_candidate_ends_the_search_with_what_was_decided(ports, monkeypatch):
    experiment = Experiment(tiny.gpt2(), tiny.task(), ports=ports)
    wanted = acdc(experiment, 0.001)
    fails_after(monkeypatch, 12, torch.OutOfMemoryError())
    with pytest.raises(Interrupted) as caught:
        acdc(experiment, 0.001)
    assert isinstance(caught.value.__cause__, OutOfMemoryError)
    assert "no room left for even one candidate" in str(caught.value.__cause__)
    assert_stopped_half_way(caught.value, experiment, wanted)


def test_a_gpu_without_room_for_anything_is_an_error_before_the_search(monkeypatch):
    fails_after(monkeypatch, 0, torch.OutOfMemoryError())
    with pytest.raises(OutOfMemoryError, match="no room left for even one candidate"):
        acdc(Experiment(tiny.gpt2(layers=1), tiny.task()), 0.001)


def assert_stopped_half_way(stop: Interrupted, experiment: Experiment, whole: Discovery) -> None:
    """`stop` holds a true prefix of the `whole` search: every edge it had not come to is still in its circuit."""
    found, progress = stop.discovery, stop.progress
    assert 0 < found.tests == len(found.trace) == progress.tests < whole.tests
    assert decisions(found) == decisions(whole)[: found.tests]
    removed = {one.edge for one in found.trace if not one.kept}
    names = set(found.circuit.names())
    assert removed
    assert names.isdisjoint(removed)
    assert {one.edge for one in whole.trace[found.tests :]} <= names
    assert set(whole.circuit.names()) <= names
    assert progress.kept == sum(one.kept for one in found.trace)
    # What is not in the circuit was removed by a test or fell without one, and either way was decided.
    assert progress.edges == experiment.graph.n_edges
    assert progress.decided == progress.kept + experiment.graph.n_edges - len(names)
    assert progress.metric == found.metric == tiny.near(experiment.value(found.circuit))
    assert (found.metric_full, found.metric_ablated) == (whole.metric_full, whole.metric_ablated)
    assert f"{progress.decided:,} of {progress.edges:,} edges decided" in str(stop)


@pytest.mark.parametrize(
    ("engine", "share"), tiny.in_turn(list(ENGINES), [(0.5,), (0.05,), (0.95,)], whole=["incremental"])
)
def test_ctrl_c_keeps_what_was_decided(engine, share):
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task())
    whole = acdc(experiment, 0.003, engine=engine)
    after, heard = int(share * whole.tests), []

    def press(progress):
        heard.append(progress)
        if progress.tests == after:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        acdc(experiment, 0.003, engine=engine, progress=press)
    assert_stopped_half_way(caught.value, experiment, whole)
    assert caught.value.discovery.tests == after
    assert dataclasses.replace(caught.value.progress, at=heard[-1].at) == heard[-1]
    assert isinstance(caught.value, KeyboardInterrupt)
    assert experiment.value(whole.circuit) == pytest.approx(whole.metric, rel=1e-9), "the experiment is unharmed"


@pytest.mark.parametrize("calls", [4, 15, 30])
def test_ctrl_c_in_the_middle_of_a_block_keeps_what_was_decided(calls, monkeypatch):
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task())
    whole = acdc(experiment, 0.003)
    fails_after(monkeypatch, calls, KeyboardInterrupt())
    with pytest.raises(Interrupted) as caught:
        acdc(experiment, 0.003)
    assert_stopped_half_way(caught.value, experiment, whole)


@pytest.mark.parametrize(("family", "options", "threshold"), SEARCHES)
def test_a_metric_of_the_users_own_is_given_whole_logits(family, options, threshold):
    experiment, shapes = search_of(family, options), set()

    def own(logits, reference):
        shapes.add(tuple(logits.shape))
        return experiment.metric(logits, reference)

    found = acdc(search_of(family, {**options, "metric": own}), threshold)
    assert shapes == {(4, experiment.decoder.config.d_vocab)}
    agree(found, acdc(experiment, threshold))
    agree(found, acdc(experiment, threshold, engine="plain"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_two_runs_give_the_same_bits(family):
    def run():
        return acdc(Experiment(tiny.FAMILIES[family](), tiny.task()), 0.01)

    one, again = run(), run()
    assert one.trace == again.trace
    assert one.metric == again.metric
    assert one.circuit == again.circuit
    assert np.array_equal(one.circuit.scores, again.circuit.scores)
    assert 0 < one.circuit.n_edges < one.tests


def test_nothing_is_computed_before_the_first_token_that_differs():
    experiment = Experiment(tiny.gpt2(), tiny.task(ragged=False))
    prompts = experiment.task.prompts
    corrupt = prompts.clean.clone()
    corrupt[:, -2:] = prompts.corrupt[:, -2:]
    late = dataclasses.replace(experiment.task, prompts=dataclasses.replace(prompts, corrupt=corrupt))

    def widths(experiment):
        engine = IncrementalEngine(experiment)
        graph = experiment.graph
        for column in range(len(graph.inputs))[::-1]:
            rows = [None] if graph.port_edges[column] else range(graph.n_senders(graph.inputs[column]))
            engine.measure(column, [(row,) for row in rows])
        return {reading.place.name: reading.places.width for reading in engine.live.readings.values()}

    everywhere, last_two = widths(experiment), widths(Experiment(experiment.decoder, late))
    assert everywhere["a0.h0<k>"] == 6
    assert last_two["a0.h0<k>"] == 2
    assert everywhere["logits"] == everywhere["a2.h0<q>"] == everywhere["m2"] == 1, "the last token alone is scored"


@pytest.mark.parametrize("family", ["gpt2", "plain-bidirectional"])
def test_what_changes_at_one_token_alone_changes_what_looks_at_it(family):
    """Ablated activations that are the clean ones of every node, but for the embedding of the second token."""
    experiment = Experiment(tiny.FAMILIES[family](dtype=torch.float64, layers=2), tiny.task(rows=4, ragged=False))
    prompts, decoder = experiment.task.prompts, experiment.decoder
    with torch.no_grad():
        clean = forward(decoder, prompts.clean, prompts.mask)
        embedding = clean.embedding.clone()
        embedding[:, :, 1] = decoder.embed(prompts.corrupt)[:, :, 1]
        experiment.ablated_activations = ablation.ablated_run(decoder, prompts.mask, embedding, clean.codes)
    fast, slow = both(experiment, -1.0)
    assert same_decisions(fast, slow, torch.float64)
    effects = {one.edge: one.effect for one in slow.trace}
    assert len(effects) == experiment.graph.n_edges
    assert effects["input->a0.h0<v>"] > 1e-4
    assert effects["a1.h0->logits"] == pytest.approx(0, abs=1e-12)


def test_nothing_moves_before_the_first_token_that_differs_whatever_rounding_does_there():
    model = load_model("tiny-ioi")
    experiment = Experiment(model, load_task("ioi", model, examples=4))
    prompts = experiment.task.prompts
    differs = (prompts.clean != prompts.corrupt).cumsum(dim=1) > 0
    before = (~differs & prompts.mask).nonzero()
    assert len(before)
    for code in experiment.ablated_activations.codes:
        code[before[:, 0], before[:, 1]] *= 1 + 1e-6
    assert torch.equal(IncrementalEngine(experiment).live.moves, differs & prompts.mask)
    zeroed = IncrementalEngine(Experiment(model, experiment.task, ablation="zero"))
    assert torch.equal(zeroed.live.moves, prompts.mask)
