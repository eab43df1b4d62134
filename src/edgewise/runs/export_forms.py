"""A run's circuit in the forms of other tools, as the files of a folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit
from edgewise.graph.auto_circuit import edge_scores, prune_scores
from edgewise.graph.eap_json import to_dict
from edgewise.graph.edge_pruning import CONFIG, config_of, edge_list
from edgewise.models import Decoder
from edgewise.models.decoder import positions_of
from edgewise.runs.attribution_graph import Prompt, attribution_graph
from edgewise.runs.mib_export import KINDS, benchmark_circuit, pt_bytes
from edgewise.tasks import Task

FORMS = {
    "mib": "a submission to the MIB benchmark's circuit track",
    "eap-ig": "EAP-IG's graph: graph.json or graph.pt",
    "autocircuit": "AutoCircuit's scores: edges by name (scores.json) or prune scores (scores.pt)",
    "edge-pruning": "Edge Pruning's edges.json, with a config.json that has the shape",
    "circuit-tracer": "an attribution graph for circuit-tracer's page and Neuronpedia",
}


@dataclass(frozen=True)
class Exported:
    """A circuit in another tool's form.

    Attributes:
        files: by name.
        summary: what is in them, in words.
    """

    files: dict[str, str | bytes]
    summary: str


def export_form(
    form: str,
    record: dict[str, Any],
    circuit: Circuit,
    kind: str = "json",
    *,
    on: tuple[Decoder, Task] | None = None,
    name: str | None = None,
) -> Exported:
    """The files of one form (`FORMS`, but `mib`).

    Args:
        kind: `json` or `pt`, where a form has both.
        on: for `circuit-tracer`, the run's model and task.
        name: of the graph, for `circuit-tracer`; by default from task and model.

    Raises:
        EdgewiseError: an unknown form, one that has no such kind, or no words for this circuit.
    """
    if form not in FORMS or form == "mib":
        raise unknown("format", form, FORMS)
    if kind not in KINDS:
        raise EdgewiseError(f"a circuit file is {' or '.join(KINDS)}, not {kind!r}")
    if kind == "pt" and form in ("edge-pruning", "circuit-tracer"):
        raise EdgewiseError(f"the form {form!r} is JSON; leave --file out")
    scored = record["result"].get("scoring") is not None
    size = f"{circuit.size:,} of {circuit.most:,} {circuit.unit}"
    if form == "eap-ig":
        plain, _ = benchmark_circuit(record, circuit)
        content = json.dumps(to_dict(plain)) if kind == "json" else pt_bytes(plain)
        return Exported({f"graph.{kind}": content}, f"{'importances of ' if scored else ''}{size}")
    if form == "autocircuit":
        words = f"scores of {circuit.most:,} {circuit.unit}" if scored else f"{size} with score 1, 0 for the rest"
        if kind == "json":
            return Exported({"scores.json": json.dumps(edge_scores(circuit, scored=scored))}, words)
        buffer = io.BytesIO()
        arrays = prune_scores(circuit, scored=scored)
        torch.save({module: torch.from_numpy(one.copy()).float() for module, one in arrays.items()}, buffer)
        return Exported({"scores.pt": buffer.getvalue()}, words)
    if form == "edge-pruning":
        pairs = edge_list(circuit)
        files = {"edges.json": json.dumps(pairs, indent=1), CONFIG: json.dumps(config_of(circuit.graph))}
        return Exported({**files}, f"{len(pairs):,} edges")
    assert on is not None
    slug = name or f"{Path(record['settings']['task']['task']).stem}-{Path(record['settings']['model']['name']).name}"
    if not slug or "/" in slug or "\\" in slug or slug.startswith("."):
        raise EdgewiseError(f"{slug!r} is no name for a file")
    graph = attribution_graph(circuit, prompt_of(*on, circuit), slug=slug, model=record["settings"]["model"]["name"])
    listed = {"graphs": [graph["metadata"]]}
    files = {f"{slug}.json": json.dumps(graph, indent=1), "graph-metadata.json": json.dumps(listed, indent=1)}
    return Exported({**files}, f"{len(graph['nodes']):,} nodes and {len(graph['links']):,} links")


@torch.no_grad()
def prompt_of(decoder: Decoder, task: Task, circuit: Circuit) -> Prompt:
    """The task's first clean prompt, with the token at which each span of the circuit's graph ends, and what the model
    says next."""
    length = int(task.prompts.mask[0].sum())
    ids = task.prompts.clean[:1, :length]
    last = decoder.run_source(ids, torch.ones_like(ids, dtype=torch.bool), positions_of(ids))[0, -1].cpu().double()
    answer = int(last.argmax())
    places = [length - 1]
    if circuit.graph.spans:
        from edgewise.tasks.spans import with_spans

        numbers = with_spans(task, circuit.graph.spans).prompts.spans
        assert numbers is not None
        row = numbers[0, :length].tolist()
        places = [
            max((at for at, one in enumerate(row) if one == span), default=length - 1)
            for span in range(circuit.graph.n_spans)
        ]

    def word(token: int) -> str:
        return f"#{token}" if decoder.tokenizer is None else str(decoder.tokenizer.decode([token]))

    tokens = [word(one) for one in ids[0].tolist()]
    return Prompt(
        task.text[0].clean, tokens, places, (word(answer), answer, float(torch.softmax(last, dim=-1)[answer]))
    )
