"""`edgewise plan --shape`: what methods would cost on a model that is not here."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.completion import SHAPES, names
from edgewise.cli.printing import stdout_console
from edgewise.errors import EdgewiseError, quoted
from edgewise.runs.request import Request, SearchRequest

if TYPE_CHECKING:
    from edgewise.runs.shape_plan import ShapePlan

_PANEL = "A model that is not here"
_KNOWN_TO_SHAPES = ("ports", "heads", "within", "seed")


def _option(text: str, **shell: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=_PANEL, **shell)


ShapeOption = Annotated[
    str | None,
    _option(
        "Instead of a task and a model: a well-known shape, as in llama-3.1-70b, or a folder with a config.json. "
        "Nothing is loaded or run; --examples is how many prompts (16).",
        autocompletion=names(SHAPES),
    ),
]
TokensOption = Annotated[int | None, _option("Tokens of a prompt (20).")]
KeptOption = Annotated[int | None, _option("Edges that the search keeps, at the least (200).")]
FlopsOption = Annotated[float | None, _option("Operations a second that a device achieves (4e14).")]
BandwidthOption = Annotated[float | None, _option("Bytes a second from a device's memory (3e12).")]
DeviceMemoryOption = Annotated[str | None, _option("Memory of a device (80GB).")]
DevicesOption = Annotated[int | None, _option("How many devices there are. Default: as few as will do.")]


def plan_shape_of(asked: Request, shape: str | None, given: dict[str, Any], *, as_json: bool) -> bool:
    """Print the plan of a shape; False where none is asked for.

    Args:
        given: the options that are for shapes, by name; None where they were not typed.

    Raises:
        EdgewiseError: options that do not go together, or as `load_shape` and `plan_shape`.
    """
    typed = {name: value for name, value in given.items() if value is not None}
    if shape is None:
        for name in typed:
            raise EdgewiseError(f"--{name.replace('_', '-')} is for --shape, a model that is not here")
        return False
    _check(asked, shape)
    from edgewise.models.shapes import load_shape
    from edgewise.patching import parse_size
    from edgewise.runs.shape_plan import Machine, plan_shape

    if "device_memory" in typed:
        typed["memory"] = parse_size(typed.pop("device_memory"))
    of_machine = {one.name for one in dataclasses.fields(Machine)}
    machine = Machine(**{name: value for name, value in typed.items() if name in of_machine})
    numbers = {name: value for name, value in typed.items() if name not in of_machine}
    if asked.task.examples is not None:
        numbers["prompts"] = asked.task.examples
    search = asked.search
    within = _number(search.within)
    planned = plan_shape(
        load_shape(shape, asked.model.dtype),
        **numbers,
        within=within,
        ports=search.ports,
        whole_heads=search.heads == "whole",
        machine=machine,
        seed=asked.task.seed,
    )
    if as_json:
        typer.echo(json.dumps(_summary(planned)))
    else:
        _show(planned)
    return True


def _number(within: Any) -> int | None:
    if within is None or isinstance(within, int):
        return within
    try:
        return int(str(within))
    except ValueError:
        raise EdgewiseError(
            f"with --shape, --within is a number of edges, not {quoted(str(within))}: there is nothing to read"
        ) from None


def _check(asked: Request, shape: str) -> None:
    """Refuse what was asked for besides that means nothing without a model's numbers."""
    if asked.task.task or asked.task.dataset is not None:
        raise EdgewiseError(
            f"give a task or a shape, not both {quoted(asked.task.task or asked.task.dataset)} and {quoted(shape)}"
        )
    if asked.model.model is not None:
        raise EdgewiseError(f"give a model or a shape, not both {quoted(asked.model.model)} and {quoted(shape)}")
    allowed = {"task": ("examples", "seed"), "model": ("dtype",), "search": _KNOWN_TO_SHAPES}
    for part, known in allowed.items():
        given = getattr(asked, part)
        plain = type(given)()
        for one in dataclasses.fields(given):
            if one.name not in known and getattr(given, one.name) != getattr(plain, one.name):
                raise EdgewiseError(
                    f"--{one.name.replace('_', '-')} means nothing with --shape, where no model is loaded or run"
                )
    SearchRequest(heads=asked.search.heads).check()


def _summary(planned: ShapePlan) -> dict[str, Any]:
    graph, memory, machine = planned.graph, planned.memory, planned.machine
    plain = ("shape", "dtype", "prompts", "tokens", "within", "kept", "parameters", "weights")
    return {
        **{name: getattr(planned, name) for name in plain},
        "n_edges": graph.n_edges,
        "n_inputs": len(graph.inputs),
        "n_senders": len(graph.sources),
        "memory": {
            "recorded": memory.recorded,
            "smallest": memory.smallest,
            "largest": memory.largest,
            "attribution": memory.smallest_for("gradients"),
            "needed": planned.needed,
        },
        "devices": machine.devices,
        "device_memory": machine.memory,
        "on_the_fullest_device": planned.each,
        "fits": planned.fits,
        "flops_per_second": machine.flops,
        "bytes_per_second": machine.bandwidth,
        "costs": {name: dataclasses.asdict(cost) for name, cost in planned.costs.items()},
        "assumptions": list(planned.assumptions),
    }


def _show(planned: ShapePlan) -> None:
    from edgewise.patching import size
    from edgewise.reports.terminal import shape_table

    console, graph, memory, machine = stdout_console(), planned.graph, planned.memory, planned.machine

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"{planned.shape}, {planned.dtype}: {planned.prompts:,} prompt pairs of {planned.tokens:,} tokens")
    ends = f"from {len(graph.sources):,} senders into {len(graph.inputs):,} inputs"
    say(f"{graph.describe()}: {graph.n_edges:,} edges {ends}")
    say(f"{planned.parameters:,} parameters, {size(planned.weights)} of weights")
    say(
        f"memory beyond them: {size(memory.recorded)} recorded, {size(memory.smallest)} to start a search with, at "
        f"most {size(memory.largest)} if every edge stays; {size(memory.smallest_for('gradients'))} for attribution"
    )
    number = machine.devices or 1
    many = f"{number:,} device{'s' * (number != 1)} of {size(machine.memory)}"
    say(f"{many}: {size(planned.each)} on the fullest{'' if planned.fits else ', WHICH DOES NOT FIT'}\n")
    console.print(shape_table(planned))
    say("")
    for sentence in planned.assumptions:
        say(f"- {sentence}")
