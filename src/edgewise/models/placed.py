"""Components of a model whose weights are not all together on one device: each goes its steps where its weights are.

To the engines they are components like others. What they are given comes from the model's main device and what they
give goes back there; in between, the weights that a step needs are brought to the component's own device, if they do
not lie there anyway, and the step is done by the component that the adapter reads of them. What was brought is kept
until others need the room: as many bytes as the largest layer has. Where gradients are taken, autograd keeps such
weights until the way back; they are given up there too, and brought again.

The embedding, the final norm and the unembedding, which every run needs and metrics are made with, stay on the main
device. Attention patterns are computed there too: they need no weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.graph.names import InputKind
from edgewise.models.attention import Attention
from edgewise.models.components import MLP, Component, Projections
from edgewise.models.decoder import Decoder
from edgewise.models.neurons import NeuronMLP
from edgewise.models.offloaded import Spread, device_map, with_module
from edgewise.models.recorded import moved

READ, WRITE, ALL = "read", "write", "all"
"""What a step needs of an attention block: norm and projections; the output projection; everything, as of an MLP."""

_SMALL = ("slopes", "sinks", "folded")
"""Fields of a few numbers per head, which are kept at hand."""

Reread = Callable[[nn.Module, int], Component]
"""Makes one component of a model again, of a copy of the model."""


def place(decoder: Decoder, reread: Reread) -> Decoder:
    """A Decoder over a model that accelerate has spread, of what its adapter read of it wherever the weights are.

    Args:
        reread: what makes a component again.

    Raises:
        EdgewiseError: it is quantised, and some of its weights are offloaded; or it has components that no family has.
    """
    spread = Spread(decoder.source)
    if spread.offloads and getattr(decoder.source, "is_quantized", False):
        raise EdgewiseError(
            f"model {decoder.name!r} is quantised, and some of its weights are offloaded: edgewise cannot take such "
            "weights apart by head; leave them all on devices, or load the model unquantised"
        )
    paths = [_path(component, spread) for component in decoder.components]
    ends = [leaf for leaf in spread.leaves("") if not any(_within(leaf, path) for path in paths)]
    whole = spread.bare("", ends, spread.main, buffers=True)
    assert decoder.rebuild is not None
    ended = decoder.rebuild(whole)
    held = Held(spread, whole, max(spread.size_of(spread.leaves(path)) for path in paths))
    attention = {
        path: _attention_path(one, spread)
        for one, path in zip(decoder.components, paths, strict=True)
        if one.source.projection is not None
    }
    components: list[Component] = []
    for index, (component, path) in enumerate(zip(decoder.components, paths, strict=True)):
        needs = _needs(component, path, attention, spread)
        home = Home(held, path, spread.device_of(needs[ALL][0] if needs[ALL] else path), needs, index, reread)
        components.append(_placed(component, home))
    return replace(
        decoder,
        components=tuple(components),
        embed_parts=ended.embed_parts,
        final_norm=ended.final_norm,
        unembedding=ended.unembedding,
        source_norm=decoder.source_norm or decoder.final_norm,
        origin={**decoder.origin, "device_map": device_map(decoder.source)},
    )


class Held:
    """The weights that were brought last: at most so many bytes of them, unless one step needs more.

    Attributes:
        most: bytes that may be held.
        brought: bytes that have been brought so far.
    """

    def __init__(self, spread: Spread, whole: nn.Module, most: int) -> None:
        """
        Args:
            whole: a copy of the model without hooks, with all that stands outside its components on the main device.
        """
        self.spread, self.most, self.brought = spread, most, 0
        self._shells: dict[torch.device, nn.Module] = {spread.main: whole}
        self._held: OrderedDict[tuple[Home, str], AtHand] = OrderedDict()
        self._lock = threading.RLock()  # a way back that crosses devices has a thread for each

    def component(self, home: Home, need: str) -> AtHand:
        """A component with what it needs at hand."""
        with self._lock:
            if (home, need) not in self._held:
                self._make_room(home.bytes_of(need))
                self._held[home, need] = self._made(home, need)
            self._held.move_to_end((home, need))
            return self._held[home, need]

    def _make_room(self, needed: int) -> None:
        held = {key: key[0].bytes_of(key[1]) for key in self._held}
        for key, freed in held.items():
            if not needed or sum(held.values()) + needed <= self.most:
                return
            if freed:
                del self._held[key]
                held = {**held, key: 0}

    @torch.no_grad()
    def _made(self, home: Home, need: str) -> AtHand:
        module = self.spread.bare(home.path, home.needs[need], home.device, buffers=True)
        made = home.reread(with_module(self._shell(home.device), home.path, module), home.index)
        self.brought += home.bytes_of(need)
        return AtHand(made, (*(one.detach() for one in module.parameters()), *_tensors_in(made)))

    def _shell(self, device: torch.device) -> nn.Module:
        """The model around a component, with the tables that it has, as of positions, on the component's device."""
        if device not in self._shells:
            whole = self._shells[self.spread.main]
            self._shells[device] = self.spread.copied(whole, (), device, buffers=True)
        return self._shells[device]


@dataclass(frozen=True)
class AtHand:
    """A component of which some weights are there, and its tensors, in an order that does not change."""

    component: Component
    tensors: tuple[Tensor, ...]

    def place_of(self, saved: Tensor) -> tuple[int, int] | None:
        """In which of its tensors another lies, and how far from its beginning; None if in none."""
        at = saved.data_ptr()
        for number, one in enumerate(self.tensors):
            if one.is_meta or one.dtype != saved.dtype or one.device != saved.device:
                continue
            begin = one.data_ptr()
            last = sum((size - 1) * step for size, step in zip(one.shape, one.stride(), strict=True))
            if begin <= at <= begin + last * one.itemsize:
                return number, (at - begin) // one.itemsize
        return None


@dataclass(frozen=True, eq=False)
class Home:
    """Where a component's weights are.

    Attributes:
        path: of the module that has all of its modules.
        device: where it goes its steps.
        needs: the modules whose tensors it needs, by what it needs them for.
        index, reread: which component it is, and what makes it again of a copy of the model.
    """

    held: Held
    path: str
    device: torch.device
    needs: Mapping[str, Sequence[str]]
    index: int
    reread: Reread

    def then(self, change: Callable[[Component], Component]) -> Home:
        """The same for a component that is changed each time that it is made; it needs all of its weights."""
        reread, whole = self.reread, dict.fromkeys(self.needs, self.needs[ALL])
        return replace(self, needs=whole, reread=lambda model, index: change(reread(model, index)))

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return {need: self.held.spread.size_of(leaves, self.device) for need, leaves in self.needs.items()}

    def bytes_of(self, need: str) -> int:
        """What has to be brought for a need."""
        return self._bytes[need]

    def step(self, need: str, run: Callable[..., Any], *given: Any) -> Any:
        """What `run` makes of the component and of tensors that are on the main device; back on that."""
        need = need if self._bytes[ALL] else ALL  # what lies there anyway is made once
        found = self.held.component(self, need)
        with self._given_up(need, found):
            made = run(found.component, *(moved(one, self.device) for one in given))
        return moved(made, self.held.spread.main)

    @contextmanager
    def _given_up(self, need: str, found: AtHand) -> Iterator[None]:
        """Within it, autograd keeps of brought weights only where they are to be had."""
        if not torch.is_grad_enabled() or not self.bytes_of(need):
            yield
            return
        here = [found]

        def pack(saved: Tensor) -> Any:
            place = here[0].place_of(saved)
            return saved if place is None else (place, saved.shape, saved.stride())

        def unpack(kept: Any) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            (number, offset), shape, stride = kept
            one = self.held.component(self, need).tensors[number]
            return one.as_strided(shape, stride, one.storage_offset() + offset)

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
        here.clear()  # autograd keeps the functions, and with them what they know


class _Placed:
    """What components at a home have in common."""

    home: Home

    def then(self, change: Callable[[Component], Component]) -> Component:
        return _placed(change(self), self.home.then(change))  # type: ignore[arg-type] - it is mixed into components


class _PlacedMLP(_Placed):
    def act(
        self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None, which: Sequence[int] | None = None
    ) -> Tensor:
        return self.home.step(ALL, lambda one, x: one.act({"mlp": x}, None), projections["mlp"])


@dataclass(frozen=True, kw_only=True)
class PlacedAttention(_Placed, Attention):
    """An attention block whose weights are somewhere else; of its own fields, tensors are on device meta."""

    home: Home

    def project(self, kind: InputKind, x: Tensor, at: Tensor, which: Sequence[int] | None = None) -> Tensor:
        return self.home.step(READ, lambda one, x, at: one.project(kind, x, at, which), x, at)

    def projections(self, x: Tensor, at: Tensor) -> Projections:
        return self.home.step(READ, lambda one, x, at: one.projections(x, at), x, at)

    def settle(self, activations: Tensor) -> Tensor:
        if self.after is None:
            return super().settle(activations)
        return self.home.step(WRITE, lambda one, z: one.settle(z), activations)

    def write(self, code: Tensor) -> Tensor:
        return self.home.step(WRITE, lambda one, code: one.write(code), code)

    def write_node(self, node: int, code: Tensor) -> Tensor:
        return self.home.step(WRITE, lambda one, code: one.write_node(node, code), code)

    def write_total(self, code: Tensor) -> Tensor:
        return self.home.step(WRITE, lambda one, code: one.write_total(code), code)


@dataclass(frozen=True, kw_only=True)
class PlacedMLP(_PlacedMLP, MLP):
    """An MLP whose weights are somewhere else."""

    home: Home


@dataclass(frozen=True, kw_only=True)
class PlacedNeuronMLP(_PlacedMLP, NeuronMLP):
    """An MLP taken apart by neuron whose weights are somewhere else."""

    home: Home

    def settle(self, activations: Tensor) -> Tensor:
        if self.after is None:
            return activations
        return self.home.step(ALL, lambda one, made: one.settle(made), activations)

    def write(self, code: Tensor) -> Tensor:
        return self.home.step(ALL, lambda one, code: one.write(code), code)

    def write_some(self, which: Tensor, code: Tensor) -> Tensor:
        return self.home.step(ALL, lambda one, which, code: one.write_some(which, code), which, code)

    def write_total(self, code: Tensor) -> Tensor:
        return self.home.step(ALL, lambda one, code: one.write_total(code), code)


def _placed(component: Component, home: Home) -> Component:
    """A component that goes its steps at its home."""
    for kind, placed in ((Attention, PlacedAttention), (NeuronMLP, PlacedNeuronMLP), (MLP, PlacedMLP)):
        if isinstance(component, kind):
            own = {one.name: getattr(component, one.name) for one in fields(kind)}
            small = [name for name in _SMALL if own.get(name) is not None]
            if small:
                there = home.held.component(home, READ if home.bytes_of(ALL) else ALL).component
                own |= {name: moved(getattr(there, name), home.held.spread.main) for name in small}
            return placed(**own, home=home)
    raise EdgewiseError(
        f"components of kind {type(component).__name__} cannot be on several devices or have offloaded weights"
    )


def _path(component: Component, spread: Spread) -> str:
    """The path of the module that has all of a component's modules."""
    source = component.source
    paths = [spread.paths.get(id(one), "").split(".") for one in (source.norm, source.block, source.projection) if one]
    shared: list[str] = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _attention_path(component: Component, spread: Spread) -> str:
    """Of an attention block, the path of the module that holds its projections."""
    return spread.paths.get(id(component.source.projection), "").rpartition(".")[0]


def _needs(component: Component, path: str, attention: Mapping[str, str], spread: Spread) -> dict[str, Sequence[str]]:
    leaves, around = spread.leaves(path), attention.get(path)
    if component.source.projection is None:
        # Attention that stands under the same path has its own modules there; a norm may be of both.
        own = [leaf for leaf in leaves if not around or not _within(leaf, around)]
        return dict.fromkeys((READ, WRITE, ALL), own)
    norm, block, output = (
        spread.paths.get(id(one), "")
        for one in (component.source.norm, component.source.block, component.source.projection)
    )
    if not around or around == path:
        return dict.fromkeys((READ, WRITE, ALL), leaves)
    after = "" if _within(output, block) else block
    write = [leaf for leaf in leaves if _within(leaf, output) or (after and _within(leaf, after))]
    read = [leaf for leaf in leaves if (_within(leaf, around) or _within(leaf, norm)) and not _within(leaf, output)]
    return {READ: read, WRITE: write, ALL: [leaf for leaf in leaves if leaf in read or leaf in write]}


def _within(path: str, around: str) -> bool:
    return not around or path == around or path.startswith(f"{around}.")


def _tensors_in(component: Any) -> Iterator[Tensor]:
    """The tensors that a component was given, in the order of its fields, those within its maps and norms too."""
    for one in fields(component):
        value = getattr(component, one.name)
        if isinstance(value, Tensor):
            yield value.detach()
        elif is_dataclass(value) and one.name != "home":
            yield from _tensors_in(value)
