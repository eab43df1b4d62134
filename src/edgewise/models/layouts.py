"""A model of an unknown `model_type` whose modules lie as those of a known family: read so, and judged by the guard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from edgewise.errors import EdgewiseError
from edgewise.models.decoder import Decoder
from edgewise.models.families.family import Family
from edgewise.models.families.table import FAMILIES
from edgewise.models.guard import Comparison, compare, random_prompts


def read_by_layout(model: Any, name: str, tokenizer: Any = None) -> Decoder:
    """A Decoder over a `transformers` model, as the first family reads it that computes what the model computes.

    Every family of `families/table.py` whose modules are there is tried on prompts of random tokens; the guard looks
    again at the prompts of whatever task it is then used on.

    Raises:
        EdgewiseError: its modules lie as in no family, or none computes the same; the message names the nearest.
    """
    model_type = model.config.model_type
    nearest: tuple[float, str, Decoder, Comparison] | None = None
    tried: list[Family] = []
    for known, family in FAMILIES.items():
        if family in tried:
            continue
        tried.append(family)
        try:
            decoder = family.read(model, name, tokenizer)
            tokens = random_prompts(decoder)
            found = compare(decoder, tokens, torch.ones_like(tokens, dtype=torch.bool))
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError):
            continue  # its modules lie otherwise
        if found.right:
            return replace(decoder, origin={"read_as": known})
        if nearest is None or found.difference < nearest[0]:
            nearest = found.difference, known, decoder, found
    if nearest is None:
        raise EdgewiseError(
            f"model {name!r} is of architecture {model_type}, and its modules lie as in no family that edgewise reads"
        )
    _, known, decoder, found = nearest
    off = next((part for part in found.parts if not part.right), None)
    where = "" if off is None else f"; there, {off.what} differs by {off.difference:.1e} of its size"
    raise EdgewiseError(
        f"model {name!r} is of architecture {model_type}, which computes otherwise than any family that edgewise "
        f"reads: the nearest is {known}, whose logits differ by {found.difference:.1e} of their spread{where}"
    )
