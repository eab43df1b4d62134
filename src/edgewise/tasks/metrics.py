"""Metrics: logits -> one number per scored place. Lower is always better; a metric's value is the mean over places.

p is the model's distribution on the clean prompt, q that of the patched run; formulas are those of the ACDC paper's
code.

| name | formula at one place |
|---|---|
| `kl_div` | sum over the vocabulary of p (log p - log q) |
| `logit_diff` | -(mean logit of the answers - mean logit of the wrong answers) |
| `logit_diff_max` | -(best logit of the answers - best logit of the wrong answers) |
| `log_prob_diff` | -(log-probability of the answers - that of the wrong answers), each the mean over several |
| `prob_diff` | -(probability of the answers - probability of the wrong answers) |
| `nll` | -log of the probability of the answers |
| `match_nll` | nll of the patched run - nll of the model |
| `l2` | mean over outputs of (patched logit - model's logit) squared |
| `frac_correct` | -1 if the best answer's logit is above the best wrong answer's, else 0 |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, unknown
from edgewise.models.precision import in_float64
from edgewise.tasks.task import NO_TOKEN, Task


@dataclass(frozen=True)
class Reference:
    """What logits are judged against, for the scored places of some rows.

    Attributes:
        logits: `[scored, d_vocab]`, the model's own on the clean prompts.
        answers, wrong: `[scored, k]` token ids, filled up with NO_TOKEN; None where the task has none.
        outputs: the columns that mean something, or None for all.
        sequences: `[scored]`, the pair that each place belongs to, where answers are sequences; else None.
    """

    logits: Tensor
    answers: Tensor | None
    wrong: Tensor | None
    outputs: tuple[int, ...] | None = None
    sequences: Tensor | None = None

    @staticmethod
    def of(task: Task, logits: Tensor) -> Reference:
        """What a task judges against, with the model's own logits `[scored, d_vocab]`."""
        prompts = task.prompts
        return Reference(logits, prompts.answers, prompts.wrong, task.outputs, prompts.sequences)

    def at(self, places: Tensor) -> Reference:
        """The same for some of the scored places, by number or as a mask over them."""
        answers = None if self.answers is None else self.answers[places]
        wrong = None if self.wrong is None else self.wrong[places]
        sequences = None if self.sequences is None else self.sequences[places]
        return Reference(self.logits[places], answers, wrong, self.outputs, sequences)


MetricFunction = Callable[[Tensor, Reference], Tensor]
"""Patched logits `[scored, d_vocab]` and what to judge them against -> one number per scored place `[scored]`."""


@dataclass(frozen=True)
class Metric:
    """A metric by name. `needs` says which of `answers` and `wrong` it reads."""

    name: str
    function: MetricFunction
    summary: str
    needs: tuple[str, ...] = ()

    def __call__(self, logits: Tensor, reference: Reference) -> Tensor:
        """`[scored, d_vocab]` -> `[scored]`."""
        return self.function(logits, reference)


def kl_div(logits: Tensor, reference: Reference) -> Tensor:
    """Kullback-Leibler divergence of the patched run from the model, in nats."""
    log_p, log_q = reference.logits.log_softmax(dim=-1), logits.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def logit_diff(logits: Tensor, reference: Reference) -> Tensor:
    """Minus the mean logit of the answers over that of the wrong answers."""
    return _mean_at(logits, reference.wrong) - _mean_at(logits, reference.answers)


def logit_diff_max(logits: Tensor, reference: Reference) -> Tensor:
    """Minus the best answer's logit over the best wrong answer's: the docstring task's own metric."""
    right, wrong = _best(logits, reference)
    return wrong - right


def log_prob_diff(logits: Tensor, reference: Reference) -> Tensor:
    """Minus the answers' log-probability over the wrong answers', in nats.

    The same as `logit_diff` where a place has both. Where answers are sequences, a place has the next token of one; the
    mean over places, times places per pair, is the difference between the sequences' log-probabilities.
    """
    log_q = logits.log_softmax(dim=-1)
    return _mean_at(log_q, reference.wrong) - _mean_at(log_q, reference.answers)


def prob_diff(logits: Tensor, reference: Reference) -> Tensor:
    """Minus the probability of the answers over that of the wrong answers."""
    probabilities = logits.softmax(dim=-1)
    return _sum_at(probabilities, reference.wrong) - _sum_at(probabilities, reference.answers)


def nll(logits: Tensor, reference: Reference) -> Tensor:
    """Negative log-likelihood of the answers (of any of them, where there are several), in nats."""
    log_q = _gather(logits.log_softmax(dim=-1), reference.answers, fill=-math.inf)
    return -log_q.logsumexp(dim=-1)


def match_nll(logits: Tensor, reference: Reference) -> Tensor:
    """How much the patched run's nll exceeds the model's; negative where it is better."""
    return nll(logits, reference) - nll(reference.logits, reference)


def l2(logits: Tensor, reference: Reference) -> Tensor:
    """Mean squared difference from the model's logits."""
    squared = (logits - reference.logits) ** 2
    return (squared if reference.outputs is None else squared[:, list(reference.outputs)]).mean(dim=-1)


def frac_correct(logits: Tensor, reference: Reference) -> Tensor:
    """-1 where an answer beats every wrong answer."""
    right, wrong = _best(logits, reference)
    return -(right > wrong).to(logits.dtype)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("kl_div", kl_div, "divergence from the full model's distribution"),
        Metric("logit_diff", logit_diff, "minus (answers' logit - wrong answers' logit)", ("answers", "wrong")),
        Metric(
            "logit_diff_max", logit_diff_max, "minus (best answer's logit - best wrong one's)", ("answers", "wrong")
        ),
        Metric(
            "log_prob_diff", log_prob_diff, "minus (answers' log-probability - wrong answers')", ("answers", "wrong")
        ),
        Metric("prob_diff", prob_diff, "minus (answers' probability - wrong answers')", ("answers", "wrong")),
        Metric("nll", nll, "negative log-likelihood of the answers", ("answers",)),
        Metric("match_nll", match_nll, "nll above the full model's", ("answers",)),
        Metric("l2", l2, "mean squared difference from the full model's logits"),
        Metric("frac_correct", frac_correct, "minus the share of prompts answered right", ("answers", "wrong")),
    )
}


def find_metric(metric: str | Metric | MetricFunction | None, task: Task) -> Metric:
    """The metric called `metric` (by default the task's), or a function of the user's own, checked against the task.

    Raises:
        EdgewiseError: no metric of that name, one that means nothing on this task, or one that needs answers that the
            task lacks.
    """
    if metric is None:
        metric = task.metric
    if isinstance(metric, Metric):
        built_in = METRICS.get(metric.name) == metric
        found = metric if built_in else _own(metric.name, metric.function, metric.summary, metric.needs)
    elif callable(metric):
        found = _own(getattr(metric, "__name__", "custom"), metric, "the user's own function")
    elif metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    else:
        found = METRICS[metric]
    if found.name in METRICS and found.name not in task.metrics:
        raise EdgewiseError(
            f"metric {found.name!r} means nothing on task {task.name!r} (it takes: {', '.join(task.metrics)})"
        )
    for need in found.needs:
        if getattr(task.prompts, need) is None:
            raise EdgewiseError(f"metric {found.name!r} needs {_NEEDS[need]}: {task.why_no_answers}")
    return found


def _own(name: str, function: MetricFunction, summary: str, needs: tuple[str, ...] = ()) -> Metric:
    """A metric of the user's own, every answer of which is checked; under a name that no built-in metric has."""
    if not isinstance(function, _Checked) and function not in [one.function for one in METRICS.values()]:
        function = _Checked(name, function)
    # A run must never be taken for one with the built-in metric of the same name.
    return Metric(f"own_{name}" if name in METRICS else name, function, summary, needs)


@dataclass(frozen=True)
class _Checked:
    """A function of the user's own; calling it raises an EdgewiseError if it is no metric or changes its arguments."""

    name: str
    function: MetricFunction

    def __call__(self, logits: Tensor, reference: Reference) -> Tensor:
        versions = (logits._version, reference.logits._version)
        values = self.function(logits, reference)
        if (logits._version, reference.logits._version) != versions:
            raise EdgewiseError(f"metric {self.name!r} changes the logits that it is given; let it work on a copy")
        wanted = f"it should return a tensor of one number per scored place, here [{len(logits)}]"
        if not isinstance(values, Tensor):
            raise EdgewiseError(f"metric {self.name!r} returned {_kind(values)}; {wanted}")
        if values.shape != logits.shape[:1]:
            raise EdgewiseError(f"metric {self.name!r} returned a tensor of shape {list(values.shape)}; {wanted}")
        if values.is_complex():
            raise EdgewiseError(f"metric {self.name!r} returned complex numbers; {wanted}")
        if torch.is_grad_enabled() and logits.requires_grad and not values.requires_grad:
            raise EdgewiseError(
                f"metric {self.name!r} has no gradient in the logits, which this method needs: it should be made of "
                "torch's own operations, without detach(), item() or numpy(). Method 'exact' or 'acdc' takes any metric"
            )
        return values


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def metrics_of(task: Task) -> list[Metric]:
    """The metrics that make sense on a task and have the answers they need, in the task's order."""
    return [
        METRICS[name]
        for name in task.metrics
        if all(getattr(task.prompts, need) is not None for need in METRICS[name].needs)
    ]


_NEEDS = {"answers": "answers of one token each", "wrong": "wrong answers of one token each"}


def _gather(values: Tensor, ids: Tensor | None, fill: float) -> Tensor:
    """`values[place, ids[place]]` as `[scored, k]`, with `fill` where there is no token."""
    assert ids is not None, "find_metric checks what a metric needs"
    return values.gather(1, ids.clamp_min(0)).masked_fill(ids == NO_TOKEN, fill)


def _best(logits: Tensor, reference: Reference) -> tuple[Tensor, Tensor]:
    """The highest logit among the answers and among the wrong answers, each `[scored]`."""
    right, wrong = (_gather(logits, ids, fill=-math.inf) for ids in (reference.answers, reference.wrong))
    return right.amax(dim=-1), wrong.amax(dim=-1)


def _sum_at(values: Tensor, ids: Tensor | None) -> Tensor:
    return _gather(values, ids, fill=0.0).sum(dim=-1)


def _mean_at(values: Tensor, ids: Tensor | None) -> Tensor:
    assert ids is not None, "find_metric checks what a metric needs"
    return _sum_at(values, ids) / (ids != NO_TOKEN).sum(dim=-1).clamp_min(1)


def right_answers(logits: Tensor, reference: Reference) -> Tensor | None:
    """Whether the answer is right at every scored place, `[scored]`; None on a task without answers.

    One answer is right if it beats every wrong answer or, where the task has no wrong answers, every other token. Where
    a place has several answers, they have to be likelier together than the wrong ones. Where answers are sequences, all
    places of a pair are right if its answer is likelier as a whole than its wrong answer.
    """
    if reference.answers is None:
        return None
    if reference.sequences is not None and reference.wrong is not None:
        pairs, at = reference.sequences.unique(return_inverse=True)
        difference = log_prob_diff(logits, reference)
        return difference.new_zeros(len(pairs)).index_add_(0, at, difference)[at] < 0
    if reference.wrong is not None:
        several = (reference.answers != NO_TOKEN).sum(dim=-1) > 1
        return torch.where(several, prob_diff(logits, reference) < 0, frac_correct(logits, reference) < 0)
    return (logits.argmax(dim=-1, keepdim=True) == reference.answers).any(dim=-1)


def share_by_chance(task: Task) -> float:
    """The share of places that guessing gets right: one answer among the wrong ones, or either of two sets of them."""
    prompts = task.prompts
    if prompts.answers is None or prompts.wrong is None:
        return 0.0
    if prompts.sequences is not None:
        return 0.5
    right, wrong = ((ids != NO_TOKEN).sum(dim=-1) for ids in (prompts.answers, prompts.wrong))
    return float(torch.where(right > 1, 0.5, 1 / (1 + wrong)).mean())


def mean_over_places(values: Tensor) -> float:
    """A metric's value: the mean over scored places `[scored]`, summed in float64."""
    return in_float64(values).mean().item()
