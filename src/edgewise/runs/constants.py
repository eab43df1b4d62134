"""What absent edges carry as a file, where it was learned, or is a mean over texts that may be gone by then."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from edgewise.errors import EdgewiseError
from edgewise.files import read_bytes
from edgewise.models import Decoder
from edgewise.patching import Ablation, Constants
from edgewise.tasks import read_texts

NAME = "constants.safetensors"


def kept_constants(constants: Constants | None) -> dict[str, bytes]:
    """The file, by its name: tensors `embedding` `[parts, d_model]` and, per component, `0`, `1`, … `[nodes, width]`.

    No file where there are none.
    """
    if constants is None:
        return {}
    tensors = {str(number): code for number, code in enumerate(constants.codes)}
    tensors["embedding"] = constants.embedding
    return {NAME: save({name: one.contiguous().cpu() for name, one in tensors.items()})}


def read_constants(run: Path, settings: Mapping[str, Any]) -> Constants | None:
    """The constants of a run from its folder; None if its settings ask for none.

    Raises:
        EdgewiseError: the file is missing, or holds something else.
    """
    if settings["ablation"] != "optimal" and settings.get("mean_over") is None:
        return None
    path = run / NAME
    data = read_bytes(path, "the constants that absent edges carry")
    try:
        tensors = load(data)
        codes = [tensors[str(number)] for number in range(len(tensors) - 1)]
        constants = Constants(tensors["embedding"], tuple(codes))
        if not all(one.dim() == 2 and bool(one.isfinite().all()) for one in constants.tensors()):
            raise ValueError("they should be tables of numbers")
    except (SafetensorError, KeyError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EdgewiseError(f"the constants {str(path)!r} are no file of constants: {why}") from None
    return constants


def ablation_of(run: Path, settings: Mapping[str, Any], model: Decoder, *, anew: bool = False) -> Ablation:
    """The ablation of a run, as it was worked out for it; with the texts of its mean, if they are still there.

    Args:
        anew: for another model than the run's, so that it has to be worked out again.

    Raises:
        EdgewiseError: as `read_constants`; `anew`, there are no such texts any more, or they have changed.
    """
    constants, over = None if anew else read_constants(run, settings), None
    if settings.get("mean_over") is not None:
        # Only a control or another model needs them again.
        with contextlib.nullcontext() if anew else contextlib.suppress(EdgewiseError):
            over = read_texts(model, settings["mean_over"])
    return Ablation(settings["ablation"], settings.get("ablation_seed", 0), over, constants)
