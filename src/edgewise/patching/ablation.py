"""What an absent edge carries: the ablated activations.

| ablation | what an absent edge carries |
|---|---|
| `resample` | what its sender writes on the paired corrupted prompt, position by position |
| `zero` | nothing; constants that no node owns, such as attention output biases, stay, as in the paper's code |
| `mean` | what its sender writes on the corrupted prompts, averaged over all their real tokens |
| `mean-positional` | the same, averaged at each position by itself |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, unknown
from edgewise.models import Decoder
from edgewise.models.decoder import positions_of, stream_dtype
from edgewise.models.forward import Activations
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
        z: per layer, `[batch, pos, heads, d_head]`.
        mlp: per layer, `[batch, pos, d_model]`.
        attention_streams, mlp_streams: the ablated run's residual stream at the inputs of each layer's heads and of
            its MLP, `[batch, pos, d_model]`: constants plus every earlier node's ablated activation.
        final_stream: the same at the logits.
        q, k, v: per layer, what heads compute from it, `[batch, pos, heads (k, v: key/value heads), d_head]`.
    """

    embedding: Tensor
    z: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    attention_streams: tuple[Tensor, ...]
    mlp_streams: tuple[Tensor, ...]
    final_stream: Tensor
    q: tuple[Tensor, ...]
    k: tuple[Tensor, ...]
    v: tuple[Tensor, ...]


def check_ablation(ablation: str, task: Task) -> None:
    """Raise an EdgewiseError unless `ablation` is known and makes sense on the task's prompts."""
    if ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS)
    prompts = task.prompts
    if ablation == "resample" and not prompts.paired:
        lengths = zip(prompts.mask.sum(dim=1).tolist(), prompts.corrupt_mask.sum(dim=1).tolist(), strict=True)
        row, (clean, corrupt) = next((row, pair) for row, pair in enumerate(lengths) if pair[0] != pair[1])
        raise EdgewiseError(
            f"ablation 'resample' swaps activations position by position, so the two prompts of a pair need one "
            f"length; pair {row + 1} has {clean} and {corrupt} tokens: {task.text[row].clean!r} and "
            f"{task.text[row].corrupt!r}. Make them equal, or use ablation 'mean' or 'zero'"
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
        return activation

    replaced = Activations(
        embedding=torch.stack([carried(part) for part in run.embedding]),
        z=[carried(z) for z in run.z],
        mlp=[carried(mlp) for mlp in run.mlp],
        streams=[],
    )
    return _ablated_run(decoder, replaced)


def _ablated_run(decoder: Decoder, carried: Activations) -> Ablated:
    positions = positions_of(carried.embedding[0, :, :, 0])
    stream = carried.embedding.to(stream_dtype(decoder.dtype)).sum(dim=0)
    attention_streams, mlp_streams, qs, ks, vs = [], [], [], [], []
    for index, layer in enumerate(decoder.layers):
        attention_streams.append(stream)
        x = stream.to(decoder.dtype)[:, :, None]
        qs.append(layer.query(x, positions))
        ks.append(layer.key(x, positions))
        vs.append(layer.value(x))
        after = stream + layer.write(carried.z[index]).sum(dim=2) + layer.bias
        mlp_streams.append(stream if decoder.config.parallel else after)
        stream = after + carried.mlp[index] if layer.mlp is not None else after
    return Ablated(
        embedding=carried.embedding,
        z=tuple(carried.z),
        mlp=tuple(carried.mlp),
        attention_streams=tuple(attention_streams),
        mlp_streams=tuple(mlp_streams),
        final_stream=stream,
        q=tuple(qs),
        k=tuple(ks),
        v=tuple(vs),
    )


def cut_rows(ablated: Ablated, first: int, stop: int) -> Ablated:
    """Rows `first` to `stop`."""

    def cut(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor[first:stop] for tensor in tensors)

    return replace(
        ablated,
        embedding=ablated.embedding[:, first:stop],
        final_stream=ablated.final_stream[first:stop],
        **{
            name: cut(getattr(ablated, name))
            for name in ("z", "mlp", "attention_streams", "mlp_streams", "q", "k", "v")
        },
    )
