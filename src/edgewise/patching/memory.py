"""What a search takes in memory, worked out from shapes before it starts.

Every figure is of tensors, beyond the model's weights; tests hold them to what torch allocates. Three things decide:
what is kept of every prompt, in streams; attention scores, which grow with the square of a prompt's length; and logits,
with the vocabulary. Recording and circuit runs go through as many rows of prompts at a time as a limit leaves room for.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.attention import Attention
from edgewise.models.components import stream_dtype
from edgewise.models.forward import Activations, forward
from edgewise.models.recorded import joined
from edgewise.tasks import Task, Texts

if TYPE_CHECKING:
    from edgewise.patching.ablation import Ablation

CPU_BLOCK, CUDA_BLOCK = 2**23, 2**32
"""Bytes of residual streams that one block of candidates should take: what a CPU's caches hold; plenty on a GPU."""

CPU_CHUNK, CUDA_CHUNK = 2**23, 2**30
"""Bytes of logits in hand at a time, likewise."""

MOST_CANDIDATES = 64

GATHERED = 16
"""Inputs whose gradients are held together at least, where every sender's effect on them is worked out."""

MEASURED = 7
"""Sets of logits in hand when a metric is measured from scratch, the model's own among them (most: KL divergence)."""


@dataclass(frozen=True)
class MemoryPlan:
    """How a search fits into memory, in bytes beyond the model's own weights.

    Attributes:
        held: what an `Experiment` keeps: the ablated run, and the clean logits at the scored places.
        recorded: what is kept during a search: that, what is recorded of the clean run, and what the metric needs.
        stream: one residual stream at every position of every prompt.
        candidate: what one candidate takes on its way through one node, beside what waits for nodes further on.
        whole_graph: what the live part of the circuit takes, and one candidate on its way through it, if every edge
            stays.
        block: bytes of streams in one block of candidates.
        chunk: bytes of logits in hand at a time; `logits`: those of one candidate.
        clean: what is recorded of the clean run alone.
        recording: what recording takes beside what it keeps, for each row of prompts run at once.
        written: what the heads of a layer write on all rows, each by itself.
        circuit_row, gradient_row, mask_row, probe_row: what each row of prompts takes in a circuit run, in attribution
            by gradients, in a circuit run with soft masks and its backward pass, and in learning masks on units, where
            all rows are in hand at once.
        constants: what working out a value for every node takes beside the runs that it comes from.
        learned_row: what each row of prompts takes while the constants of ablation `optimal` are learned.
        text_row: what each of the texts takes that a mean is taken over; 0 where there are none.
        offloaded: what is kept of all that in the CPU's memory instead, beside the last entry of each list of it.
        learns: whether constants are learned.
        node_row: the same in a run of a circuit of whole nodes, which is a forward pass.
        limit: how much may be used; None where nobody can say.
    """

    held: int
    recorded: int
    stream: int
    candidate: int
    whole_graph: int
    block: int
    chunk: int
    logits: int
    clean: int
    recording: int
    written: int
    circuit_row: int
    gradient_row: int
    mask_row: int
    probe_row: int
    constants: int
    learned_row: int
    text_row: int
    node_row: int
    rows: int
    offloaded: int = 0
    learns: bool = False
    limit: int | None = None

    @property
    def around(self) -> int:
        """The least with which prompts can be recorded and a circuit measured, one row at a time."""
        recording = self.held + self.clean + max(self.recording, self.written)
        ablating = max(self.text_row, self.learns * self.learned_row) + self.logits
        return max(recording, ablating, self.held + MEASURED * self.logits, self.held + self.logits + self.circuit_row)

    @property
    def smallest(self) -> int:
        """The least limit with which a search can start: one candidate at a time."""
        return max(self.around, self.recorded + self.candidate + 4 * self.stream + min(self.chunk, self.logits))

    @property
    def largest(self) -> int:
        """The limit with which a search ends even if every edge stays."""
        return max(self.smallest, self.recorded + self.whole_graph + self.candidate + min(self.chunk, self.logits))

    def smallest_for(self, kind: MemoryKind) -> int:
        """The least limit for a method of some kind: a search, circuit runs, gradients, kept rows, or soft masks."""
        if kind in ("search", "every edge"):
            return self.smallest if kind == "search" else self.largest
        row = {
            "runs": self.circuit_row,
            "gradients": self.gradient_row,
            "probing": self.rows * self.probe_row,
            "masks": max(self.mask_row, self.gradient_row),
            "nodes": self.clean + self.logits + self.node_row,
        }[kind]
        return max(self.around, self.held + self.logits + row)

    def rows_at_once(self, each: int, kept: int) -> int:
        """How many rows of prompts that take so much each fit beside what is kept."""
        return self.rows if self.limit is None else max(1, min(self.rows, (self.limit - kept) // max(1, each)))

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
        needed = self.recorded + held + min(self.chunk, self.logits) + each
        if needed > self.limit:
            raise OutOfMemoryError(
                f"the circuit in hand has grown so large that one candidate at a time needs {size(needed)}, and the "
                f"limit is {size(self.limit)}. Give --max-memory {size_option(int(needed * 1.1))} or more, fewer "
                "prompts with --examples, or a higher threshold"
            )
        # Logits go by in chunks, and there are no more of them than candidates have.
        room = self.limit - needed - max(0, self.chunk - self.logits)
        return min(wanted, max(1, 1 + room // each))


class OutOfMemoryError(EdgewiseError):
    """A search has come to where it needs more memory than it may have; what it decided until then stands."""


MemoryKind = Literal["search", "every edge", "runs", "gradients", "probing", "masks", "nodes"]
"""What a method does: incremental searches, or the same with every edge kept; circuit runs; gradients; masks on units;
soft masks on edges; runs of circuits of whole nodes from the middle on."""


def plan_memory(
    decoder: Decoder,
    task: Task,
    graph: Graph,
    max_memory: int | None = None,
    kind: MemoryKind = "search",
    ablation: Ablation | None = None,
) -> MemoryPlan:
    """The memory plan of a method, by default of a search with the incremental engine.

    Args:
        max_memory: bytes that may be used beyond the model's weights; by default nine tenths of what is free on a GPU,
            or of what the machine has.
        ablation: what absent edges will carry, if making that may take more than the rest.

    Raises:
        EdgewiseError: it cannot be done in so little; the message names the smallest setting.
    """
    over = None if ablation is None or ablation.constants is not None else ablation.over
    learns = ablation is not None and ablation.constants is None and ablation.name == "optimal"
    whole = memory_of(decoder, task, graph, max_memory, over=over, learns=learns)
    limit, needed = whole.limit, whole.smallest_for(kind)
    if whole.offloaded > 0.9 * (machine_memory() or math.inf):
        raise EdgewiseError(
            f"what is recorded takes {size(whole.offloaded)} of the CPU's memory, to which it is offloaded, and this "
            f"machine has {size(machine_memory() or 0)}. Use fewer prompts with --examples"
        )
    if limit is None or needed <= limit:
        return whole
    fitting = [
        rows
        for rows in range(1, len(task))
        if memory_of(decoder, task, graph, limit, rows=rows, over=over, learns=learns).smallest_for(kind) <= limit
    ]
    fewer = (
        f", or use at most {max(fitting)} of the {len(task)} prompts with --examples {max(fitting)}" if fitting else ""
    )
    where = "--max-memory allows" if max_memory is not None else "this machine has"
    said = f"this needs at least {size(needed)} of memory beyond the model, and {where} {size(limit)}. "
    if kind != "search":
        raise EdgewiseError(f"{said}The smallest setting that does is --max-memory {size_option(needed)}{fewer}")
    raise EdgewiseError(
        f"{said}The smallest setting to start with is --max-memory {size_option(needed)}{fewer}; with that little, a "
        "search that keeps much may end early, when what it has kept no longer fits. Enough for any circuit is "
        f"{size_option(whole.largest)}"
    )


def memory_of(
    decoder: Decoder,
    task: Task,
    graph: Graph,
    max_memory: int | None = None,
    *,
    rows: int | None = None,
    over: Texts | None = None,
    learns: bool = False,
) -> MemoryPlan:
    """The same, whether it fits or not; for all prompts or so many of them.

    Args:
        over: texts that a mean is taken over.
        learns: constants are learned.
    """
    text_row = 0
    if over is not None:  # a text is run like a prompt, and nothing is kept of it
        as_prompts = replace(task, prompts=replace(task.prompts, clean=over.tokens, corrupt=over.tokens))
        one = memory_of(replace(decoder, offload_activations=False), as_prompts, graph, rows=1)
        text_row = one.clean + one.recording + one.constants
    config, prompts = decoder.config, task.prompts
    rows = len(task) if rows is None else rows
    wide, narrow = stream_dtype(decoder.dtype).itemsize, decoder.dtype.itemsize
    positions = max(prompts.clean.shape[1], prompts.corrupt.shape[1])
    layers, mlps, heads = config.n_layers, config.n_layers * config.mlps, config.n_heads
    # Of one row of prompts: a stream, the same in the model's dtype, a layer's z, and its queries, keys and values.
    stream, same, z = positions * config.d_model * wide, positions * config.d_model * narrow, positions * narrow
    z *= heads * config.d_head
    qkv = z + 2 * positions * narrow * config.n_kv_heads * config.d_head
    # What an MLP's code takes: what it writes, or where neurons are told apart its hidden layer.
    width, number = graph.neurons or config.d_model, narrow
    if graph.features:  # a layer's features, its error, and what it carries, in the dtype of streams; on average
        each = [count + 2 * config.d_model if count else config.d_model for count in graph.features]
        width, number = -(-sum(each) // len(each)), wide
    hidden, code = positions * max(config.d_mlp, graph.neurons) * number, positions * width * number
    looked_at = positions * positions
    scores = heads * looked_at * wide
    wrote = graph.n_embeddings * same + layers * z + mlps * code
    streams = (1 + len(decoder.components)) * stream
    clean = wrote + streams + (layers * stream if graph.features else 0)  # errors are kept apart
    scored = -(-prompts.scored_rows.shape[0] * rows // len(task))
    logits = scored * config.d_vocab * wide
    each_logits = logits // rows
    mlp = 3 * hidden + 2 * stream if config.mlps else 0
    # What is done to scores beside their softmax, each step with a copy of them.
    steps = max((one.score_steps for one in decoder.components if isinstance(one, Attention)), default=0)
    attention = (2 + steps) * scores + 2 * looked_at + 3 * z + stream
    written = heads * same + stream
    # Coupled heads move together: all of them are held, and settled by the norm of their sum.
    coupled = any(one.coupled for one in decoder.components)
    acting = heads if any(one.acts_together for one in decoder.components) else 1
    score = (2 * wide + 2 + steps * wide) * looked_at
    together = (acting * score + 4 * z + qkv + 3 * stream) * coupled
    # One layer's gradients with what autograd keeps of it, and a small pass per layer with a stream for every head.
    saved = scores + looked_at + 8 * z + 5 * stream + (4 * hidden + 2 * stream if config.mlps else 0)
    saved += (4 * z + 10 * stream) * coupled + steps * scores
    kept_row = clean + layers * qkv
    # Sums and squares of what nodes write, in float64, of one piece and of all before it.
    constants = 48 * (graph.n_embeddings * config.d_model + layers * heads * config.d_head + mlps * width)
    weight = config.d_model * max(config.d_mlp, config.d_model) * narrow  # a copy of one is made on the way back
    gradients = layers * (2 * z + qkv) + 2 * mlps * code + stream
    passes = max(layers * saved + gradients + 2 * scores, gradients + (6 * heads + GATHERED) * stream)
    gradient_row = kept_row + gradients + (layers + len(graph.sources)) * stream + passes + MEASURED * each_logits
    masked = layers * (10 * heads * stream + 2 * scores + 5 * hidden) + 2 * len(graph.sources) * stream
    held, recorded, offloaded = rows * (wrote + streams + layers * qkv), rows * (clean + wrote + looked_at), 0
    recorded_row = clean
    if decoder.records_elsewhere:  # of each list one entry is at hand; where rows are cut, one of theirs
        last, embedding = max(z, code), graph.n_embeddings * same
        offloaded = rows * (3 * (layers * z + mlps * code) + 2 * streams + layers * qkv)
        held, recorded_row = rows * (embedding + 2 * (last + stream + qkv)), embedding + last + stream
        recorded = rows * (recorded_row + graph.n_embeddings * stream + 2 * last + looked_at)
    held += logits
    on_cpu = decoder.device.type == "cpu"
    if max_memory is None:
        free = _free_memory(decoder.device)
        max_memory = None if free is None else int(0.9 * free)
    return MemoryPlan(
        held=held,
        recorded=held + 2 * logits + recorded,
        stream=rows * stream,
        candidate=rows * max(mlp, score, written, together),
        # Streams of all inputs and MLPs, heads' values beside them, and what waits for nodes further on.
        whole_graph=rows * (len(graph.lumped.inputs) + 2 * layers + len(graph.sources) + 3) * stream
        + rows * layers * (2 * qkv + z * coupled),
        block=CPU_BLOCK if on_cpu else CUDA_BLOCK,
        chunk=min(max(CPU_CHUNK if on_cpu else CUDA_CHUNK, 256 * scored * wide), MOST_CANDIDATES * logits),
        logits=logits,
        clean=rows * recorded_row,
        recording=max(attention, written, mlp),
        written=rows * written,
        circuit_row=len(graph.sources) * stream + max(5 * heads * stream, 3 * heads * stream + attention),
        gradient_row=gradient_row,
        mask_row=kept_row + 5 * masked // 4 + MEASURED * each_logits,
        learned_row=layers * saved + 2 * scores + weight + constants + MEASURED * each_logits,
        text_row=text_row,
        constants=constants,
        learns=learns,
        probe_row=kept_row + 4 * (layers * saved + gradients + 2 * scores) // 3 + MEASURED * each_logits,
        node_row=max(attention, written, mlp) + qkv + 3 * z + 4 * stream + code * (graph.neurons > 0),
        rows=rows,
        offloaded=offloaded,
        limit=max_memory,
    )


def forward_in_pieces(
    decoder: Decoder,
    tokens: Tensor,
    mask: Tensor,
    positions: Tensor | None = None,
    *,
    rows: int | None = None,
    split_embedding: bool = False,
    embedding: Tensor | None = None,
) -> Activations:
    """`forward` of a run to keep, so many rows of prompts at a time: all at once, attention scores take the most."""
    if rows is None or rows >= len(tokens):
        return forward(
            decoder, tokens, mask, positions, split_embedding=split_embedding, embedding=embedding, to_keep=True
        )
    pieces = [
        forward(
            decoder,
            tokens[first : first + rows],
            mask[first : first + rows],
            positions if positions is None or len(positions) == 1 else positions[first : first + rows],
            split_embedding=split_embedding,
            embedding=None if embedding is None else embedding[:, first : first + rows],
            to_keep=True,
        )
        for first in range(0, len(tokens), rows)
    ]
    embedding = torch.cat([piece.embedding for piece in pieces], dim=1)
    codes, streams = joined([piece.codes for piece in pieces]), joined([piece.streams for piece in pieces])
    return Activations(embedding, codes, streams)


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


def _free_memory(device: torch.device) -> int | None:
    """Bytes that a GPU has free, elsewhere the machine's memory; None for a shape without numbers."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return None if device.type == "meta" else machine_memory()


def machine_memory() -> int | None:
    """Bytes of the machine's memory, where it can be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
