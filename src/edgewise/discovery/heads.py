"""What a head's attention scores, and what it writes for the answers, are made of, sender by sender.

A score before the softmax is scale * q . k, with q and k made of the streams at two places. With all norms held at the
scale of the model's own run (`patching/frozen.py`), q and k are sums of a part for each sender u that the head reads,

    q = sum_u q_u,   k = sum_v k_v,   score = sum_u sum_v  scale * q_u . k_v

two more of which belong to no sender: `constants`, the biases that earlier attention adds to the stream, and `bias`,
what norm, projection and positions add behind it. Rotary positions turn each part by itself. In the same way what the
head adds to a place's answers, straight through the final norm, is a sum over the tokens t that it looks at and the
parts of their values: pattern_t * v_u(t) W_O . d, with d the answers' direction in the unembedding (direct logit
attribution).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph.names import InputKind
from edgewise.models import Decoder
from edgewise.models.attention import Attention
from edgewise.models.components import stream_dtype
from edgewise.models.decoder import positions_of
from edgewise.models.matmul import fast_matmul
from edgewise.patching import Experiment
from edgewise.patching.frozen import Frozen
from edgewise.patching.gradients import Rows, rows_of
from edgewise.patching.memory import size
from edgewise.patching.scoring import mean_column
from edgewise.tasks import Reference

CONSTANTS, BIAS = "constants", "bias"
MOST_BYTES = 2**31
"""What the parts of all places may take."""


@dataclass(frozen=True)
class HeadParts:
    """Parts of one head's scores and of what it writes, at some places of the clean prompts, in float64.

    Attributes:
        head: its name.
        parts: names of the senders that it reads, then `constants` and `bias`.
        rows, queries: `[places]`: prompt and position of each query.
        keys: `[places]`: the position of the key that `pairs` are of.
        scores: `[places, pos]`: the model's own, before cap, slopes and softmax; 0 where a key is not `seen`.
        pattern: `[places, pos]`: how much of the head's attention each key gets.
        seen: `[places, pos]`: which keys each query sees.
        query_side: `[places, parts, pos]`: scores by the part of the query; they add up to `scores`.
        key_side: `[places, parts, pos]`: scores by the part of the key; they add up to `scores`.
        pairs: `[parts, parts]`: by part of the query (row) and of the key (column), the mean over places of the score
            of the key that `keys` says.
        above_mean: the same less the mean over all keys that the query sees: what makes that key stand out.
        notes: what else becomes of the scores before the softmax, in words.
        values: `[places, parts, pos]`: what each part of each token's value adds to the answers' logits over the wrong
            answers' (over the mean logit, where there are no wrong ones); None where a place has no answer.
        direct: `[places]`: what the head adds to them in all.
    """

    head: str
    parts: tuple[str, ...]
    rows: Tensor
    queries: Tensor
    keys: Tensor
    scores: Tensor
    pattern: Tensor
    seen: Tensor
    query_side: Tensor
    key_side: Tensor
    pairs: Tensor
    above_mean: Tensor
    notes: tuple[str, ...]
    values: Tensor | None = None
    direct: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as lists, for JSON."""
        return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in vars(self).items()}


@torch.no_grad()
def head_parts(experiment: Experiment, head: str, *, query: int | None = None, key: int | None = None) -> HeadParts:
    """Take a head's scores apart on the task's clean prompts. The ablation does not matter, nor does the metric.

    Args:
        head: its name, as in `a5.h5`.
        query: the position whose scores are taken apart; by default those that the task scores.
        key: the position whose pairs are taken; by default the one that gets most attention, for each place by itself.

    Raises:
        EdgewiseError: no such head; a place that is not there or does not see the key; too much to hold; norms that
            have no scale that edgewise can hold.
    """
    decoder, graph = experiment.decoder, experiment.graph
    node = graph.node(head)
    if node.kind != "head":
        raise EdgewiseError(f"{quoted(head)} is not a head, so it has no attention scores; a head is written 'a0.h1'")
    index = next(
        index for index, one in enumerate(decoder.components) if one.layer == node.layer and isinstance(one, Attention)
    )
    names = tuple(sender.name for sender in graph.sources[: graph.n_senders(graph.inputs[graph.inputs_of(node)[0]])])
    parts = (*names, CONSTANTS, BIAS)
    prompts = experiment.task.prompts
    places = len(prompts.scored_rows) if query is None else len(prompts)
    _check_places(experiment, query)
    needed = 3 * 8 * places * len(parts) * prompts.clean.shape[1]
    if needed > MOST_BYTES:
        raise EdgewiseError(
            f"the parts of {places:,} places of {len(parts):,} senders would take {size(needed)}; use fewer prompts"
        )
    found = [
        one for rows in rows_of(experiment) for one in _Parts(experiment, rows, index, node.head, query).found(key)
    ]
    gathered: dict[str, Any] = {
        name: torch.cat([one[name] for one in found]) for name in found[0] if name not in _MEANS
    }
    gathered |= {name: torch.stack([one[name] for one in found]).sum(dim=0) / places for name in _MEANS}
    component = decoder.components[index]
    assert isinstance(component, Attention)
    return HeadParts(head=head, parts=parts, notes=_notes(component, node.head, decoder), **gathered)


_MEANS = ("pairs", "above_mean")


def _check_places(experiment: Experiment, query: int | None) -> None:
    prompts = experiment.task.prompts
    if query is not None and not (0 <= query < prompts.mask.shape[1] and bool(prompts.mask[:, query].all())):
        shortest = int(prompts.mask.sum(dim=1).min())
        raise EdgewiseError(
            f"position {query} is not there in every prompt; the shortest has {shortest} tokens, 0 to {shortest - 1}"
        )


def _notes(component: Attention, head: int, decoder: Decoder) -> tuple[str, ...]:
    notes = []
    if component.softcap is not None:
        notes.append(
            f"the model bounds scores by {component.softcap:g} (c tanh(score / c)); these are from before that"
        )
    if component.slopes is not None:
        slope = float(component.slopes[head])
        notes.append(f"the model adds {slope:.4g} to a score for each position that its key stands further on (ALiBi)")
    if component.sinks is not None:
        notes.append(f"beside all keys stands a sink of score {float(component.sinks[head]):.4g} that has no value")
    if not decoder.unembedding.linear:
        notes.append("the model bounds its logits; what is said of answers is from before that")
    return tuple(notes)


class _Parts:
    """One head's parts on some rows of prompts."""

    def __init__(self, experiment: Experiment, rows: Rows, index: int, head: int, query: int | None) -> None:
        component = experiment.decoder.components[index]
        assert isinstance(component, Attention)
        self.decoder, self.component, self.rows = experiment.decoder, component, rows
        self.index, self.head, self.group = index, head, head * component.n_kv_heads // component.n_heads
        self.projected = rows.clean.projections[index]
        allowed = self.decoder.allowed(rows.prompts.mask)[index]
        assert allowed is not None
        self.allowed = allowed
        if query is None:
            self.place_rows, self.queries = rows.prompts.scored_rows, rows.prompts.scored_positions
        else:
            self.place_rows = torch.arange(len(rows.prompts), device=self.decoder.device)
            self.queries = torch.full_like(self.place_rows, query)
        self.answered = query is None and rows.reference.answers is not None
        self.dtype = stream_dtype(self.decoder.dtype)

    def made(self, kind: InputKind) -> tuple[Tensor, Tensor]:
        """The head's queries (keys, values) `[batch, pos, width]` and their parts `[parts, batch, pos, width]`."""
        number = self.head if kind == "q" else self.group
        whole, at = self.projected[kind], positions_of(self.rows.prompts.clean)
        scale = self.component.scale_across(kind, whole) if kind != "v" else None

        def project(x: Tensor) -> Tensor:
            one = self.component.project(kind, x[:, :, None], at, [number])[:, :, 0]
            return one if scale is None else one[..., :-1] * scale[:, :, 0]

        read = self.rows.clean.streams[self.decoder.reads[self.index]]
        frozen = Frozen(project, read.to(self.decoder.dtype))
        parts = [frozen.part(part.to(self.decoder.dtype)) for part in self.senders()]
        value = (whole if kind == "v" else self.component.scaled_across(kind, whole))[:, :, number]
        return value.to(self.dtype), torch.stack([*parts, frozen.offset]).to(self.dtype)

    def senders(self) -> Iterator[Tensor]:
        """What makes up the stream that the head reads: each sender's output, then the constants."""
        clean, reads = self.rows.clean, self.decoder.reads[self.index]
        constants = torch.zeros_like(clean.streams[0])
        yield from clean.embedding
        for component, code in zip(self.decoder.components[:reads], clean.codes[:reads], strict=True):
            yield from component.write(code).unbind(dim=2)
            constants = constants + component.write_total(torch.zeros_like(code))
        yield constants

    def found(self, key: int | None) -> Iterator[dict[str, Tensor]]:
        """The fields of `HeadParts` for the places of each row; sums over them where it has means."""
        scale = self.component.scale
        with fast_matmul():
            q, q_parts = self.made("q")
            k, k_parts = self.made("k")
            pattern = self.component.pattern(self.projected["q"], self.projected["k"], self.allowed)[:, self.head]
            v_parts, onto = (self.made("v")[1], self.onto_answers()) if self.answered else (None, None)
            for row in range(len(self.rows.prompts)):
                places = (self.place_rows == row).nonzero()[:, 0]
                if not len(places):
                    continue
                at = self.queries[places]
                seen, attention = self.allowed[row, at], pattern[row, at].to(self.dtype)
                keys = self.keys(attention, seen, row, at, key)
                mine, theirs = q_parts[:, row, at], k_parts[:, row]  # [parts, places, width], [parts, pos, width]
                scores = q[row, at] @ k[row].T * scale
                by_query = torch.einsum("pnw,tw->npt", mine, k[row]) * scale
                by_key = torch.einsum("nw,ptw->npt", q[row, at], theirs) * scale
                for side in (by_query, by_key):
                    require_whole(side, scores[:, None], self.decoder.dtype, "scores")
                chosen = theirs[:, keys]
                shares = seen.to(self.dtype) / seen.sum(dim=1, keepdim=True)
                mean = torch.einsum("nt,ptw->pnw", shares, theirs)
                fields = {
                    "rows": self.rows.first + self.place_rows[places],
                    "queries": at,
                    "keys": keys,
                    "scores": scores * seen,
                    "pattern": attention,
                    "seen": seen,
                    "query_side": by_query * seen[:, None],
                    "key_side": by_key * seen[:, None],
                    "pairs": torch.einsum("pnw,onw->po", mine, chosen) * scale,
                    "above_mean": torch.einsum("pnw,onw->po", mine, chosen - mean) * scale,
                }
                if v_parts is not None and onto is not None:
                    per_unit, direct = onto[0][places], onto[1][places]
                    values = torch.einsum("ptw,nw,nt->npt", v_parts[:, row], per_unit, attention)
                    require_whole(values.flatten(1)[..., None], direct[:, None, None], self.decoder.dtype, "values")
                    fields |= {"values": values, "direct": direct}
                here = {name: one.cpu() for name, one in fields.items()}
                yield {name: one.double() if one.is_floating_point() else one for name, one in here.items()}

    def keys(self, attention: Tensor, seen: Tensor, row: int, at: Tensor, key: int | None) -> Tensor:
        if key is None:
            return attention.argmax(dim=1)
        if not 0 <= key < seen.shape[1] or not bool(seen[:, key].all()):
            place = at[0] if not 0 <= key < seen.shape[1] else at[~seen[:, key]][0]
            raise EdgewiseError(
                f"the token at position {int(place)} of prompt {self.rows.first + row + 1} does not see position {key}"
            )
        return torch.full_like(at, key)

    def onto_answers(self) -> tuple[Tensor, Tensor]:
        """What z adds to the answers' logits per unit, `[places, width]`, and what the head adds, `[places]`.

        Through the norm behind attention, where there is one, the output projection and the final norm, each with the
        scale of this run. A bias that such a norm shares out among heads is left out.
        """
        component, dtype = self.component, self.decoder.dtype
        here = (self.place_rows, self.queries)
        direction = answer_direction(self.decoder, self.rows.reference)
        final = Frozen(self.decoder.final_norm, self.rows.clean.streams[-1][here].to(dtype))
        z = component.act(self.projected, self.allowed)[here][None]  # [1, places, heads, width]
        settled = Frozen(component.settle, z)

        def added(code: Tensor) -> Tensor:
            written = component.write_node(self.head, code - settled.offset[0, :, self.head])
            return (final.part(written.to(dtype)).to(self.dtype) * direction).sum(dim=-1)

        per_unit = []
        for number in range(z.shape[-1]):
            unit = torch.zeros_like(z)
            unit[:, :, self.head, number] = 1
            per_unit.append(added(settled(unit)[0, :, self.head]))
        return torch.stack(per_unit, dim=-1), added(self.rows.clean.codes[self.index][here][:, self.head])


def answer_direction(decoder: Decoder, reference: Reference) -> Tensor:
    """The answers' mean logit over the wrong answers' (or the mean logit, if none) as a direction, `[scored, d_model]`.

    What the final norm gives is multiplied by it; biases are left out.
    """
    assert reference.answers is not None
    right, _ = mean_column(decoder, reference.answers)
    if reference.wrong is None:
        return right - decoder.unembedding.weight.to(stream_dtype(decoder.dtype)).mean(dim=0)
    return right - mean_column(decoder, reference.wrong)[0]


def require_whole(parts: Tensor, whole: Tensor, dtype: torch.dtype, what: str) -> None:
    """Raise an EdgewiseError unless parts `[places, parts, keys]` add up to their whole `[places, 1, keys]`.

    A norm whose scale is not held is off by as much as its parts are large, rounding by far less; many models have
    norms in float32 whatever their dtype.
    """
    off = (parts.sum(dim=1, keepdim=True) - whole).abs()
    allowed = max(torch.finfo(one).eps for one in (dtype, torch.float32)) ** 0.5 * (
        parts.abs().sum(dim=1, keepdim=True) + whole.abs()
    )
    if bool((off > allowed).any()):
        raise EdgewiseError(
            f"the parts of this head's {what} do not add up to them ({off.max():.2g} off): its model has a norm whose "
            "scale edgewise cannot hold, so nothing can be said of single senders"
        )
