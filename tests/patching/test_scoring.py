"""The short ways from final streams to a metric give what the metric gives on whole logits."""

import dataclasses
from itertools import product

import pytest
import tiny
import torch

from edgewise.discovery import acdc
from edgewise.errors import EdgewiseError
from edgewise.models import check
from edgewise.models.decoder import Unembedding
from edgewise.patching import Experiment, scoring
from edgewise.patching.scoring import scorer_for
from edgewise.tasks import METRICS, Metric, Reference
from edgewise.tasks.task import NO_TOKEN

SCORED = 4
HUGE = 2**40


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder(family="gpt2", dtype=torch.float64, vocabulary=None, size=1.0):
    """A tiny model; with `vocabulary`, it has another unembedding, whose logits are of about `size`."""
    model = tiny.FAMILIES[family](dtype=dtype, layers=1)
    if vocabulary is None:
        return model
    # Rounded to float32, so that it is the same unembedding in every dtype.
    weight = (random(vocabulary, model.config.d_model, seed=1) * size * model.config.d_model**-0.5).float()
    bias = (size * random(vocabulary, seed=2)).float() if family == "plain" else None
    head = Unembedding(weight.to(dtype), None if bias is None else bias.to(dtype))
    return dataclasses.replace(model, unembedding=head, config=dataclasses.replace(model.config, d_vocab=vocabulary))


def streams(model, distance, candidates=5):
    """Clean final streams `[scored, d_model]`, and candidates at a distance from them; the first is the clean run."""
    clean = random(SCORED, model.config.d_model, seed=3).float()
    moved = clean + distance * random(candidates, SCORED, model.config.d_model, seed=4).float()
    moved[0] = clean
    return clean.to(model.dtype), moved.to(model.dtype)


def largest_shift(logits, reference):
    """A user's own metric."""
    assert logits.shape == reference.logits.shape
    return (logits - reference.logits).abs().amax(dim=-1)


EVERY_METRIC = {**METRICS, "largest_shift": Metric("largest_shift", largest_shift, "a user's own")}


@torch.no_grad()
def both_ways(model, metric, clean, x, chunk=HUGE, outputs=None):
    """The metric `[candidates, scored]` from streams, and from whole logits.

    One answer is the clean run's favourite, one wrong answer the last candidate's (but for that one); the others are
    arbitrary.
    """
    logits = model.logits(clean)
    answers = torch.tensor([[0, NO_TOKEN, NO_TOKEN], [0, 2, NO_TOKEN], [0, 5, 6], [0, 1, NO_TOKEN]])
    wrong = torch.tensor([[0, 9], [0, NO_TOKEN], [0, NO_TOKEN], [0, 12]])
    answers[:, 0] = logits.argmax(dim=-1)
    wrong[:, 0] = model.logits(x[-1]).scatter(1, answers[:, :1], -torch.inf).argmax(dim=-1)
    reference = Reference(logits, answers, wrong, outputs)
    metric = EVERY_METRIC[metric]
    found = scorer_for(model, metric, reference, clean, chunk)(x)
    wanted = torch.stack([metric(model.logits(one), reference) for one in x])
    assert found.shape == wanted.shape == (len(x), SCORED)
    assert found.dtype == wanted.dtype
    return found, wanted


def assert_same(found, wanted, tolerance=1e-10):
    assert wanted.isfinite().all()
    assert wanted.max() - wanted.min() > 0.01, "there is something to compare"
    assert (found - wanted).abs().max() <= tolerance * max(1.0, wanted.abs().max().item())


@pytest.mark.parametrize(
    ("family", "metric", "chunk"),
    tiny.slow_unless(
        lambda family, metric, chunk: chunk == 10_000 or family in ("gpt2", "llama", "plain"),
        product(tiny.FAMILIES, EVERY_METRIC, (1, 10_000, HUGE)),
    ),
)
def test_every_metric_is_that_of_the_whole_logits(family, metric, chunk):
    model = decoder(family)
    tolerance = 1e-6 if "llama" in family else 1e-10  # Llama's norm rounds to float32
    assert_same(*both_ways(model, metric, *streams(model, 3.0), chunk), tolerance)
    assert_same(*both_ways(model, metric, *streams(model, 3.0, candidates=2), chunk), tolerance)


def test_a_bias_of_the_unembedding_matters_and_is_counted():
    model = decoder("plain")
    assert model.unembedding.bias.abs().max() > 0.1
    without = dataclasses.replace(model, unembedding=Unembedding(model.unembedding.weight, None))
    for metric in ("kl_div", "logit_diff", "nll"):
        found, wanted = both_ways(model, metric, *streams(model, 1.0))
        assert_same(found, wanted)
        assert (found - both_ways(without, metric, *streams(model, 1.0))[0]).abs().max() > 0.01


@pytest.mark.parametrize("chunk", [1, 300_000, HUGE])
@pytest.mark.parametrize("metric", EVERY_METRIC)
@pytest.mark.parametrize("family", ["gpt2", "plain"])
def test_a_large_vocabulary_gives_the_same_in_pieces_and_whole(family, metric, chunk):
    model = decoder(family, vocabulary=9000, size=3.0)
    assert_same(*both_ways(model, metric, *streams(model, 1.0), chunk))


def test_logits_in_hand_never_take_more_than_the_chunk(monkeypatch):
    widths, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda x, y: widths.append(x.shape[-1]) or bmm(x, y))
    model = decoder(vocabulary=9000)
    clean, x = streams(model, 1.0)
    for columns in (0, 1000, 10_000):
        both_ways(model, "kl_div", clean, x, chunk=columns * 8 * len(x) * SCORED)
    assert widths == [256] * 35 + [40] + [1000] * 9 + [4096, 4096, 808]


@pytest.mark.parametrize("outputs", [(0,), (1, 7, 30), tuple(range(35)), None])
@pytest.mark.parametrize("family", ["gpt2", "plain"])
def test_l2_looks_at_the_outputs_that_mean_something_alone(family, outputs):
    model = decoder(family)
    found, wanted = both_ways(model, "l2", *streams(model, 1.0), outputs=outputs)
    assert_same(found, wanted)
    if outputs is not None:
        assert (wanted - both_ways(model, "l2", *streams(model, 1.0))[1]).abs().max() > 0.01


@pytest.mark.parametrize("chunk", [1, 20_000, HUGE])
def test_a_function_of_the_users_own_sees_one_candidates_whole_logits_at_a_time(chunk):
    model, shapes = decoder(), []

    def own(logits, reference):
        shapes.append(tuple(logits.shape))
        return METRICS["nll"](logits, reference)

    clean, x = streams(model, 1.0)
    reference = Reference(model.logits(clean), torch.tensor([[1]] * SCORED), None)
    with torch.no_grad():
        found = scorer_for(model, Metric("own", own, ""), reference, clean, chunk)(x)
        wanted = scorer_for(model, METRICS["nll"], reference, clean, chunk)(x)
    assert shapes == [(SCORED, tiny.VOCABULARY)] * len(x)
    assert_same(found, wanted)


# -- far from the clean run, and near --------------------------------------------------------------------------------

OF_PROBABILITIES = ("kl_div", "prob_diff", "nll", "match_nll")


@pytest.mark.parametrize("chunk", [1, HUGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "plain"])
@pytest.mark.parametrize("metric", OF_PROBABILITIES)
def test_a_run_so_far_away_that_exponentials_overflow_is_measured_too(metric, family, dtype, chunk, monkeypatch):
    taken, far = [], scoring._Divergence._log_s_far
    monkeypatch.setattr(scoring._Divergence, "_log_s_far", lambda *inputs: taken.append(None) or far(*inputs))
    model = decoder(family, dtype, vocabulary=600, size=500.0)
    found, wanted = both_ways(model, metric, *streams(model, 3.0), chunk)
    assert len(taken) == 1
    assert wanted.max() > (0.9 if metric == "prob_diff" else 800)
    # A probability has the rounding of the logarithms of 500 and more that it comes from; the others are logarithms.
    rounded = 1e-3 if metric == "prob_diff" else 1e-5
    assert_same(found, wanted, 1e-10 if dtype == torch.float64 else rounded)
    both_ways(model, metric, *streams(model, 1e-3), chunk)
    assert len(taken) == 1, "a near run does without"


@pytest.mark.parametrize(
    ("metric", "distance", "size"),
    tiny.slow_unless(
        lambda metric, distance, size: size in (1.0, 100.0),
        product((*OF_PROBABILITIES, "logit_diff", "l2"), (1e-4, 0.01, 0.3, 3.0), (1.0, 20.0, 60.0, 100.0)),
    ),
)
def test_float32_costs_about_as_many_digits_as_with_whole_logits(metric, distance, size):
    model, exact = (decoder(dtype=dtype, vocabulary=600, size=size) for dtype in (torch.float32, torch.float64))
    clean, x = streams(model, distance)
    found, wanted = both_ways(model, metric, clean, x)
    truth, _ = both_ways(exact, metric, clean.double(), x.double())
    error, usual = ((one - truth).abs().max() for one in (found, wanted))
    assert found.dtype == torch.float32
    assert truth.abs().max() > 0
    assert error <= 10 * usual + 1e-6 * size


def test_sums_over_a_large_vocabulary_keep_their_digits_in_float32_for_few_candidates_too():
    model, exact = (decoder(dtype=dtype, vocabulary=50_000, size=3.0) for dtype in (torch.float32, torch.float64))
    clean, x = streams(model, 0.5, candidates=2)
    for given in (x, x[1:]):
        found, _ = both_ways(model, "kl_div", clean, given)
        truth, _ = both_ways(exact, "kl_div", clean.double(), given.double())
        assert truth.max() > 0.1
        assert (found - truth).abs().max() < 3e-6


def test_small_divergences_keep_their_digits_in_float32():
    model, exact = (decoder(dtype=dtype, vocabulary=600) for dtype in (torch.float32, torch.float64))
    for distance in (1e-4, 1e-3):
        clean, x = streams(model, distance)
        found, _ = both_ways(model, "kl_div", clean, x)
        truth, _ = both_ways(exact, "kl_div", clean.double(), x.double())
        assert 0 < truth.max() < 1e-5
        assert (found - truth).abs().max() < 1e-2 * truth.max()


def with_logits(weight, dtype):
    """A model whose norm does nothing, so that its logits are `weight` times a stream."""
    model = tiny.gpt2(dtype=dtype, layers=1)
    config = dataclasses.replace(model.config, d_model=weight.shape[1], d_vocab=len(weight))
    head = Unembedding(weight.to(dtype), None)
    return dataclasses.replace(model, config=config, final_norm=lambda x: x, unembedding=head)


@pytest.mark.parametrize("depth", [80.0, 88.0, 95.0, 100.0, 105.0, 120.0])
def test_tokens_that_the_clean_run_all_but_rules_out_may_come_back(depth):
    """In float32 a probability of exp(-depth) has lost its digits, or vanished, while exp(rise) nears overflow."""
    clean = torch.tensor([[1.0, 0.0]]).repeat(SCORED, 1)
    x = torch.tensor([[1.0, 0.0], [1.0, 0.5], [1.0, 1.0]])[:, None].repeat(1, SCORED, 1)
    for rise in (60.0, 80.0, 88.0, 95.0, 120.0, 200.0):
        weight = torch.tensor([[0.0, 1.0]] + 500 * [[-depth, rise]])
        found, _ = both_ways(with_logits(weight, torch.float32), "kl_div", clean, x)
        exact, truth = both_ways(with_logits(weight, torch.float64), "kl_div", clean.double(), x.double())
        assert (exact - truth).abs().max() < 1e-12
        assert (found - truth).abs().max() < 2e-5
    assert truth.max() > 80


def capped(model):
    """The model with a softcap behind its unembedding, and a source model that has it too."""
    head = dataclasses.replace(model.unembedding, finish=softcap)
    run = model.run_source
    return dataclasses.replace(model, unembedding=head, run_source=lambda *given: softcap(run(*given)))


def softcap(logits):
    return 2 * torch.tanh(logits / 2)


@pytest.mark.parametrize("metric", ["kl_div", "logit_diff", "logit_diff_max", "prob_diff", "nll", "l2"])
def test_a_softcap_behind_the_unembedding_counts_in_every_metric(metric):
    plain = tiny.gpt2(dtype=torch.float64, layers=2, heads=2)
    model, task = capped(plain), tiny.task()
    check(model, task.prompts.clean, task.prompts.mask)
    experiment = Experiment(model, task, metric=metric)
    found = acdc(experiment, 0.01)
    assert found.metric == pytest.approx(experiment.value(found.circuit), rel=1e-9, abs=1e-12)
    assert [one.kept for one in found.trace] == [one.kept for one in acdc(experiment, 0.01, engine="plain").trace]
    without = Experiment(plain, task, metric=metric)
    assert found.metric_ablated != pytest.approx(without.ablated(), rel=0.001)


def test_an_unembedding_that_passes_for_linear_is_refused_by_the_guard():
    class Passing(Unembedding):
        def __call__(self, x):
            return softcap(super().__call__(x))

    model, prompts = tiny.gpt2(), tiny.prompts()
    head, run = model.unembedding, model.run_source
    passing = dataclasses.replace(
        model, unembedding=Passing(head.weight, head.bias), run_source=lambda *given: softcap(run(*given))
    )
    with pytest.raises(EdgewiseError, match="the unembedding behind it, read as linear, differs"):
        check(passing, prompts.clean, prompts.mask)
