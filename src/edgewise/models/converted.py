"""Checkpoints in another dtype than asked for: tensors are converted as they are read, never held beside the result."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch
from torch import Tensor

CHUNK_BYTES = 2**22
"""Of a large tensor, what is read at a time."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a safetensors file, as transformers' loader takes it: `tensor[...]` reads it.

    A large one comes in the dtype asked for, converted so many bytes at a time; others come as they are, since a model
    may keep some small ones in another dtype.
    """

    file: Path
    begin: int
    shape: tuple[int, ...]
    stored: torch.dtype
    dtype: torch.dtype

    def __getitem__(self, index: EllipsisType) -> Tensor:
        count = math.prod(self.shape)
        large = len(self.shape) > 1 and count * self.stored.itemsize > CHUNK_BYTES
        whole = torch.empty(count, dtype=self.dtype if large else self.stored)
        step = max(1, CHUNK_BYTES // self.stored.itemsize)
        with self.file.open("rb") as opened:
            opened.seek(self.begin)
            for first in range(0, count, step):
                last = min(first + step, count)
                read = bytearray(opened.read((last - first) * self.stored.itemsize))
                whole[first:last] = torch.frombuffer(read, dtype=self.stored)
        return whole.view(self.shape)


def lazy_tensors(files: Sequence[Path], dtype: torch.dtype) -> dict[str, LazyTensor] | None:
    """The tensors of safetensors files by name, or None where there is no need for them, or some are no plain numbers.

    There is a need where some tensors are of another dtype, or are experts' weights, which transformers stacks: left to
    itself, it maps the files into memory beside what it makes of them.
    """
    from safetensors import safe_open

    found: dict[str, LazyTensor] = {}
    for file in files:
        with safe_open(file, "pt"):  # refuses a header that is not right
            pass
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        for name, about in header.items():
            stored, begin = _DTYPES.get(about["dtype"]), 8 + length + about["data_offsets"][0]
            if stored is None:
                return None
            found[name] = LazyTensor(file, begin, tuple(about["shape"]), stored, dtype)
    needed = any(tensor.stored != dtype or ".experts." in name for name, tensor in found.items())
    return found if needed else None
