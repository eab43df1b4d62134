"""The incremental engine takes the decisions of its slow twin, the plain engine, on every edge.

Rounding is the only excuse for another decision: the effect of the edge, as the twin measured it, has to be the
threshold but for rounding (`near_tie`). After that the two searches are about different circuits, so comparing stops.
"""

import dataclasses
import functools
import itertools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgewise.discovery import ENGINES, Decision, Discovery, Interrupted, Order, acdc, acdc_with_edges
from edgewise.models import load_model
from edgewise.models.forward import forward
from edgewise.patching import ABLATIONS, Experiment, IncrementalEngine, OutOfMemoryError, ablation, memory
from edgewise.tasks import METRICS, TASKS, load_task
from edgewise.tasks.task import NO_TOKEN

VALUES_AGREE = {torch.float64: 1e-9, torch.float32: 1e-5}


def size(decision: Decision) -> float:
    return max(abs(decision.before), abs(decision.after), 1.0)


def near_tie(decision: Decision, threshold: float, absolute: bool, dtype: torch.dtype) -> bool:
    """Whether rounding may decide: the effect is within 1e-5 of the threshold, relative to what has been rounded.

    In float64 that is the threshold itself: the metric's own rounding, 1e-15, is nothing beside any threshold here. In
    float32 an effect is the difference of two metrics, each with its own rounding: logits of order 1 to 10 are sums of
    some hundred terms rounded to 6e-8 of their size, so a metric made of them is right to a few 1e-6 of its size, or
    of 1 where it is smaller than the logits it is made of. A threshold far below that cannot be met to 1e-5 of itself.
    """
    change = abs(decision.effect) if absolute else decision.effect
    return abs(change - threshold) <= 1e-5 * (abs(threshold) if dtype == torch.float64 else size(decision))


def same_decisions(
    fast: Discovery, slow: Discovery, dtype: torch.dtype, absolute: bool = False, says: Any = ""
) -> bool:
    """Compare two searches edge by edge; False if they part at a near tie, an AssertionError if they do elsewhere."""
    tolerance = VALUES_AGREE[dtype]

    def alike(one: float, other: float, of: float = 1.0) -> bool:
        return abs(one - other) <= tolerance * max(abs(other), of)

    assert alike(fast.metric_full, slow.metric_full), says
    assert fast.metric_ablated == slow.metric_ablated, says
    for ours, theirs in zip(fast.trace, slow.trace, strict=False):
        assert ours.edge == theirs.edge, says
        assert alike(ours.before, theirs.before, size(theirs)), (ours, theirs, says)
        assert alike(ours.after, theirs.after, size(theirs)), (ours, theirs, says)
        if ours.kept != theirs.kept:
            assert near_tie(theirs, slow.threshold, absolute, dtype), (ours, theirs, slow.threshold, says)
            return False
    assert fast.tests == len(fast.trace) == len(slow.trace) == slow.tests, says
    assert fast.circuit == slow.circuit, says
    assert alike(fast.metric, slow.metric), says
    largest = 2 * tolerance * max(map(size, slow.trace))
    assert np.allclose(fast.circuit.scores, slow.circuit.scores, rtol=0, atol=largest), says
    assert np.allclose(fast.circuit.port_scores, slow.circuit.port_scores, rtol=0, atol=largest), says
    return True


def both(experiment: Experiment, threshold: float, **options: Any) -> tuple[Discovery, Discovery]:
    """The same search with either engine; the metric of what the fast one found is right, recomputed from scratch."""
    fast, slow = (acdc(experiment, threshold, engine=engine, **options) for engine in ("incremental", "plain"))
    assert fast.metric == tiny.near(experiment.value(fast.circuit))
    return fast, slow


def decisions(found: Discovery) -> list[tuple[str, bool]]:
    return [(one.edge, one.kept) for one in found.trace]


# -- random searches ---------------------------------------------------------------------------------------------------


def parallel(**kwargs):
    """GPT-2's parts with attention and MLP of a layer side by side, which no adapter makes yet."""
    model = tiny.gpt2(heads=3, **kwargs)
    components = (dataclasses.replace(one, beside=one.kinds == ("mlp",)) for one in model.components)
    return dataclasses.replace(model, components=tuple(components))


def in_one_dtype(model):
    """The same model, in float64 throughout if it is a float64 one: Llama's norm always rounds to float32."""
    for module in model.source.modules():
        if model.dtype == torch.float64 and type(module).__name__ == "LlamaRMSNorm":
            shape, weight, eps = module.weight.shape, module.weight, module.variance_epsilon
            module.forward = functools.partial(
                torch.nn.functional.rms_norm, normalized_shape=shape, weight=weight, eps=eps
            )
    return model


MODELS = {**tiny.FAMILIES, "llama-ungrouped": tiny.llama, "gpt2-parallel": parallel}


def largest_shift(logits, reference):
    """A user's own metric."""
    return (logits - reference.logits).abs().amax(dim=-1)


PROMPTS = ("last-place", "several-places", "late-change", "one-pair-alike", "unpaired")


def random_prompts(kind: str, seed: int, one_length: bool):
    generator = torch.Generator().manual_seed(seed)
    made = tiny.prompts(seed, ragged=not one_length, paired=kind != "unpaired")
    rows, last = torch.arange(len(made)), made.mask.sum(dim=1) - 1
    if kind == "late-change":  # the last token alone differs, in one row the one before it alone
        corrupt, changed = made.clean.clone(), last - torch.tensor([0, 1, 0])
        corrupt[rows, changed] = corrupt[rows, changed] % 30 + 1
        return dataclasses.replace(made, corrupt=corrupt)
    if kind == "one-pair-alike":
        corrupt = made.corrupt.clone()
        corrupt[0] = made.clean[0]
        return dataclasses.replace(made, corrupt=corrupt)
    if kind == "several-places":  # none in the middle row
        scored = (torch.rand(made.mask.shape, generator=generator) < 0.5) & made.mask
        scored[rows, last] = True
        scored[1] = False
        at_rows, at_positions = scored.nonzero(as_tuple=True)
        answers = torch.randint(1, 30, (len(at_rows), 2), generator=generator)
        wrong = torch.randint(1, 30, (len(at_rows), 3), generator=generator)
        answers[::2, 1], wrong[1::2, 1:] = NO_TOKEN, NO_TOKEN
        return dataclasses.replace(
            made, scored_rows=at_rows, scored_positions=at_positions, answers=answers, wrong=wrong
        )
    return made


OPTIONS: dict[str, list[Any]] = {
    "dtype": [torch.float64] * 4 + [torch.float32],
    "layers": [2] * 7 + [3],
    "prompts": list(PROMPTS),
    "ablation": list(ABLATIONS),
    # log_prob_diff is logit_diff where a place has both answers; tests/tasks/test_own_answers.py has the others.
    "metric": [*(name for name in METRICS if name != "log_prob_diff"), largest_shift],
    "order": [
        Order(),
        Order("reverse", "normal"),
        Order("normal", "reverse"),
        Order("shuffle", "shuffle", 1),
        Order("shuffle", "normal", 2),
        Order("normal", "shuffle", 3),
    ],
    "ports": [True, False],
    "split_embedding": [True, False],
    "absolute": [False, False, True],
    # The threshold, as a share of what the metric moves from the whole model to no edge at all.
    "share": [-0.3, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.3, 1.3],
}
FEW, MANY = 12, 40
"""Cases for each model: in every run of the tests, and in the slow ones."""


@dataclass(frozen=True)
class Case:
    model: str
    seed: int
    dtype: torch.dtype
    layers: int
    prompts: str
    ablation: str
    metric: Any
    order: Order
    ports: bool
    split_embedding: bool
    absolute: bool
    share: float

    def experiment(self) -> Experiment:
        model = in_one_dtype(MODELS[self.model](seed=self.seed % 3, dtype=self.dtype, layers=self.layers))
        split = self.split_embedding
        prompts = random_prompts(self.prompts, self.seed, one_length=self.ablation == "mean-positional")
        task = dataclasses.replace(tiny.task(self.seed, split_embedding=split), prompts=prompts)
        graph = model.graph(ports=self.ports, split_embedding=split, ungroup=self.model == "llama-ungrouped")
        return Experiment(model, task, ablation=self.ablation, metric=self.metric, graph=graph)


def adds_no_positions(model: str) -> bool:
    return "llama" in model or model in ("shortformer", "parallel")


def random_cases(model: str, count: int) -> list[Case]:
    """Cases in which every value of an option comes up equally often, unless it makes no sense with the others."""
    generator = random.Random(model)
    columns = []
    for values in OPTIONS.values():
        column = (values * count)[:count]
        generator.shuffle(column)
        columns.append(column)
    cases = []
    for seed, values in enumerate(zip(*columns, strict=True)):
        case = Case(model, seed, **dict(zip(OPTIONS, values, strict=True)))
        if adds_no_positions(model):  # so the embedding cannot be split
            case = dataclasses.replace(case, split_embedding=False)
        if case.prompts == "unpaired" and case.ablation in ("resample", "mean-positional"):
            case = dataclasses.replace(case, prompts="last-place")
        cases.append(case)
    return cases


@pytest.mark.parametrize("count", [FEW, MANY])
def test_the_random_cases_leave_nothing_out(count):
    everything = [case for model in MODELS for case in random_cases(model, count)]
    assert len(set(everything)) == len(everything) == count * len(MODELS)
    assert 0.75 <= sum(case.dtype == torch.float64 for case in everything) / len(everything) <= 0.85
    for model, (option, values) in itertools.product(MODELS, OPTIONS.items()):
        wanted = {False} if option == "split_embedding" and adds_no_positions(model) else set(values)
        missing = wanted ^ {getattr(case, option) for case in random_cases(model, count)}
        assert missing <= ({"unpaired"} if count == FEW else set()), (model, option)
    assert len({(case.metric, case.ablation) for case in everything}) == 9 * 4
    assert {case.ablation for case in everything if case.prompts == "unpaired"} == {"zero", "mean"}
    assert {case.dtype for case in everything if case.absolute} == {torch.float64, torch.float32}


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", MODELS)
def test_random_searches_take_the_decisions_of_the_twin(model, count):
    parted, kept, fell_untested = [], [], 0
    for case in random_cases(model, count):
        experiment = case.experiment()
        span = abs(experiment.full() - experiment.ablated()) or 1.0
        fast, slow = both(experiment, case.share * span, order=case.order, absolute=case.absolute)
        if not same_decisions(fast, slow, case.dtype, case.absolute, case):
            parted.append(case)
        kept.append(slow.circuit.n_edges / experiment.graph.n_edges)
        fell_untested += slow.tests < experiment.graph.n_edges
    assert len(parted) <= 1, "near ties are rare"
    assert all(case.dtype == torch.float32 for case in parted)
    assert min(kept) == 0 or count == FEW
    assert max(kept) > 0.98
    assert sum(0.05 < share < 0.95 for share in kept) >= 0.3 * count
    assert fell_untested >= 0.35 * count


def test_what_zero_ablation_empties_is_empty():
    """In a model without biases nothing at all reaches the logits of an empty circuit, so they are exactly 0."""
    task = tiny.task(11, metric="logit_diff")
    experiment = Experiment(tiny.llama(seed=1, layers=2), task, ablation="zero", ports=False)
    assert experiment.ablated() == 0
    fast, slow = both(experiment, 0.98369205608833)
    assert same_decisions(fast, slow, torch.float32)


def test_no_answer_is_right_where_zero_ablation_leaves_all_logits_alike():
    for seed in range(8):
        model, task = tiny.llama(seed, torch.float64), tiny.task(seed, metric="frac_correct")
        experiment = Experiment(model, task, ablation="zero")
        assert acdc(experiment, 10.0).metric == experiment.ablated() == 0


@pytest.mark.parametrize(
    ("seed", "metric", "share"),
    [(0, "frac_correct", 0.3), (36, "frac_correct", 1.0), (1, "logit_diff", 0.3), (21, "logit_diff", 0.05)],
)
def test_nodes_that_zero_ablation_silences_leave_nothing_behind(seed, metric, share):
    """Edges are kept from several nodes, which come to write exactly 0 one after another."""
    task = tiny.task(seed, metric=metric)
    experiment = Experiment(tiny.llama(seed % 4, layers=2), task, ablation="zero", ports=False)
    threshold = share * abs(experiment.full() - experiment.ablated())
    fast, slow = (acdc(experiment, threshold, engine=engine) for engine in ("incremental", "plain"))
    assert any(one.after == 0 for one in slow.trace[-20:])
    assert same_decisions(fast, slow, torch.float32)


# -- the comparison itself ---------------------------------------------------------------------------------------------


def test_two_searches_with_different_thresholds_are_told_apart():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64, layers=2), tiny.task())
    one, other = acdc(experiment, 0.001), acdc(experiment, 0.002)
    with pytest.raises(AssertionError):
        same_decisions(one, other, torch.float64)
    moved = dataclasses.replace(one.trace[9], after=one.trace[9].after + 1e-6)
    with pytest.raises(AssertionError):
        same_decisions(dataclasses.replace(one, trace=(*one.trace[:9], moved)), one, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_threshold_within_rounding_of_an_effect_may_be_decided_either_way(dtype):
    """The one exception does happen: the threshold is the larger of the two engines' values for the first effect."""
    parted = 0
    for seed in range(6):
        experiment = Experiment(tiny.gpt2(seed, dtype, layers=2), tiny.task(seed))
        fast, slow = both(experiment, 1.0)
        fast, slow = both(experiment, max(fast.trace[0].effect, slow.trace[0].effect))
        parted += not same_decisions(fast, slow, dtype)
        assert (fast.trace[0].kept != slow.trace[0].kept) == (fast.trace[0].effect != slow.trace[0].effect)
    assert parted > 0


# -- models that are not random ----------------------------------------------------------------------------------------

TRACR_SEARCHES = [
    (task, variant, ablation)
    for task in ("tracr-reverse", "tracr-xproportion")
    for variant in TASKS[task].variants
    for ablation in ("zero", "resample")
]


@pytest.mark.parametrize(("task", "variant", "ablation"), [*TRACR_SEARCHES, ("or-gate", "default", "zero")])
def test_hand_built_models_give_the_decisions_of_the_twin(task, variant, ablation):
    model = load_model(TASKS[task].default_model(variant))
    experiment = Experiment(model, load_task(task, model, variant=variant), ablation=ablation)
    found = {}
    for threshold, options in itertools.product((1e-4, 0.01, 0.3), ({}, {"order": Order("reverse", "reverse")})):
        fast, slow = both(experiment, threshold, **options)
        assert same_decisions(fast, slow, torch.float32)
        found[threshold] = fast.circuit.n_edges
    assert found[0.01] > 0


IOI_SEARCHES = [
    (0.01, {}),
    (0.001, {"ablation": "zero"}),
    (0.3, {"ablation": "mean"}),
    (0.05, {"metric": "logit_diff"}),
    (0.03, {"metric": "prob_diff", "ports": False}),
]


@pytest.mark.parametrize(("threshold", "options"), IOI_SEARCHES)
def test_ioi_on_the_shipped_model_gives_the_decisions_of_the_twin(threshold, options):
    model = load_model("tiny-ioi")
    experiment = Experiment(model, load_task("ioi", model, examples=8), **options)
    fast, slow = both(experiment, threshold)
    assert same_decisions(fast, slow, torch.float32)
    assert 0 < fast.circuit.n_edges < fast.tests < experiment.graph.n_edges


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [1e-4, 1e-3, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean", "mean-positional"])
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


STORIES_SEARCHES = [(0.1, {}), (0.5, {"metric": "logit_diff", "ports": False}), (1.0, {"ablation": "mean"})]


@tiny.needs_shared
@pytest.mark.parametrize(("threshold", "options"), STORIES_SEARCHES)
def test_a_trained_llama_gives_the_decisions_of_the_twin(threshold, options):
    experiment = stories(6, **options)
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


@pytest.mark.parametrize("family", ["gpt2", "llama-with-biases", "plain-attention-only"])
def test_a_circuit_of_a_wanted_size_is_found_with_the_thresholds_of_the_twin(family):
    experiment = Experiment(tiny.FAMILIES[family](dtype=torch.float64, layers=2), tiny.task())
    fast, slow = (acdc_with_edges(experiment, 15, engine=engine) for engine in ("incremental", "plain"))
    assert [size for _, size in fast.tried] == [size for _, size in slow.tried]
    assert [threshold for threshold, _ in fast.tried] == pytest.approx([threshold for threshold, _ in slow.tried])
    assert fast.circuit == slow.circuit
    assert 10 <= fast.circuit.n_edges <= 15
    assert decisions(fast) == decisions(slow)


# -- guessing ahead ----------------------------------------------------------------------------------------------------


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
    return Experiment(tiny.FAMILIES[family](dtype=torch.float64), tiny.task(1, rows=4), **options)


def agree(found: Discovery, wanted: Discovery) -> None:
    """The same decisions and the same values, however candidates were batched."""
    assert decisions(found) == decisions(wanted)
    assert [one.after for one in found.trace] == pytest.approx([one.after for one in wanted.trace], rel=1e-9, abs=1e-11)
    assert found.circuit == wanted.circuit
    assert 0 < found.circuit.n_edges < found.tests < found.circuit.graph.n_edges


@pytest.mark.parametrize("most", [1, 2, 3, 5])
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


# -- a search that is stopped ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
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


# -- and the rest ------------------------------------------------------------------------------------------------------


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
    experiment = Experiment(tiny.FAMILIES[family](dtype=torch.float64), tiny.task(ragged=False))
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
