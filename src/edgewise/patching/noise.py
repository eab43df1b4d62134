"""Noise on the embedding, as causal tracing corrupts a prompt (Meng et al. 2022, "Locating and Editing Factual
Associations in GPT", section 2.1).

The corrupted run is the run on the clean prompt with Gaussian noise added to the embeddings of some of its tokens; its
standard deviation is three times that of the embeddings of these tokens, over all their numbers. Causal tracing does so
at the tokens of the subject. Here these are the tokens that the corrupted prompt has another token for, so that `noise`
and `resample` corrupt the same places (the comparison of Zhang and Nanda 2024). Where no token of any pair differs, or
prompts and their partners are of two lengths and nothing says which token stands for which, noise is on every real
token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.models.components import stream_dtype
from edgewise.tasks import Prompts

SCALE = 3.0
"""Standard deviations of the embeddings: the paper's."""


def noised_places(prompts: Prompts) -> Tensor:
    """Where the clean prompts get noise, `[rows, pos]`; never on padding."""
    if prompts.paired:
        partner = prompts.corrupt if prompts.alignment is None else prompts.corrupt.gather(1, prompts.alignment)
        differs = (prompts.clean != partner) & prompts.mask
        if bool(differs.any()):
            return differs
    return prompts.mask


@torch.no_grad()
def noised_embedding(decoder: Decoder, prompts: Prompts, seed: int, split_embedding: bool) -> Tensor:
    """The clean prompts' embedding with noise, `[parts, rows, pos, d_model]`; of two parts, the tokens' has it.

    Noise is drawn row by row, so that neither padding nor what comes after a row changes it.

    Raises:
        EdgewiseError: the embeddings do not vary, so that there is no noise either.
    """
    embedding, places = decoder.embed(prompts.clean, split=split_embedding), noised_places(prompts)
    parts = decoder.embed_parts(prompts.clean, torch.arange(prompts.clean.shape[1], device=decoder.device)[None])
    deviation = parts[0][places].to(stream_dtype(decoder.dtype)).std()
    if not deviation > 0:
        raise EdgewiseError(f"the embeddings of {decoder.name!r} do not vary, so ablation 'noise' changes nothing")
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        torch.randn(int(row.sum()), decoder.config.d_model, generator=generator, dtype=torch.float64) for row in places
    ]
    noise = SCALE * deviation * torch.cat(drawn).to(decoder.device, deviation.dtype)
    embedding = embedding.clone()
    embedding[0, places] = (embedding[0, places].to(deviation.dtype) + noise).to(embedding.dtype)
    return embedding
