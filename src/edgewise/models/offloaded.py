"""Weights that lie on several devices, in the CPU's memory or on disk: the one file that knows accelerate's hooks.

`accelerate` spreads a model by hooks on its modules: each knows on which device its module runs, and, where the weights
are offloaded, a mapping from which to read them; until then the parameters are on torch's device `meta`. `Spread` reads
that, and copies parts of such a model without hooks, with some of the weights in hand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError, first_line

_ADDED = ("_hf_hook", "_old_forward", "forward", "to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "neuron")
"""What accelerate puts on an object of a module."""


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate's hooks lay a model's weights somewhere else than together on one device."""
    hooks = [hook for module in model.modules() for hook in _hooks(module)]
    if any(hook.offload for hook in hooks):
        return True
    devices = {_device(hook.execution_device) for hook in hooks if hook.execution_device is not None}
    return len(devices | {tensor.device for tensor in model.parameters()}) > 1 and bool(hooks)


def device_map(model: nn.Module) -> dict[str, str | int]:
    """Which module of a spread model lies where: as it was asked for, or as the hooks say."""
    given: Any = getattr(model, "hf_device_map", None)
    if isinstance(given, Mapping) and given:
        return {str(name): where if isinstance(where, int) else str(where) for name, where in given.items()}
    return {"": "offloaded"} if is_spread(model) else {"": str(next(model.parameters()).device)}


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor, object]]:
    """The names and tensors of a model's state dict, by name, those that are offloaded read one at a time; each with
    what tells it from others, which tied ones have in common."""
    spread = Spread(model) if is_spread(model) else None
    for name, tensor in sorted(model.state_dict(keep_vars=True).items(), key=lambda one: one[0]):
        if tensor.is_meta and spread is not None:
            yield name, spread.read(name), id(tensor)
        else:
            yield name, tensor, (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


class Spread:
    """A model whose weights accelerate has laid somewhere.

    Attributes:
        main: the device of what the model gives: streams, recorded activations and logits are there.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.paths = {id(module): path for path, module in model.named_modules(remove_duplicate=True)}
        self._maps: dict[str, Mapping[str, Tensor]] = {}
        self._runs_on: dict[str, torch.device] = {}
        for path, module in model.named_modules():
            for hook in _hooks(module):
                if hook.execution_device is not None:
                    self._runs_on[path] = _device(hook.execution_device)
                if hook.offload and hook.weights_map is not None:
                    self._maps[path] = hook.weights_map
        head: Any = getattr(model, "lm_head", None)
        self.main = self.device_of(self.paths.get(id(head), "") if isinstance(head, nn.Module) else "")

    @property
    def offloads(self) -> bool:
        """Whether some weights are offloaded, rather than all on devices."""
        return bool(self._maps)

    def device_of(self, path: str) -> torch.device:
        """The device on which a module runs: where its weights are, or where its hooks bring them."""
        under = self.model.get_submodule(path)
        there = next((tensor for _, tensor in _tensors(under) if not tensor.is_meta), None)
        if there is not None:
            return there.device
        inside = (one for one in self._runs_on if one == path or one.startswith(f"{path}."))
        nearest = next(inside, None) or next((one for one in _upwards(path) if one in self._runs_on), None)
        return torch.device("cpu") if nearest is None else self._runs_on[nearest]

    def read(self, name: str) -> Tensor:
        """A tensor by its name in the state dict, from wherever it lies.

        Raises:
            EdgewiseError: it cannot be read, or nothing says from where.
        """
        path, _, own = name.rpartition(".")
        found: Any = getattr(self.model.get_submodule(path), own)
        if not found.is_meta:
            return found.detach()
        for parent in _upwards(path):
            if parent not in self._maps:
                continue
            key = name[len(parent) + 1 :] if parent else name
            try:
                return self._maps[parent][key].detach()
            except KeyError:
                break
            except Exception as error:  # whatever safetensors, numpy or the file system raise
                raise EdgewiseError(
                    f"the offloaded weights {name!r} of the model cannot be read: {first_line(error)}"
                ) from None
        raise EdgewiseError(
            f"the weights {name!r} of the model are on device meta, and no hook says where to read them from"
        )

    def leaves(self, path: str) -> list[str]:
        """The paths of the modules at and under a path that have tensors of their own."""
        under = self.model.get_submodule(path)
        joined = (f"{path}.{name}".strip(".") for name, module in under.named_modules() if _own(module))
        return list(joined)

    def size_of(self, leaves: Iterable[str], device: torch.device | None = None) -> int:
        """The bytes of some modules' tensors; with a device, of those that are not there."""
        own = (one for leaf in leaves for _, one in _own(self.model.get_submodule(leaf)))
        return sum(tensor.nbytes for tensor in own if tensor.device != device)

    def bare(
        self, path: str, leaves: Iterable[str] = (), device: torch.device | None = None, *, buffers: bool = False
    ) -> Any:
        """A copy of the modules under a path, without hooks; parameters are shared with the model where they are.

        Args:
            leaves: the modules whose tensors are to be there, on `device`; tied ones are read once.
            buffers: move all other buffers there too.
        """
        return self.copied(self.model.get_submodule(path), leaves, device, buffers=buffers)

    def copied(
        self, module: nn.Module, leaves: Iterable[str], device: torch.device | None, *, buffers: bool = False
    ) -> Any:
        """The same of a module, which may be a new one around some of the model's."""
        return self._copied(module, set(leaves), device, buffers, {})

    def _copied(
        self,
        module: nn.Module,
        wanted: set[str],
        device: torch.device | None,
        buffers: bool,
        known: dict[int, Tensor],
    ) -> Any:
        found, path = copy.copy(module), self.paths.get(id(module))
        if "_hf_hook" in found.__dict__:
            for name in _ADDED:
                found.__dict__.pop(name, None)
        for kind in ("_parameters", "_buffers"):
            own: dict[str, Tensor | None] = dict(getattr(module, kind))
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if path in wanted:
                    if id(tensor) not in known:
                        brought = self.read(f"{path}.{name}".lstrip(".")).to(device)
                        parameter = isinstance(tensor, nn.Parameter)
                        known[id(tensor)] = nn.Parameter(brought, requires_grad=False) if parameter else brought
                    own[name] = known[id(tensor)]
                elif kind == "_buffers" and buffers and not tensor.is_meta:
                    own[name] = tensor.to(device)
            setattr(found, kind, own)
        found._modules = {
            name: None if one is None else self._copied(one, wanted, device, buffers, known)
            for name, one in module._modules.items()
        }
        return found


def with_module(model: nn.Module, path: str, module: nn.Module) -> Any:
    """A copy of a model that shares everything with it but the module at a path."""
    if not path:
        return module
    name, _, rest = path.partition(".")
    found = copy.copy(model)
    inner = model._modules[name]
    assert inner is not None
    found._modules = {**model._modules, name: with_module(inner, rest, module)}
    return found


def require_accelerate() -> None:
    """Raise an EdgewiseError unless accelerate is there."""
    try:
        import accelerate as _  # noqa: F401
    except ImportError:
        raise EdgewiseError(
            "a model over several devices, or with offloaded weights, needs accelerate: pip install "
            "'edgewise[accelerate]'"
        ) from None


def _hooks(module: nn.Module) -> list[Any]:
    """accelerate's hooks on a module that move tensors."""
    hook: Any = module.__dict__.get("_hf_hook")
    every = [] if hook is None else getattr(hook, "hooks", [hook])
    return [one for one in every if hasattr(one, "execution_device") and hasattr(one, "offload")]


def _device(given: Any) -> torch.device:
    if isinstance(given, int):
        kind = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
        return torch.device("cuda" if kind is None else kind.type, given)
    return torch.device(given)


def _upwards(path: str) -> Iterator[str]:
    """A path and those of all modules around it, from the inside."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """A module's own parameters and buffers."""
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a module and all in it."""
    yield from module.named_parameters()
    yield from module.named_buffers()
