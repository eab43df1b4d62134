"""Models in one .gguf file, read by transformers' own loader into dense weights."""

from __future__ import annotations

import io
import re
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewise.errors import EdgewiseError, first_line, require_package
from edgewise.models.checkpoint import attention_of, check_layers, check_sizes, require_fit, unreadable
from edgewise.models.huggingface import ADAPTERS, unsupported

_PLAIN = {"F64", "F32", "F16", "BF16"}
_IN_BLOCK = re.compile(r"^blk\.(\d+)\.")


def read_gguf(name: str, file: Path, dtype: torch.dtype, tokenizer: Any) -> tuple[nn.Module, Any, dict[str, Any]]:
    """A model from a .gguf file: dequantised to `dtype`, with the file's tokenizer, or None where it has none.

    Returns:
        The model, its tokenizer, and what a run's record says of the file: the quantisation, as in `Q4_K_M`, and how
        many tensors are of which type.

    Raises:
        EdgewiseError: a package of `edgewise[gguf]` is not installed, the file is broken, or transformers or edgewise
            cannot read its architecture.
    """
    gguf, _ = (require_package(one, "gguf", "to read a .gguf file") for one in ("gguf", "accelerate"))
    import transformers

    try:
        header = gguf.GGUFReader(file)
        architecture = str(header.get_field("general.architecture").contents())
        tensors = [one.name for one in header.tensors]
        kinds = dict(Counter(one.tensor_type.name for one in header.tensors))
        size = sum(int(one.n_bytes) for one in header.tensors)
        kind = _quantisation(header, gguf.LlamaFileType)
        has_tokenizer = header.get_field("tokenizer.ggml.model") is not None
    except Exception as error:  # whatever numpy and gguf raise over a broken file
        raise unreadable(name, error) from None
    about: dict[str, Any] = {"quantisation": kind, "dequantised": not set(kinds) <= _PLAIN, "tensors": kinds}
    del header
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        config = transformers.AutoConfig.from_pretrained(**where)
    except Exception as error:  # of many kinds, over an architecture that it has no table for and over a broken file
        raise EdgewiseError(
            f"transformers {transformers.__version__} cannot read model {name!r}, of architecture {architecture}, from "
            f"GGUF: {first_line(error)}; give the model as a folder in Hugging Face's layout"
        ) from None
    if config.model_type not in ADAPTERS:
        raise unsupported(name, config.model_type)
    check_sizes(config.to_dict(), name, "its metadata")
    check_layers(config.to_dict(), tensors, size, name, "its metadata", _IN_BLOCK)
    ignored = sorted(one for one in tensors if one.startswith(("rope_freqs", "rope_factors")))
    if ignored and (config.rope_parameters or {}).get("rope_type", "default") == "default":
        about["ignored"] = ignored
    try:
        # Newer versions would keep the blocks as they are, and fetch programs from the hub to compute with them.
        newer = getattr(transformers, "GgufConfig", None)
        dense: dict[str, Any] = {} if newer is None else {"quantization_config": newer(dequantize=True)}
        with redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                **where,
                **dense,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                attn_implementation=attention_of(config),
            )
        model, problems = loaded
    except Exception as error:
        raise unreadable(name, error) from None
    require_fit(name, problems, "its metadata")
    if tokenizer is None and has_tokenizer:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
        except Exception as error:
            raise EdgewiseError(f"the tokenizer of model {name!r} cannot be read: {first_line(error)}") from None
    return model, tokenizer, about


def _quantisation(header: Any, kinds: Any) -> str:
    """What the file calls its quantisation; where it does not say, the type of most of its numbers."""
    field = header.get_field("general.file_type")
    if field is not None:
        try:
            return kinds(int(field.contents())).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        except ValueError:
            pass  # of a newer kind than the package knows
    numbers = Counter[str]()
    for tensor in header.tensors:
        numbers[tensor.tensor_type.name] += int(tensor.n_elements)
    return numbers.most_common(1)[0][0]
