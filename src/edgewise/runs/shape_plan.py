"""What methods would cost on a model that is not here: memory, operations and bytes, worked out from its shape.

Nothing is loaded and nothing is run. Operations are counted (patching/work.py) and memory is the memory plan's, as for
the model itself; how fast a device is, which edges stay, and how a model is spread over devices are assumptions, which
`ShapePlan.assumptions` says in words.
One model over several devices is arithmetic alone: it runs (`device_map`), but was never measured on several GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from edgewise.discovery.attribution import STEPS
from edgewise.discovery.forecast import DEARER, Forecast
from edgewise.discovery.plan import estimate
from edgewise.errors import EdgewiseError, quoted
from edgewise.evaluation.random_circuits import random_circuit
from edgewise.graph import Circuit, Graph
from edgewise.models import Decoder
from edgewise.models.attention import Attention
from edgewise.models.shapes import parameters
from edgewise.patching import Costs, MemoryPlan
from edgewise.patching.experiment import ROW_BYTES
from edgewise.patching.gradients import SENDER_BYTES
from edgewise.patching.memory import memory_of
from edgewise.patching.work import Work, blank_task, work_of

FLOPS, BANDWIDTH, DEVICE_MEMORY = 4e14, 3e12, 80 * 10**9
"""An accelerator of 80 GB as of 2023 at some 40% of its bfloat16 peak; operations and bytes per second, bytes."""

KEPT = 200
MOST_TOKENS, MOST_PROMPTS = 10**6, 10**6


@dataclass(frozen=True)
class Machine:
    """What runs it.

    Attributes:
        flops: floating-point operations a second that one device achieves.
        bandwidth: bytes a second from a device's own memory.
        memory: bytes of one device.
        devices: how many there are; None for as few as will do.

    Raises:
        EdgewiseError: one of them is no such number.
    """

    flops: float = FLOPS
    bandwidth: float = BANDWIDTH
    memory: int = DEVICE_MEMORY
    devices: int | None = None

    def __post_init__(self) -> None:
        for name in ("flops", "bandwidth"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise EdgewiseError(f"--{name} should be a number above 0, as in 4e14, not {quoted(value, 40)}")
        if self.devices is not None:
            _whole("--devices", self.devices, 1, 10**6)


@dataclass(frozen=True)
class Cost:
    """What one method takes.

    Attributes:
        flops: floating-point operations.
        bytes: read from a device's memory, at the least.
        moved: bytes between devices, at the least.
        seconds: the longer of what operations and bytes take.
        tests: edges that are tested, in a search.
    """

    flops: float
    bytes: float
    moved: float
    seconds: float
    tests: int | None = None


@dataclass(frozen=True)
class ShapePlan:
    """What methods would cost on a model of some shape.

    Attributes:
        shape, dtype, prompts, tokens, within, kept: as asked for; `kept` and `within` as edges of the circuits assumed.
        graph: what there is to find.
        parameters, weights: how many, and their bytes.
        memory: the memory plan beyond the weights, without a limit.
        needed: bytes beyond the weights with which the search (and its scores) can start.
        machine: what runs it, with as many devices as will do.
        each: bytes on the fullest device; `fits`, whether that is no more than it has.
        costs: by name of method.
        assumptions: what all this rests on, a sentence each.
    """

    shape: str
    dtype: str
    prompts: int
    tokens: int
    within: int | None
    kept: int
    graph: Graph = field(repr=False)
    parameters: int
    weights: int
    memory: MemoryPlan
    needed: int
    machine: Machine
    each: int
    costs: dict[str, Cost]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.each <= self.machine.memory


def plan_shape(
    decoder: Decoder,
    *,
    prompts: int = 16,
    tokens: int = 20,
    kept: int | Circuit = KEPT,
    within: int | None = None,
    ports: bool = True,
    whole_heads: bool = False,
    machine: Machine | None = None,
    seed: int = 0,
) -> ShapePlan:
    """Work out what methods would cost.

    Args:
        decoder: a model, or a shape without numbers (`load_shape`).
        prompts, tokens: pairs of prompts and the length of each, one place of which is scored.
        kept: edges that the search would keep, at the least; or the circuit that it would find.
        within: edges of a shortlist that it searches; None for the whole graph.
        ports, whole_heads: what the graph has, as in `discover`.
        seed: of the circuits that are assumed.

    Raises:
        EdgewiseError: a number that makes no sense, or a model whose operations depend on the tokens.
    """
    _whole("--examples", prompts, 1, MOST_PROMPTS)
    _whole("--tokens", tokens, 1, MOST_TOKENS)
    config = decoder.config
    if config.position_embedding and config.n_context is not None and tokens > config.n_context:
        raise EdgewiseError(f"shape {decoder.name!r} has {config.n_context:,} positions, and --tokens is {tokens:,}")
    graph = decoder.graph(ports=ports, whole_heads=whole_heads)
    if isinstance(kept, Circuit):
        kept.require_graph(graph)
        count = kept.n_edges
    else:
        _whole("--kept", kept, 1, graph.n_edges)
        count = kept
    if within is not None:
        _whole("--within", within, count, graph.n_edges)
    sizes = _Sizes(decoder, graph, prompts, tokens)
    start = Circuit.full(graph) if within is None else random_circuit(graph, within, seed)
    if isinstance(kept, Circuit):
        stays, start = kept, start | kept
    else:
        stays = random_circuit(graph, kept, seed, within=None if within is None else start)
    needed = max(sizes.memory.smallest, 0 if within is None else sizes.memory.smallest_for("gradients"))
    machine = machine or Machine()
    devices, each = sizes.spread(needed, machine)
    machine = replace(machine, devices=devices)
    costs = _Counting(sizes, machine, needed).all(start, stays, shortlist=within is not None)
    return ShapePlan(
        shape=decoder.name,
        dtype=decoder.dtype_name,
        prompts=prompts,
        tokens=tokens,
        within=None if within is None else start.n_edges,
        kept=stays.n_edges,
        graph=graph,
        parameters=parameters(decoder),
        weights=sizes.weights,
        memory=sizes.memory,
        needed=needed,
        machine=machine,
        each=each,
        costs=costs,
        assumptions=_assumptions(machine, within, stays.n_edges),
    )


def _whole(option: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise EdgewiseError(f"{option} should be a whole number from {least:,} to {most:,}, not {quoted(value, 40)}")


class _Sizes:
    """Bytes of what a model and its prompts consist of."""

    def __init__(self, decoder: Decoder, graph: Graph, prompts: int, tokens: int) -> None:
        self.decoder, self.graph = decoder, graph
        self.prompts, self.tokens = prompts, tokens
        self.work: Work = work_of(decoder, graph, prompts, tokens)
        self.memory = replace(memory_of(decoder, blank_task(prompts, tokens), graph, max_memory=1), limit=None)
        self.weights = sum(one.nbytes for one in decoder.source.parameters())
        self.layers = decoder.config.n_layers
        self.stream = self.memory.stream
        unembedding, embedding = decoder.unembedding.weight, decoder.source.get_input_embeddings().weight  # type: ignore[operator]
        self.unembedding = unembedding.nbytes
        self.embedding = 0 if embedding is unembedding else embedding.nbytes
        heads = [one for one in decoder.components if isinstance(one, Attention)]
        projections = [heads[0].queries, heads[0].keys, heads[0].values, heads[0].output]
        by_head = [one.weight[0].nbytes for one in projections]
        attention = sum(one.weight.nbytes for one in projections) * len(heads)
        mlps = self.weights - self.unembedding - self.embedding - attention
        self.of_parts = Costs(
            by_head[-1], sum(by_head), mlps / self.layers if decoder.config.mlps else 0, self.unembedding
        )

    @property
    def read(self) -> int:
        """Bytes of weights that a forward pass reads: all but the embedding, of which it looks up a few rows."""
        return self.weights - self.embedding

    @cached_property
    def summed(self) -> int:
        """Bytes of senders' streams that a sum for every input reads, those of a layer and a kind together."""
        counts = {(place.kind, place.layer): self.graph.n_senders(place) for place in self.graph.inputs}
        return sum(counts.values()) * self.stream

    def spread(self, needed: int, machine: Machine) -> tuple[int, int]:
        """How many devices, and bytes on the fullest of them."""
        if machine.devices is not None:
            return machine.devices, self.each(needed, machine.devices)
        for count in range(1, self.layers + 1):
            if self.each(needed, count) <= machine.memory:
                return count, self.each(needed, count)
        return self.layers, self.each(needed, self.layers)

    def each(self, needed: int, devices: int) -> int:
        """Bytes on the fullest of some devices, each with as many layers as another, or one more.

        What is recorded goes with its layer; the rest of the working memory is wanted on each of them, and of the two
        ends of the model a device has one.
        """
        if devices == 1:
            return self.weights + needed
        layers = -(-self.layers // min(devices, self.layers))
        inner = self.weights - self.embedding - self.unembedding
        recorded = min(self.memory.recorded, needed)
        end = max(self.unembedding, self.embedding)
        return -(-layers * (inner + recorded) // self.layers) + end + needed - recorded

    def boundaries(self, devices: int) -> list[int]:
        """The layers with which a device begins, but for the first."""
        count = min(devices, self.layers)
        return [-(-self.layers * number // count) for number in range(1, count)]


class _Counting:
    """Costs of methods."""

    def __init__(self, sizes: _Sizes, machine: Machine, needed: int) -> None:
        self.sizes, self.machine = sizes, machine
        devices = machine.devices or 1
        self.boundaries = sizes.boundaries(devices)
        self.across = len(self.boundaries) * sizes.stream
        # Whatever a device has written is read on all of those behind it.
        self.wrote = sum(self._senders_before(layer) for layer in self.boundaries) * sizes.stream
        limit = max(needed, devices * machine.memory - sizes.weights)
        self.at_once = replace(sizes.memory, limit=limit).candidates(1, 0, 0)

    def all(self, start: Circuit, stays: Circuit, *, shortlist: bool) -> dict[str, Cost]:
        sizes, work = self.sizes, self.sizes.work
        row = len(sizes.graph.sources) * sizes.stream // sizes.prompts
        pieces = -(-sizes.prompts // max(1, SENDER_BYTES // row))
        passes = 1 + 2 * STEPS  # the clean run; at each point forward and back
        costs = {
            "forward pass": self._cost(work.forward, sizes.read, self.across),
            "circuit run": self._circuit_run(),
            "attribution": self._cost(
                work.attribution(STEPS),
                pieces * passes * sizes.read + STEPS * sizes.summed,
                passes * self.across + self.wrote,
            ),
            "exact patching": self._exact(),
            "search": self._search(start, stays),
        }
        if shortlist:
            scores, search = costs["attribution"], costs["search"]
            costs["search and its scores"] = Cost(
                scores.flops + search.flops,
                scores.bytes + search.bytes,
                scores.moved + search.moved,
                scores.seconds + search.seconds,
                search.tests,
            )
        return costs

    def _circuit_run(self) -> Cost:
        sizes = self.sizes
        pieces = -(-sizes.prompts // max(1, ROW_BYTES // sizes.memory.circuit_row))
        return self._cost(sizes.work.circuit_run, pieces * sizes.read + sizes.summed, self.wrote)

    def _exact(self) -> Cost:
        graph, into = self.sizes.graph, dict[int, int]()
        for place, port in zip(graph.inputs, graph.port_edges, strict=True):
            into[place.layer] = into.get(place.layer, 0) + graph.n_senders(place) + int(port)
        found = estimate(graph, self.sizes.work.candidate, 1.0)
        read = estimate(graph, self.sizes.of_parts, 1.0).seconds / self.at_once
        return self._cost(found.seconds, read, self._carried(into), found.tests)

    def _search(self, start: Circuit, stays: Circuit) -> Cost:
        sizes = self.sizes
        told = Forecast(sizes.graph, start, stays, sizes.work.candidate, sizes.tokens, (0, 0.0))
        # Of weights a whole part is read, wherever it is needed.
        read = Forecast(sizes.graph, start, stays, sizes.of_parts, 1, (0, 0.0)).seconds / self.at_once
        run, recorded = self._circuit_run(), sizes.work.recording
        return self._cost(
            recorded + told.seconds + run.flops,
            4 * sizes.read + read + run.bytes,
            4 * self.across + self._carried(told.tests_into) + run.moved,
            told.tests,
        )

    def _carried(self, into: dict[int, int]) -> float:
        """Bytes between devices if each test of an edge into some layer carries one stream to the logits."""
        crossed = sum(
            tests * sum(layer < one for one in self.boundaries) for layer, tests in into.items() if layer >= 0
        )
        return float(crossed) * self.sizes.stream

    def _senders_before(self, layer: int) -> int:
        return int(np.sum([node.layer < layer for node in self.sizes.graph.sources]))

    def _cost(self, flops: float, read: float, moved: float, tests: int | None = None) -> Cost:
        seconds = max(flops / self.machine.flops, read / self.machine.bandwidth)
        return Cost(float(flops), float(read), float(moved), seconds, tests)


def _assumptions(machine: Machine, within: int | None, kept: int) -> tuple[str, ...]:
    among = "the whole graph" if within is None else "a shortlist that is made of random paths as well"
    said: Sequence[str] = (
        "this is arithmetic from the shape, not a measurement; matrix products alone are counted",
        f"a device does {machine.flops:.3g} operations a second and reads {machine.bandwidth:.3g} bytes a second, and "
        "time is the longer of the two",
        f"the search keeps {kept:,} edges that lie on random paths, of {among}; what it keeps decides what it tests",
        f"its tests take {DEARER:g} times their parts, as measured on SmolLM2 (discovery/forecast.py); beside them it "
        "records four passes and measures one circuit",
        f"weights are read once for as many candidates as go together, at most 64; attribution is EAP-IG in {STEPS} "
        "steps",
        "memory is the least with which a search can start; one that keeps much needs more",
    )
    if (machine.devices or 1) > 1:
        said = (
            *said,
            "the model is spread over devices by layers, which take turns, so that more of them give room and no "
            "speed; bytes between them are not in the time",
            "one model over several devices (--device-map) was never measured on several GPUs",
        )
    return tuple(said)
