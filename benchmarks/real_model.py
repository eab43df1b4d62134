"""A search on a real pretrained model: time, processor time, tests, edges, stages, peak memory (the model's own
included), and what the search said at half time that was left, as a multiple of what was.

With `--against`, an older commit's checkout runs the same search in turn with this one, twice each, every run in a
process of its own with that checkout's `src` first on its path; both have to take the same decisions but for near ties.
They are compared by processor time, which other processes on the machine change least.

Usage: python benchmarks/real_model.py --model FOLDER --prompts ioi.jsonl [--pairs 16] [--threshold 0.03]
           [--within 2000] [--against CHECKOUT] [--repeats 2] [--limit SECONDS] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One search, in this process, with whatever edgewise is on the path."""
    from edgewise.discovery import Interrupted, acdc  # first, so that it tunes the process before torch comes
    from edgewise.models import load_model
    from edgewise.patching import Experiment, IncrementalEngine
    from edgewise.tasks import load_task

    import torch  # isort: skip

    start = resident("VmRSS", reset=True)
    decoder = load_model(str(options.model))
    experiment = Experiment(decoder, load_task(options.prompts, decoder, examples=options.pairs))
    search: dict[str, Any] = {}
    began = time.process_time()
    if options.within is not None:
        try:
            from edgewise.runs.shortlist import shortlist_of
        except ImportError:
            return {"failed": "this checkout has no shortlists"}
        search["start"] = shortlist_of(options.within, experiment)
    scores = time.process_time() - began
    made: list[Any] = []
    make = IncrementalEngine.__init__

    def keep(engine: IncrementalEngine, *arguments: Any) -> None:  # one that starts from a circuit, too
        made.append(engine)
        make(engine, *arguments)

    IncrementalEngine.__init__ = keep  # pyright: ignore[reportAttributeAccessIssue]
    said: list[tuple[int, float, Any]] = []

    def progress(now: Any) -> None:
        if not said or now.tests >= said[-1][0] + 20:
            said.append((now.tests, time.process_time() - began, getattr(now, "to_come", None)))
        if options.limit is not None and time.perf_counter() - started > options.limit:
            raise KeyboardInterrupt

    started, began, whole = time.perf_counter(), time.process_time(), True
    try:
        found = acdc(experiment, options.threshold, progress=progress, **search)
    except Interrupted as cause:
        found, whole = cause.discovery, False
    seconds, processor, peak = time.perf_counter() - started, time.process_time() - began, resident("VmHWM") - start
    return {
        "model": decoder.config.architecture,
        "threads": torch.get_num_threads(),
        "edges": experiment.graph.n_edges,
        "whole": whole,
        "seconds": seconds,
        "processor": processor,
        "scores": scores,
        "at_half": said_at_half(said, processor) if whole else None,
        "tests": found.tests,
        "kept": sum(one.kept for one in found.trace),
        "metric": found.metric,
        "metric_ablated": found.metric_ablated,
        "stages": getattr(getattr(made[0], "live", None), "watch", made[0]).seconds,
        "peak": peak,
        "trace": [(one.edge, one.before, one.after, one.kept) for one in found.trace],
    }


def said_at_half(marks: list[tuple[int, float, Any]], whole: float) -> float | None:
    """What a search says at half time is left, over what is; None for a checkout that does not say.

    Args:
        marks: tests made, seconds spent, and what was to come then.
    """
    try:
        from edgewise.discovery.time_left import TimeLeft
    except ImportError:
        return None
    left = TimeLeft()
    for tests, spent, to_come in marks:
        low, high = left.range(spent, tests, to_come)
        if spent >= whole / 2:
            return (low + high) / 2 / (whole - spent)
    return None


def resident(name: str, *, reset: bool = False) -> int:
    """Bytes that this process holds (`VmRSS`) or has held at most (`VmHWM`)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def in_a_process(checkout: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` with a checkout's own edgewise."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--one"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"failed": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def line(name: str, one: dict[str, Any]) -> str:
    """One row of the table, in Markdown."""
    if "failed" in one:
        return f"| {name} | failed: {one['failed']} |"
    stages = sum(one["stages"].values())
    shares = " / ".join(f"{100 * seconds / stages:.0f}%" for seconds in one["stages"].values())
    scores = f" and {one['scores']:.1f} s for the scores" if one["scores"] >= 0.05 else ""
    half = "-" if one["at_half"] is None else f"{one['at_half']:.2f}"
    return (
        f"| {name} | {one['seconds']:.1f} s{'' if one['whole'] else ' (stopped)'} | {one['processor']:.1f} s{scores} | "
        f"{one['tests']:,} | {1e3 * one['processor'] / max(1, one['tests']):.1f} ms | "
        f"{one['kept']:,} of {one['edges']:,} | "
        f"{one['metric']:.4f} of {one['metric_ablated']:.4f} | {half} | {shares} | {one['peak'] / 1e9:.2f} GB | "
        f"{os.getloadavg()[0]:.1f} |"
    )


HEAD = (
    "| checkout | search | processor time | tested | per tested edge | kept | metric | said at half time | "
    "senders / attention / MLPs / vocabulary | peak memory | load |\n|" + "---|" * 11
)


def compare(ours: dict[str, Any], theirs: dict[str, Any], threshold: float) -> str:
    """Where two searches part, and how far their metrics are apart until then."""
    off = 0.0
    for number, (one, other) in enumerate(zip(ours["trace"], theirs["trace"], strict=False)):
        size = max(abs(other[1]), abs(other[2]), 1.0)
        off = max(off, abs(one[2] - other[2]) / size)
        if one[0] != other[0] or one[3] != other[3]:
            margin = abs(other[2] - other[1] - threshold) / size
            said = "a near tie" if margin <= 1e-5 else "NOT a near tie"
            return f"the same {number:,} decisions, then {other[0]}, {margin:.0e} from the threshold: {said}"
    count = min(len(ours["trace"]), len(theirs["trace"]))
    return f"the same {count:,} decisions; metrics differ by at most {off:.0e} of their size"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL file of pairs of prompts")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.03)
    parser.add_argument("--within", type=int, help="search only so many of the best edges, where there is that option")
    parser.add_argument("--against", type=Path, help="an older commit's checkout")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=float, help="stop each search after so many seconds")
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    checkouts = {"this": HERE} if options.against is None else {"this": HERE, "against": options.against.resolve()}
    print(f"{platform.machine()}, {os.cpu_count()} cores; {options.pairs} pairs, threshold {options.threshold:g}\n")
    print(HEAD, flush=True)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for _ in range(options.repeats):
        for name, checkout in checkouts.items():
            runs[name].append(in_a_process(checkout, options))
            print(line(name, runs[name][-1]), flush=True)
    if options.against is not None and not any("failed" in one for each in runs.values() for one in each):
        # Per tested edge, since a search that is stopped makes fewer tests.
        ours, theirs = (statistics.median(one["processor"] / one["tests"] for one in each) for each in runs.values())
        vocabulary = [
            statistics.median(one["stages"]["vocabulary"] / one["tests"] for one in each) for each in runs.values()
        ]
        print(
            f"\n{theirs / ours:.2f} times as fast ({vocabulary[1] / vocabulary[0]:.2f} times in the vocabulary); "
            + compare(runs["this"][-1], runs["against"][-1], options.threshold)
        )
    if options.out:
        options.out.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
