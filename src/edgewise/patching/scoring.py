"""From final residual streams to the metric, with no more of the vocabulary than the metric needs.

The clean run is the base: with y the final norm's output at a scored place and l = W_U y + b_U its logits there, a
patched run has l' = l + t, where t = W_U (y' - y). The bias cancels, and for p = softmax(l), q = softmax(l'),

    log q_i = log p_i + t_i - log s,   s = sum_i p_i exp(t_i)
    KL(p || q) = log s - (W_U^T p) . (y' - y)

so the clean run's expectation is a vector in d_model, only s needs the vocabulary, and it can go through it in chunks.
Small differences from the clean run keep all their digits this way. A difference of logits needs a few columns, a mean
square a d_model x d_model matrix, and a metric that edgewise does not know its whole logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from edgewise.models import Decoder
from edgewise.models.components import stream_dtype
from edgewise.models.precision import sum_dtype
from edgewise.tasks import METRICS, Metric, Reference
from edgewise.tasks.task import NO_TOKEN

MOST_TOKENS = 4096
"""Tokens summed up in float32, before sums go on in float64."""

Scorer = Callable[[Tensor], Tensor]
"""Final residual streams `[candidates, scored, d_model]` -> the metric at every scored place `[candidates, scored]`."""


def scorer_for(decoder: Decoder, metric: Metric, reference: Reference, clean: Tensor, chunk_bytes: int) -> Scorer:
    """The cheapest way to a metric.

    Args:
        reference: the model's logits at the scored places, and the answers.
        clean: `[scored, d_model]`, the clean run's final residual stream there.
        chunk_bytes: how much the logits in hand may take at any time.
    """
    function = metric.function
    # A permuted network's reference is another model's, so that nothing here starts from the clean run; and every other
    # way takes logits apart, which only a linear unembedding allows.
    if decoder.original is not None or not decoder.unembedding.linear:
        return _WholeLogits(decoder, metric, reference, chunk_bytes)
    if function in (METRICS["kl_div"].function, *_WITH_ANSWERS):
        return _Divergence(decoder, metric, reference, clean, chunk_bytes)
    if metric is METRICS["logit_diff"]:
        return _LogitDiff(decoder, reference)
    if metric is METRICS["logit_diff_max"]:  # not frac_correct, where a tie has to stay one to the last bit
        return _AnswerLogits(decoder, metric, reference)
    if metric is METRICS["l2"]:
        return _SquaredDistance(decoder, reference, clean)
    return _WholeLogits(decoder, metric, reference, chunk_bytes)


class _WholeLogits:
    """Any metric at all: the logits of each candidate, one after another."""

    def __init__(self, decoder: Decoder, metric: Metric, reference: Reference, chunk_bytes: int) -> None:
        self.decoder, self.metric, self.reference = decoder, metric, reference
        self.at_once = max(1, chunk_bytes // reference.logits.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        pieces = [self.decoder.logits(part) for part in x.split(self.at_once)]
        return torch.stack([self.metric(logits, self.reference) for piece in pieces for logits in piece])


def _normed(decoder: Decoder, x: Tensor) -> Tensor:
    return decoder.final_norm(x.to(decoder.dtype))


def mean_column(decoder: Decoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The unembedding's mean column `[scored, d_model]` and mean bias `[scored]` of some tokens `[scored, k]`."""
    head, real, dtype = decoder.unembedding, ids != NO_TOKEN, stream_dtype(decoder.dtype)
    share = real.to(dtype) / real.sum(dim=1, keepdim=True)
    columns = head.weight[ids.clamp_min(0)].to(dtype)
    bias = torch.zeros_like(share) if head.bias is None else head.bias[ids.clamp_min(0)].to(dtype)
    return torch.einsum("sk,skd->sd", share, columns), (share * bias).sum(dim=1)


class _LogitDiff:
    """Minus (mean logit of the answers - mean logit of the wrong ones): one direction in d_model per scored place."""

    def __init__(self, decoder: Decoder, reference: Reference) -> None:
        self.decoder = decoder
        self.dtype = stream_dtype(decoder.dtype)
        assert reference.answers is not None
        assert reference.wrong is not None
        answers, wrong = (mean_column(decoder, ids) for ids in (reference.answers, reference.wrong))
        self.direction, self.constant = wrong[0] - answers[0], wrong[1] - answers[1]

    def __call__(self, x: Tensor) -> Tensor:
        return (_normed(self.decoder, x).to(self.dtype) * self.direction).sum(dim=-1) + self.constant


class _AnswerLogits:
    """A metric of nothing but the answers' logits: from their columns of the unembedding at every scored place."""

    def __init__(self, decoder: Decoder, metric: Metric, reference: Reference) -> None:
        self.decoder, self.metric, self.dtype = decoder, metric, stream_dtype(decoder.dtype)
        assert reference.answers is not None
        assert reference.wrong is not None
        ids, head = torch.cat((reference.answers, reference.wrong), dim=1), decoder.unembedding
        self.columns = head.weight[ids.clamp_min(0)].to(self.dtype)  # [scored, k, d_model]
        self.bias = None if head.bias is None else head.bias[ids.clamp_min(0)].to(self.dtype)
        # The same question about logits that have these k columns only.
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids).masked_fill(ids == NO_TOKEN, NO_TOKEN)
        answers, wrong = places.split((reference.answers.shape[1], reference.wrong.shape[1]), dim=1)
        self.reference = Reference(reference.logits, answers, wrong)

    def __call__(self, x: Tensor) -> Tensor:
        logits = torch.einsum("csd,skd->csk", _normed(self.decoder, x).to(self.dtype), self.columns)
        logits = logits if self.bias is None else logits + self.bias
        return torch.stack([self.metric(one, self.reference) for one in logits])


class _SquaredDistance:
    """Mean over outputs of (l' - l)^2 = d^T G d / outputs, where d = y' - y and G = W_U^T W_U."""

    def __init__(self, decoder: Decoder, reference: Reference, clean: Tensor) -> None:
        self.decoder, self.dtype = decoder, stream_dtype(decoder.dtype)
        self.base = _normed(decoder, clean).to(self.dtype)
        weight = decoder.unembedding.weight
        if reference.outputs is not None:
            weight = weight[list(reference.outputs)]
        self.outputs = weight.shape[0]
        self.factor: Tensor | None = None
        if self.outputs > decoder.config.d_model:
            self.square = _gram(weight, self.dtype)
        else:
            self.factor = weight.to(self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        difference = _normed(self.decoder, x).to(self.dtype) - self.base
        if self.factor is not None:
            return (difference @ self.factor.T).square().mean(dim=-1)
        return ((difference @ self.square) * difference).sum(dim=-1) / self.outputs


def _gram(weight: Tensor, dtype: torch.dtype, rows: int = 8192) -> Tensor:
    # Summed in float64: it stands for a sum over the whole vocabulary.
    total = torch.zeros(weight.shape[1], weight.shape[1], dtype=sum_dtype(weight.device), device=weight.device)
    for part in weight.split(rows):
        total += (part.to(dtype).T @ part.to(dtype)).to(total.dtype)
    return total.to(dtype)


class _Divergence:
    """KL divergence, and what is made of the answers' probabilities: all they need of the vocabulary is s."""

    def __init__(self, decoder: Decoder, metric: Metric, reference: Reference, clean: Tensor, chunk_bytes: int) -> None:
        self.decoder, self.reference, self.chunk_bytes = decoder, reference, chunk_bytes
        self.dtype = stream_dtype(decoder.dtype)
        self.weight = decoder.unembedding.weight
        self.base = _normed(decoder, clean).to(self.dtype)
        self.log_p = reference.logits.log_softmax(dim=-1)
        self.p = self.log_p.exp()
        self.total = self.p.sum(dim=-1)  # 1, but for rounding
        # The clean run's expectation of a column of the unembedding, [scored, d_model].
        self.mean = torch.zeros_like(self.base)
        for p, columns in zip(self.p.split(8192, dim=1), self.weight.split(8192), strict=True):
            self.mean += p @ columns.to(self.dtype)
        self.mean /= self.total[:, None]
        self.finish = _WITH_ANSWERS.get(metric.function)

    def __call__(self, x: Tensor) -> Tensor:
        difference = _normed(self.decoder, x).to(self.dtype) - self.base  # [candidates, scored, d_model]
        shift = (difference * self.mean).sum(dim=-1)  # the mean of t under p
        log_s = self._log_s(difference, shift)  # less the shift
        if self.finish is None:
            return log_s
        return self.finish(lambda ids: self._log_q(ids, difference, log_s + shift), self.reference)

    def _log_s(self, difference: Tensor, shift: Tensor) -> Tensor:
        total = torch.zeros_like(shift.T, dtype=sum_dtype(shift.device))
        for part, t in self._chunks(difference, shift):
            total += torch.bmm(t.expm1_().transpose(0, 1), self.p[:, part, None])[..., 0]
        log_s = (total.T / self.total).log1p().to(self.dtype)
        return log_s if bool(log_s.isfinite().all()) else self._log_s_far(difference, shift)

    def _log_s_far(self, difference: Tensor, shift: Tensor) -> Tensor:
        """The same where a run is so far from the clean one that exp(t) overflows or 0 * inf appears."""
        log_s = torch.full_like(shift, -torch.inf)
        for part, t in self._chunks(difference, shift):
            log_s = torch.logaddexp(log_s, (t + self.log_p[:, part]).logsumexp(dim=-1))
        return log_s - self.total.log()

    def _chunks(self, difference: Tensor, shift: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """t less the shift, `[candidates, scored, tokens]`, for so many tokens of the vocabulary at a time."""
        rows = difference.to(self.weight.dtype).flatten(0, 1)
        width = max(256, min(MOST_TOKENS, self.chunk_bytes // (rows.shape[0] * shift.element_size())))
        for first in range(0, self.weight.shape[0], width):
            part = slice(first, first + width)
            t = (rows @ self.weight[part].T).to(self.dtype).view(*shift.shape, -1)
            yield part, t.sub_(shift[..., None])

    def _log_q(self, ids: Tensor, difference: Tensor, log_s: Tensor) -> Tensor:
        # Log probabilities of ids [scored, k], [candidates, scored, k]; -inf where there is no token.
        columns = self.weight[ids.clamp_min(0)].to(self.dtype)
        t = torch.einsum("csd,skd->csk", difference, columns)
        log_q = self.log_p.gather(1, ids.clamp_min(0)) + t - log_s[..., None]
        return log_q.masked_fill(ids == NO_TOKEN, -torch.inf)


LogProbabilities = Callable[[Tensor], Tensor]


def _prob_diff(log_q: LogProbabilities, reference: Reference) -> Tensor:
    assert reference.answers is not None
    assert reference.wrong is not None
    return log_q(reference.wrong).exp().sum(dim=-1) - log_q(reference.answers).exp().sum(dim=-1)


def _log_prob_diff(log_q: LogProbabilities, reference: Reference) -> Tensor:
    means = []
    for ids in (reference.answers, reference.wrong):
        assert ids is not None
        real = ids != NO_TOKEN
        total = log_q(ids).masked_fill(~real, 0.0).sum(dim=-1)
        means.append(total / real.sum(dim=-1).clamp_min(1))
    return means[1] - means[0]


def _nll(log_q: LogProbabilities, reference: Reference) -> Tensor:
    assert reference.answers is not None
    return -log_q(reference.answers).logsumexp(dim=-1)


def _match_nll(log_q: LogProbabilities, reference: Reference) -> Tensor:
    return _nll(log_q, reference) - METRICS["nll"](reference.logits, reference)


_WITH_ANSWERS = {
    METRICS["prob_diff"].function: _prob_diff,
    METRICS["log_prob_diff"].function: _log_prob_diff,
    METRICS["nll"].function: _nll,
    METRICS["match_nll"].function: _match_nll,
}
