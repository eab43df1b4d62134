"""A score per edge as a file: one `[sources, inputs]` tensor, with the names of its rows and columns."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from edgewise.discovery import HeadParts, HeatMaps
from edgewise.errors import EdgewiseError
from edgewise.files import read_bytes, write_bytes
from edgewise.graph import Circuit, Graph, NeuronCircuit, of_neurons
from edgewise.json_files import parse_json, part


def scores_to_bytes(scored: Circuit) -> bytes:
    """A circuit's scores in safetensors form.

    Tensors: `scores` `[sources, inputs]` and `edges`, which of them the circuit has; `port_scores` and `ports`
    `[inputs]`. Under `edgewise` the header holds the graph and the names of sources and inputs, as JSON, and whether it
    is a circuit of whole nodes, of each of which all edges have one score.

    Of a circuit of neurons: `scores` and `neurons` `[layers, neurons]`, and the header holds the graph.
    """
    if isinstance(scored, NeuronCircuit):
        assert scored.neuron_scores is not None
        tensors = {"scores": torch.from_numpy(scored.neuron_scores.copy())}
        tensors["neurons"] = torch.from_numpy(scored.neurons.copy())
        return save(tensors, metadata={"edgewise": json.dumps({"graph": asdict(scored.graph)})})
    assert scored.scores is not None
    tensors = {
        "scores": torch.from_numpy(scored.scores.copy()),
        "edges": torch.from_numpy(scored.edges.copy()),
        "ports": torch.from_numpy(scored.ports.copy()),
    }
    if scored.port_scores is not None:
        tensors["port_scores"] = torch.from_numpy(scored.port_scores.copy())
    header = {
        "graph": asdict(scored.graph),
        "sources": [node.name for node in scored.graph.sources],
        "inputs": [place.name for place in scored.graph.inputs],
        **({"whole_nodes": True} if scored.whole_nodes else {}),
    }
    return save(tensors, metadata={"edgewise": json.dumps(header)})  # one key: the order of several is not settled


def save_scores(path: str | Path, scored: Circuit) -> None:
    """Write a circuit's scores (see `scores_to_bytes`), whole or not at all."""
    write_bytes(Path(path), scores_to_bytes(scored))


def save_heat_maps(path: str | Path, maps: HeatMaps) -> None:
    """Write heat maps as tensors `heads`, `mlps`, `embedding` and `positions`, whole or not at all."""
    write_bytes(Path(path), save({key: value.contiguous() for key, value in vars(maps).items()}))


def save_head_parts(path: str | Path, parts: HeadParts) -> None:
    """Write a head's parts as tensors, whole or not at all; the header has their names as JSON, under `edgewise`."""
    tensors = {key: value.contiguous() for key, value in vars(parts).items() if isinstance(value, torch.Tensor)}
    header = {"head": parts.head, "parts": parts.parts, "notes": parts.notes}
    write_bytes(Path(path), save(tensors, metadata={"edgewise": json.dumps(header)}))


def load_scores(path: str | Path, graph: Graph | None = None) -> Circuit:
    """The circuit, with scores, that `save_scores` wrote.

    Raises:
        EdgewiseError: there is no such file, it holds something else, or it is of another graph than `graph`.
    """
    path = Path(path)
    data = read_bytes(path, "the scores")
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        whole = parse_json(data[8 : 8 + length].decode(), "its header")
        header = parse_json(part(whole, "__metadata__.edgewise", str, "its header"), "its header")
        own = Graph(**part(header, "graph", dict, "its header"))
        if own.n_edges > len(data):
            raise ValueError(f"it is too short for the {own.n_edges:,} edges of {own.describe()}")
        if "neurons" in tensors:
            circuit = of_neurons(own, tensors["neurons"].numpy(), tensors["scores"].numpy())
            if not np.isfinite(tensors["scores"].numpy()).all():
                raise ValueError("scores should be numbers")
            if graph is not None:
                circuit.require_graph(graph)
            return circuit
        names = [[one.name for one in own.sources], [one.name for one in own.inputs]]
        if [header["sources"], header["inputs"]] != names:
            raise ValueError("its names are not those of its graph")
        ports = tensors.get("port_scores")
        numbers = [tensors["scores"], *([] if ports is None else [ports])]
        if tensors["edges"].dtype != torch.bool or not all(bool(one.isfinite().all()) for one in numbers):
            raise ValueError("edges should be true or false, and scores numbers")
        circuit = Circuit(
            own,
            tensors["edges"].numpy(),
            tensors["ports"].numpy(),
            tensors["scores"].numpy(),
            None if ports is None else ports.numpy(),
            header.get("whole_nodes", False) is True,
        )
    except (SafetensorError, EdgewiseError, KeyError, TypeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EdgewiseError(f"the scores {str(path)!r} are no file of scores: {why}") from None
    if graph is not None:
        circuit.require_graph(graph)
    return circuit
