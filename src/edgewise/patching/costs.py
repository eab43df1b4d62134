"""What one candidate of a search costs on this machine, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgewise.models.attention import Attention
from edgewise.models.components import Projections
from edgewise.patching.blocks import computing
from edgewise.patching.incremental import IncrementalEngine
from edgewise.patching.live import LiveNode
from edgewise.patching.memory import MOST_CANDIDATES
from edgewise.patching.places import Places


@dataclass(frozen=True)
class Costs:
    """What one candidate costs on this machine, in seconds, computed at all positions.

    Attributes:
        sender: the difference that one edge makes to a stream.
        head: one head, from three streams to what it writes.
        mlp: one MLP; 0 in a model without.
        vocabulary: from final streams to the metric.
    """

    sender: float
    head: float
    mlp: float
    vocabulary: float


def calibrate(engine: IncrementalEngine, repeats: int = 3) -> Costs:
    """Measure what a candidate costs, in the middle of the model."""
    live, decoder = engine.live, engine.decoder
    heads = [index for index, one in enumerate(decoder.components) if isinstance(one, Attention)]
    index = heads[len(heads) // 2]
    head, mlp = decoder.components[index], next((one for one in decoder.components if one.kinds == ("mlp",)), None)
    stream, at = live.clean.streams[index], live.positions
    with computing():
        everywhere = Places(torch.ones_like(live.moves), None)
        count = engine.plan.candidates(1, 0, 0)
        streams = stream[None].repeat(count, 1, 1, 1)
        final = live.values[live.final][None].repeat(min(4 * count, MOST_CANDIDATES), 1, 1, 1)
        node = LiveNode(head.nodes[0], index, 0, everywhere, live.clean.codes[index][:, :, 0], {})
        x = streams.to(decoder.dtype).flatten(0, 1)[:, :, None]

        def one_sender() -> object:
            return [stream + live.write(index, 0, live.deltas[index][:, :, 0]) for _ in range(count)]

        def one_head() -> object:
            projected: Projections = {kind: head.project(kind, x, at, [0])[:, :, 0] for kind in head.kinds}
            several: Projections = {kind: one.unflatten(0, (count, -1)) for kind, one in projected.items()}
            made = live.act([node], [several])[0]
            return live.write(index, 0, node.code.expand(count, *node.code.shape) + made.mean())

        def one_mlp() -> object:
            return mlp and mlp.code({"mlp": x}, None)

        def seconds(work: Callable[[], object]) -> float:
            taken = []
            for _ in range(repeats + 1):  # the first one warms up
                started = time.perf_counter()
                work()
                if decoder.device.type == "cuda":
                    torch.cuda.synchronize(decoder.device)
                taken.append(time.perf_counter() - started)
            return statistics.median(taken[1:])

        return Costs(
            sender=seconds(one_sender) / count,
            head=seconds(one_head) / count,
            mlp=seconds(one_mlp) / count if mlp is not None else 0.0,
            vocabulary=seconds(lambda: engine.metrics(final)) / final.shape[0],
        )
