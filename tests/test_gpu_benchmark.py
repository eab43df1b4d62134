"""The benchmark of a GPU, on the CPU and tiny shapes: the same code, and what it says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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


@pytest.mark.slow
def test_a_full_device_halves_the_blocks_and_changes_no_decision(gpu: Any) -> None:
    found = gpu.run_stage("halving", "cpu", True, 60)
    assert found["right"]
    assert all(row["halved"] < row["most"] for row in found["rows"])


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
