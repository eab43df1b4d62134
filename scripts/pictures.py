"""Make the pictures of docs/pictures: circuits of 10 to 1,041 edges, and the plots.

    python scripts/pictures.py [--stories FOLDER]

All come from real runs on the models that edgewise brings, and from the circuits that people worked out by hand,
but for the one of 443 edges: it needs a folder with the Llama-style model stories260k and `gender_pronoun.jsonl`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import edgewise as ew
from edgewise.tasks.known import GREATER_THAN, IOI, KnownCircuit, known_circuit

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, help="the folder of stories260k and gender_pronoun.jsonl")
    options = parser.parse_args(arguments)
    PICTURES.mkdir(exist_ok=True)
    found("tracr-xproportion", "circuit-10.svg", threshold=0.01)
    found("ioi", "circuit-31.svg", threshold=0.01)
    found("ioi", "circuit-68.svg", edges=68)
    known("greater-than", GREATER_THAN, "circuit-262.svg")
    known("ioi", IOI, "circuit-1041.svg")
    if options.stories is not None:
        model = ew.load_model(str(options.stories))
        task = ew.load_task(str(options.stories / "gender_pronoun.jsonl"), model)
        run = ew.discover(model, task, method="edge-attribution-ig", edges=443)
        run.circuit.draw(
            PICTURES / "circuit-443.svg",
            title="he or she? in stories260k",
            subtitle=f"edge-attribution-ig; {run.circuit.n_edges} of {run.circuit.graph.n_edges:,} edges; "
            f"kl_div {run.metric:.4g}",
            effect="score by edge-attribution-ig",
        )


def found(task: str, name: str, **options: float) -> None:
    """A circuit found with ACDC on the task's own model."""
    model = ew.load_model(task if task.startswith("tracr") else f"tiny-{task}")
    prompts = ew.load_task(task, model)
    run = ew.discover(model, prompts, **options)  # type: ignore[arg-type]
    settings = run.record["settings"]
    true = known_circuit(task, model)
    run.circuit.draw(
        PICTURES / name,
        title=f"{task} in {model.name}",
        subtitle=f"acdc at threshold {settings['threshold']:.4g}; {run.circuit.n_edges} of "
        f"{run.circuit.graph.n_edges:,} edges; {settings['metric']} {run.metric:.4g}",
        groups=None if true is None else groups(true),
        effect=f"rise of {settings['metric']} without it",
    )


def known(task: str, circuit: KnownCircuit, name: str) -> None:
    """A circuit that people worked out by hand."""
    circuit.circuit.draw(
        PICTURES / name,
        title=f"the known circuit of {task} in GPT-2 small",
        subtitle=f"after {circuit.source}; {circuit.n_edges:,} of {circuit.graph.n_edges:,} edges",
        groups=groups(circuit),
    )


def groups(known: KnownCircuit) -> dict[str, str]:
    return {name: group for group, members in known.groups.items() for name in members}


if __name__ == "__main__":
    main()
