"""Checkpoints in TransformerLens' format: a `config.json` with that library's field names, and a state dict.

They are the paper's attention-only models and any toy model that people train with that library. The library itself is
not needed: a `PlainTransformer` holds the tensors under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, first_line, unknown
from edgewise.json_files import read_json
from edgewise.models.plain_config import ACTIVATIONS, NORMALIZATIONS, POSITION_TYPES, PlainTransformerConfig
from edgewise.models.plain_transformer import PlainTransformer

ALIASES = {
    "redwood_attn_2l": "ArthurConmy/redwood_attn_2l",
    **{f"attn-only-{n}l": f"NeelNanda/Attn_Only_{n}L512W_C4_Code" for n in (1, 2, 3, 4)},
    **{f"gelu-{n}l": f"NeelNanda/GELU_{n}L512W_C4_Code" for n in (1, 2, 3, 4)},
    **{f"solu-{n}l": f"NeelNanda/SoLU_{n}L512W_C4_Code" for n in (1, 2, 3, 4)},
}
"""TransformerLens' short names of checkpoints that lie on the hub in its format, and their hub ids."""

WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt")

_REFUSED: dict[str, tuple[object, ...]] = {
    # Field: the values that change nothing. Any other one means a computation that PlainTransformer does not have.
    "use_local_attn": (False, None),
    "use_qk_norm": (False, None),
    "num_experts": (None, 0),
    "use_normalization_before_and_after": (False, None),
    "post_embedding_ln": (False, None),
    "attn_scores_soft_cap": (-1, 0, None),
    "output_logits_soft_cap": (-1, 0, None),
    "use_NTK_by_parts_rope": (False, None),
    "use_yarn_rope": (False, None),
    "rotary_scaling_factor": (1, None),
    "load_in_4bit": (False, None),
}


def is_transformer_lens(config: Mapping[str, Any]) -> bool:
    """Whether a config.json has TransformerLens' field names rather than Hugging Face's."""
    return "model_type" not in config and {"n_layers", "d_model"} <= set(config)


def read_config_file(path: Path, name: str) -> dict[str, Any]:
    """What a config.json holds.

    Raises:
        EdgewiseError: it is not a JSON object.
    """
    try:
        return read_json(path, "the file")
    except EdgewiseError as error:
        raise EdgewiseError(f"model {name!r}: its config.json cannot be used: {error}") from None


def choose_weights(files: Sequence[str], name: str) -> str:
    """Which of a folder's or repository's files holds the weights.

    `model.safetensors` before one that ends in `final.pth` (what training runs call their last checkpoint), before any
    other if it is the only one.

    Raises:
        EdgewiseError: there is none, or several and none of them stands out.
    """
    weights = sorted(
        file for file in files if "/" not in file and file.endswith(WEIGHT_ENDINGS) and "optim" not in file.lower()
    )
    for wanted in ("model.safetensors", "final.safetensors", "final.pth", "final.pt"):
        found = [file for file in weights if file.endswith(wanted)]
        if len(found) == 1:
            return found[0]
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise EdgewiseError(f"model {name!r} has no weights: no file that ends in {', '.join(WEIGHT_ENDINGS)}")
    raise EdgewiseError(
        f"model {name!r} has several files of weights ({', '.join(weights)}); call the one to use model.safetensors, "
        "or model_final.pth"
    )


def read_state(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name. Nothing but tensors is ever unpickled.

    Raises:
        EdgewiseError: the file cannot be read, or holds something other than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever safetensors, torch or pickle raise over a broken file
        reason = first_line(error)
        if "weights_only" in str(error) or "Weights only" in str(error):
            reason = f"{path.name} holds more than tensors, and edgewise runs no code from a checkpoint"
        raise EdgewiseError(f"the weights of model {name!r} cannot be read: {reason}") from None
    if isinstance(state, Mapping):  # training scripts often keep it beside other things
        state = next((state[key] for key in ("model", "state_dict", "model_state_dict") if key in state), state)
    if not isinstance(state, Mapping) or not all(_is_plain_tensor(*item) for item in state.items()):
        raise EdgewiseError(
            f"the weights of model {name!r} cannot be read: {path.name} is not a state dict of tensors by name"
        )
    return dict(state)


def _is_plain_tensor(key: object, value: object) -> bool:
    if not (isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided) or value.is_meta:
        return False
    return (
        value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )  # no stride of zero: made of nothing


def build_transformer_lens(
    config: Mapping[str, Any], state: Mapping[str, Tensor], name: str, dtype: torch.dtype
) -> PlainTransformer:
    """The model that a configuration and a state dict describe.

    Raises:
        EdgewiseError: a field is missing or has a value that is not supported, or a tensor is missing, unknown or of
            another shape than the configuration asks for; the message names it.
    """
    tensors = {_own_name(key): value for key, value in state.items() if not _is_buffer(key)}
    shape = read_config(config, name, tensors)
    in_file = {key.split(".")[1] for key in tensors if key.startswith("blocks.")}
    numbers = {block for block in in_file if block.isdecimal()}
    if not numbers:
        some = f"; it has {next(iter(tensors))!r}" if tensors else ""
        raise EdgewiseError(f"model {name!r}: the checkpoint has no tensor called 'blocks.0.…'{some}")
    if len(numbers) != shape.n_layers:
        raise EdgewiseError(f"model {name!r}: config.json has n_layers {shape.n_layers}, the checkpoint {len(numbers)}")
    with torch.device("meta"):  # no memory for what may turn out not to fit
        model = PlainTransformer(shape)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    in_checkpoint = {key.rsplit(".", 1)[-1] for key in tensors}
    for key, size in wanted.items():
        kind = key.rsplit(".", 1)[-1]
        if kind.startswith("b_") and kind not in in_checkpoint:  # trained without biases of this kind
            tensors[key] = torch.zeros(size, device=next(iter(tensors.values())).device)
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    for problem, keys in (("is not in the checkpoint", missing), ("is nothing that config.json accounts for", extra)):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise EdgewiseError(f"model {name!r}: tensor {keys[0]!r}{more} {problem}")
    for key, size in wanted.items():
        if tuple(tensors[key].shape) != size:
            raise EdgewiseError(
                f"model {name!r}: tensor {key!r} has shape {list(tensors[key].shape)}, config.json asks for "
                f"{list(size)}"
            )
        if not tensors[key].is_floating_point():
            raise EdgewiseError(
                f"model {name!r}: tensor {key!r} holds {tensors[key].dtype}, not floating-point numbers"
            )
    model.load_state_dict({key: tensors[key].to(dtype).contiguous() for key in wanted}, assign=True)
    return model.requires_grad_(False)


def read_config(config: Mapping[str, Any], name: str, tensors: Mapping[str, Tensor]) -> PlainTransformerConfig:
    """TransformerLens' fields as a `PlainTransformerConfig`; fields that are missing have that library's defaults.

    Raises:
        EdgewiseError: as `build_transformer_lens`.
    """
    for field, harmless in _REFUSED.items():
        if config.get(field, harmless[0]) not in harmless:
            raise EdgewiseError(f"model {name!r}: edgewise does not support {field} {config[field]!r} (config.json)")
    attention_only = _flag(config, "attn_only", name)
    normalization = config.get("normalization_type", config.get("normalization", "LN"))
    positions = config.get("positional_embedding_type", "shortformer" if config.get("shortformer_pos") else "standard")
    direction, activation = config.get("attention_dir", "causal"), config.get("act_fn", "relu")
    choices: tuple[tuple[str, object, Sequence[object]], ...] = (
        ("normalization_type", normalization, (None, *NORMALIZATIONS)),
        ("positional_embedding_type", positions, POSITION_TYPES),
        ("attention_dir", direction, ("causal", "bidirectional")),
        ("act_fn", "relu" if attention_only and activation is None else activation, tuple(ACTIVATIONS)),
    )
    for field, value, known in choices:
        if not any(value is one or (isinstance(value, str) and value == one) for one in known):
            names = ["null" if one is None else str(one) for one in known]
            raise unknown(f"{field} in the config.json of model {name!r}:", str(value), names)
    sizes = dict(config)
    if config.get("d_vocab") in (None, -1) and "embed.W_E" in tensors and tensors["embed.W_E"].dim() == 2:
        sizes["d_vocab"] = tensors["embed.W_E"].shape[0]
    if config.get("d_vocab_out") in (None, -1):
        sizes["d_vocab_out"] = sizes.get("d_vocab")
    d_model = _size(sizes, "d_model", name)
    if config.get("n_heads") in (None, -1):
        sizes["n_heads"] = d_model // _size(sizes, "d_head", name)
    n_heads = _size(sizes, "n_heads", name)
    if config.get("d_head") is None:
        sizes["d_head"] = d_model // n_heads
    if config.get("d_mlp") is None:
        sizes["d_mlp"] = 4 * d_model
    optional = {
        field: None if config.get(field) is None else _size(sizes, field, name)
        for field in ("n_key_value_heads", "rotary_dim")
    }
    divisor = config.get("attn_scale")
    try:
        return PlainTransformerConfig(
            n_layers=_size(sizes, "n_layers", name),
            n_heads=n_heads,
            d_model=d_model,
            d_head=_size(sizes, "d_head", name),
            d_mlp=0 if attention_only else _size(sizes, "d_mlp", name),
            d_vocab=_size(sizes, "d_vocab", name),
            d_vocab_out=_size(sizes, "d_vocab_out", name),
            n_context=_size(sizes, "n_ctx", name),
            activation="relu" if attention_only or activation is None else activation,
            causal=direction == "causal",
            attention_scale=_flag(config, "use_attn_scale", name, default=True),
            attention_divisor=None if divisor in (None, -1) else _positive(config, "attn_scale", name, 0.0),
            scale_by_layer=_flag(config, "scale_attn_by_inverse_layer_idx", name),
            n_kv_heads=optional["n_key_value_heads"],
            normalization=normalization,
            final_rms=_flag(config, "final_rms", name),
            epsilon=_positive(config, "eps", name, 1e-5),
            positions=positions,
            rotary_dim=optional["rotary_dim"],
            rotary_base=_positive(config, "rotary_base", name, 10_000.0),
            rotary_adjacent_pairs=_flag(config, "rotary_adjacent_pairs", name),
            gated_mlp=_flag(config, "gated_mlp", name) and not attention_only,
            parallel=_flag(config, "parallel_attn_mlp", name) and not attention_only,
        )
    except EdgewiseError as error:
        said = str(error)
        raise EdgewiseError(said if repr(name) in said else f"model {name!r}: its config.json: {said}") from None


def from_hooked(model: Any, name: str) -> PlainTransformer | None:
    """The model inside a live `HookedTransformer` of TransformerLens before version 4, or None if it is not one.

    Its weights are referred to, not copied; the norms, activations and positions are read off its `cfg`.
    """
    shape = getattr(model, "cfg", None)
    if shape is None or not hasattr(shape, "d_model") or not hasattr(model, "state_dict"):
        return None
    state = model.state_dict()
    if "embed.W_E" not in state:
        return None
    known = [one.name for one in fields(shape)] if is_dataclass(shape) else list(vars(shape))
    config = {field: getattr(shape, field) for field in known}
    return build_transformer_lens(config, state, name, state["embed.W_E"].dtype)


def _own_name(key: str) -> str:
    """The name of a tensor here; TransformerLens marks keys and values that query heads share with an underscore."""
    for letter in ("W_K", "W_V", "b_K", "b_V"):
        key = key.replace(f".attn._{letter}", f".attn.{letter}")
    return key


def _is_buffer(key: str) -> bool:
    return key.endswith((".mask", ".IGNORE", ".rotary_sin", ".rotary_cos"))


_LARGEST = {"d_vocab": 10**9, "d_vocab_out": 10**9, "n_ctx": 10**9}
"""The largest size that is taken for a size; a million for the others."""


def _size(values: Mapping[str, Any], field: str, name: str) -> int:
    value, most = values.get(field), _LARGEST.get(field, 10**6)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        what = "is missing" if value is None else f"is {value!r}; it should be a whole number from 1 to {most:,}"
        raise EdgewiseError(f"model {name!r}: {field} in its config.json {what}")
    return value


def _flag(config: Mapping[str, Any], field: str, name: str, *, default: bool = False) -> bool:
    value = config.get(field, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise EdgewiseError(f"model {name!r}: {field} in its config.json is {value!r}; it should be true or false")
    return value


def _positive(config: Mapping[str, Any], field: str, name: str, default: float) -> float:
    value = config.get(field, default)
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
    if not right:
        raise EdgewiseError(f"model {name!r}: {field} in its config.json is {value!r}; it should be a number above 0")
    return float(value)
