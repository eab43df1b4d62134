"""The load-time guard: a Decoder that does not compute what its source model computes is refused."""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models.decoder import Decoder, positions_of
from edgewise.models.forward import forward

# Largest difference of logits allowed, as a share of their spread. A half-precision model rounds its residual stream
# after every block, which the Decoder does not; some source models take norms in float32 whatever their dtype.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

CHECKED_BYTES = 2**28
"""Rows of prompts are compared together as long as their logits take at most this much."""


@torch.no_grad()
def check(decoder: Decoder, tokens: Tensor, mask: Tensor) -> float:
    """Compare the Decoder with its source model on prompts.

    Args:
        tokens: `[batch, pos]`, padded on the right; mask: `[batch, pos]`, True where a token is real.

    Returns:
        The largest difference of logits at real tokens, as a share of the logits' spread.

    Raises:
        EdgewiseError: they disagree by more than `TOLERANCE`; the message gives the size of the difference and the
            layer where it starts.
    """
    rows = max(1, CHECKED_BYTES // (8 * tokens.shape[1] * decoder.config.d_vocab))
    return max(
        _check_rows(decoder, tokens[first : first + rows], mask[first : first + rows])
        for first in range(0, len(tokens), rows)
    )


def _check_rows(decoder: Decoder, tokens: Tensor, mask: Tensor) -> float:
    positions = positions_of(tokens)
    ours = forward(decoder, tokens, mask).streams
    wanted = decoder.run_source(tokens, mask, positions)
    if not wanted[mask].isfinite().all():
        raise EdgewiseError(
            f"model {decoder.name!r} itself is broken: on these prompts its own logits are not finite numbers"
            f"{_first_not_finite(ours, mask)}"
        )
    difference = _difference(decoder.logits(ours[-1]), wanted, mask)
    tolerance = TOLERANCE.get(decoder.dtype, 1e-4)
    if difference <= tolerance:
        return difference
    raise EdgewiseError(
        f"edgewise's reading of {decoder.name!r} ({decoder.config.architecture}) does not compute what the model "
        f"computes: logits differ by {difference:.1e} of their spread on these prompts (at most {tolerance:.0e} is "
        f"allowed){_where(decoder, ours, tokens, mask, tolerance)}. Nothing found on it would be true of the model."
    )


def check_on_random_tokens(decoder: Decoder, rows: int = 8, length: int = 16, seed: int = 0) -> tuple[float, int, int]:
    """`check` on prompts of random tokens, for a model without a task.

    Returns:
        The largest difference, and how many prompts of how many tokens were compared (fewer for a short context).

    Raises:
        EdgewiseError: as `check`.
    """
    length = min(length, decoder.config.n_context or length)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, decoder.config.n_tokens, (rows, length), generator=generator).to(decoder.device)
    return check(decoder, tokens, torch.ones_like(tokens, dtype=torch.bool)), rows, length


def _difference(ours: Tensor, wanted: Tensor, mask: Tensor) -> float:
    ours, wanted = ours[mask].double(), wanted[mask].double()
    spread = (wanted - wanted.mean(dim=-1, keepdim=True)).abs().max().clamp_min(1e-12)
    difference = ((ours - wanted).abs().max() / spread).item()
    return difference if difference == difference else float("inf")


def _first_not_finite(streams: list[Tensor], mask: Tensor) -> str:
    for index, stream in enumerate(streams):
        if not stream[mask].isfinite().all():
            return ", starting in the embedding" if index == 0 else f", starting in layer {index - 1}"
    return ", starting in the final norm or the unembedding"


def _where(decoder: Decoder, ours: list[Tensor], tokens: Tensor, mask: Tensor, tolerance: float) -> str:
    if decoder.run_source_streams is None:
        return ""
    streams = decoder.run_source_streams(tokens, mask, positions_of(tokens))
    for index, (our, their) in enumerate(zip(ours, streams, strict=False)):
        if _difference(our, their, mask) > tolerance:
            return ", starting in the embedding" if index == 0 else f", starting in layer {index - 1}"
    return f", starting after the input of layer {len(streams) - 1}"
