"""Circuits in the form in which the MIB benchmark takes submissions: one folder per task and model.

A folder holds the importance of every edge, or of every node, as EAP-IG's JSON or as the same in a `.pt` file
(`torch.save` of plain tensors and names). The graph there has no port edges, and a key and a value input per query
head.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgewise.errors import EdgewiseError
from edgewise.files import read_bytes
from edgewise.graph import Circuit, Graph, OutputCircuit, as_shown, node_scores, of_nodes
from edgewise.graph.auto_circuit import from_prune_scores, is_prune_scores
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.by_output import with_outputs
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.graph.eap_json import to_dict
from edgewise.json_files import part
from edgewise.runs.folder import RunFolder
from edgewise.runs.mib_cells import CELLS, MODEL_NAMES, cell_name

KINDS = ("json", "pt")


@dataclass(frozen=True)
class MibCell:
    """One task and model of a submission.

    Attributes:
        name: the folder's, as in `ioi_gpt2`.
        circuit: in the benchmark's graph.
        scored: whether every edge (node) has an importance; else the circuit's have 1 and all others 0.
        official: whether the benchmark has such a cell.
    """

    name: str
    circuit: Circuit
    scored: bool
    official: bool


def mib_cell(record: dict[str, Any], circuit: Circuit, name: str | None = None) -> MibCell:
    """The cell of a run.

    ACDC's scores are the effects of edges when they were tested, which do not rank edges that it did not test, so its
    circuits go as members and others.

    Args:
        name: of the folder; by default from the run's task and model.

    Raises:
        EdgewiseError: a graph that the benchmark's form cannot describe.
    """
    plain, scored = benchmark_circuit(record, circuit)
    settings = record["settings"]
    task, model = Path(settings["task"]["task"]).stem, settings["model"]["name"]
    name = name or cell_name(task, MODEL_NAMES.get(model, Path(model).name))
    return MibCell(name, plain, scored, name in CELLS)


def benchmark_circuit(record: dict[str, Any], circuit: Circuit) -> tuple[Circuit, bool]:
    """A run's circuit in the benchmark's graph, and whether every edge (node) has an importance; as `mib_cell`."""
    plain = in_benchmark_graph(circuit)
    scored = record["result"].get("scoring") is not None
    if not scored and plain.whole_nodes:
        plain = of_nodes(plain.graph, plain.rows, plain.rows.astype(float))
    elif not scored:
        plain = plain.with_scores(plain.edges.astype(float))
    return plain, scored


def in_benchmark_graph(circuit: Circuit) -> Circuit:
    """A circuit in the graph that the benchmark's files describe.

    Raises:
        EdgewiseError: it is of neurons, or there is no such graph of its model.
    """
    require_edges(circuit, "the benchmark takes no submission")
    graph = circuit.graph
    if graph.split_embedding or not graph.mlps:
        raise EdgewiseError(
            f"the benchmark's form has one embedding and an MLP in every layer; this graph is {graph.describe()}"
        )
    plain = ungrouped(without_ports(circuit))
    return plain.on(replace(plain.graph, coupled=False))  # which the benchmark's graph does not know


def export_mib(cells: Sequence[MibCell], folder: Path, kind: str = "json") -> Path:
    """Write a submission: `folder/CELL/importances.json` (or `.pt`) for every cell, all of them or nothing.

    Raises:
        EdgewiseError: two cells of one name, an unknown kind, or a folder that is not empty or cannot be written.
    """
    if kind not in KINDS:
        raise EdgewiseError(f"an importance file is {' or '.join(KINDS)}, not {kind!r}")
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise EdgewiseError(
                f"two runs would go into the folder {name!r}: the benchmark takes one per task and model"
            )
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise EdgewiseError(f"{name!r} is no name for a folder")
    files: dict[str, str | bytes] = {}
    for cell in cells:
        content = json.dumps(to_dict(cell.circuit)) if kind == "json" else pt_bytes(cell.circuit)
        files[f"{cell.name}/importances.{kind}"] = content
    with RunFolder.claim(folder) as claimed:
        return claimed.finish(files)


def pt_bytes(circuit: Circuit) -> bytes:
    """A circuit without port edges in EAP-IG's `.pt` form.

    `cfg`, `src_nodes`, `dst_nodes`, `edges_scores` float32 and `edges_in_graph` bool `[sources, inputs]`,
    `nodes_in_graph` bool `[sources]`. Of a circuit of whole nodes `nodes_scores` float32 `[sources]` too; its edges
    have the score 0, and those between its nodes are in the graph. Where nodes write only some output dimensions,
    `neurons_in_graph` bool and, if there are scores, `neurons_scores` float32 `[sources, d_model]`, NaN for none.
    """
    graph, shown = circuit.graph, as_shown(circuit)
    scores = circuit.scores if circuit.scores is not None else circuit.edges.astype(float)
    own: dict[str, Any] = {}
    if circuit.whole_nodes:
        of_each = node_scores(circuit)
        of_each = circuit.rows.astype(float) if of_each is None else of_each
        own["nodes_scores"], scores = torch.from_numpy(of_each.copy()).float(), np.zeros(scores.shape)
    if isinstance(circuit, OutputCircuit):
        own["neurons_in_graph"] = torch.from_numpy(circuit.outputs.copy())
        if circuit.output_scores is not None:
            own["neurons_scores"] = torch.from_numpy(circuit.output_scores.copy()).float()
    nodes = set(circuit.nodes())
    always = () if circuit.whole_nodes else ("input",)
    data = {
        "cfg": {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.parallel,
            "d_model": graph.d_model,
        },
        "src_nodes": [node.name for node in graph.sources],
        "dst_nodes": [place.name for place in graph.inputs],
        "edges_scores": torch.from_numpy(scores.copy()).float(),
        "edges_in_graph": torch.from_numpy(shown.edges.copy()),
        "nodes_in_graph": torch.tensor([node.name in nodes or node.kind in always for node in graph.sources]),
        **own,
    }
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


def load_pt(path: Path) -> Circuit:
    """A circuit from EAP-IG's or AutoCircuit's `.pt` form; nothing in the file is run.

    An edge of a node left out of EAP-IG's graph is left out, too.

    Raises:
        EdgewiseError: there is no such file, or it holds something else.
    """
    what = f"the circuit file {str(path)!r}"
    data = read_bytes(path, "the circuit file")
    try:
        found = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception:  # torch raises whatever the bytes lead it to
        raise EdgewiseError(
            f"{what} is no EAP-IG circuit: it is not one that torch saved, or holds more than tensors, names and "
            "numbers"
        ) from None
    while isinstance(found, dict) and len(found) == 1 and isinstance(next(iter(found.values())), dict):
        found = next(iter(found.values()))  # AutoCircuit keeps scores by task and by algorithm
    if is_prune_scores(found):
        return from_prune_scores(_arrays(found, what), what)
    try:
        return _from_pt(found, len(data))
    except (EdgewiseError, ValueError, TypeError) as error:
        raise EdgewiseError(f"{what} is no EAP-IG circuit: {error}") from None


def _arrays(found: dict[str, Any], what: str) -> dict[str, Any]:
    for name, one in found.items():
        if not isinstance(one, torch.Tensor) or one.is_complex():
            raise EdgewiseError(f"{what}: {name!r} should be a tensor of scores")
    return {name: one.double().numpy() for name, one in found.items()}


def _from_pt(found: Any, size: int) -> Circuit:
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a dict")
    for key in ("cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph"):
        if key not in found:
            raise ValueError(f"{key!r} is missing")
    kinds = {"n_layers": int, "n_heads": int, "parallel_attn_mlp": bool, "d_model": int}
    shape = {
        key: part({"d_model": 0, **part(found, "cfg", dict, "it")}, key, kind, "its cfg") for key, kind in kinds.items()
    }
    graph = Graph(shape["n_layers"], shape["n_heads"], parallel=shape["parallel_attn_mlp"], d_model=shape["d_model"])
    if graph.n_edges > size:  # a file has a byte and more for every edge; no more is made of it than it holds
        raise ValueError(f"it is too short for the {graph.n_edges:,} edges of {graph.describe()}")
    names = [list(found["src_nodes"]), list(found["dst_nodes"])]
    if names != [[node.name for node in graph.sources], [place.name for place in graph.inputs]]:
        raise ValueError("its nodes are not those of its cfg")
    rows, columns = len(graph.sources), len(graph.inputs)
    scores = _tensor(found["edges_scores"], (rows, columns), "edges_scores").double().numpy()
    edges = _tensor(found["edges_in_graph"], (rows, columns), "edges_in_graph").bool().numpy() & graph.edges
    bad = np.argwhere(graph.edges & ~np.isfinite(scores))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"the score of '{graph.sources[row].name}->{graph.inputs[column].name}' is {scores[row, column]}, which is "
            "no finite number"
        )
    there = np.ones(rows, dtype=bool)
    if found.get("nodes_in_graph") is not None:
        there = _tensor(found["nodes_in_graph"], (rows,), "nodes_in_graph").bool().numpy()
        edges &= there[:, None]
        for row in np.flatnonzero(~there):
            edges[:, list(graph.inputs_of(graph.sources[row]))] = False
    if found.get("nodes_scores") is not None:
        each = _tensor(found["nodes_scores"], (rows,), "nodes_scores").double().numpy()
        for row in np.flatnonzero(~np.isfinite(each))[:1]:
            raise ValueError(f"the score of node {graph.sources[row].name!r} is {each[row]}, which is no finite number")
        circuit = of_nodes(graph, there, each)
        if (as_shown(circuit).edges != edges).any():
            raise ValueError("its nodes have scores, but some of the edges between the nodes in the graph are left out")
        return _with_outputs(circuit, found)
    return _with_outputs(Circuit(graph, edges, graph.port_edges, np.where(graph.edges, scores, 0.0)), found)


def _with_outputs(circuit: Circuit, found: dict[str, Any]) -> Circuit:
    """The circuit with the output dimensions that a file chooses or scores, if it does; a score may be NaN: none."""
    shape = (len(circuit.graph.sources), circuit.graph.d_model)
    outputs, scores = (
        None if found.get(name) is None else _tensor(found[name], shape, name)
        for name in ("neurons_in_graph", "neurons_scores")
    )
    if outputs is None and scores is None:
        return circuit
    if scores is not None and bool(scores.isinf().any()):
        raise ValueError("'neurons_scores' has infinity, which is no score")
    chosen = np.ones(shape, dtype=bool) if outputs is None else outputs.bool().numpy()
    return with_outputs(circuit, chosen, None if scores is None else scores.double().numpy())


def _tensor(value: Any, shape: tuple[int, ...], name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape or value.is_complex():
        raise ValueError(f"{name!r} should be a tensor {list(shape)}")
    return value
