"""The load-time guard: a Decoder that does not compute what its source model computes is refused.

Logits alone would not tell: rounding adds up on the way to them, and in bfloat16 it hides a head that is missing. So
each part of each layer is compared by itself, given the very input that the source model's own part had, and may differ
by what rounding that input once more would change, and little else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.models.attention import Attention
from edgewise.models.components import MLP, Component, added
from edgewise.models.decoder import Decoder, positions_of
from edgewise.models.forward import forward
from edgewise.models.precision import in_float64

# Largest difference of logits allowed, as a share of their spread. A half-precision model rounds its residual stream
# after every block, which the Decoder does not; some source models take norms in float32 whatever their dtype.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

CHECKED_BYTES = 2**28
"""Rows of prompts are compared together as long as their logits take at most this much."""

PART_TOKENS = 64
"""Single parts are compared on the longest prompts, as many as have about so many tokens together."""

SHAKES = 2
"""How often a part's input is rounded anew to see what that changes."""

SLACK = 4.0
"""How many times that a part may differ; intact models stay below 1."""

TIES = 50
"""One position in so many may differ by anything: two keys of all but one score, which rounding decides."""

ROUTED_TIES = 4
"""In half precision, one in so many of the logits of a mixture of experts: two experts of all but one score."""


class Part(NamedTuple):
    """How far one part of the Decoder is from the source model's, as shares of its size."""

    layer: int | None
    what: str
    difference: float
    allowed: float

    @property
    def right(self) -> bool:
        return self.difference <= self.allowed  # false where either is not a number


class Comparison(NamedTuple):
    """A Decoder beside its source model on some prompts.

    Attributes:
        difference, tolerance: the largest difference of logits at real tokens, as a share of their spread, and how
            large it may be.
        parts: every part compared by itself, in the order of the computation.
    """

    difference: float
    tolerance: float
    parts: tuple[Part, ...]

    @property
    def right(self) -> bool:
        return self.difference <= self.tolerance and all(part.right for part in self.parts)

    def by_layer(self) -> dict[int, Part]:
        """Of each layer the part that is nearest to what is allowed, or furthest beyond it."""
        worst: dict[int, Part] = {}
        for part in self.parts:
            if part.layer is None:
                continue
            known = worst.get(part.layer)
            if known is None or part.difference * known.allowed > known.difference * part.allowed:
                worst[part.layer] = part
        return worst


@torch.no_grad()
def compare(decoder: Decoder, tokens: Tensor, mask: Tensor) -> Comparison:
    """Compare the Decoder with its source model on prompts: the logits, and every part of every layer by itself.

    Args:
        tokens: `[batch, pos]`, padded on the right; mask: `[batch, pos]`, True where a token is real.

    Raises:
        EdgewiseError: the source model's own logits are not finite, or its modules are not run.
    """
    rows = max(1, CHECKED_BYTES // (8 * tokens.shape[1] * decoder.config.d_vocab))
    difference = max(
        _logits_difference(decoder, tokens[first : first + rows], mask[first : first + rows])
        for first in range(0, len(tokens), rows)
    )
    longest = mask.sum(dim=1).argsort(descending=True, stable=True)[: max(1, PART_TOKENS // tokens.shape[1])]
    parts = tuple(_parts(decoder, tokens[longest], mask[longest]))
    return Comparison(difference, TOLERANCE.get(decoder.dtype, 1e-4), parts)


def check(decoder: Decoder, tokens: Tensor, mask: Tensor) -> float:
    """`compare`, and refuse to go on with a Decoder that does not compute what its source model computes.

    Returns:
        The largest difference of logits at real tokens, as a share of the logits' spread.

    Raises:
        EdgewiseError: they disagree by more than rounding does; the message gives the size of the difference and the
            head or MLP where it starts.
    """
    found = compare(decoder, tokens, mask)
    require_right(decoder, found)
    return found.difference


def require_right(decoder: Decoder, found: Comparison) -> None:
    """Raise the EdgewiseError that `check` raises unless a comparison found nothing wrong."""
    if found.right:
        return
    reasons = []
    if not found.difference <= found.tolerance:
        reasons.append(
            f"logits differ by {found.difference:.1e} of their spread on these prompts (at most {found.tolerance:.0e} "
            "is allowed)"
        )
    off = next((part for part in found.parts if not part.right), None)
    if off is not None:
        where = "in the embedding" if off.layer is None else f"in layer {off.layer}"
        reasons.append(
            f"starting {where}: given the same input, {off.what} differs by {off.difference:.1e} of its size "
            f"(at most {off.allowed:.0e} is allowed)"
        )
    raise EdgewiseError(
        f"edgewise's reading of {decoder.name!r} ({decoder.config.architecture}) does not compute what the model "
        f"computes: {', '.join(reasons)}. Nothing found on it would be true of the model."
    )


def random_prompts(decoder: Decoder, rows: int = 8, length: int = 16, seed: int = 0) -> Tensor:
    """Prompts of random tokens `[rows, length]`, for a model without a task; shorter for a short context."""
    length = min(length, decoder.config.n_context or length)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, decoder.config.n_tokens, (rows, length), generator=generator).to(decoder.device)


def _logits_difference(decoder: Decoder, tokens: Tensor, mask: Tensor) -> float:
    ours = forward(decoder, tokens, mask).streams
    wanted = decoder.run_source(tokens, mask, positions_of(tokens))
    if not wanted[mask].isfinite().all():
        raise EdgewiseError(
            f"model {decoder.name!r} itself is broken: on these prompts its own logits are not finite numbers"
            f"{_first_not_finite(decoder, ours, mask)}"
        )
    ours, wanted = in_float64(decoder.logits(ours[-1])[mask]), in_float64(wanted[mask])
    spread = (wanted - wanted.mean(dim=-1, keepdim=True)).abs().max().clamp_min(1e-12)
    off = ((ours - wanted).abs().amax(dim=-1) / spread).sort().values
    routed = any(isinstance(one, MLP) and one.routed for one in decoder.components)
    ties = len(off) // ROUTED_TIES if routed and decoder.dtype.itemsize == 2 else 0
    difference = off[len(off) - 1 - ties].item()
    return difference if difference == difference else float("inf")


def _first_not_finite(decoder: Decoder, streams: Iterable[Tensor], mask: Tensor) -> str:
    for index, stream in enumerate(streams):
        if not stream[mask].isfinite().all():
            layer = decoder.components[index - 1].layer
            return ", starting in the embedding" if index == 0 else f", starting in layer {layer}"
    return ", starting in the final norm or the unembedding"


def _parts(decoder: Decoder, tokens: Tensor, mask: Tensor) -> Iterator[Part]:
    """Every part of the Decoder beside the source model's, in the order of the computation."""
    positions, allowed = positions_of(tokens), decoder.allowed(mask)
    with _listening(decoder, tokens.shape) as heard:
        logits = decoder.run_source(tokens, mask, positions)
    generator = torch.Generator().manual_seed(0)

    def compared(layer: int | None, names: list[str], read: Callable[[Tensor], Tensor], x: Tensor, theirs: Tensor):
        # On x itself, and on x with every number moved by one rounding.
        x = x.to(decoder.dtype)
        wide, drawn = in_float64(x), (torch.randint(0, 2, x.shape, generator=generator) for _ in range(SHAKES))
        signs = (one.to(wide.device).mul(2).sub(1) for one in drawn)
        runs = [read(x), *(read((wide * (1 + sign * _rounding(x))).to(x)) for sign in signs)]
        seen = (in_float64(one.flatten(2)[mask]) for one in runs)
        ours, *shaken = (one.unflatten(1, (len(names), -1)) for one in seen)
        yield from _units(layer, names, ours, in_float64(theirs.flatten(2)[mask]).view_as(ours), shaken, x.dtype)

    def summed(layer: int | None, terms: list[Tensor], theirs: Tensor) -> Part:
        wide, eps = torch.stack([in_float64(term[mask]) for term in terms]), torch.finfo(decoder.dtype).eps
        most = wide.abs().sum(dim=0) * eps  # more than a few roundings of a sum come to
        off = (in_float64(theirs[mask]) - wide.sum(dim=0)).abs() / most.clamp_min(1e-300)
        return Part(layer, "the sum of what its parts write", off.square().mean().sqrt().item() * eps, eps)

    yield summed(None, list(decoder.embed_parts(tokens, positions)), heard.take(0, "stream"))
    base, wrote = heard.take(0, "stream"), list[Tensor]()  # the stream that was heard last, and what was added since
    for index, component in enumerate(decoder.components):
        x, added = heard.take(index, "stream"), heard.take(index, "added")
        if index:
            yield summed(decoder.components[index - 1].layer, [base] if component.beside else [base, *wrote], x)
        if not component.beside:
            base, wrote = x, []
        wrote.append(added)
        code, write = _code_of(component, positions, allowed[index]), _write_of(component)
        if component.source.projection is None:
            (node,) = component.nodes
            whole = lambda x, code=code, write=write: write(code(x))  # noqa: E731
            yield from compared(component.layer, [f"MLP {node.name}"], whole, x, added)
        else:
            theirs, together = heard.take(index, "code"), f"what the heads of layer {component.layer} write together"
            yield from compared(component.layer, [f"head {node.name}" for node in component.nodes], code, x, theirs)
            yield from compared(component.layer, [together], write, theirs, added)
    few = max(1, CHECKED_BYTES // (64 * decoder.config.d_vocab))
    mask = mask & (mask.flatten().cumsum(0).view_as(mask) <= few)
    last, final = decoder.components[-1].layer, heard.take(len(decoder.components), "stream")
    yield summed(last, [base, *wrote], final)
    yield from compared(last, ["the unembedding behind it"], decoder.logits, final, logits)
    head = decoder.unembedding
    if head.linear:  # as metrics take it that go without most of the vocabulary

        def linear(x: Tensor) -> Tensor:
            return nn.functional.linear(decoder.final_norm(x), head.weight, head.bias)

        yield from compared(last, ["the unembedding behind it, read as linear,"], linear, final, logits)


def _units(
    layer: int | None, names: list[str], ours: Tensor, theirs: Tensor, shaken: list[Tensor], dtype: torch.dtype
) -> Iterator[Part]:
    """The heads of a layer, or its one other unit, each `[positions, units, width]`.

    Two things are held against rounding: how far a unit is off at its positions, and by what factor it is larger or
    smaller at all of them together, where rounding averages out.
    """
    floor = torch.finfo(dtype).eps + 1e-5  # beside sums of many terms, and softmaxes in float32 whatever the dtype
    size = theirs.square().sum(dim=-1).mean(dim=0).sqrt()
    noise = torch.stack([(one - ours).norm(dim=-1) for one in shaken]).amax(dim=0)
    typical = noise.square().mean(dim=0).sqrt()
    allowed = SLACK * torch.maximum(noise, typical) + floor * torch.maximum(size, theirs.norm(dim=-1))
    off = (theirs - ours).norm(dim=-1)
    order = torch.where(off > 0, off / allowed.clamp_min(1e-300), off).sort(dim=0).indices
    order = order[: len(order) - len(order) // TIES]

    def factor(other: Tensor) -> Tensor:
        up, down = ((ours * one).sum(dim=-1).gather(0, order).sum(dim=0) for one in (other, ours))
        return torch.where(down > 0, up / down.clamp_min(1e-300) - 1, 0.0).abs()

    by_chance = torch.stack([factor(one) for one in shaken]).amax(dim=0)
    by_chance = torch.maximum(by_chance, typical / size.clamp_min(1e-300) / len(order) ** 0.5)
    gain, gain_allowed = factor(theirs), SLACK * by_chance + floor / 2
    for unit, name in enumerate(names):
        at, most = order[-1, unit], size[unit].clamp_min(1e-300)
        yield Part(layer, name, (off[at, unit] / most).item(), (allowed[at, unit] / most).item())
        yield Part(layer, name, gain[unit].item(), gain_allowed[unit].item())


def _code_of(component: Component, positions: Tensor, allowed: Tensor | None) -> Callable[[Tensor], Tensor]:
    def read(stream: Tensor) -> Tensor:
        made = component.act(component.projections(stream[:, :, None], positions), allowed)
        folded = _folded(component)
        return made if folded is None else made + folded

    return read


def _write_of(component: Component) -> Callable[[Tensor], Tensor]:
    def read(code: Tensor) -> Tensor:
        code = code.unflatten(-1, (len(component.nodes), -1)) if code.dim() == 3 else code
        folded = _folded(component)
        return component.write_total(component.settle(code if folded is None else code - folded))

    return read


def _folded(component: Component) -> Tensor | None:
    return component.folded if isinstance(component, Attention) else None


def _rounding(x: Tensor) -> float:
    """The share of a number that a product of this dtype may be off by."""
    if x.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return 2**-8  # products may then be of TF32 or bfloat16
    return torch.finfo(x.dtype).eps


class _Heard:
    """What the source model's parts read and wrote in one run."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.tensors = decoder, dict[tuple[int, str], Tensor]()

    def take(self, index: int, what: str) -> Tensor:
        """What was heard at a component, or in the end."""
        try:
            return self.tensors[index, what]
        except KeyError:
            layer = self.decoder.components[min(index, len(self.decoder.components) - 1)].layer
            raise EdgewiseError(
                f"model {self.decoder.name!r} does not compute layer {layer} by its own modules (its {what} was not "
                "met), so edgewise cannot tell whether it reads it right"
            ) from None


@contextmanager
def _listening(decoder: Decoder, shape: torch.Size) -> Iterator[_Heard]:
    """Hear the source model: hooks that come after any that are there already, so that they see what those change."""
    heard = _Heard(decoder)
    handles = []

    def kept(x: Tensor) -> Tensor:
        return x.unflatten(0, shape) if x.dim() == 2 else x  # OPT's MLPs take all positions of all rows in one list

    def reads(layer: int, what: str, module: nn.Module) -> None:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            given_it = given[0] if given else next(iter(named.values()))
            heard.tensors[layer, what] = kept(given_it.detach().clone().to(decoder.device))

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def writes(layer: int, what: str, module: nn.Module, factor: float) -> None:
        def hook(_: nn.Module, given: Any, out: Any) -> None:
            wrote = added(out).detach().to(decoder.device)
            heard.tensors[layer, what] = kept(wrote.clone() if factor == 1 else wrote * factor)

        handles.append(module.register_forward_hook(hook))

    try:
        for index, component in enumerate(decoder.components):
            modules = component.source
            reads(index, "stream", modules.norm)
            writes(index, "added", modules.block, modules.factor)
            if modules.projection is not None:
                reads(index, "code", modules.projection)
        reads(len(decoder.components), "stream", decoder.source_norm or decoder.final_norm)
        yield heard
    finally:
        for handle in handles:
            handle.remove()
