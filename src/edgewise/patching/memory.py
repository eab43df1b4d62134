"""What a search takes in memory, worked out from the model's shape before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from edgewise.errors import EdgewiseError
from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.components import stream_dtype
from edgewise.tasks import Task

CPU_BLOCK, CUDA_BLOCK = 2**23, 2**32
"""Bytes of residual streams that one block of candidates should take: what a CPU's caches hold; plenty on a GPU."""

CPU_CHUNK, CUDA_CHUNK = 2**23, 2**30
"""Bytes of logits in hand at a time, likewise."""

MOST_CANDIDATES = 64


@dataclass(frozen=True)
class MemoryPlan:
    """How a search fits into memory, in bytes beyond the model's own weights.

    Attributes:
        recorded: what is recorded of the clean and the ablated run, and the clean logits at the scored places.
        stream: one residual stream at every position of every prompt.
        candidate: what one candidate takes on its way through one MLP, beside what waits for nodes further on.
        whole_graph: what the live part of the circuit takes, and one candidate on its way through it, if every edge
            stays.
        block: bytes of streams in one block of candidates.
        chunk: bytes of logits in hand at a time.
        limit: how much may be used; None where nobody can say.
    """

    recorded: int
    stream: int
    candidate: int
    whole_graph: int
    block: int
    chunk: int
    limit: int | None = None

    @property
    def smallest(self) -> int:
        """The least limit with which a search can start: one candidate at a time."""
        return self.recorded + 8 * self.stream + self.candidate + self.chunk

    @property
    def largest(self) -> int:
        """The limit with which a search ends even if every edge stays."""
        return max(self.smallest, self.recorded + self.whole_graph + self.candidate + self.chunk)

    def candidates(self, places: float, waiting: float, held: int) -> int:
        """How many candidates to compute at once.

        Args:
            places: share of all positions that are computed at the input in question.
            waiting: streams that one candidate may leave waiting for later nodes, in streams of all positions.
            held: bytes that the live part of the circuit holds now.

        Raises:
            OutOfMemoryError: not even one fits into the limit.
        """
        wanted = max(1, min(MOST_CANDIDATES, int(self.block / max(1.0, self.stream * places))))
        if self.limit is None:
            return wanted
        each = self.candidate + int(self.stream * (3 * places + waiting))
        needed = self.recorded + held + self.chunk + each
        if needed > self.limit:
            raise OutOfMemoryError(
                f"the circuit in hand has grown so large that one candidate at a time needs {size(needed)}, and the "
                f"limit is {size(self.limit)}. Give --max-memory {size_option(int(needed * 1.1))} or more, fewer "
                "prompts with --examples, or a higher threshold"
            )
        return min(wanted, 1 + (self.limit - needed) // each)


class OutOfMemoryError(EdgewiseError):
    """A search has come to where it needs more memory than it may have; what it decided until then stands."""


def plan_memory(decoder: Decoder, task: Task, graph: Graph, max_memory: int | None = None) -> MemoryPlan:
    """The memory plan of a search with the incremental engine.

    Args:
        max_memory: bytes that may be used beyond the model's weights; by default nine tenths of what is free on a GPU,
            or of what the machine has.

    Raises:
        EdgewiseError: it cannot be done in so little; the message names the smallest setting.
    """
    whole = _plan(decoder, task, graph, len(task), max_memory)
    limit = whole.limit
    if limit is None or whole.smallest <= limit:
        return whole
    fitting = [rows for rows in range(1, len(task)) if _plan(decoder, task, graph, rows, limit).smallest <= limit]
    fewer = (
        f", or use at most {max(fitting)} of the {len(task)} prompts with --examples {max(fitting)}" if fitting else ""
    )
    where = "--max-memory allows" if max_memory is not None else "this machine has"
    raise EdgewiseError(
        f"this search needs at least {size(whole.smallest)} of memory beyond the model, and {where} {size(limit)}. "
        f"The smallest setting to start with is --max-memory {size_option(whole.smallest)}{fewer}; how much it takes "
        f"in the end depends on the circuit, at most {size_option(whole.largest)}"
    )


def _plan(decoder: Decoder, task: Task, graph: Graph, rows: int, max_memory: int | None) -> MemoryPlan:
    config, prompts = decoder.config, task.prompts
    wide, narrow = stream_dtype(decoder.dtype).itemsize, decoder.dtype.itemsize
    tokens = rows * prompts.clean.shape[1]
    layers, heads = config.n_layers, config.n_heads * config.d_head
    stream = tokens * config.d_model * wide
    wrote = tokens * narrow * (graph.n_embeddings * config.d_model + layers * (heads + config.mlps * config.d_model))
    values = tokens * narrow * layers * (heads + 2 * config.n_kv_heads * config.d_head)
    streams = (3 * layers + 2) * stream
    scored = -(-prompts.scored_rows.shape[0] * rows // len(task))
    logits = 3 * scored * config.d_vocab * wide
    on_cpu = decoder.device.type == "cpu"
    hidden = tokens * narrow * max(4 * config.d_mlp, config.n_heads * config.d_model)
    if max_memory is None:
        free = machine_memory() if on_cpu else torch.cuda.mem_get_info(decoder.device)[0]
        max_memory = None if free is None else int(0.9 * free)
    return MemoryPlan(
        recorded=3 * wrote + values + streams + logits,
        stream=stream,
        candidate=hidden + 3 * stream,
        # Streams of all inputs and MLPs, heads' values beside them, and what waits for nodes further on.
        whole_graph=(len(graph.inputs) + 2 * layers + len(graph.sources) + 3) * stream + 2 * values,
        block=CPU_BLOCK if on_cpu else CUDA_BLOCK,
        chunk=min(
            max(CPU_CHUNK if on_cpu else CUDA_CHUNK, 256 * scored * wide),
            MOST_CANDIDATES * scored * config.d_vocab * wide,
        ),
        limit=max_memory,
    )


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BINARY = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: `3GB`, `512MB`, `1.5 GiB`.

    Raises:
        EdgewiseError: it is not one, or is not above 0.
    """
    compact = text.strip().lower().replace(" ", "")
    digits = compact.rstrip("bikmgt")
    unit = {**_UNITS, **_BINARY}.get(compact[len(digits) :])
    try:
        bytes_ = int(float(digits) * unit) if unit is not None else 0
    except (ValueError, OverflowError):
        bytes_ = 0
    if bytes_ < 1:
        raise EdgewiseError(f"{text!r} is no size of memory; write it like 3GB or 512MB")
    return bytes_


def size(count: int) -> str:
    """`1.5 GB`, `230 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{max(1, count // 1000)} kB"


def size_option(count: int) -> str:
    """The same, rounded up, as an option takes it: `1.6GB`, `231MB`."""
    if count >= 10**10:
        return f"{-(-count // 10**9)}GB"
    return f"{-(-count // 10**8) / 10:g}GB" if count >= 10**9 else f"{-(-count // 10**6)}MB"


def machine_memory() -> int | None:
    """Bytes of the machine's memory, where it can be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
