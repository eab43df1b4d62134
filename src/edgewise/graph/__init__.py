"""What there is to find: nodes, edges, graphs, circuits and their files. No model code."""

from edgewise.graph.by_neuron import NeuronCircuit, of_neuron_names, of_neurons
from edgewise.graph.by_node import as_shown, complement, locate_node, node_names, node_scores, of_node_names, of_nodes
from edgewise.graph.by_output import OutputCircuit
from edgewise.graph.by_span import Carried, at_span, carried, only_at
from edgewise.graph.circuit import Circuit
from edgewise.graph.circuit_files import load as load_circuit
from edgewise.graph.eap_json import save as save_circuit
from edgewise.graph.graph import Graph
from edgewise.graph.names import Edge, EdgePath, Input, Node, PortEdge, parse_edge, parse_input, parse_node, parse_path
from edgewise.graph.trace import Decision

__all__ = [
    "Carried",
    "Circuit",
    "Decision",
    "Edge",
    "EdgePath",
    "Graph",
    "Input",
    "NeuronCircuit",
    "Node",
    "OutputCircuit",
    "PortEdge",
    "as_shown",
    "at_span",
    "carried",
    "complement",
    "load_circuit",
    "locate_node",
    "node_names",
    "node_scores",
    "of_neuron_names",
    "of_neurons",
    "of_node_names",
    "of_nodes",
    "only_at",
    "parse_edge",
    "parse_input",
    "parse_node",
    "parse_path",
    "save_circuit",
]
