"""Where the nodes of a circuit stand in a picture: on paper and on a page alike.

Information flows from bottom to top. The embedding is a bar at the bottom and `logits` a bar at the top, as wide as the
picture, so that what reads or writes them does so straight up. Between them the layers, early ones below: heads side by
side, each in a column of its own that is the same in every layer, and the MLP above its layer's heads in the middle
column (beside them where both read the same stream). What the circuit does not have takes no room: neither layers, nor
columns, nor the embedding.

Query heads that share a key and a value have one key input and one value input between them, and so does the picture: a
node `a3.g1` below the heads that read it. Edges into `a3.g1<k>` end there, once each.

Where a circuit tells positions apart, this is what stands in the column of one span (`columns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from edgewise.graph import Circuit, Graph, Node

PlacedKind = Literal["input", "tok", "pos", "head", "group", "mlp", "logits"]

BOX_HEIGHT = 22.0
HEAD_HEIGHT = 32.0
"""A head has room for marks of its query, key and value below its name."""
BOX_WIDTH = 54.0
COLUMN = 76.0
"""From one head to the next of its layer."""
MIDDLE = 132.0
"""Width of the column of MLPs, with room on both sides for what passes them."""
NARROW_MIDDLE = 104.0
"""The same in the column of a span, which fewer edges pass."""
MARGIN = 14.0
MOST_COLUMNS = 16
"""A layer with more heads than this in the circuit takes several rows."""


@dataclass(frozen=True)
class Placed:
    """A node in its place. `x` and `y` are the middle of its box, in pixels from the top left.

    Attributes:
        name: `a3.h7`, `m3`, `input`, `tok`, `pos`, `logits`, or `a3.g1` for a key/value head that query heads share.
        kind: what it is; `group` is such a key/value head, `whole` a box of a collapsed circuit.
        layer, head: as in its name; -1 where it has none.
        label: what is written on it.
        group: the group of components it belongs to, if groups were given and it is in one.
        span: the span in whose column it stands, where positions are told apart; empty otherwise.
    """

    name: str
    kind: PlacedKind | Literal["whole"]
    layer: int
    head: int
    x: float
    y: float
    width: float
    height: float
    label: str
    group: str | None = None
    span: str = ""

    @property
    def full_name(self) -> str:
        """The name with its span, `a3.h7@S1`: what no other box of the picture is called."""
        return f"{self.name}@{self.span}" if self.span else self.name

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Layout:
    """The nodes of a circuit in their places, early ones first.

    Attributes:
        nodes: every node that touches an edge of the circuit.
        width, height: of the picture that holds them, margins included.
    """

    nodes: tuple[Placed, ...]
    width: float
    height: float

    @cached_property
    def by_name(self) -> dict[str, Placed]:
        return {node.name: node for node in self.nodes}


def place(circuit: Circuit, groups: Mapping[str, str] | None = None) -> Layout:
    """Give every node that touches an edge of the circuit its place.

    The same circuit always gives the same layout. An empty circuit gives one without nodes.

    Args:
        groups: the name of the group of components that a node belongs to, by the node's name.
    """
    levels = levels_of(circuit)
    columns = HeadColumns(circuit.graph, levels)
    middles, height = stacked(heights(levels), between(circuit))
    return Layout(stand(levels, middles, columns, groups), columns.width, height)


def heights(levels: Sequence[Sequence[Member]]) -> list[float]:
    """How high each level is."""
    return [max(_height(member) for member in level) for level in levels]


def stacked(
    tall: Sequence[float], between: float, above: Mapping[int, float] | None = None
) -> tuple[list[float], float]:
    """How far down the middle of every level is, lowest level first, and how high the whole picture.

    Args:
        tall: how high each level is.
        between: from one level to the next.
        above: more room above some levels, by their number.
    """
    above = above or {}
    height = 2 * MARGIN + sum(tall) + between * max(0, len(tall) - 1) + sum(above.values())
    bottom, middles = height - MARGIN, []
    for number, own in enumerate(tall):
        middles.append(round(bottom - own / 2, 2))
        bottom -= own + between + above.get(number, 0.0)
    return middles, height


def stand(
    levels: Sequence[Sequence[Member]],
    middles: Sequence[float],
    columns: HeadColumns,
    groups: Mapping[str, str] | None,
    span: str = "",
) -> tuple[Placed, ...]:
    """The members of all levels in their places; some levels may have none."""
    placed: list[Placed] = []
    for level, y in zip(levels, middles, strict=True):
        for member, x, width in columns.across(level):
            name, group = member.name, (groups or {}).get(member.name)
            own = _height(member)
            placed.append(
                Placed(name, member.kind, member.layer, member.head, round(x, 2), y, width, own, name, group, span)
            )
    return tuple(placed)


@dataclass(frozen=True)
class Member:
    """A node, or a key/value head that several query heads share."""

    kind: PlacedKind
    layer: int = -1
    head: int = -1

    @property
    def name(self) -> str:
        return f"a{self.layer}.g{self.head}" if self.kind == "group" else Node(self.kind, self.layer, self.head).name


def between(circuit: Circuit) -> float:
    """From one level to the next: more where more edges have to find their way between them."""
    return 24.0 + min(16.0, circuit.n_edges / 60)


def _height(member: Member) -> float:
    return HEAD_HEIGHT if member.kind in ("head", "group") else BOX_HEIGHT


def levels_of(circuit: Circuit) -> list[list[Member]]:
    """What stands on one height, from bottom to top; levels with nothing on them are left out."""
    graph = circuit.graph
    present = set(circuit.nodes())
    levels = [[Member(node.kind) for node in graph.sources[: graph.n_embeddings] if node.name in present]]
    for layer in range(graph.n_layers):
        heads = [Member("head", layer, head) for head in range(graph.n_heads) if f"a{layer}.h{head}" in present]
        mlp = [Member("mlp", layer)] if f"m{layer}" in present else []
        levels += _rows([Member("group", layer, head) for head in _shared_heads(circuit, layer)])
        levels += _rows(heads)
        if graph.parallel and heads:
            levels[-1] = levels[-1] + mlp
        else:
            levels.append(mlp)
    levels.append([Member("logits")] if "logits" in present else [])
    return [level for level in levels if level]


def _rows(heads: Sequence[Member]) -> list[list[Member]]:
    """Heads of one layer in as many rows as it takes, in reading order: the first ones on the top row."""
    count = -(-len(heads) // MOST_COLUMNS)
    if not count:
        return []
    each = -(-len(heads) // count)
    return [list(heads[first : first + each]) for first in range(0, len(heads), each)][::-1]


def _shared_heads(circuit: Circuit, layer: int) -> list[int]:
    """The key/value heads of a layer that are shared and into whose key or value an edge of the circuit leads."""
    graph = circuit.graph
    if graph.share == 1:
        return []
    reading = circuit.edges.any(axis=0) | circuit.ports
    return [
        head
        for head in range(graph.n_kv_heads)
        if any(reading[graph.input_index[f"a{layer}.g{head}<{kind}>"]] for kind in ("k", "v"))
    ]


class HeadColumns:
    """How far right things stand. Heads have columns on both sides of the MLPs'."""

    def __init__(
        self,
        graph: Graph,
        levels: Sequence[Sequence[Member]],
        *,
        most: int = MOST_COLUMNS,
        middle: float = MIDDLE,
        least_width: float = 0.0,
    ) -> None:
        self.graph = graph
        used = sorted({member.head for level in levels for member in level if member.kind == "head"})
        self.of_head = {head: column for column, head in enumerate(used)} if len(used) <= most else None
        most_groups = max((sum(member.kind == "group" for member in level) for level in levels), default=0)
        self.count = min(most, max(len(used), most_groups))
        self.on_the_left = -(-self.count // 2)
        mlps = any(member.kind == "mlp" for level in levels for member in level)
        self.middle = middle if mlps or not self.count else 0.0
        own = 2 * MARGIN + self.count * COLUMN + self.middle
        self.width = max(own, least_width)
        self.left = MARGIN + (self.width - own) / 2

    def x(self, column: float) -> float:
        """The middle of a column; between two columns' if it is not whole."""
        passed = column > self.on_the_left - 0.5
        return self.left + COLUMN * (column + 0.5) + (self.middle if passed else 0.0)

    @property
    def x_middle(self) -> float:
        return self.left + COLUMN * self.on_the_left + self.middle / 2

    def across(self, level: Sequence[Member]) -> list[tuple[Member, float, float]]:
        """The members of one level, each with its middle and its width."""
        if level and level[0].kind in ("input", "tok", "pos", "logits"):
            return self._bars(level)
        side = [member for member in level if member.kind != "mlp"]
        found = [
            (member, self.x(column), BOX_WIDTH)
            for member, column in zip(side, self._columns(side), strict=True)
        ]  # fmt: skip
        return found + [(member, self.x_middle, BOX_WIDTH) for member in level if member.kind == "mlp"]

    def _bars(self, level: Sequence[Member]) -> list[tuple[Member, float, float]]:
        whole = self.width - 2 * MARGIN
        each = (whole - MARGIN * (len(level) - 1)) / len(level)
        return [(bar, MARGIN + each / 2 + (each + MARGIN) * number, each) for number, bar in enumerate(level)]

    def _columns(self, side: Sequence[Member]) -> list[int]:
        if self.of_head is not None and all(member.kind == "head" for member in side):
            return [self.of_head[member.head] for member in side]
        # Too many heads for a column each, or key/value heads: as near as can be to where they would stand, in order.
        wanted = [self._wanted(member) for member in side]
        columns: list[int] = []
        for number, one in enumerate(wanted):
            least = columns[-1] + 1 if columns else 0
            most = self.count - (len(side) - number)
            columns.append(min(max(least, round(one)), most))
        return columns

    def _wanted(self, member: Member) -> float:
        if member.kind == "group":
            first = member.head * self.graph.share
            heads = range(first, first + self.graph.share)
            if self.of_head is not None:
                there = [self.of_head[head] for head in heads if head in self.of_head]
                return sum(there) / len(there) if there else 0.0
            return sum(heads) / len(heads) * (self.count - 1) / max(1, self.graph.n_heads - 1)
        return member.head * (self.count - 1) / max(1, self.graph.n_heads - 1)
