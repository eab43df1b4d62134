"""What a page shows that only the model can say.

How faithful the circuit is prompt by prompt, how its metric grows with its size, and where heads look.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgewise.discovery import choose_nodes
from edgewise.evaluation.answers import token_text
from edgewise.graph import Circuit
from edgewise.models import Decoder
from edgewise.models.attention import Attention
from edgewise.models.forward import forward
from edgewise.patching import Experiment
from edgewise.reports.page.data import cut
from edgewise.reports.page.listed import Coming, number
from edgewise.reports.page.order import entering
from edgewise.reports.page.source import Source
from edgewise.runs.constants import ablation_of
from edgewise.tasks import METRICS, Task, find_metric

MOST_ROWS = 300
"""Prompts whose metric is shown one by one."""
MOST_METRICS = 4
CURVE_SIZES = 14
MOST_PATTERN_BYTES = 600_000
MOST_TOKENS = 64
"""Of longer prompts the patterns among the last tokens are shown."""


def measure(
    source: Source,
    decoder: Decoder,
    task: Task,
    *,
    prompts: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Run a run's circuit on the run's own prompts.

    Args:
        prompts: how many of them attention patterns are shown for: the first ones, and the one on which the circuit is
            furthest from the model.

    Returns:
        `values`, `attention`, `sizes` and `example` (the first prompt pair), in the page's form, and `notes` on what
        could not be had.
    """
    notes: list[str] = []
    metric = source.settings["metric"]
    if metric not in METRICS:
        notes.append(
            f"The run's metric {metric!r} was a function of its own, which cannot be run again; what is measured "
            f"prompt by prompt is {task.metric!r}."
        )
        metric = task.metric
    ablation = ablation_of(source.folder, source.settings, decoder)
    experiment = Experiment(decoder, task, ablation=ablation, metric=metric, graph=source.circuit.graph)
    thresholds = _curve_thresholds(source)
    total = len(thresholds) + 2
    report = progress or (lambda done, of: None)
    values, worst = _values(source.real, experiment, notes)
    report(1, total)
    attention = _attention(source, decoder, task, _chosen(len(task), prompts, worst), notes)
    report(2, total)
    sizes = []
    for done, (circuit, threshold) in enumerate(thresholds, start=3):
        if metric == source.settings["metric"]:
            sizes.append([circuit.size, number(experiment.value(circuit)), number(threshold)])
        report(done, total)
    found = {"values": values, "attention": attention, "sizes": sizes or None}
    return {**found, "example": _example(task) if len(task) else None, "notes": notes}


def _values(circuit: Circuit, experiment: Experiment, notes: list[str]) -> tuple[dict[str, Any], int]:
    """Metrics of the circuit, the model and the ablated run, row by row; and the row that the circuit does worst."""
    task, graph = experiment.task, experiment.graph
    names = [experiment.metric.name]
    names += [name for name in task.metrics if name not in names and name != "frac_correct" and _applies(name, task)]
    logits = {
        "circuit": experiment.logits(circuit),
        "full": experiment.logits(Circuit.full(graph)),
        "ablated": experiment.logits(Circuit.empty(graph)),
    }
    rows = len(task)
    shown = min(rows, MOST_ROWS)
    if shown < rows:
        notes.append(f"Faithfulness is shown prompt by prompt for the first {shown:,} of {rows:,} prompts.")
    metrics, worst = {}, 0
    for name in names[:MOST_METRICS]:
        chosen = experiment.metric if name == experiment.metric.name else METRICS[name]
        by_row = {
            what: _mean_by_row(chosen(run, experiment.reference), task.prompts.scored_rows, rows)
            for what, run in logits.items()
        }
        if name == names[0]:
            worst = int(torch.nan_to_num(by_row["circuit"] - by_row["full"], nan=-1.0).argmax())
        metrics[name] = {what: [number(value, 5) for value in run[:shown].tolist()] for what, run in by_row.items()}
    texts = [cut(text.clean) for text in task.text[:shown]]
    return {"metrics": metrics, "texts": texts, "rows": rows}, worst


def _mean_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """A metric at scored places `[scored]` -> its mean in each row `[count]`; nan where a row has no scored place."""
    values, rows = values.cpu().double(), rows.cpu()
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, rows, values)
    return sums / torch.bincount(rows, minlength=count)


def _applies(name: str, task: Task) -> bool:
    from edgewise.errors import EdgewiseError

    try:
        find_metric(name, task)
    except EdgewiseError:
        return False
    return True


def _curve_thresholds(source: Source) -> list[tuple[Circuit, float]]:
    """Circuits of growing size, cut from the scores, from the first edges to a few times the run's own size."""
    if not source.scored:
        return []
    circuit = source.real
    assert circuit.scores is not None
    if circuit.whole_nodes:
        return _node_thresholds(circuit, absolute=bool(source.settings.get("absolute")))
    strength = np.abs(circuit.scores) if source.settings.get("absolute") else circuit.scores
    order = entering(circuit.graph, strength)
    every = np.concatenate([order.edges.ravel(), order.ports.ravel()])
    thresholds = np.unique(every[np.isfinite(every)])[::-1]
    if not len(thresholds):
        return []
    sizes = order.sizes(thresholds.tolist())
    most = max(4 * circuit.n_edges, 20)
    inside = [at for at, size in enumerate(sizes) if size <= most] or [0]
    wanted = np.geomspace(max(1, sizes[0]), sizes[inside[-1]], CURVE_SIZES)
    chosen = sorted({min(inside, key=lambda at: abs(sizes[at] - size)) for size in wanted})
    return [(order.at(circuit.graph, float(thresholds[at])), float(thresholds[at])) for at in chosen]


def _node_thresholds(circuit: Circuit, *, absolute: bool) -> list[tuple[Circuit, float]]:
    """The same of whole nodes."""
    first, every = circuit.graph.n_embeddings, len(circuit.graph.sources)
    most = min(every, max(4 * circuit.size, 20))
    counts = np.unique(np.geomspace(first + 1, most, CURVE_SIZES).round().astype(int)) if most > first else []
    found = [choose_nodes(circuit, count=int(count), absolute=absolute, above=-np.inf) for count in counts]
    return [(one.circuit, one.cut) for one in found]


def _chosen(rows: int, prompts: int, worst: int) -> list[int]:
    first = list(range(min(rows, prompts)))
    return first if not first or worst in first else [*first[:-1], worst]


@torch.no_grad()
def _attention(
    source: Source, decoder: Decoder, task: Task, rows: Sequence[int], notes: list[str]
) -> dict[str, Any] | None:
    """Patterns of the circuit's heads on some prompts, clean and corrupted, in the model's own run."""
    heads = [node for node in source.circuit.graph.sources if node.kind == "head"]
    inside = set(source.circuit.nodes()) | (set() if source.known is None else set(source.known.nodes()))
    if not rows or not any(node.name in inside for node in heads):
        return None
    prompts, index = task.prompts, torch.tensor(rows, device=task.prompts.clean.device)
    sides = {
        "clean": (prompts.clean[index], prompts.mask[index], None),
        "corrupt": (prompts.corrupt[index], prompts.corrupt_mask[index], prompts.corrupt_positions),
    }
    length = min(MOST_TOKENS, int(max(side[1].sum(dim=1).max() for side in sides.values())))
    each = 2 * len(rows) * (length * (length + 1) // 2 if decoder.causal else length * length) * 4 // 3
    wanted = heads if each * len(heads) <= MOST_PATTERN_BYTES else [node for node in heads if node.name in inside]
    most = max(1, MOST_PATTERN_BYTES // max(1, each))
    if len(wanted) > most:
        notes.append(f"Attention patterns are those of the {most} strongest of the circuit's {len(wanted)} heads.")
        sums = _strengths(source)
        strongest = sorted(wanted, key=lambda node: -sums.get(node.name, 0.0))[:most]
        wanted = [node for node in wanted if node in strongest]
    by_layer: dict[int, list[int]] = {}
    for node in wanted:
        by_layer.setdefault(node.layer, []).append(node.head)
    patterns: dict[str, dict[str, list[str]]] = {
        f"a{layer}.h{head}": {} for layer, of_layer in by_layer.items() for head in of_layer
    }
    shown: list[dict[str, Any]] = [_prompt(task, row) for row in rows]
    for side, (tokens, mask, positions) in sides.items():
        lengths = mask.sum(dim=1).tolist()
        for at, row in enumerate(rows):
            every = _tokens(decoder, task, side, row, tokens[at, : lengths[at]].tolist())
            shown[at][side] = every[-MOST_TOKENS:]
        for layer, found in _patterns(decoder, tokens, mask, positions, by_layer):
            for place, head in enumerate(by_layer[layer]):
                patterns[f"a{layer}.h{head}"][side] = [
                    _packed(found[at, place], lengths[at], decoder.causal) for at in range(len(rows))
                ]
    if any(length > MOST_TOKENS for side in sides.values() for length in side[1].sum(dim=1).tolist()):
        notes.append(f"Prompts are longer than {MOST_TOKENS} tokens; attention is shown among the last {MOST_TOKENS}.")
    return {"prompts": shown, "causal": decoder.causal, "heads": patterns}


def _strengths(source: Source) -> dict[str, float]:
    """Of each head, how strong the edges of the circuit are that it writes."""
    circuit, order = source.circuit, Coming.of(source)
    sizes = np.where(circuit.edges & np.isfinite(order.strength), np.abs(order.strength), 0.0).sum(axis=1)
    return {node.name: float(size) for node, size in zip(circuit.graph.sources, sizes, strict=True)}


def _patterns(
    decoder: Decoder, tokens: Tensor, mask: Tensor, positions: Tensor | None, by_layer: Mapping[int, Sequence[int]]
):
    """Layer by layer, the attention patterns `[rows, heads, query pos, key pos]` of some heads."""
    run = forward(decoder, tokens, mask, positions, keep_projections=True)
    allowed, share = decoder.allowed(mask), decoder.config.share
    for index, component in enumerate(decoder.components):
        heads, see = by_layer.get(component.layer), allowed[index]
        if isinstance(component, Attention) and heads and see is not None:
            q, k = run.projections[index]["q"], run.projections[index]["k"]
            yield component.layer, component.pattern(q[:, :, heads], k[:, :, [head // share for head in heads]], see)


def _packed(pattern: Tensor, length: int, causal: bool) -> str:
    """A pattern `[query pos, key pos]` as base64 of one byte per weight, row by row; of causal ones the lower half."""
    first = max(0, length - MOST_TOKENS)
    kept = pattern[first:length, first:length].float().cpu().numpy()
    weights = np.clip(np.round(kept * 255), 0, 255).astype(np.uint8)
    if causal:
        weights = weights[np.tril_indices(len(weights))]
    return base64.b64encode(weights.tobytes()).decode()


def _example(task: Task) -> dict[str, Any]:
    text = task.text[0]
    return {"clean": cut(text.clean), "corrupt": cut(text.corrupt), **_answers(task, 0)}


def _answers(task: Task, row: int) -> dict[str, list[str]]:
    text = task.text[row]
    return {"answers": [cut(one) for one in text.answers[:20]], "wrong": [cut(one) for one in text.wrong[:20]]}


def _prompt(task: Task, row: int) -> dict[str, Any]:
    text = task.text[row]
    scored = task.prompts.scored_positions[task.prompts.scored_rows == row].tolist()
    length = int(task.prompts.mask[row].sum())
    first = max(0, length - MOST_TOKENS)
    return {
        "row": row,
        "text": {"clean": cut(text.clean), "corrupt": cut(text.corrupt)},
        **_answers(task, row),
        "scored": [at - first for at in scored if at >= first],
    }


def _tokens(decoder: Decoder, task: Task, side: str, row: int, ids: Sequence[int]) -> list[str]:
    if decoder.tokenizer is None:
        text = task.text[row]
        words = (text.clean if side == "clean" else text.corrupt).split(" ")
        if len(words) == len(ids):
            return words
    return [token_text(decoder, token) for token in ids]
