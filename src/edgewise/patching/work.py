"""How many floating-point operations a method takes, counted on a model without its weights.

Every component is run once on tensors that have sizes and no numbers, and torch's own formulas count its matrix
products (a multiplication and an addition are two operations; norms, activations and softmaxes are not counted, as in
`torch.utils.flop_counter`). From these parts runs are put together:

    forward    = projections + patterns + output maps + MLPs + vocabulary
    circuit run = forward + 2 * positions * d_model * edges       (each edge adds its sender's difference to a stream)
    backward   = the same, but patterns twice                     (both of their factors have a gradient; weights none)
    edge scores at one point of a path
               = forward + backward + 2 * projections             (forward and back for each head's own stream)
                 + 2 * positions * d_model * scored               (each sender's change times each input's gradient)
    scored     = edges, and what products of several inputs at once take besides: all with the senders of the last
    attribution = forward + output maps (what each sender changes) + points of the path * that

Tests hold each of them to what the counter sees of the real functions on small models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from edgewise.errors import EdgewiseError, first_line
from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.attention import Attention
from edgewise.models.components import MLP, Projections, stream_dtype
from edgewise.models.decoder import positions_of
from edgewise.patching.costs import Costs
from edgewise.patching.gradients import gathered
from edgewise.tasks import METRICS
from edgewise.tasks.task import Prompts, PromptText, Task


class Counted(TorchDispatchMode):
    """While entered, counts the operations of matrix products in `flops`.

    `torch.utils.flop_counter.FlopCounterMode` keeps them by module besides, for which it hooks into autograd in a way
    that gradients of single tensors do not allow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out

    def take(self) -> int:
        """What has been counted since the last call."""
        taken, self.flops = self.flops, 0
        return taken


@dataclass(frozen=True)
class Work:
    """Floating-point operations for all prompts.

    Attributes:
        projections: of what is read into queries, keys and values, in all layers.
        patterns: queries times keys, patterns times values.
        outputs: heads' output maps.
        mlps: all MLPs.
        vocabulary: logits at the scored places, one for each prompt.
        edges: what an edge for every pair of sender and input adds up to, streams `[pos, d_model]` times their number.
        scored: the same of the pairs in the products that score edges.
        candidate: what one candidate of a search takes of each part, at all positions (see `Costs`).
    """

    projections: int
    patterns: int
    outputs: int
    mlps: int
    vocabulary: int
    edges: int
    scored: int
    candidate: Costs

    @property
    def forward(self) -> int:
        return self.projections + self.patterns + self.outputs + self.mlps + self.vocabulary

    @property
    def recording(self) -> int:
        """Of an experiment and a search in it: the model's logits, the corrupted, the ablated and the clean run."""
        return 3 * self.forward - 2 * self.vocabulary + self.projections + self.outputs

    @property
    def circuit_run(self) -> int:
        """With every edge of the graph present; a sender that no edge of the circuit leaves is left out of the sums."""
        return self.forward + self.edges

    @property
    def point(self) -> int:
        """Scores of all edges from the gradients in one run."""
        return 2 * self.forward + self.patterns + 2 * self.projections + self.scored

    def attribution(self, points: int) -> int:
        """Scores of all edges from gradients at so many points of a path, from the prompts on."""
        return self.forward - self.vocabulary + self.outputs + points * self.point


def blank_task(rows: int, positions: int) -> Task:
    """A task without tokens: so many pairs of prompts of so many, each scored at its last."""
    tokens = torch.zeros(rows, positions, dtype=torch.long, device="meta")
    places = torch.zeros(rows, dtype=torch.long, device="meta")
    prompts = Prompts(tokens, tokens, tokens.bool(), tokens.bool(), places, places)
    return Task("shape", prompts, (PromptText("", ""),) * rows, "kl_div", tuple(METRICS))


def work_of(decoder: Decoder, graph: Graph, rows: int, positions: int) -> Work:
    """What runs of some prompts of one length take.

    Raises:
        EdgewiseError: it is a mixture of experts, whose operations depend on the tokens; or its own modules cannot be
            run without numbers.
    """
    if any(isinstance(one, MLP) and one.routed for one in decoder.components):
        raise EdgewiseError(
            f"model {decoder.name!r} is a mixture of experts: which of its weights are used depends on the tokens, so "
            "what it takes cannot be counted from its shape"
        )
    try:
        with torch.no_grad(), Counted() as counted:
            work = _work(decoder, graph, positions, counted)
    except (NotImplementedError, RuntimeError) as error:
        raise EdgewiseError(
            f"model {decoder.name!r} cannot be followed without its numbers: {first_line(error)}"
        ) from None
    parts = {name: rows * value for name, value in vars(work).items() if name != "candidate"}
    candidate = Costs(**{name: rows * value for name, value in vars(work.candidate).items()})
    return replace(work, **parts, candidate=candidate)


def _work(decoder: Decoder, graph: Graph, positions: int, counted: Counted) -> Work:
    """The same of one row of prompts."""
    device, d_model = decoder.device, decoder.config.d_model
    at = positions_of(torch.zeros(1, positions, dtype=torch.long, device=device))
    allowed = decoder.allowed(torch.ones(1, positions, dtype=torch.bool, device=device))
    stream = torch.zeros(1, positions, 1, d_model, dtype=decoder.dtype, device=device)
    projections = patterns = outputs = mlps = 0
    heads: tuple[int, int] | None = None  # one head, from streams to z and from there on
    blocks = 0
    for index, component in enumerate(decoder.components):
        counted.take()
        if not isinstance(component, Attention):
            component.code(component.projections(stream, at), None)
            mlps, blocks = mlps + counted.take(), blocks + 1
            continue
        projected = component.projections(stream, at)
        projections += counted.take()
        activations = component.act(projected, allowed[index])
        patterns += counted.take()
        component.write_total(component.settle(activations))
        outputs += counted.take()
        if heads is None:
            one: Projections = {kind: component.project(kind, stream, at, [0]) for kind in component.kinds}
            component.act(one, allowed[index], [0])
            to_z, settled = counted.take(), component.settle(activations)
            counted.take()
            component.write_node(0, settled[:, :, 0])
            heads = to_z, counted.take()
    counted.take()
    decoder.logits(torch.zeros(1, d_model, dtype=stream_dtype(decoder.dtype), device=device))
    vocabulary = counted.take()
    assert heads is not None
    pairs = graph.n_edges - int(graph.port_edges.sum())
    return Work(
        projections=projections,
        patterns=patterns,
        outputs=outputs,
        mlps=mlps,
        vocabulary=vocabulary,
        edges=2 * positions * d_model * pairs,
        scored=2 * positions * d_model * _scored_pairs(graph),
        candidate=Costs(heads[1], sum(heads), mlps / max(1, blocks), vocabulary),
    )


def _scored_pairs(graph: Graph) -> int:
    """Pairs of sender and input in the products of `gradients.add_edge_effects`."""
    kinds = [list(inputs) for _, inputs in groupby(graph.inputs, lambda one: (one.layer, one.kind))]
    products = [list(chain(*together)) for together in gathered(kinds, len)]
    return sum(len(inputs) * max(map(graph.n_senders, inputs)) for inputs in products)
