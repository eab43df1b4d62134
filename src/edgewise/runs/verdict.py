"""Whether a run found the behaviour, in plain words: how its circuit fails, why, and what to try. It needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.graph import Decision
from edgewise.runs.reading import unit_of

ENOUGH = 0.5
"""A circuit that recovers less, or is right less than so many times as often as the model, has failed."""
FURTHER = 4
"""By how much a size or a threshold is changed that is offered to be tried."""
PAGE, DRIFT = "docs/methods.md", ", losses that do not add up"


def verdict(record: Mapping[str, Any], trace: Sequence[Decision]) -> str | None:
    """In which way the circuit of a finished run fails, why, and what to try; None if it does not.

    A permuted model is a control, which is there to fail, and of an empty circuit cut from scores there is another
    warning.

    Args:
        trace: every decision of the search, in order; empty of methods that score edges.
    """
    settings, result = record["settings"], record["result"]
    unit, scored = unit_of(record), result.get("scoring") is not None
    size = result[f"n_{unit}"]
    if settings["model"].get("permuted_seed") is not None or (scored and not size):
        return None
    these = f"the circuit of {size:,} {unit if size != 1 else unit[:-1]}"
    recovered, right, model = (result.get(name) for name in ("recovered", "accuracy", "accuracy_full"))
    if recovered is not None and recovered < 0:
        fails = f"{these} does worse than the ablated run (it recovers {recovered:z.1%})"
    elif recovered is not None and recovered < ENOUGH:
        fails = f"{these} recovers {recovered:z.1%}, less than half of the way from the ablated run to the model"
    elif right is not None and model is not None and right < ENOUGH * model:
        fails = f"{these} is right {right:.1%} of the time, less than half as often as the model ({model:.1%})"
    else:
        return None
    why = drift(trace, settings["metric"], unit)
    tries = [_larger(settings, result, unit, scored)]
    if scored:
        tries.append("another method")
    elif why:
        # The one bounds what removals may cost all in all, the other the number of them.
        tries += [f"--{name}" for name in ("budget", "within") if settings.get(name) is None]
    tries = [one for one in tries if one]
    tries[-1:] = [f"{tries[-1]} or another ablation than {settings['ablation']!r}"] if tries else ["another ablation"]
    return f"{fails}{f': {why}' if why else ''}. Try {', '.join(tries)} ({PAGE}{DRIFT if why else ''})"


def drift(trace: Sequence[Decision], metric: str, unit: str) -> str | None:
    """That many removals, each of them small, cost more in all than any edge that was kept; None where they do not.

    What a removal costs is what the metric rose by when the edge was tested and went.
    """
    costs = [one.effect for one in trace if not one.kept and math.isfinite(one.effect)]
    kept = {one.edge: one.effect for one in trace if one.kept}
    for one in trace:  # of several passes, the last word counts
        if not one.kept:
            kept.pop(one.edge, None)
    together, most = math.fsum(costs), max(kept.values(), default=0.0)
    if len(costs) < 2 or not kept or together <= most:
        return None
    return (
        f"{len(costs):,} removals, each below the threshold, cost {together:.3g} of {metric} in all, more than "
        f"any {unit[:-1]} that was kept ({most:.3g})"
    )


def _larger(settings: Mapping[str, Any], result: Mapping[str, Any], unit: str, scored: bool) -> str:
    """The option that gives a larger circuit; empty where it is as large as it can be."""
    most = result[f"n_graph_{unit}"]
    option = unit if unit in ("neurons", "features") else "edges"
    if settings.get(option) is not None:
        wanted = min(most, FURTHER * settings[option])
        return f"--{option} {wanted}" if wanted > settings[option] else ""
    threshold = settings.get("threshold")
    if isinstance(threshold, int | float) and threshold > 0:
        return f"--threshold {threshold / FURTHER:.2g}"
    return f"--{option} {min(most, FURTHER * max(1, result[f'n_{unit}']))}" if scored else ""
