"""Constants: a value per node, the same on every prompt and at every position, for absent edges to carry.

A head's is kept as z, `[d_head]`, so that it is always something that the head can write.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.models.components import stream_dtype
from edgewise.models.feature_mlp import FeatureMLP
from edgewise.models.forward import forward


@dataclass(frozen=True)
class Constants:
    """A value for every node.

    Attributes:
        embedding: `[parts, d_model]`.
        codes: per component, `[nodes, d_head or d_model]`.
    """

    embedding: Tensor
    codes: tuple[Tensor, ...]

    def spread(self, batch: int, length: int) -> tuple[Tensor, list[Tensor]]:
        """The same at every place: `[parts, batch, length, d_model]`, and per component `[batch, length, nodes, …]`."""
        embedding = self.embedding[:, None, None].expand(-1, batch, length, -1)
        return embedding, [code.expand(batch, length, *code.shape) for code in self.codes]

    def tensors(self) -> list[Tensor]:
        """All of them: the embedding's, then each component's."""
        return [self.embedding, *self.codes]

    def on(self, decoder: Decoder, split_embedding: bool) -> Constants:
        """The same on the device and in the dtype of a model.

        Raises:
            EdgewiseError: they are another model's, which has other nodes or other widths.
        """
        with torch.no_grad():
            one = torch.zeros(1, 1, dtype=torch.long, device=decoder.device)
            run = forward(decoder, one, one == 0, split_embedding=split_embedding)
        wanted = [run.embedding[:, 0, 0], *(code[0, 0] for code in run.codes)]
        if [one.shape for one in self.tensors()] != [one.shape for one in wanted]:
            raise EdgewiseError(
                f"the constants that absent edges carry were made for another model than {decoder.name!r}, or for one "
                "whose embedding is split otherwise"
            )
        embedding, *codes = (mine.to(other) for mine, other in zip(self.tensors(), wanted, strict=True))
        return Constants(embedding, tuple(codes))


def mean_constants(
    decoder: Decoder,
    tokens: Tensor,
    mask: Tensor,
    positions: Tensor | None = None,
    *,
    split_embedding: bool = False,
    rows: int | None = None,
) -> Constants:
    """What every node writes on some prompts, averaged over all their real tokens (`moments`), in its own dtype."""
    (embedding, *codes), _ = moments(decoder, tokens, mask, positions, split_embedding=split_embedding, rows=rows)
    own = [  # codes of features are in streams' dtype
        code if isinstance(component, FeatureMLP) else code.to(decoder.dtype)
        for code, component in zip(codes, decoder.components, strict=True)
    ]
    return Constants(embedding.to(decoder.dtype), tuple(own))


@torch.no_grad()
def moments(
    decoder: Decoder,
    tokens: Tensor,
    mask: Tensor,
    positions: Tensor | None = None,
    *,
    split_embedding: bool = False,
    rows: int | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Mean and standard deviation of what every node writes on some prompts, over all their real tokens.

    Args:
        tokens, mask, positions: as `forward`.
        rows: how many prompts are run at once; by default all. Sums of pieces are added up in float64.

    Returns:
        The embedding's, then each component's: means `[parts or nodes, width]`; and deviations `[parts or nodes, 1]`,
        one for all numbers of a node (the root of their mean variance).
    """
    dtype, step = stream_dtype(decoder.dtype), rows or len(tokens)
    count, sums, squares = int(mask.sum()), list[Tensor](), list[Tensor]()
    for first in range(0, len(tokens), step):
        piece = slice(first, first + step)
        at = positions if positions is None or len(positions) == 1 else positions[piece]
        found = _sums(decoder, tokens[piece], mask[piece], at, split_embedding)
        for total, part in ((sums, 0), (squares, 1)):
            more = [one[part] for one in found]
            total[:] = [mine + one for mine, one in zip(total, more, strict=True)] if total else more
    means = [one / count for one in sums]
    variances = [one / count - mean.square() for one, mean in zip(squares, means, strict=True)]
    deviations = [one.mean(dim=-1, keepdim=True).clamp_min(0).sqrt() for one in variances]
    return [one.to(decoder.device, dtype) for one in means], [one.to(decoder.device, dtype) for one in deviations]


def _sums(
    decoder: Decoder, tokens: Tensor, mask: Tensor, positions: Tensor | None, split_embedding: bool
) -> list[tuple[Tensor, Tensor]]:
    """The sum over real tokens of what every node writes, and of its square, in float64; nothing else is kept."""
    run, dtype = forward(decoder, tokens, mask, positions, split_embedding=split_embedding), stream_dtype(decoder.dtype)
    found = []
    for one in (run.embedding.permute(1, 2, 0, 3), *run.codes):
        real = one[mask].to(dtype)  # [tokens, parts or nodes, width]
        found.append((real.sum(dim=0).cpu().double(), real.square().sum(dim=0).cpu().double()))
    return found
