"""Checkpoints in another dtype than asked for: tensors are converted as they are read, never held beside the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 2**25
"""Of a large tensor, what is read at a time."""

_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.float16: "F16"}
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}


class LazyTensor:
    """A tensor in a file, as transformers' loader takes it: `tensor[...]` reads it.

    A large one comes in the dtype asked for, converted so many rows at a time; others come as they are, since a model
    may keep some small ones in another dtype.
    """

    def __init__(self, tensor: Any, dtype: torch.dtype) -> None:
        self.tensor, self.dtype = tensor, dtype

    def __getitem__(self, index: EllipsisType) -> Tensor:
        shape = self.tensor.get_shape()
        width = _BYTES.get(self.tensor.get_dtype(), 0)
        for size in shape[1:]:
            width *= size
        if len(shape) < 2 or width == 0 or shape[0] * width <= CHUNK_BYTES:
            return self.tensor[...]
        whole = torch.empty(shape, dtype=self.dtype)
        rows = max(1, CHUNK_BYTES // width)
        for first in range(0, shape[0], rows):
            whole[first : first + rows] = self.tensor[first : first + rows]
        return whole


def lazy_tensors(files: Sequence[Path], dtype: torch.dtype) -> dict[str, LazyTensor] | None:
    """The tensors of safetensors files by name, or None where there is no need for them, or no way.

    There is a need where some tensors are of another dtype, or are experts' weights, which transformers stacks: left to
    itself, it maps the files into memory beside what it makes of them. There is a way from safetensors 0.8 on, which
    can read without mapping.
    """
    from safetensors import safe_open

    try:
        opened = [safe_open(file, "pt", backend="pread") for file in files]
    except TypeError:  # an older version
        return None
    found = {name: one.get_slice(name) for one in opened for name in one.keys()}  # noqa: SIM118 - not a dict
    if all(tensor.get_dtype() == _NAMES[dtype] and ".experts." not in name for name, tensor in found.items()):
        return None
    return {name: LazyTensor(tensor, dtype) for name, tensor in found.items()}
