"""Dictionaries for tests: exact ones, made of an MLP's own weights, and random ones, which explain little."""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.models import Decoder
from edgewise.models.components import MLP
from edgewise.models.dictionary import Dictionary, Place


def exact(model: Decoder, layers: tuple[int, ...] = (0, 1)) -> list[Dictionary]:
    """Transcoders of the ReLU MLPs of a plain transformer: its neurons are their features, and nothing is left over."""
    found = []
    for layer in layers:
        mlp = model.source.blocks[layer].mlp  # type: ignore[union-attr,index]
        weights = [one.detach().clone() for one in (mlp.W_in, mlp.b_in, mlp.W_out, mlp.b_out)]  # type: ignore[union-attr]
        found.append(Dictionary(Place(layer, "normed"), *weights))
    return found


def random(
    model: Decoder, place: Place, features: int = 20, seed: int = 0, *, jump: bool = False, **choices: object
) -> Dictionary:
    """A dictionary that knows nothing of the model, of which most numbers are in the error."""
    generator, width = torch.Generator().manual_seed(seed), model.config.d_model

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * shape[0] ** -0.5

    numbers = [drawn(width, features), 0.1 * drawn(features), drawn(features, width), 0.1 * drawn(width)]
    threshold = (0.2 * drawn(features).abs()).to(model.dtype) if jump else None
    return Dictionary(place, *(one.to(model.dtype) for one in numbers), threshold, **choices)  # type: ignore[arg-type]


def mlps(model: Decoder) -> dict[int, MLP]:
    return {one.layer: one for one in model.components if isinstance(one, MLP)}
