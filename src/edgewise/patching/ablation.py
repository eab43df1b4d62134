"""What an absent edge carries: the ablated activations.

| ablation | what an absent edge carries |
|---|---|
| `resample` | what its sender writes on the paired corrupted prompt, position by position (as aligned, if they are) |
| `zero` | nothing; constants that no node owns, such as attention output biases, stay, as in the paper's code |
| `mean` | what its sender writes on the corrupted prompts, or on texts of one's own, averaged over all real tokens |
| `mean-clean` | what its sender writes on the clean prompts, averaged over all their real tokens |
| `mean-positional` | what its sender writes on the corrupted prompts, averaged at each position by itself |
| `noise` | what its sender writes on the clean prompt with noise on its embedding (noise.py) |
| `optimal` | a constant of its sender's own, learned so that circuits lose as little as can be (optimal.py) |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, listed, quoted, unknown
from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.forward import apart
from edgewise.models.recorded import Recorded, cut
from edgewise.models.walk import Walk
from edgewise.patching.constants import Constants, mean_constants
from edgewise.patching.memory import forward_in_pieces
from edgewise.patching.noise import noised_embedding
from edgewise.tasks import Prompts, Task
from edgewise.tasks.texts import Texts

ABLATIONS = {
    "resample": "the paired corrupted prompt's activation",
    "zero": "nothing (biases that no node owns stay)",
    "mean": "the mean activation over the corrupted prompts, or over texts of your own",
    "mean-clean": "the mean activation over the clean prompts",
    "mean-positional": "the mean activation at each position",
    "noise": "the activation on the clean prompt with noise on its embedding",
    "optimal": "a constant for each node, learned so that circuits lose least",
}

SEEDED = ("noise", "optimal")
"""Those that draw something."""


@dataclass(frozen=True)
class Ablation:
    """An ablation with all that makes it this one.

    Attributes:
        name: as in `ABLATIONS`.
        seed: of noise, and of what is learned.
        over: what `mean` is taken over, instead of the corrupted prompts.
        constants: what every node carries, where it has been worked out: a mean over `over`, or what was learned.
    """

    name: str
    seed: int = 0
    over: Texts | None = None
    constants: Constants | None = None

    @classmethod
    def of(cls, given: str | Ablation) -> Ablation:
        """An ablation from its name, or as it is."""
        return given if isinstance(given, Ablation) else cls(given)

    def anew(self) -> Ablation:
        """The same with everything to be worked out again, as for another model."""
        return replace(self, constants=None)


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

    All but the embedding is kept in the CPU's memory where the model says so (`Decoder.offload_activations`).
    """

    embedding: Tensor
    codes: Sequence[Tensor]
    streams: Sequence[Tensor]
    projections: Sequence[Projections]


def check_ablation(given: str | Ablation, task: Task) -> None:
    """Raise an EdgewiseError unless an ablation is known and makes sense on the task's prompts."""
    ablation, over = Ablation.of(given).name, Ablation.of(given).over
    if ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS)
    if over is not None and ablation != "mean":
        raise EdgewiseError(f"texts to take the mean over are for ablation 'mean', not {ablation!r}")
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
    if ablation == "resample" and prompts.corrupt_positions is None and torch.equal(prompts.clean, prompts.corrupt):
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
    decoder: Decoder,
    prompts: Prompts,
    given: str | Ablation,
    split_embedding: bool,
    rows_at_once: int | None = None,
) -> Ablated:
    """The ablated activations for some prompts (see `Ablated`), from a run of so many of them at a time.

    Means are taken over the prompts given, and noise is drawn for them in turn, so call it with all of a task's prompts
    and cut rows after.

    Raises:
        EdgewiseError: the constants are another model's; those of `optimal` have not been learned; or there is nothing
            to take noise from.
    """
    ablation, batch, length = Ablation.of(given), *prompts.clean.shape
    constants = constants_of(decoder, prompts, ablation, split_embedding, rows_at_once)
    if constants is not None:
        return ablated_run(decoder, prompts.mask, *constants.spread(batch, length))
    tokens, mask, positions, embedding = prompts.corrupt, prompts.corrupt_mask, prompts.corrupt_positions, None
    if ablation.name == "noise":
        tokens, mask, positions = prompts.clean, prompts.mask, None
        embedding = noised_embedding(decoder, prompts, ablation.seed, split_embedding)
    run = forward_in_pieces(
        decoder, tokens, mask, positions, rows=rows_at_once, split_embedding=split_embedding, embedding=embedding
    )
    rows = torch.arange(batch, device=prompts.clean.device)[:, None]

    def carried(activation: Tensor) -> Tensor:
        # [batch, pos, ...] -> the same with every row and position replaced as the ablation says
        if ablation.name == "zero":
            return torch.zeros_like(activation)
        if ablation.name == "mean-positional":
            mean = activation.to(stream_dtype(activation.dtype)).mean(dim=0, keepdim=True)
            return mean.to(activation.dtype).expand_as(activation)
        if ablation.name == "resample" and prompts.alignment is not None:
            return activation[rows, prompts.alignment]
        return activation

    embedding = torch.stack([carried(part) for part in run.embedding])
    codes: Recorded[Tensor] = decoder.recording()
    for code in run.codes:
        codes.append(carried(code))
    return ablated_run(decoder, prompts.mask, embedding, codes)


def constants_of(
    decoder: Decoder, prompts: Prompts, ablation: Ablation, split_embedding: bool, rows_at_once: int | None = None
) -> Constants | None:
    """What every node carries at all places alike; None where the ablation carries other things at other places.

    Raises:
        EdgewiseError: the constants are another model's, or those of `optimal` have not been learned.
    """
    if ablation.constants is not None:
        return ablation.constants.on(decoder, split_embedding)
    if ablation.name == "optimal":
        raise EdgewiseError("the constants of ablation 'optimal' have to be learned: an Experiment does so")
    if ablation.name not in ("mean", "mean-clean"):
        return None
    if ablation.over is not None:
        tokens, mask, positions = ablation.over.tokens, ablation.over.mask, None
    elif ablation.name == "mean":
        tokens, mask, positions = prompts.corrupt, prompts.corrupt_mask, prompts.corrupt_positions
    else:
        tokens, mask, positions = prompts.clean, prompts.mask, None
    return mean_constants(decoder, tokens, mask, positions, split_embedding=split_embedding, rows=rows_at_once)


def ablated_run(decoder: Decoder, mask: Tensor, embedding: Tensor, codes: Sequence[Tensor]) -> Ablated:
    """The run in which every node carries what it is given: embeddings, and per component its nodes' codes."""
    walk = _AblatedRun(decoder, mask, embedding, codes)
    walk.run()
    return Ablated(embedding, codes, walk.streams, walk.projected)


class _AblatedRun(Walk):
    """The walk in which every node carries what it is given."""

    def __init__(self, decoder: Decoder, mask: Tensor, embedding: Tensor, codes: Sequence[Tensor]) -> None:
        super().__init__(decoder, embedding.to(stream_dtype(decoder.dtype)).sum(dim=0), mask)
        self.codes = codes
        self.streams: Recorded[Tensor] = decoder.recording()
        self.projected: Recorded[Projections] = decoder.recording()
        self.streams.append(self.stream)

    def projections(self, index: int, component: Component) -> Projections:
        found = super().projections(index, component)
        self.projected.append(apart(found))
        return found

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        return self.codes[index]

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        super().wrote(index, component, code)
        self.streams.append(self.stream)


def cut_rows(ablated: Ablated, first: int, stop: int) -> Ablated:
    """Rows `first` to `stop`."""
    return Ablated(
        embedding=ablated.embedding[:, first:stop],
        codes=cut(ablated.codes, first, stop),
        streams=cut(ablated.streams, first, stop),
        projections=cut(ablated.projections, first, stop),
    )
