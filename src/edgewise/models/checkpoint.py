"""A folder in Hugging Face's layout, looked at before anything is built from it: sizes, layers, files, code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgewise.errors import EdgewiseError, first_line

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_LAYERS = ("n_layer", "num_hidden_layers", "num_layers", "n_layers")
_SIZES = {
    **dict.fromkeys(_LAYERS, 1000),
    **dict.fromkeys(("n_head", "n_embd", "n_inner"), 10**6),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"), 10**6),
    **dict.fromkeys(("intermediate_size", "num_local_experts"), 10**7),
    **dict.fromkeys(("vocab_size", "n_positions", "n_ctx", "max_position_embeddings"), 10**9),
}
"""The fields of a config.json that are sizes, and the largest that is taken for one."""

_IN_LAYER = re.compile(r"(?:^|\.)(?:h|layers)\.(\d+)\.")
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".inv_freq", ".attention.bias", ".attention.masked_bias")
"""Endings of tensors that old versions of transformers saved beside the weights and new ones compute."""


def check_sizes(config: Mapping[str, Any], name: str) -> None:
    """Refuse a config.json whose sizes are none.

    Raises:
        EdgewiseError: a size is no whole number, or is not positive or too large, or heads do not divide what they
            share; the message names the field.
    """
    for field, most in _SIZES.items():
        value = config.get(field)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            shown = repr(value)
            shown = shown if len(shown) <= 40 else f"{shown[:37]}…"
            raise EdgewiseError(
                f"model {name!r}: {field} in its config.json is {shown}; it should be a whole number from 1 to {most:,}"
            )
    for part, whole in (
        ("n_head", "n_embd"),
        ("num_key_value_heads", "num_attention_heads"),
        *((("num_attention_heads", "hidden_size"),) if config.get("head_dim") is None else ()),
    ):
        if config.get(part) and config.get(whole) and config[whole] % config[part]:
            raise EdgewiseError(
                f"model {name!r}: {whole} in its config.json is {config[whole]}, which {part}, {config[part]}, does "
                "not divide"
            )


def check_folder(folder: Path, config: Mapping[str, Any], name: str) -> None:
    """Refuse a folder without weights, one whose index leads out of it, and one that has other layers than it says.

    Raises:
        EdgewiseError: as said, or the names of its tensors cannot be read.
    """
    there = [file for file in WEIGHT_FILES if (folder / file).is_file()]
    if not there:
        raise EdgewiseError(
            f"model folder {str(folder)!r} has no weights: none of {', '.join(WEIGHT_FILES[:3])} is there"
        )
    names, files = _tensors(folder / there[0], name)
    in_file = {int(found[1]) for one in names if (found := _IN_LAYER.search(one))}
    field = next((one for one in _LAYERS if isinstance(config.get(one), int)), None)
    if field is not None and in_file and in_file != set(range(config[field])):
        raise EdgewiseError(
            f"the weights of model {name!r} do not fit its config.json: {field} is {config[field]}, and the checkpoint "
            f"has {len(in_file)} layer{'s' * (len(in_file) != 1)}, up to number {max(in_file)} counted from 0"
        )
    size = sum(file.stat().st_size for file in files if file.is_file())
    rows, width = config.get("vocab_size"), config.get("n_embd", config.get("hidden_size"))
    if isinstance(rows, int) and isinstance(width, int) and rows * width > 4 * size:
        raise EdgewiseError(
            f"the weights of model {name!r} do not fit its config.json: an embedding of {rows:,} tokens by {width:,} "
            f"is not in a checkpoint of {size:,} bytes"
        )


def _tensors(path: Path, name: str) -> tuple[list[str], list[Path]]:
    """The names of a checkpoint's tensors, and its files."""
    try:
        if path.name.endswith(".index.json"):
            parts = json.loads(path.read_bytes())["weight_map"]
            for file in parts.values():
                if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
                    raise EdgewiseError(
                        f"the weights of model {name!r} cannot be read: {path.name} names the file {str(file)[:80]!r}; "
                        "it should be one in the same folder"
                    )
            return list(parts), [path.parent / file for file in sorted(set(parts.values()))]
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as opened:
                return list(opened.keys()), [path]
        return list(torch.load(path, map_location="meta", weights_only=True)), [path]
    except EdgewiseError:
        raise
    except Exception as error:  # whatever safetensors, torch, pickle or json raise over a broken file
        raise unreadable(name, error) from None


def unreadable(name: str, error: Exception) -> EdgewiseError:
    """The refusal of weights that another library cannot read."""
    reason = first_line(error)
    if any(word in str(error) for word in ("weights_only", "Weights only", "WeightsUnpickler")):
        reason = "the checkpoint holds more than tensors, and edgewise runs no code from a checkpoint"
    return EdgewiseError(f"the weights of model {name!r} cannot be read: {reason}")


def require_fit(name: str, problems: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit a config.json, naming a tensor (and both of its shapes).

    Args:
        problems: what transformers' `from_pretrained` tells of loading.
    """
    mismatched: Sequence[tuple[str, Any, Any]] = sorted(problems["mismatched_keys"])
    missing = sorted(problems["missing_keys"])
    extra = sorted(key for key in problems["unexpected_keys"] if not f".{key}".endswith(_BUFFERS))
    if mismatched:
        key, found, wanted = mismatched[0]
        what = f"tensor {key!r} has shape {list(found)}, config.json asks for {list(wanted)}"
    elif missing:
        what = f"tensor {missing[0]!r} is not in the checkpoint"
    elif extra:
        what = f"tensor {extra[0]!r} of the checkpoint has no place in it"
    else:
        return
    count = len(mismatched) + len(missing) + len(extra)
    more = f" ({count - 1} other tensors are missing, too many, or of another shape)" if count > 1 else ""
    raise EdgewiseError(f"the weights of model {name!r} do not fit its config.json: {what}{more}")
