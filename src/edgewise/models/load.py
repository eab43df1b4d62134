"""Loading models: built-in ones by name, others by where they are (sources.py), and model objects as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgewise.errors import EdgewiseError, near_matches
from edgewise.models import control
from edgewise.models.built_in import BUILT_IN, SHIPPED
from edgewise.models.checkpoint import refuse_multimodal
from edgewise.models.decoder import Decoder
from edgewise.models.device_map import DeviceMap
from edgewise.models.hand_built import HAND_BUILT
from edgewise.models.huggingface import ADAPTERS, adapt
from edgewise.models.layouts import read_by_layout
from edgewise.models.offloaded import is_spread
from edgewise.models.placed import place
from edgewise.models.plain import adapt_plain
from edgewise.models.plain_transformer import PlainTransformer
from edgewise.models.precision import WITHOUT_FLOAT64
from edgewise.models.sources import Source
from edgewise.models.wrappers import adapt_bridge, is_bridge, unwrap

DType = Literal["float32", "float64", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_model(
    model: str | Path | nn.Module,
    *,
    device: str | torch.device | None = None,
    dtype: DType | torch.dtype | None = None,
    tokenizer: Any = None,
    revision: str | None = None,
    fold_value_biases: bool = False,
    fold_norm_biases: bool = False,
    trust_layout: bool = False,
    device_map: str | Path | Mapping[str, Any] | None = None,
    memory_per_device: str | Mapping[Any, Any] | None = None,
    offload_folder: str | Path | None = None,
    offload_activations: bool = False,
) -> Decoder:
    """Load a model for edgewise.

    Args:
        model: a built-in name (`edgewise models` lists them), a Hugging Face hub id, a local folder, a .gguf file, or a
            model object. What a hub id or folder holds may be in Hugging Face's layout, a PEFT adapter, whose model is
            then loaded and the adapter merged into it, or in TransformerLens' layout (a config.json with that library's
            field names, and a state dict as .safetensors or .pth); TransformerLens' short names of such checkpoints
            (`attn-only-4l`, `redwood_attn_2l`, …) work too. A model object is a `transformers` model, quantised or not,
            one inside nnsight's `LanguageModel`, nnterp's `StandardizedTransformer` or `torch.compile`, or
            TransformerLens' `TransformerBridge` or `HookedTransformer`. It is used as it is, not copied: it is put into
            evaluation mode, and moved or converted if `device` or `dtype` say so. Of a live `PeftModel` a copy is
            merged; it shares with it what the adapter does not change, and the live one stays as it is.
        device: as torch names it; default: CUDA where there is one, else the CPU.
        dtype: `float32` (the default), `float64`, `bfloat16` or `float16`.
        tokenizer: for a model object, its tokenizer, or None for tasks that need none.
        revision: for a hub id, the branch, tag or commit of configuration, weights and tokenizer.
        fold_value_biases: count a head's value bias to the layer, not to the head. Only `zero` ablation can tell: then
            the bias stays when the head goes, as in the ACDC paper's runs on GPT-2 (TransformerLens folds by default).
        fold_norm_biases: before that, count the biases of norms to the maps that read them, as TransformerLens does
            too: value biases then hold what norms add to values (see `control.py`).
        trust_layout: read a `transformers` model of an unknown `model_type` like the first known family whose modules
            it has and that computes the same on random tokens (see `layouts.py`). What such prompts do not show, a long
            window for one, only the prompts of a task can.
        device_map: instead of a device, for a model in Hugging Face's layout that does not fit on one: `auto`,
            `balanced`, `balanced_low_0` or `sequential` (layers by the memory of devices: GPUs, then the CPU, then
            disk), `cpu-offload` or `disk-offload` (all layers in the CPU's memory or on disk, the rest on the first GPU
            or on the CPU), or devices by the names of modules, or a JSON file of these. Needs accelerate. A model
            object that accelerate has spread or offloaded is used as it is.
        memory_per_device: for a device map by size, the most that weights may take on each device, as in
            `{0: "20GB", "cpu": "60GB"}`, or `0=20GB,cpu=60GB`.
        offload_folder: where weights are written that go to disk and are not in the checkpoint as they are needed.
        offload_activations: keep what is recorded of the model (its own activations and what absent edges carry) in the
            CPU's memory, and bring that of a component to the model's device when it is needed. On the CPU it is there
            anyway.

    Raises:
        EdgewiseError: no such model, no weights in the folder, an unknown device or dtype, or an architecture that is
            not supported; the message says which.
    """
    spread = DeviceMap.of(device_map, memory_per_device, offload_folder)
    loaded = _load(model, device, _dtype(dtype), tokenizer, revision, trust_layout, spread)
    if offload_activations:
        origin = {**loaded.origin, "offload_activations": True}
        loaded = replace(loaded, origin=origin, offload_activations=True)
    loaded = control.fold_norm_biases(loaded) if fold_norm_biases else loaded
    return control.fold_value_biases(loaded) if fold_value_biases else loaded


def _load(
    model: str | Path | nn.Module,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    tokenizer: Any,
    revision: str | None,
    trust_layout: bool,
    spread: DeviceMap | None,
) -> Decoder:
    if spread is not None and (device is not None or trust_layout):
        other = "a device" if device is not None else "trust_layout (--trust-layout)"
        raise EdgewiseError(f"give a device map or {other}, not both")
    if revision is not None and (not isinstance(revision, str) or not revision.strip()):
        raise EdgewiseError("the revision should be the name of a branch, a tag or a commit of a model on the hub")
    name = str(model) if isinstance(model, str | Path) and not isinstance(model, nn.Module) else None
    here = name is None or name in HAND_BUILT or name in BUILT_IN
    what = "a model object" if name is None else f"{name!r}, which comes with edgewise,"
    if revision is not None and here:
        raise EdgewiseError(f"{what} has no revision: a revision ({revision!r}) is for models from the hub")
    if spread is not None and here:
        raise EdgewiseError(
            f"{what} takes no device map: it is for models from a folder or the hub, as it is about how they are loaded"
        )
    if name is None:
        return _from_object(model, device, dtype, tokenizer, trust_layout)
    if not name.strip():
        raise EdgewiseError("the model's name is empty")
    if name in HAND_BUILT:
        built = HAND_BUILT[name]()
        return adapt_model(_moved(built, _device(device, dtype or torch.float64), dtype), name, None)
    target = None if spread is not None else _device(device, dtype)
    source = Source(name, dtype or torch.float32, tokenizer, revision, trust_layout, spread)
    read = source.from_folder(BUILT_IN[name].folder or SHIPPED) if name in BUILT_IN else source.read()
    moved = _moved(read.model, target, None)
    adapted = adapt_model(moved, name, read.tokenizer, read.origin, trust_layout=trust_layout)
    return replace(adapted, why_no_tokenizer=read.why_no_tokenizer)


def adapt_model(
    model: nn.Module,
    name: str,
    tokenizer: Any,
    origin: Mapping[str, Any] | None = None,
    *,
    trust_layout: bool = False,
) -> Decoder:
    """A Decoder over a model that edgewise knows how to read."""
    read = adapt_plain if isinstance(model, PlainTransformer) else adapt
    if trust_layout and _unknown(model):
        read = read_by_layout
    decoder = read(model.eval(), name, tokenizer)  # type: ignore[arg-type] - as looked up
    decoder = replace(
        decoder,
        rebuild=lambda copied: adapt_model(copied, name, tokenizer, origin, trust_layout=trust_layout),
        origin={**(origin or {}), **decoder.origin},
    )
    if not is_spread(model):
        return decoder
    known: Any = read
    return place(decoder, decoder.reread or (lambda copied, index: known(copied, name, None).components[index]))


def _unknown(model: Any) -> bool:
    """Whether it is a causal language model of `transformers` of a family that edgewise does not know."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    return model_type is not None and model_type not in ADAPTERS and hasattr(model, "lm_head")


def _moved(model: nn.Module, device: str | torch.device | None, dtype: torch.dtype | None) -> nn.Module:
    """The model, on a device and in a dtype if they are given; a quantised one takes no dtype."""
    if dtype is not None and getattr(model, "is_quantized", False):
        raise EdgewiseError(f"this {type(model).__name__} is quantised, so it cannot be converted: leave dtype out")
    wanted = {"device": device, "dtype": dtype}
    given = {key: value for key, value in wanted.items() if value is not None}
    return model.to(**given) if given else model


def _from_object(
    model: Any, device: str | torch.device | None, dtype: torch.dtype | None, tokenizer: Any, trust_layout: bool
) -> Decoder:
    inner = unwrap(model)
    if not isinstance(inner, nn.Module):
        raise EdgewiseError(f"a {type(model).__name__} is not a model: give a name, a folder or a transformers model")
    if device is not None:
        own: Any = next((one.dtype for one in inner.parameters() if one.is_floating_point()), None)
        device = _device(device, dtype or own)
    if is_spread(inner):
        given = "device" if device is not None else "dtype" if dtype is not None else "trust_layout" * trust_layout
        if given:
            raise EdgewiseError(f"accelerate has spread this {type(model).__name__} over devices: leave {given} out")
    own_name = getattr(getattr(model, "cfg", None), "model_name", "")
    if is_bridge(inner):
        original: Any = inner.original_model
        if is_spread(original):
            raise EdgewiseError(
                "the model in this bridge is spread over devices, which only transformers models can be"
            )
        _moved(original, device, dtype)
        return adapt_bridge(inner, own_name or type(inner).__name__, tokenizer, adapt_model)
    if not is_spread(inner) and any(parameter.is_meta for parameter in inner.parameters()):
        raise EdgewiseError(
            f"the weights of this {type(model).__name__} are not loaded: its tensors are on device meta"
        )
    config: Any = getattr(inner, "config", None)
    if getattr(config, "model_type", "") not in ADAPTERS and hasattr(config, "to_dict"):
        refuse_multimodal(config.to_dict(), type(model).__name__)
    moved = _moved(inner, device, dtype)
    name = own_name if isinstance(moved, PlainTransformer) else ""
    name = name or getattr(getattr(moved, "config", None), "name_or_path", "") or type(moved).__name__
    return adapt_model(moved, name, tokenizer, trust_layout=trust_layout)


def _device(device: str | torch.device | None, dtype: torch.dtype | None = None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = "known: cpu, cuda, cuda:0, …, mps"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise EdgewiseError(f"unknown device {device!r} ({known})") from None
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise EdgewiseError(f"unknown device {str(device)!r} ({known})")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise EdgewiseError(f"device {str(device)!r}: torch finds no CUDA device on this machine")
    if wanted.type == "cuda" and wanted.index is not None and wanted.index >= torch.cuda.device_count():
        raise EdgewiseError(f"device {str(device)!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise EdgewiseError(f"device {str(device)!r}: torch finds no Apple GPU on this machine")
    if wanted.type in WITHOUT_FLOAT64 and dtype == torch.float64:
        raise EdgewiseError(f"device {str(device)!r} has no float64: use another dtype, or the CPU")
    return wanted


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype if isinstance(dtype, torch.dtype) else None
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise EdgewiseError(f"unknown dtype {str(dtype)!r}{near_matches(str(dtype), DTYPES)} (known: {', '.join(DTYPES)})")
