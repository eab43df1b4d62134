"""Ctrl-C and SIGTERM in the middle of a search over Ray's workers leave a run that goes on to the same circuit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgewise as ew

pytestmark = pytest.mark.slow
FIRST = 20
"""Decisions after which the search is asked to end."""


def decided(run: Path) -> int:
    trace = run / "trace.jsonl"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_search_that_is_asked_to_end_goes_on_to_the_same_circuit(tmp_path: Path, sent: int, code: int) -> None:
    pytest.importorskip("ray")
    run, shell = tmp_path / "run", [sys.executable, "-m", "edgewise"]
    typed = ["discover", "ioi", "--examples", "8", "--threshold", "0.005", "--engine", "plain", "--workers", "2"]
    with subprocess.Popen(
        [*shell, *typed, "--out", str(run)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as search:
        until = time.monotonic() + 600
        while decided(run) < FIRST and search.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if sent == signal.SIGINT:
            os.killpg(search.pid, sent)  # as a terminal sends it: to Ray and its workers, too
        else:
            search.send_signal(sent)
        _, said = search.communicate(timeout=300)
    assert search.returncode == code, said
    assert f"edgewise resume {run} goes on" in said
    stopped = ew.load_run(run)
    assert not stopped.record["finished"]
    assert FIRST <= len(stopped.trace) < 136
    subprocess.run([*shell, "resume", str(run), "--workers", "2", "--quiet"], check=True)
    model = ew.load_model("tiny-ioi")
    alone = ew.discover(model, ew.load_task("ioi", model, examples=8), threshold=0.005)
    found = ew.load_run(run)
    assert found.circuit == alone.circuit
    assert [(one.edge, one.kept) for one in found.trace] == [(one.edge, one.kept) for one in alone.trace]
    assert found.trace[: len(stopped.trace)] == stopped.trace
