"""`edgewise` as a real process: exit codes, Ctrl-C, a reader that goes away, a terminal without Unicode."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from shell import Shell

from edgewise.patching import IncrementalEngine, PlainEngine
from edgewise.runs import read_run

EDGEWISE = [sys.executable, "-m", "edgewise"]
PATIENCE = 300  # seconds; a start takes four of an idle machine, and many times that of a busy one
LONG_RUN = ["discover", "docstring", "--examples", "64", "--threshold", "0.0001", "--engine", "plain"]


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
        # A process started in the background of a shell script ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    process = start(arguments, folder, environment)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_bad_input_ends_with_code_2_and_a_sentence(tmp_path, environment):
    code, out, err = run(["discover", "iio"], tmp_path, environment)
    assert (code, out) == (2, "")
    assert err.startswith("edgewise: unknown task 'iio'; did you mean 'ioi'")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def wait_for(process: subprocess.Popen[str], seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def check_stopped(folder: Path, files: set[str], err: str, shell: Shell) -> None:
    """A run folder says how far its search got when it was stopped, and its circuit measures what the search saw."""
    assert "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == files
    record, circuit = read_run(folder)
    stopped = record["stopped"]
    assert record["finished"] is False
    assert stopped["why"] == "interrupted"
    assert 0 < stopped["decided"] < stopped["of"] == circuit.graph.n_edges
    trace = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    assert len(trace) == stopped["tests"] == record["result"]["tests"] > 0
    gone = circuit.graph.n_edges - circuit.n_edges
    assert sum(not one["kept"] for one in trace) <= gone <= stopped["decided"]
    assert f"{stopped['decided']:,} of {stopped['of']:,} edges were decided" in err
    assert "nothing was written" not in err
    # What is kept is a circuit like any other, and measures what the search saw last.
    measured = shell.json("evaluate", folder, "--quick")
    assert measured["finished"] is False
    assert measured["metric"] == tiny.near(record["result"]["metric"])


def test_whoever_asks_a_search_to_end_and_asks_again_loses_nothing(tmp_path, environment, shell):
    process = start([*LONG_RUN, "--out", "run"], tmp_path, environment)
    began = time.monotonic()
    wait_for(process, lambda: bool(list(tmp_path.glob(".*"))))  # the hidden folder is claimed when the search starts
    time.sleep(max(0.5, (time.monotonic() - began) / 5))  # longer on a machine that is busy with other work
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (130, -signal.SIGINT), err  # to a shell both are 130
    assert out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"run", "here"}  # the second is the shell's
    check_stopped(tmp_path / "run", {"run.json", "circuit.json", "trace.jsonl"}, err, shell)


@pytest.mark.parametrize(
    ("options", "sent", "code"),
    [
        ([], signal.SIGINT, 130),
        (["--json", "--quiet"], signal.SIGTERM, 143),
        ([], signal.SIGHUP, 129),
    ],
    ids=["plain-SIGINT", "json-SIGTERM", "plain-SIGHUP"],
)
def test_a_search_that_is_stopped_leaves_a_folder_that_says_how_far_it_got(
    shell, models, prompts, monkeypatch, options, sent, code
):
    measure, calls = PlainEngine.measure, itertools.count()

    def signalled(engine, column, candidates):
        if next(calls) == 20:
            signal.raise_signal(sent)
        return measure(engine, column, candidates)

    monkeypatch.setattr(PlainEngine, "measure", signalled)
    where = ("--model", models / "gpt2", "--out", "deep/er/run")
    finished = shell("discover", prompts, *where, "--threshold", "0.0001", "--engine", "plain", *options)
    assert (finished.code, finished.out) == (code, "")
    folder = shell.folder / "deep" / "er" / "run"
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    check_stopped(folder, {"run.json", "circuit.json", "trace.jsonl", "prompts.jsonl"}, finished.err, shell)


def test_a_sweep_that_is_asked_to_end_says_so_by_its_exit_code(shell, monkeypatch):
    measure = IncrementalEngine.measure

    def signalled(engine, column, candidates):
        series = shell.folder / "out" / "acdc.jsonl"
        if series.exists() and series.read_text().count("\n") > 2:  # a head and two circuits
            signal.raise_signal(signal.SIGTERM)
        return measure(engine, column, candidates)

    monkeypatch.setattr(IncrementalEngine, "measure", signalled)
    finished = shell("sweep", "ioi", "--methods", "acdc", "--out", "out", "--no-test", "--examples", 2)
    assert finished.code == 143, finished.err
    assert "edgewise: interrupted; circuits found so far are in out, the same command goes on" in finished.err


def test_ctrl_c_before_the_search_leaves_nothing(tmp_path, environment):
    process = start(["discover", "ioi"], tmp_path, environment)
    maps = Path(f"/proc/{process.pid}/maps")
    if maps.exists():  # Linux: wait until torch is being imported
        deadline = time.monotonic() + PATIENCE
        while "libtorch" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
    else:
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert "interrupted; nothing was written" in err
    assert list(tmp_path.rglob("*")) == []


def test_a_reader_that_goes_away_costs_neither_the_run_nor_a_traceback(tmp_path, environment):
    process = start(["discover", "or-gate", "--quiet"], tmp_path, environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=PATIENCE)
    assert err == ""
    assert {path.name for path in (tmp_path / "runs" / "or-gate-acdc").iterdir()} == {
        "run.json",
        "circuit.json",
        "trace.jsonl",
    }


def test_help_prints_on_a_terminal_without_unicode(tmp_path, environment):
    code, out, err = run(["discover", "--help"], tmp_path, {**environment, "PYTHONIOENCODING": "latin-1"})
    assert code == 0, err[-300:]
    assert "TASK" in out


def test_lists_print_on_a_terminal_without_unicode(shell, monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", write_through=True))
    shell.works("tasks")
    assert "tracr-reverse" in printed.getvalue().decode("ascii")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_interpreter_shuts_down_simply_ends_it(tmp_path, environment, sent):
    script = (
        "import atexit, sys, time\n"
        "def end():\n    print('ending', flush=True)\n    time.sleep(60)\n"
        "atexit.register(end)\n"
        "sys.argv = ['edgewise', 'plan', '--help']\n"
        "from edgewise.__main__ import main\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert any(line == "ending\n" for line in process.stdout)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-sent, "")
