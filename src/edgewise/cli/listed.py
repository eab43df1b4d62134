"""What `edgewise tasks` and `methods` list, kept in listed.json, since making it waits for torch.

`scripts/list_names.py` writes the file, and a test holds it to what there is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "listed.json"


def listed(kind: str) -> Any:
    """What there is of a kind, `tasks` or `methods` (with metrics and ablations)."""
    return made()[kind] if brought(kind) else json.loads(FILE.read_text(encoding="utf-8"))[kind]


def brought(kind: str) -> bool:
    """Whether other packages bring tasks or methods, which are not in the file then."""
    from importlib.metadata import entry_points

    return bool(entry_points(group=f"edgewise.{kind}"))


def made() -> dict[str, Any]:
    """The same from the tasks and methods themselves."""
    from edgewise.discovery import ALIASES, METHODS
    from edgewise.patching import ABLATIONS
    from edgewise.tasks import KNOWN_CIRCUITS, METRICS, TASKS

    about = ("summary", "cost", "paper", "when", "options")
    tasks = [
        {
            "name": spec.name,
            "summary": spec.summary,
            "model": spec.model,
            "paper_model": spec.paper_models[0] if spec.paper_models else None,
            "examples": spec.examples,
            "threshold": spec.threshold,
            "ablation": spec.ablation,
            "metrics": list(spec.metrics),
            "variants": list(spec.variants),
            "known_circuit": KNOWN_CIRCUITS[spec.name].n_edges if spec.name in KNOWN_CIRCUITS else None,
            "source": spec.source,
        }
        for spec in TASKS.values()
    ]
    methods = {
        "methods": {name: {key: getattr(method, key) for key in about} for name, method in METHODS.items()},
        "metrics": {metric.name: metric.summary for metric in METRICS.values()},
        "ablations": dict(ABLATIONS),
        "short": dict(ALIASES),
    }
    return {"tasks": tasks, "methods": methods}
