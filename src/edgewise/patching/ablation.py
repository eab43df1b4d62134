"""What an absent edge carries: the ablated activations.

| ablation | what an absent edge carries |
|---|---|
| `resample` | what its sender writes on the paired corrupted prompt, position by position (as aligned, if they are) |
| `zero` | nothing; constants that no node owns, such as attention output biases, stay, as in the paper's code |
| `mean` | what its sender writes on the corrupted prompts, averaged over all their real tokens |
| `mean-positional` | the same, averaged at each position by itself |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, listed, quoted, unknown
from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.forward import apart
from edgewise.models.walk import Walk
from edgewise.patching.memory import forward_in_pieces
from edgewise.tasks import Prompts, Task

ABLATIONS = {
    "resample": "the paired corrupted prompt's activation",
    "zero": "nothing (biases that no node owns stay)",
    "mean": "the mean activation over the corrupted prompts",
    "mean-positional": "the mean activation at each position",
}


@dataclass(frozen=True)
class Ablated:
    """The ablated activations of every node, and the run in which nothing but them flows.

    Leading dimensions are those of the clean prompts.

    Attributes:
        embedding: `[parts, batch, pos, d_model]`.
        codes: per component, `[batch, pos, nodes, d_head or d_model]`.
        streams: the ablated run's residual stream before each component and, last, the final one, `[batch, pos,
            d_model]`: constants plus every earlier node's ablated activation.
        projections: per component, what heads compute from it: queries, keys and values `[batch, pos, heads (or
            key/value heads), d_head]`.
    """

    embedding: Tensor
    codes: tuple[Tensor, ...]
    streams: tuple[Tensor, ...]
    projections: tuple[Projections, ...]


def check_ablation(ablation: str, task: Task) -> None:
    """Raise an EdgewiseError unless `ablation` is known and makes sense on the task's prompts."""
    if ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS)
    prompts = task.prompts
    if ablation == "resample" and not prompts.paired:
        lengths = zip(prompts.mask.sum(dim=1).tolist(), prompts.corrupt_mask.sum(dim=1).tolist(), strict=True)
        bad = [
            f"pair {row + 1} has {clean} and {corrupt} tokens: {quoted(task.text[row].clean)} and "
            f"{quoted(task.text[row].corrupt)}"
            for row, (clean, corrupt) in enumerate(lengths)
            if clean != corrupt
        ]
        raise EdgewiseError(
            "ablation 'resample' swaps activations position by position, so the two prompts of a pair need one "
            f"length; make them equal, leave out such rows (skip_bad, --skip-bad), or use ablation 'mean' or 'zero': "
            f"{bad[0] if len(bad) == 1 else listed(bad)}"
        )
    same = prompts.paired and bool(torch.equal(prompts.clean, prompts.corrupt)) and prompts.corrupt_positions is None
    if ablation == "resample" and same:
        raise EdgewiseError(
            f"the clean and corrupted prompts of task {task.name!r} are the same, so ablation 'resample' changes "
            "nothing; use ablation 'zero' or 'mean'"
        )
    if ablation == "mean-positional":
        lengths = torch.cat([prompts.mask.sum(dim=1), prompts.corrupt_mask.sum(dim=1)])
        if len(lengths.unique()) > 1:
            raise EdgewiseError(
                f"ablation 'mean-positional' needs prompts of one length; these have {int(lengths.min())} to "
                f"{int(lengths.max())} tokens. Use ablation 'mean'"
            )


@torch.no_grad()
def ablate(
    decoder: Decoder, prompts: Prompts, ablation: str, split_embedding: bool, rows_at_once: int | None = None
) -> Ablated:
    """The ablated activations for some prompts (see `Ablated`), from a run of so many of them at a time.

    `mean` takes the mean over the corrupted prompts given, so call it with all of a task's prompts and cut rows after.
    """
    positions = prompts.corrupt_positions
    run = forward_in_pieces(
        decoder, prompts.corrupt, prompts.corrupt_mask, positions, rows=rows_at_once, split_embedding=split_embedding
    )
    batch, length = prompts.clean.shape
    rows = torch.arange(batch, device=prompts.clean.device)[:, None]

    def carried(activation: Tensor) -> Tensor:
        # [batch, pos, ...] -> the same with every row and position replaced as the ablation says
        if ablation == "zero":
            return torch.zeros_like(activation)
        if ablation == "mean":
            mean = activation[prompts.corrupt_mask].to(stream_dtype(activation.dtype)).mean(dim=0)
            return mean.to(activation.dtype).expand(batch, length, *mean.shape)
        if ablation == "mean-positional":
            mean = activation.to(stream_dtype(activation.dtype)).mean(dim=0, keepdim=True)
            return mean.to(activation.dtype).expand_as(activation)
        if ablation == "resample" and prompts.alignment is not None:
            return activation[rows, prompts.alignment]
        return activation

    embedding = torch.stack([carried(part) for part in run.embedding])
    return ablated_run(decoder, prompts.mask, embedding, [carried(code) for code in run.codes])


def ablated_run(decoder: Decoder, mask: Tensor, embedding: Tensor, codes: list[Tensor]) -> Ablated:
    """The run in which every node carries what it is given: embeddings, and per component its nodes' codes."""
    walk = _AblatedRun(decoder, mask, embedding, codes)
    walk.run()
    return Ablated(embedding, tuple(codes), tuple(walk.streams), tuple(walk.projected))


class _AblatedRun(Walk):
    """The walk in which every node carries what it is given."""

    def __init__(self, decoder: Decoder, mask: Tensor, embedding: Tensor, codes: list[Tensor]) -> None:
        super().__init__(decoder, embedding.to(stream_dtype(decoder.dtype)).sum(dim=0), mask)
        self.codes, self.streams = codes, [self.stream]
        self.projected: list[Projections] = []

    def projections(self, index: int, component: Component) -> Projections:
        self.projected.append(apart(super().projections(index, component)))
        return self.projected[-1]

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        return self.codes[index]

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        super().wrote(index, component, code)
        self.streams.append(self.stream)


def cut_rows(ablated: Ablated, first: int, stop: int) -> Ablated:
    """Rows `first` to `stop`."""
    return Ablated(
        embedding=ablated.embedding[:, first:stop],
        codes=tuple(code[first:stop] for code in ablated.codes),
        streams=tuple(stream[first:stop] for stream in ablated.streams),
        projections=tuple({kind: one[first:stop] for kind, one in each.items()} for each in ablated.projections),
    )
