"""The benchmark of a GPU, on the CPU and tiny shapes: the same code, and what it says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fake_devices import FakeDevices, put

from edgewise.models import load

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu as found  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert isinstance(found, ModuleType)
    return found


@pytest.mark.slow
def test_the_engines_are_compared_decision_by_decision(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu.run_stage("twin", "cpu", True, 60)
    (row,) = found["rows"]
    assert found["right"]
    assert row["decisions"] == row["of"] > 20
    assert row["off"] < 1e-5
    # An engine that measures something else is told.
    honest = gpu.IncrementalEngine.metrics
    monkeypatch.setattr(gpu.IncrementalEngine, "metrics", lambda self, final: [3 * one for one in honest(self, final)])
    wrong = gpu.run_stage("twin", "cpu", True, 60)
    assert not wrong["right"]
    assert "NOT alike" in gpu.table({"twin": wrong})


def test_a_kernels_time_counts_once_in_a_profile(gpu: Any) -> None:
    def event(key: str, kind: Any, count: int, cpu: float, device: float, marked: bool = False) -> Any:
        times = {"self_cpu_time_total": cpu, "self_device_time_total": device}
        return SimpleNamespace(key=key, device_type=kind, count=count, is_user_annotation=marked, **times)

    there, here = SimpleNamespace(name="CUDA"), SimpleNamespace(name="CPU")  # as torch's DeviceType
    events = [
        event("aten::mm", here, 3, 5e5, 3e6),
        event("cudaLaunchKernel", here, 4, 1e5, 0),
        event("gemm", there, 3, 0, 3e6),
        event("Memcpy HtoD", there, 1, 0, 1e6),
        event("a range of the user's", there, 1, 0, 9e6, marked=True),
    ]
    found = gpu.profiled(events, 8.0, 2, cuda=True)
    assert (found["launches"], found["launches_per_test"], found["busy"]) == (4, 2, 0.5)
    assert [(one["name"], one["share"]) for one in found["top"]] == [("gemm", 0.75), ("Memcpy HtoD", 0.25)]
    assert gpu.profiled(events, 8.0, None, cuda=False)["busy"] == pytest.approx(0.6 / 8)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["twin", "decisions", "halving", "bfloat16", "gpt2-tiny", "llama-tiny-bf16"])
def test_no_stage_mixes_devices(gpu: Any, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is not there, where what mixes it with the CPU fails, as on a GPU."""
    loaded, moved = load._device, load._moved

    def device(given: Any, dtype: Any) -> Any:
        return torch.device(given) if "lazy" in str(given) else loaded(given, dtype)

    def there(model: Any, where: Any, dtype: Any) -> Any:
        return put(moved(model, None, dtype), {"": str(where)}) if "lazy" in str(where) else moved(model, where, dtype)

    monkeypatch.setattr(load, "_device", device)
    monkeypatch.setattr(load, "_moved", there)
    fill = gpu._cramped.__init__
    monkeypatch.setattr(gpu._cramped, "__init__", lambda self, _, *given: fill(self, "cpu", *given))
    with FakeDevices() as devices:
        devices.watch()
        monkeypatch.setattr(gpu, "_allocated", lambda _: devices._now["lazy:0"])
        monkeypatch.setattr(gpu, "_peak", lambda _: devices.most["lazy:0"])
        monkeypatch.setattr(gpu, "_reset", lambda _: devices.most.clear())
        monkeypatch.setattr(gpu, "_wait", lambda _: None)
        found = gpu.run_stage(stage, "lazy:0", True, 600)
    assert found["right"]
    assert found["rows"]


@pytest.mark.slow
def test_a_stage_whose_time_is_over_tells_how_far_it_came(gpu: Any) -> None:
    found = gpu.run_stage("twin", "cpu", True, 5.01)  # the slow search has a hundredth of a second
    (row,) = found["rows"]
    assert found["right"]
    assert 0 < row["of"] < row["all"]
    assert "stopped, of" in gpu.table({"twin": found})


@pytest.mark.slow
def test_a_full_device_halves_the_blocks_and_changes_no_decision(gpu: Any) -> None:
    found = gpu.run_stage("halving", "cpu", True, 60)
    assert found["right"]
    assert all(row["halved"] < row["most"] for row in found["rows"])


@pytest.mark.slow
def test_a_search_is_told_with_time_memory_launches_and_kernels(gpu: Any) -> None:
    found = gpu.run_stage("llama-tiny", "cpu", True, 60)
    (row,) = found["rows"]
    assert row["finished"]
    assert row["within"] == 100
    assert row["tests"] > 10
    assert row["seconds"]["search"] > 0
    assert row["profile"]["launches"] > 0
    assert row["profile"]["top"]
    assert json.loads(json.dumps(found)) == found
    said = gpu.table({"llama-tiny": found, "llama-3.1-8b": {"not_run": "not run: 3 s were left"}})
    assert "| Llama, 2 layers x 4 heads, width 64 | 4 x 8 | float32 |" in said
    assert "not run: 3 s were left" in said


@pytest.mark.slow
def test_stages_that_fail_lose_nothing_else(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    asked = ["gpu.py", "--device", "cpu", "--small", "--minutes", "5", "--only", "b", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", asked)
    gpu.main()
    stages = json.loads(out.read_text())["stages"]
    assert stages["bfloat16"]["right"]
    assert stages["llama-tiny-bf16"]["rows"][0]["dtype"] == "bfloat16"
    failed = gpu.in_a_process("no-such-stage", gpu.argparse.Namespace(device="cpu", small=True), 60)
    assert "StopIteration" in failed["failed"]
