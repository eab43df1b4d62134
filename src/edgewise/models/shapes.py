"""Models without their weights: a `Decoder` of a shape, whose tensors have sizes and no numbers.

A shape is a Hugging Face config.json, or the name of one that is written down here. `transformers` builds the model on
torch's device `meta`, and the family's own adapter reads it, so that graph, parameters and the memory plan are those of
the real model. Nothing can be run on it but the shapes of what would come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgewise.errors import EdgewiseError, first_line, near_matches, quoted
from edgewise.models.checkpoint import attention_of, check_sizes, refuse_multimodal
from edgewise.models.decoder import Decoder
from edgewise.models.huggingface import ADAPTERS, adapt, unsupported
from edgewise.models.load import DTYPES
from edgewise.models.sources import quiet
from edgewise.models.transformer_lens import is_transformer_lens, read_config_file


def _gpt2(layers: int, heads: int, d_model: int) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_layer": layers, "n_head": heads, "n_embd": d_model}


def _llama(layers: int, heads: int, kv_heads: int, d_model: int, d_mlp: int, vocabulary: int, tied: bool) -> Any:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_size": d_model,
        "intermediate_size": d_mlp,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


def _gemma2(layers: int, heads: int, kv_heads: int, d_model: int, d_mlp: int) -> dict[str, Any]:
    own = {"model_type": "gemma2", "head_dim": 256}
    return {**_llama(layers, heads, kv_heads, d_model, d_mlp, 256_000, tied=True), **own}


def _pythia(layers: int, heads: int, d_model: int, vocabulary: int = 50_304) -> dict[str, Any]:
    return {
        "model_type": "gpt_neox",
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": d_model,
        "intermediate_size": 4 * d_model,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": _gpt2(12, 12, 768),
    "gpt2-medium": _gpt2(24, 16, 1024),
    "gpt2-large": _gpt2(36, 20, 1280),
    "gpt2-xl": _gpt2(48, 25, 1600),
    "pythia-160m": _pythia(12, 12, 768),
    "pythia-1.4b": _pythia(24, 16, 2048),
    "pythia-6.9b": _pythia(32, 32, 4096, 50_432),
    "smollm2-135m": _llama(30, 9, 3, 576, 1536, 49_152, tied=True),
    "llama-3.2-1b": _llama(16, 32, 8, 2048, 8192, 128_256, tied=True),
    "llama-3.2-3b": _llama(28, 24, 8, 3072, 8192, 128_256, tied=True),
    "llama-3.1-8b": _llama(32, 32, 8, 4096, 14_336, 128_256, tied=False),
    "llama-3.1-70b": _llama(80, 64, 8, 8192, 28_672, 128_256, tied=False),
    "gemma-2-2b": _gemma2(26, 8, 4, 2304, 9216),
    "gemma-2-9b": _gemma2(42, 16, 8, 3584, 14_336),
    "qwen3-8b": {
        **_llama(36, 32, 8, 4096, 12_288, 151_936, tied=False),
        "model_type": "qwen3",
        "head_dim": 128,
    },
}
"""Well-known shapes, after the config.json that each was published with; what is left out is the family's default.

`tests/models/test_shapes.py` holds each to the number of parameters that its model was published with.
"""

_NOT_OF_THE_SHAPE = ("auto_map", "quantization_config", "torch_dtype", "dtype", "_name_or_path", "transformers_version")


def load_shape(shape: str | Path, dtype: str | None = None) -> Decoder:
    """A `Decoder` without numbers.

    Args:
        shape: a name of `SHAPES`, a config.json, or a folder that holds one; weights beside it are not looked at.
        dtype: of the weights, `float32` unless it is given.

    Raises:
        EdgewiseError: no such shape or dtype, a broken config.json, or a family that edgewise does not read.
    """
    if dtype is not None and dtype not in DTYPES:
        raise EdgewiseError(f"unknown dtype {dtype!r}{near_matches(dtype, DTYPES)} (known: {', '.join(DTYPES)})")
    name = str(shape)
    return _built(_config_of(name), name, DTYPES[dtype or "float32"])


def _config_of(name: str) -> Mapping[str, Any]:
    if name.lower() in SHAPES:
        return SHAPES[name.lower()]
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if not name.strip() or not path.exists():
        raise EdgewiseError(
            f"unknown shape {quoted(name)}{near_matches(name, SHAPES)} (known: {', '.join(SHAPES)}; or a folder that "
            "holds a config.json, or that file)"
        )
    config = read_config_file(path, name)
    if is_transformer_lens(config):
        raise EdgewiseError(f"shape {name!r} is in TransformerLens' layout; a shape is a Hugging Face config.json")
    check_sizes(config, name)
    refuse_multimodal(config, name)
    return config


def _built(given: Mapping[str, Any], name: str, dtype: torch.dtype) -> Decoder:
    import transformers

    model_type = given.get("model_type")
    if not isinstance(model_type, str) or model_type not in ADAPTERS:
        raise unsupported(name, str(model_type))
    fields = {key: value for key, value in given.items() if key not in _NOT_OF_THE_SHAPE}
    try:
        with quiet(), torch.device("meta"):
            config = transformers.AutoConfig.for_model(**fields)
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=attention_of(config)
            )
    except EdgewiseError:
        raise
    except Exception as error:  # whatever transformers raises over a configuration that is none
        raise EdgewiseError(f"shape {name!r}: transformers makes no model of it: {first_line(error)}") from None
    decoder = adapt(model.requires_grad_(False).eval(), name)
    decoder.graph()  # one too large is refused before anything else is worked out
    return decoder


def parameters(decoder: Decoder) -> int:
    """How many parameters a model has; tied ones are counted once."""
    return sum(one.numel() for one in decoder.source.parameters())
