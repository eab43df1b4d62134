"""A folder in Hugging Face's layout, looked at before anything is built from it: sizes, layers, files, code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgewise.errors import EdgewiseError, first_line, quoted

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_LAYERS = ("n_layer", "num_hidden_layers", "num_layers", "n_layers")
_WIDTHS = ("n_embd", "n_embed", "hidden_size", "d_model", "word_embed_proj_dim")
_SIZES = {
    **dict.fromkeys(_LAYERS, 1000),
    **dict.fromkeys(("n_head", "n_inner", *_WIDTHS, "num_heads", "num_attention_heads", "num_key_value_heads"), 10**6),
    **dict.fromkeys(("num_kv_heads", "n_head_kv", "head_dim", "rotary_dim", "v_head_dim", "qk_nope_head_dim"), 10**6),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim"), 10**6),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "moe_intermediate_size"), 10**7),
    **dict.fromkeys(("shared_intermediate_size", "shared_expert_intermediate_size"), 10**7),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "n_shared_experts"), 10**5),
    **dict.fromkeys(("vocab_size", "n_positions", "n_ctx", "max_position_embeddings"), 10**9),
}
"""The fields of a config.json that are sizes, and the largest that is taken for one."""

_MAY_BE_NONE = ("expert", "shared_", "rotary_dim", "lora_rank", "n_inner")
"""Parts of the names of sizes that may be 0, where a model has none of that."""

_HEADS = (("n_head", "n_embd"), ("num_heads", "hidden_size"), ("num_attention_heads", "hidden_size"))
_DERIVED = {
    *(
        "gpt2",
        "gptj",
        "gpt_neo",
        "gpt_neox",
        "opt",
        "bloom",
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "phi",
    ),
    *("phi3", "olmo", "olmo2", "olmo3", "olmoe", "stablelm", "starcoder2", "cohere", "granite", "granitemoe"),
}
"""Architectures whose heads share the width of the stream between them, unless there is a `head_dim`."""

_IN_LAYER = re.compile(r"(?:^|\.)(?:h|layers)\.(\d+)\.")
_BUFFERS = (
    *(".attn.bias", ".attn.masked_bias", ".inv_freq", ".attention.bias", ".attention.masked_bias"),
    *(".attn.embed_positions", ".attn.scale_attn"),
)
"""Endings of tensors that old versions of transformers saved beside the weights and new ones compute."""


def check_sizes(config: Mapping[str, Any], name: str, where: str = "its config.json") -> None:
    """Refuse a config.json whose sizes are none.

    Args:
        where: what the sizes stand in, for errors.

    Raises:
        EdgewiseError: a size is no whole number, or is not positive or too large, or heads do not divide what they
            share; the message names the field.
    """
    for field, most in _SIZES.items():
        value = config.get(field)
        least = 0 if any(part in field for part in _MAY_BE_NONE) else 1
        for one in value if isinstance(value, list) and value else [value]:  # a list has one for each layer
            if one is None or (isinstance(one, int) and not isinstance(one, bool) and least <= one <= most):
                continue
            raise EdgewiseError(
                f"model {name!r}: {field} in {where} is {quoted(one, 40)}; it should be a whole number from {least} to "
                f"{most:,}"
            )
    shares = [("num_key_value_heads", "num_attention_heads")]
    if config.get("head_dim") is None and config.get("model_type") in _DERIVED:
        shares += _HEADS
    for part, whole in shares:
        have = config.get(part), config.get(whole)
        if isinstance(have[0], int) and isinstance(have[1], int) and have[1] % have[0]:
            raise EdgewiseError(
                f"model {name!r}: {whole} in {where} is {have[1]}, which {part}, {have[0]}, does not divide"
            )


def refuse_multimodal(config: Mapping[str, Any], name: str) -> None:
    """Refuse a model that has a text model beside others, as for images, and say which part is which.

    Raises:
        EdgewiseError: it is one.
    """
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return
    others = sorted(
        key.removesuffix("_config")
        for key, value in config.items()
        if key.endswith("_config") and key != "text_config" and isinstance(value, Mapping) and "model_type" in value
    )
    beside = f" beside parts for {' and '.join(others)}" if others else ""
    raise EdgewiseError(
        f"model {name!r} is of architecture {config.get('model_type')}, which holds a text model "
        f"({text.get('model_type', 'of no named architecture')}){beside}: edgewise reads text models. Load the text "
        "model by itself with transformers, as a causal language model, and give that: the object, or a folder that it "
        "was saved to"
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
    check_layers(config, names, sum(file.stat().st_size for file in files if file.is_file()), name)


def check_layers(
    config: Mapping[str, Any],
    tensors: Sequence[str],
    size: int,
    name: str,
    where: str = "its config.json",
    in_layer: re.Pattern[str] = _IN_LAYER,
) -> None:
    """Refuse weights that have other layers than a configuration says, or are too small for its embedding.

    Args:
        tensors: their names, in which `in_layer` finds the number of the layer.
        size: bytes of all of them.

    Raises:
        EdgewiseError: as said.
    """
    in_file = {int(found[1]) for one in tensors if (found := in_layer.search(one))}
    field = next((one for one in _LAYERS if isinstance(config.get(one), int)), None)
    if field is not None and in_file:
        beyond = config.get("num_nextn_predict_layers") or 0  # DeepSeek's, which no forward pass of the model uses
        layers = range(config[field])
        if not set(layers) <= in_file <= set(range(len(layers) + (beyond if isinstance(beyond, int) else 0))):
            raise EdgewiseError(
                f"the weights of model {name!r} do not fit {where}: {field} is {config[field]}, and the checkpoint "
                f"has {len(in_file)} layer{'s' * (len(in_file) != 1)}, up to number {max(in_file)} counted from 0"
            )
    rows = config.get("vocab_size")
    width = min((config[one] for one in _WIDTHS if isinstance(config.get(one), int)), default=None)
    if isinstance(rows, int) and width is not None and rows * width > 4 * size:
        raise EdgewiseError(
            f"the weights of model {name!r} do not fit {where}: an embedding of {rows:,} tokens by {width:,} "
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


def attention_of(config: Any) -> str:
    """The kind of attention to load a `transformers` model with, whatever its config.json says: it could name a program
    on the hub. Where the architecture has no `sdpa`, that is `eager`."""
    import transformers

    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if getattr(kind, "_supports_sdpa", True) else "eager"


def unreadable(name: str, error: Exception) -> EdgewiseError:
    """The refusal of weights that another library cannot read."""
    reason = first_line(error)
    if any(word in str(error) for word in ("weights_only", "Weights only", "WeightsUnpickler")):
        reason = "the checkpoint holds more than tensors, and edgewise runs no code from a checkpoint"
    return EdgewiseError(f"the weights of model {name!r} cannot be read: {reason}")


def require_fit(name: str, problems: Mapping[str, Any], where: str = "its config.json") -> None:
    """Refuse weights that do not fit a config.json, naming a tensor (and both of its shapes).

    Args:
        problems: what transformers' `from_pretrained` tells of loading.
    """
    mismatched: Sequence[tuple[str, Any, Any]] = sorted(problems["mismatched_keys"])
    missing = sorted(problems["missing_keys"])
    extra = sorted(key for key in problems["unexpected_keys"] if not f".{key}".endswith(_BUFFERS))
    if mismatched:
        key, found, wanted = mismatched[0]
        what = f"tensor {key!r} has shape {list(found)}, {where.removeprefix('its ')} asks for {list(wanted)}"
    elif missing:
        what = f"tensor {missing[0]!r} is not in the checkpoint"
    elif extra:
        what = f"tensor {extra[0]!r} of the checkpoint has no place in it"
    else:
        return
    count = len(mismatched) + len(missing) + len(extra)
    more = f" ({count - 1} other tensors are missing, too many, or of another shape)" if count > 1 else ""
    raise EdgewiseError(f"the weights of model {name!r} do not fit {where}: {what}{more}")
