"""Loading models: built-in ones by name, Hugging Face ones by hub id or folder, and model objects as they are."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgewise.errors import EdgewiseError, first_line, near_matches
from edgewise.models.checkpoint import check_folder, check_sizes, require_fit, unreadable
from edgewise.models.control import fold_value_biases as fold
from edgewise.models.decoder import Decoder
from edgewise.models.hand_built import HAND_BUILT
from edgewise.models.huggingface import ADAPTERS, adapt, unsupported
from edgewise.models.plain import adapt_plain
from edgewise.models.plain_transformer import PlainTransformer
from edgewise.models.transformer_lens import (
    ALIASES,
    build_transformer_lens,
    choose_weights,
    is_transformer_lens,
    read_config_file,
    read_state,
)
from edgewise.models.wrappers import adapt_bridge, is_bridge, unwrap

SHIPPED = Path(__file__).parent / "shipped"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
DType = Literal["float32", "float64", "bfloat16"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class BuiltIn:
    """A model that comes with edgewise."""

    name: str
    description: str
    folder: Path | None = None


BUILT_IN: dict[str, BuiltIn] = {
    model.name: model
    for model in (
        BuiltIn("tiny-ioi", "GPT-2 of 4 layers of 4 heads, trained on IOI sentences", SHIPPED / "tiny-ioi"),
        BuiltIn(
            "tiny-greater-than",
            "GPT-2 of 2 layers of 4 heads, trained on years and later ones",
            SHIPPED / "tiny-greater-than",
        ),
        BuiltIn(
            "tiny-docstring",
            "attention only, 3 layers of 4 heads, trained to name arguments in order",
            SHIPPED / "tiny-docstring",
        ),
        BuiltIn(
            "tiny-induction",
            "attention only, 2 layers of 4 heads, trained on repeated random tokens",
            SHIPPED / "tiny-induction",
        ),
        BuiltIn(
            "tiny-pronoun", "GPT-2 of 2 layers of 4 heads, trained on names and pronouns", SHIPPED / "tiny-pronoun"
        ),
        BuiltIn("tracr-reverse", "list reversal, built by hand after tracr's program"),
        BuiltIn("tracr-xproportion", "share of x among the letters so far, built by hand"),
        BuiltIn("tracr-xproportion-compiled", "the same as tracr compiles it, BOS and padding counted"),
        BuiltIn("or-gate", "two heads, either of which is enough"),
    )
}


def load_model(
    model: str | Path | nn.Module,
    *,
    device: str | torch.device | None = None,
    dtype: DType | torch.dtype | None = None,
    tokenizer: Any = None,
    fold_value_biases: bool = False,
) -> Decoder:
    """Load a model for edgewise.

    Args:
        model: a built-in name (`edgewise models` lists them), a Hugging Face hub id, a local folder, or a model object.
            What a hub id or folder holds may be in Hugging Face's layout or in TransformerLens' (a config.json with
            that library's field names, and a state dict as .safetensors or .pth); TransformerLens' short names of such
            checkpoints (`attn-only-4l`, `redwood_attn_2l`, …) work too. A model object is a `transformers` model, one
            inside nnsight's `LanguageModel`, nnterp's `StandardizedTransformer` or `torch.compile`, or TransformerLens'
            `TransformerBridge` or `HookedTransformer`. It is used as it is, not copied: it is put into evaluation mode,
            and moved or converted if `device` or `dtype` say so.
        device: as torch names it; default: CUDA where there is one, else the CPU.
        dtype: `float32` (the default), `float64` or `bfloat16`.
        tokenizer: for a model object, its tokenizer, or None for tasks that need none.
        fold_value_biases: count a head's value bias to the layer, not to the head. Only `zero` ablation can tell: then
            the bias stays when the head goes, as in the ACDC paper's runs on GPT-2 (TransformerLens folds by default).

    Raises:
        EdgewiseError: no such model, no weights in the folder, an unknown device or dtype, or an architecture that is
            not supported; the message says which.
    """
    loaded = _load(model, device, _dtype(dtype), tokenizer)
    return fold(loaded) if fold_value_biases else loaded


def _load(
    model: str | Path | nn.Module, device: str | torch.device | None, dtype: torch.dtype | None, tokenizer: Any
) -> Decoder:
    if isinstance(model, nn.Module) or not isinstance(model, str | Path):
        return _from_object(model, None if device is None else _device(device), dtype, tokenizer)

    name = str(model)
    if not name.strip():
        raise EdgewiseError("the model's name is empty")
    target = _device(device)
    if name in HAND_BUILT:
        built = HAND_BUILT[name]()
        return adapt_model(built.to(device=target, dtype=dtype), name, None)
    dtype = dtype or torch.float32
    if name in BUILT_IN:
        return _from_folder(name, BUILT_IN[name].folder or SHIPPED, target, dtype, tokenizer)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(name, folder, target, dtype, tokenizer)
    if folder.exists():
        raise EdgewiseError(f"model {name!r} is a file; give the folder that holds its config.json and weights")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EdgewiseError(f"model {name!r}: there is no such folder")
    return _from_hub(name, target, dtype, tokenizer)


def adapt_model(model: nn.Module, name: str, tokenizer: Any) -> Decoder:
    """A Decoder over a model that edgewise knows how to read."""
    read = adapt_plain if isinstance(model, PlainTransformer) else adapt
    decoder = read(model.eval(), name, tokenizer)  # type: ignore[arg-type] - as looked up
    return replace(decoder, rebuild=lambda copied: adapt_model(copied, name, tokenizer))


def _from_object(model: Any, device: torch.device | None, dtype: torch.dtype | None, tokenizer: Any) -> Decoder:
    inner = unwrap(model)
    if not isinstance(inner, nn.Module):
        raise EdgewiseError(f"a {type(model).__name__} is not a model: give a name, a folder or a transformers model")
    own_name = getattr(getattr(model, "cfg", None), "model_name", "")
    if is_bridge(inner):
        inner.original_model.to(device=device, dtype=dtype)
        return adapt_bridge(inner, own_name or type(inner).__name__, tokenizer, adapt_model)
    if any(parameter.is_meta for parameter in inner.parameters()):
        raise EdgewiseError(
            f"the weights of this {type(model).__name__} are not loaded: its tensors are on device meta"
        )
    moved = inner.to(device=device, dtype=dtype)
    name = own_name if isinstance(moved, PlainTransformer) else ""
    name = name or getattr(getattr(moved, "config", None), "name_or_path", "") or type(moved).__name__
    return adapt_model(moved, name, tokenizer)


def _from_folder(name: str, folder: Path, device: torch.device, dtype: torch.dtype, tokenizer: Any) -> Decoder:
    if not (folder / "config.json").is_file():
        raise EdgewiseError(
            f"model folder {str(folder)!r} has no config.json, so it is neither in Hugging Face's layout nor in "
            "TransformerLens'"
        )
    config = read_config_file(folder / "config.json", name)
    if is_transformer_lens(config):
        weights = folder / choose_weights([file.name for file in folder.iterdir()], name)
        return _from_transformer_lens(name, folder, config, weights, device, dtype, tokenizer)
    check_sizes(config, name)
    if config.get("model_type") in ADAPTERS:
        check_folder(folder, config, name)
    return _from_transformers(name, folder, device, dtype, tokenizer)


def _from_hub(name: str, device: torch.device, dtype: torch.dtype, tokenizer: Any) -> Decoder:
    import huggingface_hub

    repository, config, folder = ALIASES.get(name, name), {}, Path()
    try:
        path = Path(huggingface_hub.hf_hub_download(repository, "config.json"))
        config, folder = read_config_file(path, name), path.parent
    except (EdgewiseError, OSError, ValueError):
        pass  # not there, not to be had, not an id: transformers looks again, and the error is made from what it says
    if not is_transformer_lens(config):
        if repository != name and not config:
            raise _not_found(name, None, FileNotFoundError(), repository)
        check_sizes(config, name)
        return _from_transformers(name, None, device, dtype, tokenizer)
    try:
        files = huggingface_hub.list_repo_files(repository)
    except Exception:  # offline: what the local cache has
        files = [file.name for file in folder.iterdir()]
    chosen = choose_weights(files, name)
    try:
        weights = Path(huggingface_hub.hf_hub_download(repository, chosen))
    except Exception as error:  # the hub's own errors, of many kinds
        raise EdgewiseError(f"the weights of model {name!r} cannot be had: {first_line(error)}") from None
    return _from_transformer_lens(name, folder, config, weights, device, dtype, tokenizer)


def _from_transformer_lens(
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    weights: Path,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Any,
) -> Decoder:
    model = build_transformer_lens(config, read_state(weights, name), name, dtype)
    why = ""
    if tokenizer is None:
        tokenizer = _tokenizer(name, folder)
    other = config.get("tokenizer_name")
    if tokenizer is None and other:
        # Without it the model still serves tasks made of token ids.
        try:
            with _quiet():
                tokenizer = _tokenizer(str(other), None)
        except EdgewiseError as error:
            why = f" (its config.json names {other!r}: {error})"
    return replace(adapt_model(model.to(device), name, tokenizer), why_no_tokenizer=why)


def _from_transformers(
    name: str, folder: Path | None, device: torch.device, dtype: torch.dtype, tokenizer: Any
) -> Decoder:
    # Imported here: transformers takes seconds to import, and built-in models and --help do without it.
    import transformers

    where = name if folder is None else str(folder)
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
        except Exception as error:  # transformers raises errors of many kinds over a config.json that is not right
            raise _not_found(name, folder, error) from None
        if config.model_type not in ADAPTERS:
            raise unsupported(name, config.model_type)
        try:
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                where,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                attn_implementation="sdpa",  # whatever config.json says: it could name a program on the hub
            )
            model, problems = loaded
        except Exception as error:  # whatever safetensors, torch or the hub raise over a broken file
            raise unreadable(name, error) from None
        require_fit(name, problems)
        if tokenizer is None:
            tokenizer = _tokenizer(name, folder)
    return adapt_model(model.to(device), name, tokenizer)


def _tokenizer(name: str, folder: Path | None) -> Any:
    """The model's tokenizer, or None where the folder has none: it still serves tasks made of token ids."""
    import transformers

    if folder is not None and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(
            name if folder is None else str(folder), trust_remote_code=False
        )
    except Exception as error:  # whatever tokenizers and transformers raise over a broken file
        raise EdgewiseError(f"the tokenizer of model {name!r} cannot be read: {first_line(error)}") from None


def _not_found(name: str, folder: Path | None, error: Exception, repository: str = "") -> EdgewiseError:
    if folder is not None:
        return EdgewiseError(f"model {name!r}: its config.json cannot be used: {first_line(error)}")
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    if "GatedRepoError" in causes:
        return EdgewiseError(f"model {name!r} is gated: ask for access on its hub page, then run `hf auth login`")
    if "RepositoryNotFoundError" in causes:
        why = "the Hugging Face hub has none of that name, or it is private"
    else:
        why = "it is not in the local Hugging Face cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
    known = (*BUILT_IN, *ALIASES, "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
    hint = "" if name in known else near_matches(name, known)
    also = f" (hub id {repository})" if repository else ""
    return EdgewiseError(
        f"cannot find model {name!r}{also}: no built-in model or folder is called that; {why}{hint} "
        f"(built-in: {', '.join(BUILT_IN)})"
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise EdgewiseError(f"unknown device {device!r} (known: cpu, cuda, cuda:0, …)") from None
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise EdgewiseError(f"device {str(device)!r}: torch finds no CUDA device on this machine")
    if wanted.type == "cuda" and wanted.index is not None and wanted.index >= torch.cuda.device_count():
        raise EdgewiseError(f"device {str(device)!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    if wanted.type not in ("cpu", "cuda"):
        raise EdgewiseError(f"unknown device {str(device)!r} (known: cpu, cuda, cuda:0, …)")
    return wanted


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype if isinstance(dtype, torch.dtype) else None
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise EdgewiseError(f"unknown dtype {str(dtype)!r}{near_matches(str(dtype), DTYPES)} (known: {', '.join(DTYPES)})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and advice that transformers prints while it loads; errors still come."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
        hub.setLevel(hub_level)
