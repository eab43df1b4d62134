"""How much of what layers write their dictionaries explain, on an experiment's own clean prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.models.feature_mlp import FeatureMLP
from edgewise.models.forward import forward
from edgewise.models.precision import in_float64
from edgewise.patching.blocks import computing
from edgewise.patching.experiment import Experiment


@dataclass(frozen=True)
class DictionaryFit:
    """What a dictionary is worth on some prompts.

    Attributes:
        name: `m3`, or `r3` of the residual stream behind the layer.
        explained: the share of the variance of what it predicts that is not in the error, 1 at best, over all real
            tokens; below 0 it predicts worse than the mean does.
        active: how many of its features are not 0 at a token, on average.
    """

    name: str
    explained: float
    active: float


def dictionary_fits(experiment: Experiment) -> list[DictionaryFit]:
    """The fit of each dictionary of an experiment's model, early layers first; none where there is none."""
    graph, found = experiment.graph, []
    if not graph.features:
        return found
    sums: dict[int, list[float]] = {}
    prompts, step = experiment.task.prompts, experiment.recorded_at_once
    tokens = int(prompts.mask.sum())
    totals = {}
    for first in range(0, len(prompts), step):
        rows = prompts.rows(first, min(first + step, len(prompts)))
        with computing():
            run = forward(experiment.decoder, rows.clean, rows.mask)
        for component, code in zip(experiment.decoder.components, run.codes, strict=True):
            if not isinstance(component, FeatureMLP):
                continue
            real, layer = code[rows.mask], component.layer
            target = in_float64(component.target_of(code)[rows.mask])
            features = real[:, 0, : component.n_features]
            own = sums.setdefault(layer, [0.0, 0.0, 0.0])
            own[0] += float(in_float64(component.error_of(real)).square().sum())
            own[1] += float(target.square().sum())
            own[2] += int((features != 0).sum())
            totals[layer] = totals.get(layer, 0) + target.sum(dim=0)
    for layer, (error, squares, active) in sorted(sums.items()):
        variance = squares - float(totals[layer].square().sum()) / tokens
        explained = 1 - error / variance if variance > 0 else 0.0
        found.append(DictionaryFit(graph.units_name(layer), explained, active / tokens))
    return found


def misfit(fits: Sequence[DictionaryFit]) -> str | None:
    """What is to be said of dictionaries that predict worse than nothing would, as one of another place does."""
    worse = [one.name for one in fits if one.explained < 0]
    if not worse:
        return None
    return (
        f"the dictionary of {', '.join(worse)} predicts what is there worse than its mean does: is it of this model, "
        "and of this place (--dictionary-hooks)?"
    )
