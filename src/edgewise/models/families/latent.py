"""Multi-head latent attention (DeepSeek-V2): a head's query, key or value is made of a shared, narrow, normed code.

Taken apart by head nothing is shared any more: each head's query, key or value comes from a stream of its own, through
the same narrow maps. A part of each key is the same map for all heads; it alone is turned by positions, with as many
dimensions of the query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewise.models.attention import HeadMap, Rotation
from edgewise.models.components import Projection
from edgewise.models.dense import dense_weight
from edgewise.models.families import parts
from edgewise.models.families.family import Block


@dataclass(frozen=True)
class LatentMap:
    """Heads read a code that all of them compute alike.

    Attributes:
        compress: `[..., d_model]` -> the code, and what each head has beside what it makes of the code, or None.
        expand: from the code into each head.
    """

    compress: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    expand: Projection

    @property
    def weight(self) -> Tensor:
        return self.expand.weight

    @property
    def bias(self) -> Tensor | None:
        return self.expand.bias

    def __call__(self, x: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        code, beside = self.compress(x)
        made = self.expand(code, heads)
        return made if beside is None else torch.cat((made, beside.expand(*made.shape[:3], -1)), dim=-1)


def split(attention: Any, heads: parts.Heads) -> tuple[HeadMap, HeadMap, HeadMap]:
    """Queries, keys and values of a latent attention module."""
    key_width, value_width = attention.qk_nope_head_dim, attention.v_head_dim
    weight = dense_weight(attention.kv_b_proj, heads.dtype)[0].unflatten(0, (heads.queries, key_width + value_width))

    def compressed(x: Tensor) -> tuple[Tensor, Tensor]:
        code, turned = attention.kv_a_proj_with_mqa(x).split([attention.kv_lora_rank, attention.qk_rope_head_dim], -1)
        return attention.kv_a_layernorm(code), turned

    keys = LatentMap(compressed, parts.projection(weight[:, :key_width], None))
    values = LatentMap(lambda x: (compressed(x)[0], None), parts.projection(weight[:, key_width:], None))
    if attention.q_lora_rank is None:
        return parts.by_head(attention.q_proj, heads.queries, heads.dtype), keys, values
    own = dense_weight(attention.q_b_proj, heads.dtype)[0].unflatten(0, (heads.queries, -1))

    def compressed_query(x: Tensor) -> tuple[Tensor, None]:
        return attention.q_a_layernorm(attention.q_a_proj(x)), None

    return LatentMap(compressed_query, parts.projection(own, None)), keys, values


def heads(block: Block) -> parts.Heads:
    """Every head has a key and a value of its own."""
    attention = block.attention
    return parts.Heads(attention.num_heads, attention.num_heads, attention.qk_head_dim)


def rotation(block: Block) -> Rotation:
    """Turns the last dimensions of queries and keys: neighbours are a pair, or those half of them apart."""
    embedding, turned = block.body.rotary_emb, block.attention.qk_rope_head_dim
    neighbours = getattr(block.config, "rope_interleave", True)
    quarter = parts.interleaved if neighbours else parts.half_split

    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        found = embedding(x, positions)
        if isinstance(found, Tensor):  # complex numbers, one per pair
            cosine, sine = (one.to(x.dtype) for one in (found.real, found.imag))
        else:
            cosine, sine = (one[..., : turned // 2] for one in found)
        if neighbours:
            cosine, sine = (one.repeat_interleave(2, dim=-1) for one in (cosine, sine))
        else:
            cosine, sine = (torch.cat((one, one), dim=-1) for one in (cosine, sine))
        still, part = x[..., :-turned], x[..., -turned:]
        return torch.cat((still, parts.turn(part, cosine, sine, quarter)), dim=-1)

    return rotate
