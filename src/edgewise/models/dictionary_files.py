"""Dictionaries from files, in the layouts in which they are published.

| layout | what is there | says itself where it stands |
|---|---|---|
| SAELens | a folder of `cfg.json` and `sae_weights.safetensors`, or a folder of such folders | yes |
| circuit-tracer | a folder of `config.yaml` and `layer_0.safetensors`, …, or the files that it lists | yes |
| Gemma Scope | `params.npz` | by the names of the folders around it |
| Gemma Scope 2 | `params.safetensors` | no |
| any file like these | `.npz`, `.safetensors` | no |

Tensors are `W_enc`, `b_enc`, `W_dec`, `b_dec`, of a JumpReLU `threshold`, of a skip `W_skip`; Gemma Scope 2 writes
`w_enc`, `w_dec` and `affine_skip_connection`. SAELens and Gemma Scope have the encoder as `[d_model, features]`,
circuit-tracer as `[features, d_model]`, and its threshold is `activation_function.threshold`. Nothing is unpickled.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from edgewise.errors import EdgewiseError, first_line, quoted
from edgewise.files import read_text
from edgewise.json_files import read_json
from edgewise.models.decoder import Decoder
from edgewise.models.dictionary import Dictionary, Place, place_of
from edgewise.models.feature_mlp import by_feature

_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
_ARCHITECTURES = ("standard", "jumprelu", "topk", *_TRANSCODERS)
_LAYER_FILE = re.compile(r"layer_(\d{1,6})\.safetensors")
_SCOPE_LAYER = re.compile(r"layer_(\d{1,6})(?:_.*)?")
_SCOPE_KINDS = {
    "transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
    "mlp": ("hook_mlp_out", None),
    "res": ("hook_resid_post", None),
}
"""What the name of a Gemma Scope repository ends in, as in gemma-scope-2b-pt-res, and where such features are."""


def read_dictionaries(path: str | Path, hooks: str | None = None) -> list[Dictionary]:
    """The dictionaries that a file or folder holds, from early to late layers, in float32.

    Args:
        hooks: for files that do not say it, where they read and, of a transcoder, where they write, as in
            `blocks.3.hook_resid_post` or `blocks.3.ln2.hook_normalized,blocks.3.hook_mlp_out`.

    Raises:
        EdgewiseError: there is nothing of the kind, it is broken, of a kind that edgewise does not know, or does not
            say where it stands.
    """
    path = Path(path).expanduser()
    what = f"the dictionary {str(path)!r}"
    if path.is_dir() and (path / "config.yaml").is_file():
        _says_itself(hooks, f"{what}: its config.yaml")
        return _of_circuit_tracer(path)
    folders = [path] if (path / "cfg.json").is_file() else sorted(one.parent for one in path.glob("*/cfg.json"))
    if folders:
        _says_itself(hooks, f"{what}: its cfg.json")
        found = sorted((_of_sae_lens(one) for one in folders), key=lambda one: one.layer)
        return found
    if path.is_dir():
        files = [one for name in ("params.npz", "params.safetensors") if (one := path / name).is_file()]
        if len(files) != 1:
            raise EdgewiseError(
                f"{what} is a folder without a dictionary: SAELens has a cfg.json there, circuit-tracer a config.yaml, "
                "Gemma Scope a params.npz"
            )
        path, what = files[0], f"the dictionary {str(files[0])!r}"
    tensors = _tensors(path, what)
    place = _of_gemma_scope(path) if hooks is None else _of_hooks(hooks)
    if place is None or place.layer is None:
        raise EdgewiseError(
            f"{what} does not say where its features are: give it as --dictionary-hooks, as in "
            "blocks.3.hook_resid_post, or blocks.3.ln2.hook_normalized,blocks.3.hook_mlp_out of a transcoder"
        )
    return [_made(tensors, place, what)]


def with_dictionary(decoder: Decoder, path: str | Path, hooks: str | None = None) -> Decoder:
    """The model taken apart by the features of a dictionary in a file or folder (see `by_feature`).

    A model that is taken apart by the same dictionary already is given back.

    Args:
        hooks: as of `read_dictionaries`.

    Raises:
        EdgewiseError: as `read_dictionaries` and `by_feature`.
    """
    origin = {"path": str(Path(path).expanduser().resolve()), **({} if hooks is None else {"hooks": hooks})}
    own = decoder.origin.get("dictionary", {})
    if origin.items() <= own.items():
        return decoder
    return by_feature(decoder, read_dictionaries(path, hooks), origin)


def _says_itself(hooks: str | None, what: str) -> None:
    if hooks is not None:
        raise EdgewiseError(f"{what} says where its features are; --dictionary-hooks is for files that do not")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _of_hooks(hooks: str) -> Place:
    reads, comma, writes = (one.strip() for one in hooks.partition(","))
    return place_of(reads, writes if comma else None, "--dictionary-hooks")


def _of_gemma_scope(path: Path) -> Place | None:
    """Where features are by the folders around a file, `gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_59`."""
    around = path.resolve().parent.parts
    layers = [match[1] for part in around if (match := _SCOPE_LAYER.fullmatch(part))]
    kinds = [kind for part in around if "gemma-scope" in part for kind in _SCOPE_KINDS if part.endswith(f"-{kind}")]
    if len(layers) != 1 or len(kinds) != 1:
        return None
    reads, writes = _SCOPE_KINDS[kinds[0]]
    before = f"blocks.{layers[0]}."
    return place_of(before + reads, None if writes is None else before + writes, str(path))


def _of_sae_lens(folder: Path) -> Dictionary:
    what = f"the dictionary {str(folder)!r}"
    config = read_json(folder / "cfg.json", "the configuration of a dictionary")
    told: dict[str, Any] = {**config, **_mapping(config.get("meta")), **_mapping(config.get("metadata"))}
    kind = told.get("architecture", "standard")
    if kind not in _ARCHITECTURES:
        raise EdgewiseError(
            f"{what} is of SAELens' architecture {quoted(kind)}; edgewise reads {', '.join(_ARCHITECTURES)}"
        )
    for name, usual in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if told.get(name) not in (None, False, usual):
            raise EdgewiseError(f"{what} has {name!r} {quoted(told[name])}, which edgewise does not apply")
    for name in ("finetuning_scaling_factor", "rescale_acts_by_decoder_norm", "hook_head_index"):
        if told.get(name) not in (None, False):
            raise EdgewiseError(f"{what} has {name!r} {quoted(told[name])}, which edgewise does not apply")
    reads, writes = told.get("hook_name", told.get("hook_point")), told.get("hook_name_out")
    if not isinstance(reads, str) or not isinstance(writes, str | None):
        raise EdgewiseError(f"{what}: its cfg.json does not say where its features are ('hook_name')")
    if kind in _TRANSCODERS and writes is None:
        raise EdgewiseError(f"{what}: its cfg.json does not say what its transcoder predicts ('hook_name_out')")
    place = place_of(reads, writes or None, what)
    if place.layer is None:
        raise EdgewiseError(f"{what}: {quoted(reads)} does not say of which layer it is")
    acts = told.get("activation_fn", told.get("activation_fn_str", "relu"))
    few = "topk" in (kind, acts)
    k = told.get("k", _mapping(told.get("activation_fn_kwargs")).get("k")) if few else 0
    if acts not in ("relu", "topk") or type(k) is not int or (few and k < 1):
        raise EdgewiseError(f"{what} has activation {quoted(acts)} with k {quoted(k)}; edgewise knows relu and topk")
    centred = told.get("apply_b_dec_to_input", True) is True and kind not in _TRANSCODERS
    tensors = _tensors(folder / "sae_weights.safetensors", what)
    if ("jumprelu" in kind) != ("threshold" in tensors):
        raise EdgewiseError(
            f"{what} is of architecture {kind!r}, which has {'a' if 'jumprelu' in kind else 'no'} threshold"
        )
    return _made(tensors, place, what, k=k, centred=centred)


def _of_circuit_tracer(folder: Path) -> list[Dictionary]:
    import yaml

    what = f"the dictionary {str(folder)!r}"
    try:
        config = yaml.safe_load(read_text(folder / "config.yaml", "the configuration of a dictionary"))
    except yaml.YAMLError as error:
        raise EdgewiseError(f"{what}: its config.yaml is not YAML: {first_line(error)}") from None
    if not isinstance(config, Mapping) or config.get("model_kind") != "transcoder_set":
        kind = config.get("model_kind") if isinstance(config, Mapping) else None
        raise EdgewiseError(
            f"{what} is of circuit-tracer's kind {quoted(kind)}; edgewise reads 'transcoder_set', one for each layer"
        )
    hooks = [config.get(name) for name in ("feature_input_hook", "feature_output_hook")]
    if not all(isinstance(one, str) for one in hooks):
        raise EdgewiseError(f"{what}: its config.yaml has no 'feature_input_hook' and 'feature_output_hook'")
    activation, k = config.get("activation"), config.get("k")
    known = (None, "relu", "jump_relu", "jumprelu", "topk")
    if activation not in known or (activation == "topk" and (type(k) is not int or k < 1)):
        raise EdgewiseError(
            f"{what} has activation {quoted(activation)} with k {quoted(k)}, which edgewise does not know"
        )
    found = []
    for layer, file in _layer_files(folder, config, what):
        of_layer = f"the dictionary {str(file)!r}"
        tensors = _tensors(file, of_layer)
        if file.suffix != ".npz" and "w_enc" not in tensors and "W_enc" in tensors:
            tensors["W_enc"] = tensors["W_enc"].T  # circuit-tracer's own files have a row for each feature
        if (threshold := tensors.pop("activation_function.threshold", None)) is not None:
            tensors["threshold"] = threshold
        if activation in ("relu", "topk"):
            tensors.pop("threshold", None)
        active = int(tensors.pop("k", torch.tensor(k if activation == "topk" else 0)))
        reads, writes = (f"blocks.{layer}.{hook}" for hook in hooks)
        place = place_of(reads, writes, what)
        found.append(_made(tensors, place, of_layer, k=active, signed=True))
    return found


def _layer_files(folder: Path, config: Mapping[str, Any], what: str) -> list[tuple[int, Path]]:
    """The file of each layer that has one."""
    listed = config.get("transcoders")
    if listed is None:
        files = [(int(match[1]), one) for one in folder.iterdir() if (match := _LAYER_FILE.fullmatch(one.name))]
        if not files:
            raise EdgewiseError(f"{what} has a config.yaml, and no layer_0.safetensors or others beside it")
        return sorted(files)
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
        raise EdgewiseError(f"{what}: 'transcoders' in its config.yaml should list a file for each layer")
    far = next((one for one in listed if one.startswith("hf://")), None)
    if far is not None:
        raise EdgewiseError(
            f"{what}: its config.yaml names {quoted(far)}; download the files (hf download) and name them there by "
            "their paths"
        )
    return [(layer, folder / one) for layer, one in enumerate(listed)]


def _tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a file by their names, in float32."""
    if not path.is_file():
        raise EdgewiseError(f"{what}: there is no file {path.name!r}")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
        elif path.suffix == ".safetensors":
            found = load_file(path)
        else:
            raise EdgewiseError(f"{what} is no .npz or .safetensors file, nor a folder with a dictionary in it")
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise EdgewiseError(f"{what} is broken: {first_line(error)}") from None
    return {name: one.to(torch.float32) for name, one in found.items()}


def _made(
    tensors: dict[str, Tensor], place: Place, what: str, *, k: int = 0, signed: bool = False, centred: bool = False
) -> Dictionary:
    """A dictionary of a file's tensors, with the encoder as `[d_model, features]`."""
    if "w_enc" in tensors:  # Gemma Scope 2
        tensors = {{"w_enc": "W_enc", "w_dec": "W_dec"}.get(name, name): one for name, one in tensors.items()}
        if "affine_skip_connection" in tensors:
            tensors["W_skip"] = tensors.pop("affine_skip_connection").T
    known = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip", "scaling_factor"}
    missing = [name for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name not in tensors]
    if missing or tensors.keys() - known:
        wrong = f"no tensor {missing[0]!r}" if missing else f"a tensor {min(tensors.keys() - known)!r}"
        raise EdgewiseError(
            f"{what} has {wrong}; a dictionary has W_enc, b_enc, W_dec and b_dec, and may have threshold and W_skip"
        )
    if not bool((tensors.get("scaling_factor", torch.ones(1)) == 1).all()):
        raise EdgewiseError(f"{what} has a 'scaling_factor' that is not 1, which edgewise does not apply")
    skip, threshold = tensors.get("W_skip"), tensors.get("threshold")
    found = Dictionary(
        place,
        tensors["W_enc"],
        tensors["b_enc"],
        tensors["W_dec"],
        tensors["b_dec"],
        threshold,
        k,
        signed,
        centred,
        None if skip is None else skip.T,  # x W_skip^T, in all layouts
    )
    found.check(what)
    return found
