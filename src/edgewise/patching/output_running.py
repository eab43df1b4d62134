"""The circuit run in which nodes write only some of their output dimensions (graph/by_output.py).

With o_u which dimensions of u are in the circuit, an input reads

    x_r = (the ablated run's stream at r) + sum over u of e_ur o_u (a_u - ã_u)

and of everything but the circuit the same with 1 - e_ur o_u, over all edges that there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.components import Component
from edgewise.patching.ablation import Ablated
from edgewise.patching.running import CircuitRun


class OutputRun(CircuitRun):
    """The circuit run with a mask on what each node adds; `run` gives the final stream `[batch, pos, d_model]`."""

    def __init__(
        self,
        decoder: Decoder,
        graph: Graph,
        tokens: Tensor,
        mask: Tensor,
        ablated: Ablated,
        edges: Tensor,
        ports: Tensor,
        outputs: Tensor,
        inverted: bool,
    ) -> None:
        """
        Args:
            outputs: `[sources, d_model]`, which dimensions of each node are in the circuit.
            inverted: run everything but the circuit.
        """
        super().__init__(decoder, graph, tokens, mask, ablated, edges, ports, None)
        self.outputs, self.inverted = outputs[:, None, None].to(self.dtype), inverted
        self.whole = list(self.deltas)
        self.deltas = [self.whole[0] * self.outputs[: len(self.whole[0])]]

    def streams(self, columns: slice, base: Tensor) -> Tensor:
        chosen = super().streams(columns, base)
        if not self.inverted:
            return chosen
        senders = self.graph.n_senders(self.graph.inputs[columns.start])
        everything = base + torch.cat(self.whole)[:senders].sum(dim=0)
        return everything[:, :, None] - (chosen - base[:, :, None])

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        super().wrote(index, component, code)
        self.whole.append(self.deltas.pop())
        self.deltas.append(self.whole[-1] * self.outputs[self.wiring.rows[index]])
