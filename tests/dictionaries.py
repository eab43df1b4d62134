"""Dictionaries for tests: of an MLP's own weights, exact; random, which explain little; and their files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
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


def tensors(one: Dictionary, rows: bool = False) -> dict[str, Tensor]:
    """A dictionary's tensors by their usual names; `rows` has the encoder as circuit-tracer's files do."""
    encoder = one.encoder.T if rows else one.encoder
    found = {"W_enc": encoder, "b_enc": one.encoder_bias, "W_dec": one.decoder, "b_dec": one.decoder_bias}
    found |= {} if one.threshold is None else {"activation_function.threshold" if rows else "threshold": one.threshold}
    found |= {} if one.skip is None else {"W_skip": one.skip.T}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def circuit_tracer(folder: Path, *layers: Dictionary, text: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        "model_kind: transcoder_set\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n" + text
    )
    for one in layers:
        save_file(tensors(one, rows=True), folder / f"layer_{one.layer}.safetensors")
