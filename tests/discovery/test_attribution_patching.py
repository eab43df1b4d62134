"""AtP's scores are first-order effects of units, exact through attention for queries and keys; IFR is its formula."""

import numpy as np
import pytest
import tiny
import torch
from test_units import values_of
from tiny import FAMILIES

from edgewise.discovery import Units
from edgewise.discovery.methods.attribution_patching import attribution_patching
from edgewise.discovery.methods.information_flow import information_flow
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment
from edgewise.patching.gradients import rows_of


def effect_of(experiment, rows, kind, index, mask):
    """How much the metric rises when one unit is as far ablated as `1 - mask` says."""
    units = Units(*(tensor.double() for tensor in Units.full(experiment.decoder.config, 1.0, "cpu").tensors()))
    whole = values_of(experiment, rows, units).mean()
    getattr(units, kind)[index] = mask
    return (values_of(experiment, rows, units).mean() - whole).item()


@pytest.mark.parametrize("family", ["gpt2", "plain", "plain-attention-only", "shortformer", "parallel"])
def test_plain_atp_is_the_slope_at_the_model_and_the_fix_goes_through_the_softmax(family):
    experiment = Experiment(FAMILIES[family](dtype=torch.float64, layers=1), tiny.task(rows=3), metric="logit_diff")
    (rows,) = rows_of(experiment, 10)
    plain = attribution_patching(experiment, qk_fix=False).units
    fixed = attribution_patching(experiment).units
    step, worst = 1e-5, {True: 0.0, False: 0.0}
    for kind in ("q", "k", "v", "mlp"):
        for index in np.ndindex(*getattr(plain, kind).shape):
            slope = effect_of(experiment, rows, kind, index, 1 - step) / step
            assert getattr(plain, kind)[index].item() == pytest.approx(slope, abs=1e-4)
            if kind in ("q", "k"):
                exact = effect_of(experiment, rows, kind, index, 0.0)
                for fix, units in ((True, fixed), (False, plain)):
                    worst[fix] = max(worst[fix], abs(getattr(units, kind)[index].item() - exact))
            else:
                assert torch.allclose(getattr(fixed, kind), getattr(plain, kind))
    if family == "plain-attention-only":  # one layer, no norm: behind the softmax everything is linear
        assert worst[True] < 1e-9
        assert worst[False] > 1e-5


def test_a_flat_metric_takes_the_path_and_one_without_gradient_is_refused():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task(), metric="kl_div")
    found = attribution_patching(experiment).units
    assert found.v.abs().max() > 1e-4
    with pytest.raises(EdgewiseError, match="has no gradient"):
        attribution_patching(Experiment(tiny.gpt2(), tiny.task(), metric="frac_correct"))


def test_the_grouped_and_the_ungrouped_graph_have_the_same_units():
    model, task = tiny.llama(dtype=torch.float64), tiny.task()
    scores = []
    for ungroup in (False, True):
        graph = model.graph(ungroup=ungroup)
        scores.append(attribution_patching(Experiment(model, task, metric="logit_diff", graph=graph)).units)
    for one, other in zip(scores[0].tensors(), scores[1].tensors(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_information_flow_is_its_formula_place_by_place(family):
    model, task = FAMILIES[family](dtype=torch.float64, layers=2), tiny.task()
    experiment = Experiment(model, task, ports=False)
    found, graph = information_flow(experiment).circuit.scores, experiment.graph
    (rows,) = rows_of(experiment, 10)
    clean, mask = rows.clean, task.prompts.mask
    outputs = {node.name: None for node in graph.sources}
    outputs["input"] = clean.embedding[0]
    streams = {"logits": clean.streams[-1]}
    z, mlp = tiny.by_layer(model, clean.codes)
    entering, _ = tiny.by_layer(model, clean.streams[:-1])
    for index, layer in enumerate(tiny.layers_of(model)):
        written = layer.write(z[index])
        for head in range(graph.n_heads):
            outputs[f"a{index}.h{head}"] = written[:, :, head]
        after = entering[index] + written.sum(dim=2) + layer.bias
        if layer.mlp is not None:
            outputs[f"m{index}"] = mlp[index][:, :, 0]
            streams[f"m{index}"] = entering[index] if graph.parallel else after
    for column, place in enumerate(graph.inputs):
        stream = streams.get(place.name, entering[place.layer] if place.layer >= 0 else None)
        names = [node.name for node in graph.sources[: graph.n_senders(place)]]
        wanted = np.zeros(len(names))
        for row in range(len(mask)):
            places = mask[row].nonzero()[:, 0].tolist()
            for position in places:
                x = stream[row, position]
                near = [
                    max(0.0, (x.abs().sum() - (x - outputs[name][row, position]).abs().sum()).item()) for name in names
                ]
                wanted += np.array(near) / max(sum(near), 1e-300) / len(places) / len(mask)
        assert np.allclose(found[: len(names), column], wanted, atol=1e-9), place.name
    assert 0 <= found.min() < 0.5 < found.max() <= 1
