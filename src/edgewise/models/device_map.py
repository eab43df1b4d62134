"""What is asked for of a model over several devices: a device map in one of its forms, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewise.errors import EdgewiseError, near_matches, quoted
from edgewise.json_files import read_json
from edgewise.models.offloaded import require_accelerate

BY_SIZE = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words that transformers knows: layers go by the memory of devices, first GPUs, then the CPU, then disk."""

OFFLOADED = {"cpu-offload": "cpu", "disk-offload": "disk"}
"""Words for all layers in the CPU's memory, or on disk, and the rest of the model on the first GPU, or on the CPU."""

_SIZE = re.compile(r"\d+(\.\d+)?\s*[KMG]i?B", re.IGNORECASE)


@dataclass(frozen=True)
class DeviceMap:
    """Where a model's weights go.

    Attributes:
        given: a word of `BY_SIZE` or `OFFLOADED`, or devices by the names of modules, as in `{"model.layers.0": 0}`.
        memory: by device, the most that its share of the weights may take there, for words of `BY_SIZE`.
        folder: for weights on disk that are not in the checkpoint as they are needed.
    """

    given: str | Mapping[str, int | str]
    memory: Mapping[int | str, str] | None = None
    folder: str | None = None

    @classmethod
    def of(
        cls,
        given: str | Path | Mapping[str, Any] | None,
        memory: str | Mapping[Any, Any] | None = None,
        folder: str | Path | None = None,
    ) -> DeviceMap | None:
        """A device map as it is given to `load_model` or in the shell; None where none is.

        Raises:
            EdgewiseError: it is none, it names devices that are not there, or accelerate is not installed.
        """
        if given is None:
            if memory is not None or folder is not None:
                what = (
                    "memory per device (--memory-per-device)" if memory is not None else "a folder (--offload-folder)"
                )
                raise EdgewiseError(f"{what} is for a device map: say which with --device-map, as in auto")
            return None
        if isinstance(given, str | Path) and str(given) not in (*BY_SIZE, *OFFLOADED):
            given = _from_file(str(given))
        if isinstance(given, Mapping):
            given = {str(name): _where(str(name), place) for name, place in given.items()}
            if not given:
                raise EdgewiseError("the device map is empty: it should give a device to every module of the model")
        found = None if memory is None else _memory(memory)
        if found is not None and given not in BY_SIZE:
            raise EdgewiseError(
                f"memory per device (--memory-per-device) is for device maps by size: {', '.join(BY_SIZE)}"
            )
        require_accelerate()
        return cls(given if isinstance(given, Mapping) else str(given), found, None if folder is None else str(folder))

    def for_loading(self, config: Any) -> dict[str, Any]:
        """What `from_pretrained` of transformers is given, for a model of this configuration.

        Raises:
            EdgewiseError: layers are to be offloaded to the CPU's memory, and there is no GPU to run them on.
        """
        given: Any = self.given
        if isinstance(given, str) and given in OFFLOADED:
            main: int | str = 0 if torch.cuda.is_available() else "cpu"
            if given == "cpu-offload" and main == "cpu":
                raise EdgewiseError(
                    "device map 'cpu-offload' is for a machine with a GPU, on which the layers run: this one has none. "
                    "Where they do not fit into its memory either, use disk-offload"
                )
            given = _layers_apart(config, OFFLOADED[given], main)
        memory = None if self.memory is None else {place: _bytes(size) for place, size in self.memory.items()}
        return {"device_map": given, "max_memory": memory, "offload_folder": self.folder}


def _from_file(name: str) -> dict[str, Any]:
    path = Path(name).expanduser()
    if not name.strip() or not path.exists():
        words = (*BY_SIZE, *OFFLOADED)
        raise EdgewiseError(
            f"unknown device map {quoted(name)}{near_matches(name, words)} (known: {', '.join(words)}; or a JSON file "
            'of modules and devices, as in {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": "cpu"})'
        )
    return read_json(path, "the device map")


def _where(name: str, place: Any) -> int | str:
    """A device of a device map."""
    given = place if isinstance(place, int) and not isinstance(place, bool) else str(place)
    if given == "disk":
        return given
    what = f"the device map puts {name or 'the model'!r} on {given!r}"
    try:
        device = torch.device("cuda", given) if isinstance(given, int) else torch.device(given)
    except RuntimeError:
        raise EdgewiseError(f"{what}, which is no device (known: 0, 1, …, cuda:0, …, mps, cpu, disk)") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EdgewiseError(f"{what}; this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EdgewiseError(f"{what}; torch finds no Apple GPU on this machine")
    if device.type not in ("cuda", "mps", "cpu"):
        raise EdgewiseError(f"{what}, which is no device (known: 0, 1, …, cuda:0, …, mps, cpu, disk)")
    return given


def _memory(given: str | Mapping[Any, Any]) -> dict[int | str, str]:
    """`0=20GB,cpu=60GB`, or the same as a mapping."""
    pairs: list[tuple[str, str]]
    if isinstance(given, Mapping):
        pairs = [(str(place), str(size)) for place, size in given.items()]
    else:
        pairs = [(place.strip(), size.strip()) for place, _, size in (one.partition("=") for one in given.split(","))]
    found: dict[int | str, str] = {}
    for place, size in pairs:
        number = place.removeprefix("cuda:")
        key = int(number) if number.isdecimal() else place
        if key not in ("cpu", "disk", "mps") and not isinstance(key, int):
            raise EdgewiseError(f"memory per device: {place!r} is no device; write it like 0=20GB,cpu=60GB")
        if not (_SIZE.fullmatch(size) or size.isdecimal()):
            raise EdgewiseError(f"memory per device: {size!r} is no size of memory; write it like 0=20GB,cpu=60GB")
        found[key] = size
    return found


def _bytes(size: str) -> int:
    if size.isdecimal():
        return int(size)
    number, unit = float(re.sub(r"[^\d.]", "", size)), re.sub(r"[\d.\s]", "", size).lower()
    power = "kmg".index(unit[0]) + 1
    return int(number * (1024 if "i" in unit else 1000) ** power)


def _layers_apart(config: Any, layers: str, rest: int | str) -> dict[str, int | str]:
    """A device map of a model of this configuration: its layers on one device, what stands around them on another."""
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model: nn.Module = auto.from_config(config)
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    names = [name for name, module in model.named_modules() if type(module).__name__ in kinds]

    def placed(path: str, module: nn.Module) -> dict[str, int | str]:
        if path in names:
            return {path: layers}
        if not any(name.startswith(f"{path}.") or not path for name in names):
            return {path: rest}
        return {
            name: where
            for child, inner in module.named_children()
            for name, where in placed(f"{path}.{child}".lstrip("."), inner).items()
        }

    return placed("", model)
