"""Models with a PEFT adapter: the adapter's folder, or a live `PeftModel`; merged into plain weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgewise.errors import EdgewiseError, first_line, quoted, require_package
from edgewise.json_files import read_json

ADAPTER = "adapter_config.json"


def read_adapter_config(path: Path, name: str) -> Mapping[str, Any]:
    """An adapter's own configuration, which names the model that it was trained on.

    Raises:
        EdgewiseError: it is no JSON object, names no model, or asks for a module of its own choosing to be imported.
    """
    config = read_json(path, f"the adapter_config.json of model {name!r}")
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(base, str) or not base.strip():
        raise EdgewiseError(
            f"model {name!r}: its {ADAPTER} should name the model that it is an adapter of, as "
            f"base_model_name_or_path, not {quoted(base)}"
        )
    if config.get("megatron_config") is not None:
        raise EdgewiseError(f"model {name!r} is an adapter for Megatron's layers, which edgewise does not read")
    return config


def merge_adapter(base: nn.Module, where: str, name: str, revision: str | None = None) -> nn.Module:
    """The base model with an adapter's weights added to its own; the base is changed.

    Raises:
        EdgewiseError: the package peft (`edgewise[peft]`) is not installed, the adapter does not fit the base or cannot
            be read, or is of a kind that is not a change of weights.
    """
    peft = require_package("peft", "peft", "to read a PEFT adapter")

    try:
        adapted = peft.PeftModel.from_pretrained(base, where, **({} if revision is None else {"revision": revision}))
    except Exception as error:  # of many kinds: its own, torch's, safetensors'
        raise EdgewiseError(f"the adapter {name!r} cannot be put into its model: {first_line(error)}") from None
    return _merged(adapted, name)


def merged_copy(model: Any) -> Any:
    """A live `PeftModel` as a plain model: a copy with the adapter merged, which leaves the live one as it is.

    Only the tensors that the adapter changes are copied; the others are shared. Where the weights below are quantised,
    merging would round them anew, so the model inside is taken as it is, adapter and all.

    Raises:
        EdgewiseError: as `merge_adapter`.
    """
    layers = require_package("peft.tuners.tuners_utils", "peft", "to read a PEFT adapter").BaseTunerLayer

    inside = model.get_base_model()
    if getattr(inside, "is_quantized", False):
        return inside
    name = type(model).__name__
    changed = {id(one) for layer in model.modules() if isinstance(layer, layers) for one in layer.parameters()}
    memo: dict[int, Any] = {
        id(one): nn.Parameter(one.data, requires_grad=one.requires_grad)
        for one in model.parameters()
        if id(one) not in changed and type(one) is nn.Parameter
    }
    return _merged(copy.deepcopy(model, memo), name)


def is_peft(model: Any) -> bool:
    """Whether a model is a live `PeftModel`."""
    return any(kind.__name__ == "PeftModel" and kind.__module__.startswith("peft.") for kind in type(model).__mro__)


def _merged(adapted: Any, name: str) -> nn.Module:
    kind = str(getattr(adapted.active_peft_config.peft_type, "value", adapted.active_peft_config.peft_type))
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise EdgewiseError(
            f"the adapter {name!r} is of kind {kind}, which is more than a change of the model's weights: it cannot be "
            "merged, so edgewise cannot read it"
        )
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except Exception as error:
        raise EdgewiseError(f"the adapter {name!r} ({kind}) cannot be merged: {first_line(error)}") from None
