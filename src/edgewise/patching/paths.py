"""Path patching: the model's own run in which only what flows along some paths is replaced (Wang et al. 2022;
Goldowsky-Dill et al. 2023).

A path is a chain of edges from a sender to an input r. With the run's own streams x and outputs a, and P the paths that
end at r, r reads

    x_r + sum over senders u of ( a_u^P - a_u )

where a_u^P is ã_u, what u carries if ablated, if a path of P leads from u straight to r; if paths come through u, what
u makes of what it reads, patched in the same way by those paths; and a_u otherwise. Each path has copies of its nodes
to itself: what a node writes to anything off the path is what the run has there. After the last input of a path the run
goes on as it does: a path to `logits` moves nothing else, one that ends earlier all that its last node reaches. Where
one path is the end of another, what its sender carries replaces what the longer one brings.

A path that begins at a port edge replaces the head's query (key, value). One through a key or value that query heads
share goes on through all of them. Heads that a norm couples are settled together, from what paths bring to any of them;
only those that a path comes through write it on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph import Graph
from edgewise.graph.names import EdgePath, Input, InputKind, PortEdge, parse_path
from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.forward import forward
from edgewise.models.walk import Walk
from edgewise.patching.ablation import cut_rows
from edgewise.patching.experiment import Experiment
from edgewise.patching.wiring import EMBEDDING, Wiring
from edgewise.tasks import Prompts


class Sender(NamedTuple):
    """A node, by its component (or EMBEDDING) and its number in it."""

    component: int
    number: int


class Reader(NamedTuple):
    """A query head's query, key or value, or an MLP (head 0), by its component."""

    component: int
    kind: InputKind
    head: int


@dataclass(frozen=True)
class Reading:
    """What paths change of what one input reads.

    Attributes:
        port: a path begins here: all that it reads counts for nothing.
        starts: senders whose output is replaced.
        through: by component, what paths change of what its nodes read that write on.
    """

    port: bool = False
    starts: frozenset[Sender] = frozenset()
    through: Mapping[int, Mapping[Reader, Reading]] = field(default_factory=dict)

    def __or__(self, other: Reading) -> Reading:
        through = {index: dict(readings) for index, readings in self.through.items()}
        for index, readings in other.through.items():
            through[index] = _united(through.get(index, {}), readings)
        return Reading(self.port or other.port, self.starts | other.starts, through)


def _united(one: Mapping[Reader, Reading], other: Mapping[Reader, Reading]) -> dict[Reader, Reading]:
    return {**one, **{place: one.get(place, Reading()) | reading for place, reading in other.items()}}


class _Carried(Protocol):
    """What senders would carry: an ablated run's, or another run's own."""

    @property
    def embedding(self) -> Tensor: ...
    @property
    def codes(self) -> Sequence[Tensor]: ...
    @property
    def projections(self) -> Sequence[Projections]: ...


@torch.no_grad()
def path_logits(experiment: Experiment, paths: Sequence[EdgePath | str], *, restore: bool = False) -> Tensor:
    """The logits at the scored places if only what flows along `paths` is ablated, `[scored, d_vocab]`.

    Args:
        restore: the other way round: run the corrupted prompts, and restore what the clean ones have along the paths.

    Raises:
        EdgewiseError: a path that the graph has not, or nothing to restore from (see `check_restore`).
    """
    decoder, pieces, prompts = experiment.decoder, [], experiment.task.prompts
    if restore:
        check_restore(experiment)
    ends: dict[int, dict[Reader, Reading]] = {}
    final, split = Reading(), experiment.graph.split_embedding
    for path in paths:
        for reader, reading in endings(decoder, experiment.graph, path):
            if reader is None:
                final = final | reading
            else:
                ends[reader.component] = _united(ends.get(reader.component, {}), {reader: reading})
    step = experiment.rows_at_once()
    for first in range(0, len(prompts), step):
        stop = min(first + step, len(prompts))
        rows = prompts.rows(first, stop)
        if restore:
            embedding = decoder.embed(rows.corrupt, rows.corrupt_positions, split=split)
            carried: _Carried = forward(decoder, rows.clean, rows.mask, split_embedding=split, keep_projections=True)
        else:
            embedding = decoder.embed(rows.clean, split=split)
            carried = cut_rows(experiment.ablated_activations, first, stop)
        stream = _PathRun(decoder, rows, embedding, carried, ends, final, restore).run()
        pieces.append(decoder.logits(stream[rows.scored_rows, rows.scored_positions]))
    return torch.cat(pieces)


def check_restore(experiment: Experiment) -> None:
    """Raise an EdgewiseError unless corrupted prompts can be run, position by position, in place of clean ones."""
    if experiment.ablation != "resample":
        raise EdgewiseError(
            "restoring a path starts from the run on the corrupted prompts, so it goes with ablation 'resample', not "
            f"{experiment.ablation!r}"
        )
    if experiment.task.prompts.alignment is not None:
        raise EdgewiseError(
            "restoring a path needs clean and corrupted prompts of one length, and some pairs of task "
            f"{experiment.task.name!r} are only aligned by spans"
        )


def endings(decoder: Decoder, graph: Graph, path: EdgePath | str) -> list[tuple[Reader | None, Reading]]:
    """What a path changes, and at which inputs; None for the logits.

    Raises:
        EdgewiseError: the graph has no such path; the message says what it lacks.
    """
    path = parse_path(path) if isinstance(path, str) else path
    start = path.start
    if isinstance(start, Input):
        places, edges = (start, *path.reads), [PortEdge(start).name]
    else:
        places, edges = path.reads, [f"{start.name}->{path.reads[0].name}"]
    edges += [f"{_writer(graph, place)}->{after.name}" for place, after in pairwise(places)]
    try:
        located = [_locate(graph, edge, place) for edge, place in zip(edges, places, strict=True)]
    except EdgewiseError as error:
        raise EdgewiseError(f"in the path {quoted(path.name)}: {error}") from None
    own, row, _ = located[0]
    reading = Reading(port=True)
    if row is not None:
        node = Wiring.of(decoder, own).node[row]
        reading = Reading(starts=frozenset({Sender(EMBEDDING, row) if node is None else Sender(*node)}))
    for own, _, column in located[:-1]:
        readers = _readers(decoder, own, column)
        reading = Reading(through={readers[0].component: dict.fromkeys(readers, reading)})
    own, _, column = located[-1]
    return [(reader, reading) for reader in _readers(decoder, own, column) or [None]]


def _writer(graph: Graph, place: Input) -> str:
    """The node that reads `place`; the first one of those that share it."""
    return f"a{place.layer}.h{place.head * graph.share}" if place.shared else place.owner


def _locate(graph: Graph, edge: str, place: Input) -> tuple[Graph, int | None, int]:
    """The graph that has an edge, this one or that which gives every query head a key and a value, and where."""
    apart = replace(graph, n_kv_heads=graph.n_heads)
    own = apart if place.name not in graph.input_index and place.name in apart.input_index else graph
    return own, *own.locate(edge)


def _readers(decoder: Decoder, graph: Graph, column: int) -> list[Reader]:
    """What reads an input: one query head or MLP, or all heads that share it; nothing for the logits."""
    wiring, place = Wiring.of(decoder, graph), graph.inputs[column]
    nodes = [wiring.node[row] for row in graph.nodes_reading(place)]
    return [Reader(node[0], place.kind, node[1]) for node in nodes if node is not None]


class _PathRun(Walk):
    """The walk in which some inputs read something else along paths."""

    def __init__(
        self,
        decoder: Decoder,
        rows: Prompts,
        embedding: Tensor,
        carried: _Carried,
        ends: Mapping[int, Mapping[Reader, Reading]],
        final: Reading,
        restore: bool,
    ) -> None:
        """
        Args:
            embedding: `[parts, batch, pos, d_model]`, of the prompts that are run.
            carried: what senders carry where a path starts.
            ends: per component, what paths that end there change of what it reads; `final`, of the logits.
            restore: the corrupted prompts are run, not the clean ones.
        """
        stream = embedding.sum(dim=0).to(stream_dtype(decoder.dtype))
        mask = rows.corrupt_mask if restore else rows.mask
        super().__init__(decoder, stream, mask, rows.corrupt_positions if restore else None)
        self.embedding, self.carried, self.ends, self.final = embedding, carried, ends, final
        self.reads: list[Tensor] = []
        self.projected: list[Projections] = []
        self.codes: list[Tensor] = []

    def run(self, first: int = 0, read: Tensor | None = None) -> Tensor:
        return super().run(first, read) + self.moved(self.final)

    def projections(self, index: int, component: Component) -> Projections:
        found = super().projections(index, component)
        self.reads.append(self._read)
        self.projected.append(found)
        if index in self.ends:
            self.projected[index] = self.patched(index, self.ends[index])
        return self.projected[index]

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        self.codes.append(super().code(index, component, projections))
        return self.codes[index]

    def moved(self, reading: Reading) -> Tensor:
        """By how much paths move what an input reads, `[batch, pos, d_model]`."""
        total = torch.zeros_like(self.stream)
        for index, number in reading.starts:
            if index == EMBEDDING:
                total = total + (self.carried.embedding[number] - self.embedding[number])
                continue
            change = self.carried.codes[index][:, :, number] - self.codes[index][:, :, number]
            total = total + self.decoder.components[index].write_node(number, change)
        for index, readings in reading.through.items():
            component = self.decoder.components[index]
            code = component.code(self.patched(index, readings), self.allowed[index])
            for number in sorted({reader.head for reader in readings}):
                if Sender(index, number) not in reading.starts:
                    change = code[:, :, number] - self.codes[index][:, :, number]
                    total = total + component.write_node(number, change)
        return total

    def patched(self, index: int, readings: Mapping[Reader, Reading]) -> Projections:
        """What a component's inputs make of what they read if paths change some of it."""
        component, found = self.decoder.components[index], dict(self.projected[index])
        made: list[tuple[Reading, Tensor]] = []  # heads that share an input mostly read the same
        for reader, reading in readings.items():
            heads, own = len(component.nodes), len(component.inputs(reader.kind))
            if found[reader.kind].shape[2] != heads:
                found[reader.kind] = found[reader.kind].repeat_interleave(heads // own, dim=2)
            elif found[reader.kind] is self.projected[index][reader.kind]:
                found[reader.kind] = found[reader.kind].clone()
            asked = reader.head * own // heads
            # Where a path ends at the same input, that one's change is there too.
            whole = self.ends.get(index, {}).get(reader, Reading()) | reading
            if whole.port:
                found[reader.kind][:, :, reader.head] = self.carried.projections[index][reader.kind][:, :, asked]
                continue
            stream = next((stream for one, stream in made if one == whole), None)
            if stream is None:
                stream = (self.reads[index] + self.moved(whole)).to(self.decoder.dtype)[:, :, None]
                made.append((whole, stream))
            projected = component.project(reader.kind, stream, self.at, None if reader.kind == "mlp" else [asked])
            found[reader.kind][:, :, reader.head] = projected[:, :, 0]
        return found
