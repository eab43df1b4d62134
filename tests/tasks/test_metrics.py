"""Each metric against a slow loop in plain Python, and the refusal of metrics that a task cannot have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.tasks import METRICS, Metric, PromptText, Reference, Task, find_metric, mean_over_places
from edgewise.tasks.task import NO_TOKEN, last_token_prompts

VOCABULARY = 7
# Rows of several answers are filled up with NO_TOKEN, as last_token_prompts does.
ANSWERS = [[0, 3, NO_TOKEN], [2, NO_TOKEN, NO_TOKEN], [6, 5, 1], [4, 2, NO_TOKEN]]
WRONG = [[1, 2], [3, NO_TOKEN], [0, NO_TOKEN], [0, 6]]


def random_logits(seed: int, places: int = len(ANSWERS), dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.randn(places, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(logits: Tensor, outputs: tuple[int, ...] | None = None) -> Reference:
    return Reference(logits, torch.tensor(ANSWERS), torch.tensor(WRONG), outputs)


# --- the metrics, number by number ------------------------------------------------------------------------------------

Row = Sequence[float]


def softmax(row: Row) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def real(ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token != NO_TOKEN]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def slow_kl_div(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(softmax(p), softmax(q), strict=True))


def slow_logit_diff(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    return -(mean([q[token] for token in answers]) - mean([q[token] for token in wrong]))


def slow_prob_diff(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    probabilities = softmax(q)
    return -(sum(probabilities[token] for token in answers) - sum(probabilities[token] for token in wrong))


def slow_nll(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    probabilities = softmax(q)
    return -math.log(sum(probabilities[token] for token in answers))


def slow_match_nll(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    return slow_nll(q, p, answers, wrong) - slow_nll(p, p, answers, wrong)


def slow_l2(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    return mean([(a - b) ** 2 for a, b in zip(p, q, strict=True)])


def slow_frac_correct(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    return -1.0 if max(q[token] for token in answers) > max(q[token] for token in wrong) else 0.0


def slow_logit_diff_max(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    return max(q[token] for token in wrong) - max(q[token] for token in answers)


def slow_log_prob_diff(q: Row, p: Row, answers: list[int], wrong: list[int]) -> float:
    log_q = [math.log(share) for share in softmax(q)]
    return mean([log_q[token] for token in wrong]) - mean([log_q[token] for token in answers])


SLOW: dict[str, Callable[[Row, Row, list[int], list[int]], float]] = {
    "kl_div": slow_kl_div,
    "logit_diff": slow_logit_diff,
    "logit_diff_max": slow_logit_diff_max,
    "log_prob_diff": slow_log_prob_diff,
    "prob_diff": slow_prob_diff,
    "nll": slow_nll,
    "match_nll": slow_match_nll,
    "l2": slow_l2,
    "frac_correct": slow_frac_correct,
}


def test_every_metric_has_its_slow_twin() -> None:
    assert set(SLOW) == set(METRICS)


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("seed", range(5))
def test_a_metric_equals_the_loop_that_spells_it_out(name: str, seed: int) -> None:
    q, p = random_logits(seed), random_logits(seed + 100)
    expected = [
        SLOW[name](one, other, real(answers), real(wrong))
        for one, other, answers, wrong in zip(q.tolist(), p.tolist(), ANSWERS, WRONG, strict=True)
    ]
    assert any(expected)
    measured = METRICS[name](q, reference(p))
    assert measured.shape == (len(ANSWERS),)
    assert measured.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_frac_correct_tells_right_from_wrong_and_a_tie_is_wrong() -> None:
    logits = torch.zeros(4, VOCABULARY)
    logits[0, 3] = 1.0  # the second of two answers is ahead
    logits[1, 3] = 1.0  # the wrong answer is ahead
    logits[2, 4] = 9.0  # what is ahead is neither, and answers and wrong answers tie
    logits[3, 2], logits[3, 6] = 1.0, 2.0  # one answer is ahead of one wrong answer, but not of both
    assert METRICS["frac_correct"](logits, reference(logits)).tolist() == [-1, 0, 0, 0]


def test_l2_looks_at_the_outputs_that_mean_something() -> None:
    q, p = random_logits(1), random_logits(2)
    expected = [((a[0] - b[0]) ** 2 + (a[4] - b[4]) ** 2) / 2 for a, b in zip(q.tolist(), p.tolist(), strict=True)]
    assert METRICS["l2"](q, reference(p, outputs=(0, 4))).tolist() == pytest.approx(expected)


# --- what they mean ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(-50, 50))
@settings(deadline=None, max_examples=50)
def test_the_divergence_is_zero_for_the_same_distribution_and_positive_for_another(seed: int, shift: float) -> None:
    p = random_logits(seed)
    same = METRICS["kl_div"](p + shift, reference(p))  # a constant on all logits changes no probability
    assert same.abs().max() < 1e-12
    other = METRICS["kl_div"](random_logits(seed + 1), reference(p))
    assert other.min() > 1e-3


def test_the_divergence_is_positive_at_the_place_that_differs_and_only_there() -> None:
    p = random_logits(0)
    q = p.clone()
    q[2, 5] += 0.1
    values = METRICS["kl_div"](q, reference(p))
    assert values[2] > 1e-6
    assert values[[0, 1, 3]].tolist() == [0, 0, 0]


def test_the_divergence_is_from_the_model_and_not_to_it() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): D(p || q) = 0.1308 nats, D(q || p) = 0.1438.
    p, q = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert METRICS["kl_div"](q, Reference(p, None, None)).item() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.1308, abs=1e-4)


@pytest.mark.parametrize("name", ["logit_diff", "prob_diff", "nll", "match_nll"])
def test_a_better_answer_is_a_lower_number(name: str) -> None:
    p = random_logits(0)
    better, worse = p.clone(), p.clone()
    for place, (answers, wrong) in enumerate(zip(ANSWERS, WRONG, strict=True)):
        better[place, real(answers)] += 2
        worse[place, real(wrong)] += 2
    metric, judged = METRICS[name], reference(p)
    assert (metric(better, judged) < metric(p, judged)).all()
    assert (metric(p, judged) < metric(worse, judged)).all()


def test_the_model_matches_its_own_likelihood_and_logits() -> None:
    p = random_logits(0)
    assert METRICS["match_nll"](p, reference(p)).tolist() == [0, 0, 0, 0]
    assert METRICS["l2"](p, reference(p)).tolist() == [0, 0, 0, 0]
    assert METRICS["nll"](p, reference(p)).min() > 0.01


@pytest.mark.parametrize("name", SLOW)
def test_very_large_logits_give_no_infinities(name: str) -> None:
    p, q = 1e4 * random_logits(3, dtype=torch.float32), 1e4 * random_logits(4, dtype=torch.float32)
    assert METRICS[name](q, reference(p)).isfinite().all()


@pytest.mark.parametrize("name", sorted(set(SLOW) - {"frac_correct"}))
def test_a_metric_has_a_gradient(name: str) -> None:
    q = random_logits(1).requires_grad_()
    METRICS[name](q, reference(random_logits(2))).mean().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()
    assert q.grad.abs().sum(dim=1).min() > 1e-3


def test_the_mean_over_places_is_taken_in_double_precision() -> None:
    values = torch.tensor([1e8, 1.0, -1e8, 1.0])  # in single precision, 1e8 + 1 is 1e8
    assert mean_over_places(values) == 0.5


# --- which metric a task can have -------------------------------------------------------------------------------------


def task(answers: bool = True, wrong: bool = True, metrics: tuple[str, ...] = tuple(METRICS)) -> Task:
    return Task(
        name="mine",
        prompts=last_token_prompts([[1, 2]], [[1, 3]], [[4]] if answers else None, [[5]] if wrong else None),
        text=(PromptText("1 2", "1 3"),),
        metric="kl_div",
        metrics=metrics,
        why_no_answers="line 3: answer 'Mississippi' is 4 tokens",
    )


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_found_by_name(name: str) -> None:
    found = find_metric(name, task())
    assert found.name == name
    assert find_metric(found, task()) is found


def test_without_a_name_it_is_the_tasks_own_metric() -> None:
    assert find_metric(None, task()).name == "kl_div"


def test_an_unknown_metric_is_refused_with_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(
        EdgewiseError, match=r"unknown metric 'kl_dov'; did you mean 'kl_div'.*known: kl_div, logit_diff"
    ):
        find_metric("kl_dov", task())


def test_a_metric_that_means_nothing_on_the_task_is_refused_with_those_that_do() -> None:
    with pytest.raises(EdgewiseError, match=r"metric 'kl_div' means nothing on task 'mine' \(it takes: l2, nll\)"):
        find_metric("kl_div", task(metrics=("l2", "nll")))
    with pytest.raises(EdgewiseError, match="means nothing"):
        find_metric(METRICS["kl_div"], task(metrics=("l2", "nll")))


@pytest.mark.parametrize(
    ("name", "answers", "wrong", "needed"),
    [
        ("nll", False, True, "answers"),
        ("match_nll", False, True, "answers"),
        ("logit_diff", False, True, "answers"),
        ("logit_diff", True, False, "wrong answers"),
        ("prob_diff", True, False, "wrong answers"),
        ("frac_correct", True, False, "wrong answers"),
    ],
)
def test_a_metric_without_its_answers_is_refused_with_the_reason(
    name: str, answers: bool, wrong: bool, needed: str
) -> None:
    with pytest.raises(EdgewiseError) as caught:
        find_metric(name, task(answers, wrong))
    expected = f"metric '{name}' needs {needed} of one token each: line 3: answer 'Mississippi' is 4 tokens"
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["kl_div", "l2"])
def test_a_metric_that_needs_no_answers_does_without(name: str) -> None:
    assert find_metric(name, task(answers=False, wrong=False)).name == name


@pytest.mark.parametrize("name", ["nll", "match_nll"])
def test_a_metric_that_needs_no_wrong_answers_does_without_them(name: str) -> None:
    found = find_metric(name, task(wrong=False))
    p = random_logits(5)
    values = found(p, Reference(p, torch.tensor(ANSWERS), None))
    assert values.shape == (4,)


def test_a_function_of_ones_own_is_a_metric() -> None:
    def first_logit(logits: Tensor, reference: Reference) -> Tensor:
        return logits[:, 0]

    found = find_metric(first_logit, task(answers=False, wrong=False, metrics=("l2",)))
    assert found.name == "first_logit"
    logits = random_logits(6)
    assert found(logits, reference(logits)).tolist() == logits[:, 0].tolist()
    assert find_metric(Metric("own", first_logit, "mine"), task(metrics=("l2",))).name == "own"


@pytest.mark.parametrize(
    "metric",
    [
        Metric("l2", lambda logits, _: logits[:, 0], "mine"),
        Metric("l2", METRICS["kl_div"].function, "mine"),
        Metric("kl_div", METRICS["kl_div"].function, "another summary"),
    ],
)
def test_a_metric_of_ones_own_is_never_taken_for_the_built_in_of_its_name(metric: Metric) -> None:
    assert find_metric(metric, task()).name == f"own_{metric.name}"
    assert find_metric(find_metric(metric, task()), task()).name == f"own_{metric.name}"


def _in_place(logits: Tensor, reference: Reference) -> Tensor:
    logits[:, 1] = 0
    return logits[:, 0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda logits, _: None,
            r"returned None; it should return a tensor of one number per scored place, here \[4\]",
        ),
        (lambda logits, _: 0.5, "returned a value of type float"),
        (lambda logits, _: logits.mean(), r"returned a tensor of shape \[\]"),
        (lambda logits, _: logits, r"returned a tensor of shape \[4, 7\]"),
        (lambda logits, _: logits.flatten()[:5], r"returned a tensor of shape \[5\]; .* here \[4\]"),
        (lambda logits, _: logits[:, 0] + 0j, "complex"),
        (_in_place, "changes the logits that it is given"),
        (lambda logits, reference: reference.logits.zero_()[:, 0], "changes the logits"),
    ],
)
def test_a_function_that_is_no_metric_is_refused_in_a_sentence(function, said: str) -> None:
    metric = find_metric(function, task())
    with pytest.raises(EdgewiseError, match=said):
        metric(random_logits(7), reference(random_logits(8)))


def test_a_function_without_a_gradient_is_refused_where_one_is_needed_and_only_there() -> None:
    metric = find_metric(lambda logits, _: torch.tensor(logits.tolist())[:, 0], task())
    logits = random_logits(9)
    assert metric(logits, reference(logits)).shape == (4,)
    with pytest.raises(EdgewiseError, match="has no gradient in the logits, which this method needs"):
        metric(logits.requires_grad_(), reference(logits))
