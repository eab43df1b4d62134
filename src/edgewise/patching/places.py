"""Which positions of each prompt are worth computing at some point of the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Places:
    """Some positions of every row of prompts, as a mask and as indices.

    Attributes:
        mask: `[batch, pos]`, True at the positions meant. Every row has at least one.
        index: `[batch, places]` positions, a row's last one repeated where it has fewer than others; None where that
            would be all positions of the longest row, which then are all computed.
        meant: `[rows]`, the rows that were meant to have one; None where all are. What the others hold is nothing that
            anybody reads.
    """

    mask: Tensor
    index: Tensor | None
    meant: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor, fallback: Tensor) -> Places:
        """The True positions of `mask` `[batch, pos]`; `fallback` `[batch]` in rows that have none."""
        rows, length = mask.shape
        empty, meant = ~mask.any(dim=1), None
        if bool(empty.any()):
            mask, meant = mask.clone(), (~empty).nonzero()[:, 0]
            mask[empty, fallback[empty]] = True
        counts = mask.sum(dim=1)
        width = int(counts.max())
        if width == length:
            return cls(mask, None, meant)
        # Stable sorting puts the True positions first, in order.
        order = torch.sort((~mask).to(torch.int8), dim=1, stable=True).indices[:, :width]
        within = torch.arange(width, device=mask.device)[None].expand(rows, -1)
        return cls(mask, order.gather(1, within.minimum(counts[:, None] - 1)), meant)

    @property
    def width(self) -> int:
        """Positions computed per row."""
        return self.mask.shape[1] if self.index is None else self.index.shape[1]

    @property
    def nowhere(self) -> bool:
        """Whether no row was meant to have any."""
        return self.meant is not None and len(self.meant) == 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Places) or not torch.equal(self.mask, other.mask):
            return False
        if self.meant is None or other.meant is None:
            return self.meant is other.meant
        return torch.equal(self.meant, other.meant)

    def take(self, x: Tensor) -> Tensor:
        """`[batch, pos, ...]` -> `[batch, places, ...]`."""
        if self.index is None:
            return x
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        return x[rows, self.index]

    def put(self, full: Tensor, x: Tensor, index: Tensor | None) -> Tensor:
        """`full` `[candidates or 1, batch, places there, ...]` with `x` `[candidates, batch, places, ...]` at these.

        Args:
            index: where these places are among those of `full`: their `index` if it has all positions, or what `within`
                says. None if it has the same ones.
        """
        if index is None and self.meant is None:
            return x
        whole = full.repeat(x.shape[0] // full.shape[0], *(1 for _ in full.shape[1:]))
        rows = torch.arange(full.shape[1], device=full.device) if self.meant is None else self.meant
        if index is None:
            whole[:, rows] = x[:, rows]
        else:
            whole[:, rows[:, None], index[rows]] = x[:, rows]
        return whole

    def within(self, wider: Places) -> Tensor | None:
        """Where these places are among those of `wider`, `[batch, places]`; None where the two are the same.

        Every one of these has to be one of those.
        """
        if self.index is None or (wider.index is not None and torch.equal(self.index, wider.index)):
            return None
        rows = torch.arange(self.index.shape[0], device=self.index.device)[:, None]
        return wider.find(rows, self.index)

    def find(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Where `positions` of `rows` are among these places, each of which they have to be."""
        if self.index is None:
            return positions
        return (self.mask.cumsum(dim=1) - 1)[rows, positions]  # its number among the True ones of its row


def narrow(x: Tensor, index: Tensor | None) -> Tensor:
    """`[candidates, batch, places, ...]` at the places `index` `[batch, fewer]` (see `Places.within`)."""
    if index is None:
        return x
    rows = torch.arange(x.shape[1], device=x.device)[:, None]
    return x[:, rows, index]
