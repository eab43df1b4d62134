"""Reading `transformers` models: a reader per `model_type`, edgewise's own and those that others register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from edgewise.errors import EdgewiseError
from edgewise.models.decoder import Decoder
from edgewise.models.families.table import FAMILIES
from edgewise.registry import Registry

Adapter = Callable[[Any, str, Any], Decoder]
"""Called with a `transformers` model, what it is called, and its tokenizer or None."""

ADAPTERS: Registry[Adapter] = Registry(
    "family", "edgewise.families", callable, {model_type: family.read for model_type, family in FAMILIES.items()}
)
"""Readers by `model_type`, the name of an architecture in a model's config.json."""


def register_family(model_type: str, adapter: Adapter) -> None:
    """Make models of a family load: those whose configuration's `model_type` is this one.

    Raises:
        EdgewiseError: there is a reader for it already.
    """
    ADAPTERS.add(model_type, adapter)


def adapt(model: nn.Module, name: str, tokenizer: Any = None) -> Decoder:
    """A Decoder over a `transformers` model, whose architecture is looked up by its configuration's `model_type`.

    Raises:
        EdgewiseError: the architecture is not supported; the message names it and lists those that are.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if model_type not in ADAPTERS or not hasattr(model, "lm_head"):
        raise unsupported(name, f"{model_type} ({type(model).__name__})")
    return ADAPTERS[model_type](model, name, tokenizer)


def unsupported(name: str, architecture: str) -> EdgewiseError:
    """The refusal of an architecture that has no reader."""
    return EdgewiseError(
        f"model {name!r} is of architecture {architecture}, which edgewise does not support yet "
        f"(supported: {', '.join(sorted(ADAPTERS))}, as causal language models); if its modules are those of one of "
        "these under another name, trust_layout (--trust-layout) tries them and lets the guard judge"
    )
