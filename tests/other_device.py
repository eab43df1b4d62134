"""A second device where there is none: tensors that say that they are elsewhere, and refuse to be mixed with others.

Within `other_device()`, what is moved to torch's device `meta` keeps its numbers, and everything that is computed of it is
there too. An operation of tensors here and there is refused, as a GPU would; only a move from one to the other
takes a tensor across.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

THERE = torch.device("meta")


class Elsewhere(Tensor):
    """A tensor on the other device; `here` has its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=THERE,
            requires_grad=here.requires_grad,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(func, args, dict(kwargs or {}))


class other_device(TorchDispatchMode):  # noqa: N801 - used like a function
    """While it is on, there is a second device, `THERE`."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return computed(func, args, dict(kwargs or {}))


def computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    there = [isinstance(one, Elsewhere) for one in given]
    asked = kwargs.get("device")
    to = None if asked is None else torch.device(asked)
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if any(there) and not all(there) and not moves:
        alone = [one for one, is_there in zip(given, there, strict=True) if not is_there and one.dim() > 0]
        assert not alone, f"{func} mixes two devices"
    if to is not None:
        kwargs["device"] = torch.device("cpu")
    stays = any(there) if to is None else to == THERE
    found = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))
    if not stays:
        return found
    known = {id(one.here): one for one in given if isinstance(one, Elsewhere)}
    return tree_map(lambda one: known.get(id(one)) or Elsewhere(one) if isinstance(one, Tensor) else one, found)


def _bare(one: Any) -> Any:
    return one.here if isinstance(one, Elsewhere) else one
