"""`edgewise` as a real process: exit codes, Ctrl-C, a reader that goes away, a terminal without Unicode."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

EDGEWISE = [sys.executable, "-m", "edgewise"]
STORIES = tiny.SHARED / "models" / "stories260k"
LONG_RUN = ["discover", str(STORIES / "gender_pronoun.jsonl"), "--model", str(STORIES), "--threshold", "0.0001"]


@pytest.fixture
def environment() -> dict[str, str]:
    # One thread: with as many as cores, a busy machine makes these small models a hundred times slower.
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def start(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*EDGEWISE, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    process = start(arguments, folder, environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_bad_input_ends_with_code_2_and_a_sentence(tmp_path, environment):
    code, out, err = run(["discover", "iio"], tmp_path, environment)
    assert (code, out) == (2, "")
    assert err.startswith("edgewise: unknown task 'iio'; did you mean 'ioi'?")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@tiny.needs_shared
@pytest.mark.parametrize("options", [[], ["--json", "--quiet", "--out", "deep/er/run"]], ids=["plain", "json"])
def test_ctrl_c_ends_a_search_with_code_130_and_leaves_nothing(tmp_path, environment, options):
    process = start([*LONG_RUN, *options], tmp_path, environment)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob(".*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)  # the hidden folder is claimed when the search starts
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert list(tmp_path.rglob("*")) == []
    assert "interrupted; nothing was written" in err


def test_a_reader_that_goes_away_costs_neither_the_run_nor_a_traceback(tmp_path, environment):
    process = start(["discover", "or-gate", "--quiet"], tmp_path, environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert err == ""
    assert {path.name for path in (tmp_path / "runs" / "or-gate-acdc").iterdir()} == {
        "run.json",
        "circuit.json",
        "trace.jsonl",
    }


@pytest.mark.parametrize(
    ("arguments", "encoding"), [(["discover", "--help"], "latin-1"), (["tasks"], "ascii")], ids=["help", "tasks"]
)
def test_help_and_lists_print_on_a_terminal_without_unicode(tmp_path, environment, arguments, encoding):
    code, out, err = run(arguments, tmp_path, {**environment, "PYTHONIOENCODING": encoding})
    assert code == 0, err[-300:]
    assert "TASK" in out or "tracr-reverse" in out
