"""Devices that are not there, for tests: tensors on them are numbers on the CPU with a device's name.

Within `FakeDevices` torch's device `lazy` stands for accelerators, `lazy:0`, `lazy:1`, …: what is made there or moved
there says that it is there. As on a GPU, no operation takes tensors of two devices, except that numbers by themselves
and what indexes a tensor may come from the CPU; nothing but `to`, `cpu` and `copy_` moves anything; and numpy sees
nothing of it. Results are the CPU's own.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import accelerate.hooks
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CPU = torch.device("cpu")
_ATEN: Any = torch.ops.aten
_MOVES = (_ATEN._to_copy.default, _ATEN.copy_.default)
_INDEXES = (_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN.index_put.default, _ATEN._index_put_impl_.default)


class WrongDeviceError(Exception):
    """An operation had tensors of several devices, or a device was asked for what it has not."""


class _There(Tensor):
    """A tensor on a device that is not there; `numbers` are its own, on the CPU."""

    numbers: Tensor
    place: torch.device
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(numbers: Tensor, where: torch.device) -> _There:
        made: Any = Tensor._make_subclass(_There, numbers, dispatch_device=True, device_for_backend_keys=where)
        made.numbers, made.place = numbers, where
        return made

    def tolist(self) -> Any:  # which torch has for its own tensors alone
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].place
        raise WrongDeviceError(f"{func} outside of FakeDevices")


class FakeDevices(TorchDispatchMode):
    """Within it there are devices `lazy:0`, `lazy:1`, ….

    Attributes:
        moved: bytes that went from one device to another, by both.
        most: by device, the most bytes that tensors had there at a time, of those made since `watch`.
    """

    def __init__(self, *, float64: bool = True) -> None:
        """
        Args:
            float64: whether they have float64, which Apple's GPUs have not.
        """
        super().__init__()
        self.float64 = float64
        self.moved: Counter[tuple[str, str]] = Counter()
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._users: Counter[int] | None = None  # by storage, the tensors that look into it

    def watch(self) -> None:
        """Count bytes from here on."""
        self._users = Counter()

    def __enter__(self) -> Self:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) is a tensor on the CPU that is moved
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].place
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        where = self._where(func, given, args) if asked is None else asked
        if func in _MOVES:
            from_ = args[0] if func is _MOVES[0] else args[1]
            if (was := _device_of(from_)) != where:
                self.moved[str(was), str(where)] += from_.nbytes
        if asked is not None and asked.type == "lazy":
            kwargs = {**kwargs, "device": CPU}
        args, kwargs = (tree_map_only(_There, lambda one: one.numbers, each) for each in (args, kwargs))
        made = func(*args, **kwargs)
        if where.type != "lazy":
            return made
        known = {id(one.numbers): one for one in given if isinstance(one, _There)}  # what is changed in place

        def there(one: Tensor) -> Tensor:
            if one.dtype == torch.float64 and not self.float64:
                raise WrongDeviceError(f"{func} makes float64 on {where}, which has none")
            own = known.get(id(one))
            return self._counted(_There.of(one, where)) if own is None else own

        return tree_map_only(Tensor, there, made)

    def _counted(self, made: _There) -> _There:
        if self._users is not None:
            storage, device, users = made.numbers.untyped_storage(), str(made.place), self._users
            at, size = storage.data_ptr(), storage.nbytes()
            self._now[device] += size * (not users[at])
            self.most[device] = max(self.most[device], self._now[device])
            users[at] += 1

            def gone() -> None:
                users[at] -= 1
                self._now[device] -= size * (not users[at])

            weakref.finalize(made, gone)
        return made

    def _where(self, func: Any, given: list[Tensor], args: Any) -> torch.device:
        """The one device of what an operation is given."""
        if func in _MOVES:
            return _device_of(args[0])
        if func in _INDEXES and isinstance(args[0], _There):
            given = [one for one in given if isinstance(one, _There)]
        found = {_device_of(one) for one in given if one.dim() or isinstance(one, _There)}
        if len(found) > 1:
            shapes = ", ".join(f"{_device_of(one)} {list(one.shape)}" for one in given)
            raise WrongDeviceError(f"{func} has tensors of several devices: {shapes}")
        return found.pop() if found else CPU


def _device_of(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, _There) else tensor.device


def put(model: nn.Module, places: Mapping[str, str]) -> nn.Module:
    """A model with its parts on devices, as accelerate lays it out; what stands in none is where the one named "" is.

    Args:
        places: devices by the names of modules, the outer ones first.
    """
    known: dict[int, Tensor] = {}
    for path, module in model.named_modules():
        name = max((one for one in places if not one or f"{path}.".startswith(f"{one}.")), key=len)
        where = torch.device(places[name])
        for kind in (module._parameters, module._buffers):
            for own, tensor in kind.items():
                if tensor is not None and tensor.device != where:
                    if id(tensor) not in known:
                        moved = tensor.detach().to(where)
                        known[id(tensor)] = nn.Parameter(moved) if isinstance(tensor, nn.Parameter) else moved
                    kind[own] = known[id(tensor)]  # type: ignore[assignment]
    if len(places) > 1:
        for path, place in places.items():
            hook = accelerate.hooks.AlignDevicesHook(torch.device(place), io_same_device=not path)
            accelerate.hooks.add_hook_to_module(model.get_submodule(path), hook)
    return model
