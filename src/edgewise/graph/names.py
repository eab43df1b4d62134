"""The names of things in a graph, and the one parser for them.

| name | what it is |
|---|---|
| `input`, or `tok` and `pos` | the embedding, whole or split into its token and position parts |
| `a3.h7`, `m3`, `logits` | a head, an MLP, the output |
| `a3.h7<q>`, `a3.h7<k>`, `a3.h7<v>`, `m3`, `logits` | where a node reads |
| `a3.g1<k>`, `a3.g1<v>` | the key and value inputs of a key/value head that several query heads share |
| `a3.h7` | the one input of a head in a graph of whole heads |
| `a3.h7<k>@S1`, `logits@END` | an input at the positions of one span, in a graph whose inputs are split by spans |
| `a0.h1->a3.h7<q>`, `m3->logits`, `a0.h1->a3.h7<k>@S1` | an edge |
| `a3.h7<q>->a3.h7`, `a3.h7<q>@END->a3.h7` | a port edge: whether the head has its query (key, value) at all |
| `a0.h1->a3.h7<q>->m5->logits` | a path: a sender, and the inputs one after another through which it is read |
| `m3.n1207` | a neuron: a hidden unit of an MLP |
| `m3.f1207`, `m3.error` | a feature of an MLP's dictionary, and what its features do not explain |
| `r3.f1207`, `r3.error` | the same of the residual stream behind layer 3 |

These are the names that EAP-IG and the MIB benchmark use; port edges, shared inputs, whole heads, spans and the split
embedding are edgewise's own additions to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgewise.errors import EdgewiseError, quoted

NodeKind = Literal["input", "tok", "pos", "head", "mlp", "logits"]
InputKind = Literal["q", "k", "v", "head", "mlp", "logits"]
UnitKind = Literal["neuron", "feature", "error"]


@dataclass(frozen=True, slots=True)
class Node:
    """A component that writes to the residual stream (or `logits`, which only reads)."""

    kind: NodeKind
    layer: int = -1
    head: int = -1

    @property
    def name(self) -> str:
        if self.kind == "head":
            return f"a{self.layer}.h{self.head}"
        return f"m{self.layer}" if self.kind == "mlp" else self.kind


@dataclass(frozen=True, slots=True)
class Input:
    """A place where a node reads the residual stream.

    Attributes:
        kind: `head` is the one input of a whole head.
        head: a query head, or a key/value head where `shared`.
        span: the positions at which it reads, where a graph tells them apart; empty for all of them.
    """

    kind: InputKind
    layer: int = -1
    head: int = -1
    shared: bool = False
    span: str = ""

    @property
    def owner(self) -> str:
        """The name without the letter: the head `a3.h7`, the key/value head `a3.g1`, `m3` or `logits`."""
        if self.kind in ("q", "k", "v", "head"):
            return f"a{self.layer}.{'g' if self.shared else 'h'}{self.head}"
        return f"m{self.layer}" if self.kind == "mlp" else "logits"

    @property
    def name(self) -> str:
        name = f"{self.owner}<{self.kind}>" if self.kind in ("q", "k", "v") else self.owner
        return f"{name}@{self.span}" if self.span else name


@dataclass(frozen=True, slots=True)
class Edge:
    """From one node's output to a later input."""

    source: Node
    target: Input

    @property
    def name(self) -> str:
        return f"{self.source.name}->{self.target.name}"


@dataclass(frozen=True, slots=True)
class PortEdge:
    """From a head's query, key or value input into the head itself."""

    target: Input

    @property
    def name(self) -> str:
        return f"{self.target.name}->{self.target.owner}"


SPAN = re.compile(r"[^\s@<>]{1,40}")
"""The name of a span."""
REST = "rest"
"""The span of the positions that no other span has."""


def check_span(name: str) -> None:
    """Raise an EdgewiseError if a span cannot have this name."""
    if not SPAN.fullmatch(name):
        raise EdgewiseError(f"a span's name is 1 to 40 characters without blanks, '@', '<' or '>', not {quoted(name)}")


@dataclass(frozen=True, slots=True)
class EdgePath:
    """A chain of edges: what `start` writes reaches the last of `reads` through the nodes of those before it.

    Attributes:
        start: the node that writes; or the input at whose port edge the path begins.
        reads: the inputs after it, in their order: what reads the start, what reads that one's node, and so on.
    """

    start: Node | Input
    reads: tuple[Input, ...]

    @property
    def name(self) -> str:
        first = [self.start.name, self.start.owner] if isinstance(self.start, Input) else [self.start.name]
        return "->".join([*first, *(place.name for place in self.reads)])


@dataclass(frozen=True, slots=True)
class Unit:
    """A neuron of an MLP, or a feature of an MLP or of the residual stream behind a layer.

    Attributes:
        kind: `error` is what a dictionary's features do not explain; it has no number.
        stream: the dictionary is of the residual stream.
    """

    kind: UnitKind
    layer: int
    number: int = -1
    stream: bool = False

    @property
    def name(self) -> str:
        what = "error" if self.kind == "error" else f"{self.kind[0]}{self.number}"
        return f"{'r' if self.stream else 'm'}{self.layer}.{what}"


_NUMBER = r"(0|[1-9][0-9]{0,9})"  # no graph has more
_HEAD = re.compile(rf"a{_NUMBER}\.h{_NUMBER}")
_MLP = re.compile(rf"m{_NUMBER}")
_NEURON = re.compile(rf"m{_NUMBER}\.n{_NUMBER}")
_FEATURE = re.compile(rf"([mr]){_NUMBER}\.(?:f{_NUMBER}|error)")
_HEAD_INPUT = re.compile(rf"a{_NUMBER}\.([hg]){_NUMBER}<([qkv])>")


def parse_node(text: str) -> Node:
    """The node called `text`.

    Raises:
        EdgewiseError: `text` is not a node's name; the message quotes it and says what would have been right.
    """
    if text == "input" or text == "tok" or text == "pos" or text == "logits":
        return Node(text)
    if match := _HEAD.fullmatch(text):
        return Node("head", int(match[1]), int(match[2]))
    if match := _MLP.fullmatch(text):
        return Node("mlp", int(match[1]))
    if _HEAD_INPUT.fullmatch(text):
        raise EdgewiseError(
            f"{quoted(text)} is a place where a head reads, not a node; the node is {quoted(text.split('<')[0])}"
        )
    raise EdgewiseError(
        f"{quoted(text)} is not a node; nodes are 'input' (or 'tok' and 'pos'), 'a0.h1', 'm0' and 'logits'"
    )


def parse_unit(text: str) -> Unit:
    """The neuron, feature or error called `text`: `m3.n1207`, `m3.f1207`, `r3.error`.

    Raises:
        EdgewiseError: `text` is no such name.
    """
    if match := _NEURON.fullmatch(text):
        return Unit("neuron", int(match[1]), int(match[2]))
    if match := _FEATURE.fullmatch(text):
        stream, layer, number = match[1] == "r", int(match[2]), match[3]
        return Unit("error", layer, stream=stream) if number is None else Unit("feature", layer, int(number), stream)
    raise EdgewiseError(
        f"{quoted(text)} is not a neuron or a feature; neurons are written 'm3.n1207', features 'm3.f1207' or "
        "'r3.f1207', and what they do not explain 'm3.error'"
    )


def parse_input(text: str) -> Input:
    """The input called `text`: `a3.h7<q>`, `a3.g1<k>`, `m3` or `logits`; of a whole head `a3.h7`; each with its `@S1`.

    Raises:
        EdgewiseError: `text` is not an input's name; the message quotes it and says what would have been right.
    """
    name, at, span = text.partition("@")
    if at and not SPAN.fullmatch(span):
        raise EdgewiseError(f"{quoted(text)}: behind the '@' stands the name of a span, as in 'm0@END'")
    if name == "logits":
        return Input("logits", span=span)
    if match := _HEAD_INPUT.fullmatch(name):
        shared = match[2] == "g"
        if shared and match[4] == "q":
            raise EdgewiseError(f"{quoted(text)}: every head has its own query, so a query input is written 'a0.h1<q>'")
        kind: InputKind = "q" if match[4] == "q" else "k" if match[4] == "k" else "v"
        return Input(kind, int(match[1]), int(match[3]), shared, span)
    if match := _MLP.fullmatch(name):
        return Input("mlp", int(match[1]), span=span)
    if match := _HEAD.fullmatch(name):
        return Input("head", int(match[1]), int(match[2]), span=span)
    raise EdgewiseError(f"{quoted(text)} is not an input; inputs are 'a0.h1<q>', '<k>' or '<v>', 'm0' and 'logits'")


def parse_edge(text: str) -> Edge | PortEdge:
    """The edge called `text`, as in `a0.h1->a5.h5<q>`, or the port edge, as in `a5.h5<q>->a5.h5`.

    Raises:
        EdgewiseError: `text` is not an edge's name; the message quotes it and says what would have been right.
    """
    source, arrow, target = text.partition("->")
    if not arrow:
        raise EdgewiseError(f"{quoted(text)} is not an edge; an edge is written 'a0.h1->a5.h5<q>' or 'm3->logits'")
    try:
        if _HEAD_INPUT.fullmatch(source.partition("@")[0]):
            read = parse_input(source)
            if target != read.owner:
                raise EdgewiseError(
                    f"a port edge leads from {quoted(source)} to its own head {read.owner!r}, not {quoted(target)}"
                )
            return PortEdge(read)
        return Edge(parse_node(source), parse_input(target))
    except EdgewiseError as error:
        raise EdgewiseError(f"in the edge {quoted(text)}: {error}") from None


def parse_path(text: str) -> EdgePath:
    """The path called `text`, as in `a0.h1->a5.h5<q>` or `a0.h1->a5.h5<q>->m7->logits`.

    After `a5.h5<q>` its own head may be named too (`a5.h5<q>->a5.h5->m7`), which says nothing more; a path that begins
    so begins at the port edge.

    Raises:
        EdgewiseError: `text` is not a path's name; the message quotes it and says what would have been right.
    """
    names = text.split("->")
    first, rest = names[0], names[1:]
    if not rest:
        raise EdgewiseError(f"{quoted(text)} is not a path; a path is written 'a0.h1->a5.h5<q>' or 'a0.h1->m3->logits'")
    try:
        start = parse_input(first) if _HEAD_INPUT.fullmatch(first) else parse_node(first)
        if isinstance(start, Node) and start.kind == "logits":
            raise EdgewiseError("nothing reads the logits, so no path begins there")
        if isinstance(start, Input) and rest[0] != start.owner:
            raise EdgewiseError(
                f"a path from {quoted(first)} goes through its own head, {start.owner!r}, not to {quoted(rest[0])}"
            )
        reads: list[Input] = []
        for before, name in zip(names, rest, strict=False):
            inside = _HEAD_INPUT.fullmatch(before)
            if inside and inside[2] == "g" and _HEAD.fullmatch(name):
                raise EdgewiseError(
                    f"{quoted(before)} is read by several heads; as one alone reads it, it is '{name}<{inside[4]}>'"
                )
            if not (inside and name == before.partition("<")[0]):
                reads.append(parse_input(name))
        if any(place.kind == "logits" for place in reads[:-1]):
            raise EdgewiseError("nothing reads the logits, so a path ends there")
    except EdgewiseError as error:
        raise EdgewiseError(f"in the path {quoted(text)}: {error}") from None
    return EdgePath(start, tuple(reads))
