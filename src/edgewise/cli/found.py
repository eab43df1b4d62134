"""What a search came to, as `discover` prints it and `show` prints it again. None of this waits for torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.cli.printing import OF_A_RUN, sized, sized_in_nodes

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.graph import Circuit, Decision


def how_stopped(record: Mapping[str, Any], circuit: Circuit, written: Path) -> str:
    """How far a search came that was stopped, and how it goes on."""
    from edgewise.runs.reading import wanted

    stopped, unit = record["stopped"], circuit.unit
    if stopped["whole"]:
        return (
            f"{stopped['why']} at {stopped['at']}; the largest circuit of at most {wanted(record['settings'])} "
            f"{unit} so far, of {circuit.size:,}, is kept in {written}; edgewise resume {written} goes on"
        )
    return (
        f"{stopped['why']}. {stopped['decided']:,} of {stopped['of']:,} {unit} were decided, up to {stopped['at']}; "
        f"that much is kept in {written}, with every other {unit[:-1]} still in the circuit; edgewise resume {written} "
        "goes on"
    )


def show_run(
    console: Console, record: Mapping[str, Any], circuit: Circuit, trace: Sequence[Decision], written: Path
) -> None:
    """Print what a search came to, from what its folder keeps."""
    from edgewise.graph import NeuronCircuit
    from edgewise.graph.groups import GroupFound
    from edgewise.reports import circuit_table, groups_table, highest_scores, strongest_edges
    from edgewise.reports.by_neuron import fit_line, neuron_table, strongest_neurons
    from edgewise.reports.by_node import node_table, strongest_nodes
    from edgewise.reports.groups import known_title
    from edgewise.reports.words import metric_number, percent, worse

    result, settings = record["result"], record["settings"]
    shortlist = record.get("shortlist")
    whole = "whole" if settings["model"]["permuted_seed"] is None else "permuted"
    scoring = result["scoring"]
    if scoring is None:
        cut = f" at threshold {settings['threshold']:z.4g}"
    else:
        cut = f", scores down to {scoring['cut']:z.4g}" if circuit and scoring["cut"] is not None else ""
    unit = circuit.unit
    size = sized(result["n_edges"], result["n_graph_edges"], result["n_edges_connected"], settings["ablation"])
    if circuit.whole_nodes:
        size = sized_in_nodes(result["n_nodes"], result["n_graph_nodes"], result["n_edges"])
    if isinstance(circuit, NeuronCircuit):
        size = f"{circuit.size:,} of {circuit.most:,} {circuit.unit}, beside all heads and edges"
    console.print(f"kept {size}{cut}", highlight=False, soft_wrap=True)
    name = settings["metric"]
    if shortlist is not None:
        console.print(
            f"searched within {shortlist[f'n_{unit}']:,} {unit}, whose {name} is "
            f"{metric_number(name, shortlist['metric'])}",
            highlight=False,
            soft_wrap=True,
        )
    metric, full, ablated = (metric_number(name, result[key]) for key in ("metric", "metric_full", "metric_ablated"))
    console.print(
        f"{name} {metric}; the {whole} model has {full}, with every {unit[:-1]} ablated {ablated}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if result["recovered"] is not None:
        answers = ""
        if result["accuracy"] is not None:
            answers = f"; answered right {percent(result['accuracy'])}, by the model {percent(result['accuracy_full'])}"
        console.print(
            f"recovered {percent(result['recovered'])} (0% is every {unit[:-1]} ablated, 100% the model){answers}",
            highlight=False,
            soft_wrap=True,
        )
    if abs(result["metric_full"] - result["metric_ablated"]) < 1e-9:
        console.print(
            f"note: ablating every {unit[:-1]} leaves the metric as it is, so no {unit[:-1]} can matter",
            highlight=False,
            soft_wrap=True,
        )
    if scoring is None:
        off = abs(result["metric"] - result["metric_in_search"])
        how = (
            f"{result['tests']:,} {unit} tested in {result['seconds']:.1f} s; measured again from scratch, the metric "
            f"is {'what the search had' if off == 0 else f'within {off:.0e} of what the search had'}"
        )
    else:
        details = {name: value for name, value in scoring.items() if name not in ("rule", "cut", "taken", "dangling")}
        words = "".join(f", {name.replace('_', ' ')} {value}" for name, value in details.items())
        how = f"scored by {settings['method']}{words} in {result['seconds']:.1f} s; {scoring['taken']:,} {unit} taken"
        if unit == "edges":
            how += f", {scoring['dangling']:,} of them dropped because they lay on no path"
    console.print(f"{how}\n", highlight=False, soft_wrap=True)
    if isinstance(circuit, NeuronCircuit):
        if result.get("dictionary"):
            console.print(f"{fit_line(result['dictionary'])}\n", highlight=False, soft_wrap=True)
        console.print(neuron_table(circuit))
        console.print()
        console.print(strongest_neurons(circuit, absolute=settings["absolute"]))
        _show_stability(console, name, written)
        console.print(f"\nwritten to {written}", highlight=False, markup=False, soft_wrap=True)
        return
    # Under these, edges on no path from the embedding carry nothing; under other ablations they may.
    connected = circuit.connected()
    shown = connected if connected and settings["ablation"] in OF_A_RUN and unit == "edges" else circuit
    console.print(node_table(circuit) if circuit.whole_nodes else circuit_table(shown))
    console.print()
    if circuit.whole_nodes:
        by = "score" if scoring is not None else worse(name)
        console.print(strongest_nodes(circuit, by, absolute=settings["absolute"]))
    elif scoring is None:
        console.print(strongest_edges([one for one in trace if one.edge in circuit], name))
    else:
        console.print(highest_scores(circuit, absolute=settings["absolute"]))
    groups, known = result.get("groups"), result["known_circuit"]
    title = "groups of nodes"
    if known is not None:
        title = known_title(known["source"], known["found"], known["n_edges"])
        groups = groups or known["groups"]
    if groups or known is not None:
        console.print()
        found = [GroupFound(one["group"], tuple(one["found"]), tuple(one["members"])) for one in groups]
        console.print(groups_table(found, title))
    _show_stability(console, name, written)
    console.print(f"\nwritten to {written}", highlight=False, markup=False, soft_wrap=True)


def _show_stability(console: Console, metric: str, written: Path) -> None:
    """Print what searches made again agree on, if the run's folder keeps it."""
    from edgewise.runs.stability_file import read_stability

    found = read_stability(written)
    if found is not None:
        from edgewise.reports.stability import stability_line, stability_rows
        from edgewise.reports.tables import terminal_table  # which needs torch

        console.print()
        console.print(stability_line(found), highlight=False, markup=False, soft_wrap=True)
        console.print(terminal_table("what searches agree on", stability_rows(found, metric), right=1))
