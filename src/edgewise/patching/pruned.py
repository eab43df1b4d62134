"""The incremental evaluator of a circuit: as `incremental.py`, with only the edges of a circuit present at the start.

The whole model's nodes hold what they held in the clean run until a search comes to them. A circuit's hold something
else from the start, those that send to the input under test included. So every node of the circuit is live from the
beginning, in the state that a circuit run leaves it in, and an input can be asked about more than once.
"""

from __future__ import annotations

from torch import Tensor

from edgewise.graph import Circuit
from edgewise.patching.blocks import computing
from edgewise.patching.engine import Removed
from edgewise.patching.experiment import Experiment
from edgewise.patching.flow import Flow
from edgewise.patching.incremental import IncrementalEngine
from edgewise.patching.live import LivePart, Reading
from edgewise.patching.places import narrow


class PrunedEngine(IncrementalEngine):
    """Measures circuits that are parts of a circuit (see `patching.Engine`).

    Attributes:
        live: all of the circuit.
    """

    def __init__(self, experiment: Experiment, start: Circuit, max_memory: int | None = None) -> None:
        """
        Args:
            start: the edges that are present. None of them leads to an input that nothing reads.
            max_memory: bytes that may be used beyond the model's weights (see `plan_memory`).

        Raises:
            EdgewiseError: it cannot be done in so little.
        """
        super().__init__(experiment, max_memory)
        with computing():
            self.live = _LiveCircuit(self.live, start)

    def commit(self, column: int, removed: Removed) -> None:
        """See `patching.Engine`."""
        super().commit(column, removed)
        live = self.live
        for row in removed:
            if row is None or (unit := live.unit(row, column)) not in live.nodes:
                continue
            live.nodes[unit].readers.pop(column, None)
            if not live.read_at(row, column).any() and not self.graph.coupled:
                del live.nodes[unit]  # what it would read may be shared with others, and wake it


class _LiveCircuit(LivePart):
    """A live part that is a whole circuit, whose senders hold what the circuit gives them."""

    def __init__(self, clean: LivePart, start: Circuit) -> None:
        """
        Args:
            clean: nothing of which is live yet; it is taken over.
        """
        vars(self).update(vars(clean))
        self.edges[:] = start.edges
        for component in reversed(range(len(self.wiring.columns))):
            for column in self.wiring.columns_of(component):
                if self.alive(column):
                    self.open(column)
        _Filling(self, start).run_all()

    def delta(self, row: int, reading: Reading) -> Tensor:
        """What a stream gains when a sender's present value gives way to its ablated one, `[b, n, d_model]`."""
        live = self.nodes.get(self.unit(row, reading.column))
        if live is None:
            return super().delta(row, reading)
        old = live.places.take(self.ablated.codes[live.component][:, :, live.number])
        return narrow(self.difference(live, old, live.code)[None], reading.places.within(live.places))[0]


class _Filling(Flow):
    """Every input and every node anew, from the embedding to the logits, as a circuit run has them."""

    def __init__(self, live: LivePart, circuit: Circuit) -> None:
        super().__init__(live, keep=True)
        self.circuit = circuit

    def run_all(self) -> None:
        live = self.live
        for component, rows in enumerate(live.wiring.rows):
            for column in live.wiring.columns_of(component):
                if column in live.readings:
                    self._fill(column)
            for unit in range(rows.start * live.n_spans, rows.stop * live.n_spans):
                if unit in live.nodes and unit not in self.moved:
                    self.changes.clear()  # streams are summed up here, all of them
                    self._move(unit)
        for column in live.logits:
            self._fill(column)

    def _fill(self, column: int) -> None:
        live, reading = self.live, self.live.readings[column]
        if live.graph.port_edges[column] and not self.circuit.ports[column]:
            (kind,) = live.wiring.asks[column]
            self._hold(live.slot(column, kind), live.ablated_value(reading)[None])
            reading.attached = False
            return
        stream = live.floor(reading).clone()
        for row in live.edges[:, column].nonzero()[0].tolist():
            stream -= live.delta(row, reading)
        reading.stream = stream
        self._valued(reading, stream[None])
