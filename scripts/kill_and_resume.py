"""Kill searches with SIGKILL at random moments, resume them, and compare what they come to with a run left alone.

    python scripts/kill_and_resume.py --kills 100
    python scripts/kill_and_resume.py --kills 3 -- discover prompts.jsonl --model path/to/model --threshold 0.2

Every run is a real process, killed again and again, after a number of decisions drawn at random, until it has ended by
itself. What stands after `--` is the search; without it, a small one on a built-in model. Exit code 1 if any result
differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL = ["discover", "ioi", "--threshold", "0.0001", "--engine", "plain", "--examples", "20"]
EDGEWISE = [sys.executable, "-m", "edgewise"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="How many processes to kill.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    parser.add_argument("search", nargs="*", help="`discover` and its arguments, without --out.")
    asked = parser.parse_args()
    search, dice = asked.search or SMALL, random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as folder:
        whole = Path(folder) / "whole"
        process = start([*search, "--out", str(whole)])
        if process.wait():
            sys.exit("the search itself failed")
        wanted = result(whole)
        print(f"undisturbed: {wanted['tests']:,} tests", flush=True)
        kills = runs = wrong = 0
        while kills < asked.kills:
            run, runs = Path(folder) / f"run-{runs}", runs + 1
            again = 0
            while True:
                there = (run / "run.json").exists()
                process = start(["resume", str(run)] if there else [*search, "--out", str(run)])
                if kills < asked.kills and killed(process, run, dice.randint(lines(run), wanted["tests"])):
                    kills, again = kills + 1, again + 1
                    print(f"run {runs}: killed with {lines(run):,} decisions on disk", flush=True)
                    continue
                if process.wait():
                    sys.exit(f"run {runs} could not go on")
                break
            same = result(run) == wanted
            wrong += not same
            print(f"run {runs}: killed {again} times, then {'the same' if same else 'ANOTHER'} result", flush=True)
    print(f"{kills} kills in {runs} runs, {wrong} of them with another result than the undisturbed one")
    sys.exit(1 if wrong else 0)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*EDGEWISE, *arguments, "--quiet"], stdout=subprocess.DEVNULL, env={**os.environ})


def killed(process: subprocess.Popen[bytes], run: Path, count: int) -> bool:
    """Kill a search as soon as so many decisions are on disk; False if it ended before."""
    while process.poll() is None:
        if lines(run) > count:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    if process.returncode:
        sys.exit("a search failed by itself")
    return False


def lines(run: Path) -> int:
    """Decisions that a run has on disk."""
    found = [run / name for name in ("trace.jsonl", "searches.jsonl") if (run / name).exists()]
    return sum(path.read_bytes().count(b"\n") for path in found)


def result(run: Path) -> dict[str, Any]:
    """What has to be the same: circuit and trace to the bit, and every number of the result but the time."""
    record = json.loads((run / "run.json").read_text())
    found = {name: value for name, value in record["result"].items() if name != "seconds"}
    return {**found, **{name: (run / name).read_bytes() for name in ("trace.jsonl", "circuit.json")}}


if __name__ == "__main__":
    main()
