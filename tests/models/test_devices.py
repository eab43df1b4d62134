"""Nothing is computed across devices: all goes where it is needed by a move, on devices that are not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import fake_devices
import pytest
import tiny
import torch
from fake_devices import FakeDevices, WrongDeviceError
from twins import same_found

import edgewise as ew
from edgewise.discovery import METHODS, Discovery, acdc
from edgewise.models import Decoder, load_model, placed, precision
from edgewise.models.forward import forward
from edgewise.models.placed import PlacedAttention
from edgewise.patching import Experiment
from edgewise.patching.memory import memory_of, plan_memory
from edgewise.tasks import Task

ONE = {"": "lazy:0"}
TWO = {"": "lazy:0", "model.layers.0": "lazy:1", "model.layers.1": "lazy:0"}
LAYOUTS = {"one": ONE, "two": TWO}
TASK, EVEN = (tiny.task(rows=3, longest=4, ragged=ragged) for ragged in (True, False))


def here() -> Decoder:
    return tiny.llama(layers=2, heads=2, kv_heads=1, bias=True)


def there(places: Mapping[str, str], task: Task = TASK, **how: Any) -> tuple[Decoder, Task]:
    """The same model on fake devices, and the task beside it."""
    model = load_model(fake_devices.put(here().source, places), **how)
    return model, dataclasses.replace(task, prompts=task.prompts.to(model.device))


def decisions(found: Discovery) -> list[tuple[str, bool, Any]]:
    return [(one.edge, one.kept, tiny.near(one.after)) for one in found.trace]


def plain(found: Discovery) -> list[tuple[str, bool, float]]:
    return [(one.edge, one.kept, one.after) for one in found.trace]


@pytest.fixture(scope="module")
def alone() -> Discovery:
    found = acdc(Experiment(here(), TASK), 0.02)
    assert 0 < found.circuit.n_edges < found.circuit.graph.n_edges
    return found


def test_fake_devices_refuse_what_a_gpu_refuses() -> None:
    with FakeDevices() as devices:
        one, other = torch.ones(2, 2, device="lazy:0"), torch.ones(2, 2).to("lazy:1")
        assert (one.device, other.device) == (torch.device("lazy:0"), torch.device("lazy:1"))
        for wrong in (torch.ones(2, 2), other):
            with pytest.raises(WrongDeviceError, match="several devices"):
                one + wrong
        with pytest.raises(WrongDeviceError, match="several devices"):
            one @ other
        assert (one + other.to("lazy:0")).tolist() == [[2, 2], [2, 2]]
        assert (one * torch.tensor(3.0)).sum().item() == 12
        assert devices.moved["lazy:1", "lazy:0"] == other.nbytes
        with pytest.raises((RuntimeError, TypeError)):
            one.numpy()
    with FakeDevices(float64=False), pytest.raises(WrongDeviceError, match="has none"):
        torch.ones(2, device="lazy:0").double()


@pytest.mark.parametrize("places", LAYOUTS.values(), ids=LAYOUTS)
def test_a_search_moves_what_crosses_devices_and_decides_the_same(alone, places) -> None:
    with FakeDevices() as devices:
        found = acdc(Experiment(*there(places)), 0.02)
    assert plain(found) == decisions(alone)
    assert (devices.moved["lazy:0", "lazy:1"] > 0) == (places is TWO)


def test_a_move_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDevices():
        model, task = there(TWO)
        assert isinstance(model.components[0], PlacedAttention)
        monkeypatch.setattr(placed, "moved", lambda given, device: given)
        with pytest.raises(WrongDeviceError, match="several devices"):
            forward(model, task.prompts.clean, task.prompts.mask)


def test_recorded_activations_wait_in_the_cpus_memory_and_come_by_component(alone) -> None:
    with FakeDevices() as devices:
        model, task = there(ONE, offload_activations=True)
        experiment = Experiment(model, task)
        # What each node would carry, the streams of that run, and its queries, keys and values.
        carried, kept = experiment.ablated_activations, lambda entries: list(entries._kept)
        tensors = [*kept(carried.codes), *kept(carried.streams)]
        tensors += [one for each in kept(carried.projections) for one in each.values()]
        assert all(one.device == torch.device("cpu") for one in tensors)
        assert carried.codes[1].device == carried.projections[0]["q"].device == torch.device("lazy:0")
        before = devices.moved["cpu", "lazy:0"]
        for _ in model.components[0].nodes:
            assert carried.codes[0].shape[2] == 2
        assert devices.moved["cpu", "lazy:0"] - before == carried.codes[0].nbytes  # once for all heads
        assert plain(acdc(experiment, 0.02)) == decisions(alone)
    assert load_model(here().source, offload_activations=True).recording() == []  # on the CPU they are there anyway


def test_offloaded_activations_take_less_of_the_device_as_the_plan_says() -> None:
    peaks, plans = [], []
    for offloads in (False, True):
        with FakeDevices() as devices:
            torch.manual_seed(0)
            source = fake_devices.put(tiny.llama(layers=6, heads=2, kv_heads=1).source, ONE)
            model = load_model(source, offload_activations=offloads)
            made = tiny.task(rows=8, longest=12, ragged=False)
            task = dataclasses.replace(made, prompts=made.prompts.to(model.device))
            plan = memory_of(model, task, model.graph(), 10**9)
            devices.watch()
            acdc(Experiment(model, task, max_memory=plan.smallest), 1e9, max_memory=plan.smallest)
            peaks.append(devices.most["lazy:0"])
            plans.append(plan)
    whole, offloaded = plans
    assert 0.5 * whole.smallest < peaks[0] <= whole.smallest
    assert 0.5 * offloaded.smallest < peaks[1] <= offloaded.smallest
    assert peaks[1] < peaks[0] / 2
    assert whole.offloaded == 0
    assert offloaded.offloaded > whole.recorded - offloaded.recorded > 0


def test_more_than_the_cpus_memory_cannot_be_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.patching.memory.machine_memory", lambda: 1000)
    with FakeDevices():
        model, task = there(ONE, offload_activations=True)
        with pytest.raises(ew.EdgewiseError, match="CPU's memory, to which it is offloaded"):
            plan_memory(model, task, model.graph(), 10**9)


QUICK: list[dict[str, Any]] = [dict(method="edge-attribution", edges=20)]
EVERY: list[dict[str, Any]] = [
    dict(method="acdc", engine="plain", threshold=0.02),
    dict(method="acdc", level="node", threshold=0.02),
    dict(method="acdc", level="node", engine="plain", threshold=0.02),
    dict(method="acdc", within=30, passes=2, threshold=0.02),
    *(
        dict(method="acdc", ablation=one, threshold=0.02)
        for one in ("zero", "mean", "mean-clean", "mean-positional", "noise", "optimal")
    ),
    dict(method="acdc", positions="each", threshold=0.02),
    dict(method="exact", level="neuron", neurons=5),
    dict(method="edge-attribution-ig", level="neuron", neurons=5),
    *(dict(method=one, edges=20) for one in METHODS if one not in ("acdc", "edge-attribution")),
]
OF_ONE_LENGTH = ("mean-positional", "each")
"""What needs prompts of one length."""
LEARNING = ("subnetwork-probing", "edge-pruning", "uniform-gradient-sampling")


@pytest.mark.parametrize(
    "how",
    [*QUICK, *(pytest.param(how, marks=pytest.mark.slow) for how in EVERY)],
    ids=lambda how: "-".join(str(one) for one in how.values() if isinstance(one, str)),
)
def test_every_method_and_engine_keeps_to_devices_without_float64_too(how, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two devices that have no float64, with what is recorded in the CPU's memory."""
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("lazy",))
    options: dict[str, Any] = {"options": {"steps": 3}} if how["method"] in LEARNING else {}
    given = EVEN if any(one in OF_ONE_LENGTH for one in how.values()) else TASK
    with FakeDevices(float64=False):
        model, task = there(TWO, given, offload_activations=True)
        found = ew.discover(model, task, metric="kl_div", **how, **options)
        assert found.record["settings"]["model"]["offload_activations"]
    same_found(found, ew.discover(here(), given, metric="kl_div", **how, **options))
