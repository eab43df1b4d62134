"""The incremental engine against the plain one, side by side: whole runs, stages, growth, memory.

Every line is one whole ACDC run of the incremental engine, with the plain engine's tested edge (one whole circuit run)
timed in the same process after it. Both make the same decisions and so the same tests, which gives the
plain engine's whole run by multiplication where it would take hours; the tables mark it "about". Each case runs in a
process of its own, so that its peak memory is its own.

Usage: python benchmarks/incremental.py [--table twins|main|growth|all] [--only GPT-2] [--device cuda] [--out FILE.json]
       python benchmarks/incremental.py --plot FILE.json docs/cost-per-edge.svg
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
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgewise.process import tune_process

tune_process()

import torch  # noqa: E402 - after the process is tuned

from edgewise.discovery import acdc as run_acdc  # noqa: E402
from edgewise.discovery.search import Progress  # noqa: E402
from edgewise.graph import Circuit  # noqa: E402
from edgewise.patching import Experiment, IncrementalEngine  # noqa: E402
from edgewise.reports.terminal import duration  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from shapes import Case, make_model, make_task  # noqa: E402

SMALL = Case("GPT-2 small", 32, 16)
MAIN: list[tuple[Case, float]] = [
    (Case("4 layers x 4 heads, width 128", 32, 16), 0.002),
    (Case("GPT-2 small", 8, 16), 0.001),
    (Case("GPT-2 small", 32, 16), 0.001),
    (Case("GPT-2 small", 32, 16), 0.0005),
    (Case("GPT-2 small", 100, 16), 0.001),
    (Case("GPT-2 medium", 8, 16), 0.001),
    (Case("GPT-2 large", 8, 16), 0.001),
    (Case("GPT-2 XL", 4, 8), 0.002),
    (Case("Llama 3.2 1B", 4, 8), 0.01),
]
TWINS: list[tuple[Case, float]] = [
    (Case("4 layers x 4 heads, width 128", 32, 16), 0.0005),
    (Case("GPT-2 small", 4, 8), 0.001),
]
GROWTH: dict[str, list[tuple[Case, float]]] = {
    "prompts": [(replace(SMALL, rows=rows), 0.001) for rows in (4, 8, 16, 32, 64)],
    "tokens": [(replace(SMALL, rows=8, length=length), 0.001) for length in (8, 16, 32, 64)],
    "layers": [(replace(SMALL, rows=8, layers=layers), 0.001) for layers in (6, 12, 24, 48)],
    "kept edges": [(replace(SMALL, rows=8), threshold) for threshold in (0.01, 0.003, 0.001, 0.0005, 0.0002)],
}


@torch.no_grad()
def measure(case: Case, threshold: float, device: str) -> dict[str, Any]:
    """One whole run, in this process."""
    model = make_model(case, device)
    task = make_task(model, case)
    peak = Peak(device)
    experiment = Experiment(model, task)
    one = Circuit.full(experiment.graph).remove("m0->logits")

    def plain_edge() -> float:
        begun = time.perf_counter()
        experiment.value(one)
        return time.perf_counter() - begun

    made: list[IncrementalEngine] = []
    steps: list[tuple[float, int, str]] = []

    def engine(given: Experiment, max_memory: int | None) -> IncrementalEngine:
        made.append(IncrementalEngine(given, max_memory))
        return made[-1]

    def progress(now: Progress) -> None:
        steps.append((time.perf_counter(), now.tests, now.at))

    started = time.perf_counter()
    found = run_acdc(experiment, threshold, engine=engine, progress=progress)
    whole = time.perf_counter() - started
    memory = peak.read()
    # The plain engine afterwards, so that its memory does not count for the other one; once to warm up.
    plain = [plain_edge() for _ in range(4)][1:]
    per_plain = statistics.median(plain)
    return {
        **asdict(case),
        "layers": model.config.n_layers,
        "threshold": threshold,
        "edges": experiment.graph.n_edges,
        "kept": found.circuit.n_edges,
        "tests": found.tests,
        "computed": made[0].computed,
        "blocks": made[0].blocks,
        "seconds": whole,
        "per_edge": whole / found.tests,
        "plain_per_edge": per_plain,
        "plain_seconds": per_plain * found.tests,
        "ratio": per_plain * found.tests / whole,
        "stages": made[0].live.watch.seconds,
        "peak": memory,
        "metric": found.metric,
        "metric_from_scratch": experiment.value(found.circuit),
        "by_layer": by_layer(steps),
    }


def twins(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole runs of both engines, none extrapolated, compared decision by decision."""
    print(
        "\nBoth engines, whole runs\n\n| model, prompts x tokens | threshold | kept | tested | incremental | plain | ",
        end="",
    )
    print("ratio | decisions | largest difference of a metric |\n|" + "---|" * 9, flush=True)
    rows = []
    for case, threshold in TWINS:
        model = make_model(case, options.device)
        experiment = Experiment(model, make_task(model, case))
        found, seconds = {}, {}
        for engine in ("incremental", "plain"):
            started = time.perf_counter()
            found[engine] = run_acdc(experiment, threshold, engine=engine)
            seconds[engine] = time.perf_counter() - started
        fast, slow = found["incremental"].trace, found["plain"].trace
        pairs = list(zip(fast, slow, strict=False))
        same = len(fast) == len(slow) and all((a.edge, a.kept) == (b.edge, b.kept) for a, b in pairs)
        off = max(abs(a.after - b.after) for a, b in pairs)
        rows.append({**asdict(case), "threshold": threshold, "seconds": seconds, "same": same, "off": off})
        print(
            f"| {case.shape}, {case.rows} x {case.length} | {threshold:g} | {found['plain'].circuit.n_edges} | "
            f"{len(slow):,} | {seconds['incremental']:.1f} s | {seconds['plain']:.0f} s | "
            f"**{seconds['plain'] / seconds['incremental']:.0f}** | {'all the same' if same else 'NOT the same'} | "
            f"{off:.0e} |",
            flush=True,
        )
    return rows


def by_layer(steps: list[tuple[float, int, str]]) -> dict[str, tuple[int, float]]:
    """Tested edges and seconds spent on them, by the layer of the input under test (`logits` for those)."""
    found: dict[str, tuple[int, float]] = {}
    for (before, tests_before, _), (now, tests, at) in pairwise(steps):
        layer = at if at == "logits" else at.lstrip("am").split(".")[0]
        count, seconds = found.get(layer, (0, 0.0))
        found[layer] = (count + tests - tests_before, seconds + now - before)
    return found


class Peak:
    """The most memory in use since it was made, beyond what was in use then, in bytes."""

    def __init__(self, device: str) -> None:
        self.cuda = device != "cpu"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self.start = self._status("VmRSS")

    def read(self) -> int:
        return (torch.cuda.max_memory_allocated() if self.cuda else self._status("VmHWM")) - self.start

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def in_a_process(case: Case, threshold: float, device: str) -> dict[str, Any]:
    """`measure` in a process of its own."""
    request = json.dumps({"case": asdict(case), "threshold": threshold, "device": device})
    done = subprocess.run([sys.executable, __file__, "--one", request], capture_output=True, text=True, check=False)
    if done.returncode:
        return {**asdict(case), "threshold": threshold, "failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def line(one: dict[str, Any]) -> str:
    """One row of the table, in Markdown."""
    name = f"{one['shape']}, {one['rows']} x {one['length']}" + (f", {one['dtype']}" * (one["dtype"] != "float32"))
    if "failed" in one:
        return f"| {name} | {one['threshold']:g} | failed: {one['failed']} |"
    stages = sum(one["stages"].values())
    shares = " / ".join(f"{100 * seconds / stages:.0f}%" for seconds in one["stages"].values())
    return (
        f"| {name} | {one['layers']} | {one['edges']:,} | {one['threshold']:g} | {one['kept']:,} | {one['tests']:,} | "
        f"{one['seconds']:.1f} s | {1e3 * one['per_edge']:.1f} ms | {1e3 * one['plain_per_edge']:,.0f} ms | "
        f"about {duration(one['plain_seconds'])} | **{one['ratio']:,.0f}** | {shares} | {one['peak'] / 1e9:.2f} GB | "
        f"{abs(one['metric'] - one['metric_from_scratch']):.0e} |"
    )


HEAD = (
    "| model, prompts x tokens | layers | edges | threshold | kept | tested | whole run | per tested edge | "
    "plain: per tested edge | plain: whole run | ratio | senders / attention / MLPs / vocabulary | peak memory | "
    "metric off by |\n|" + "---|" * 14
)


def run_table(title: str, cases: list[tuple[Case, float]], options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    print(f"\n{title}\n\n{HEAD}", flush=True)
    for case, threshold in cases:
        if options.only in case.shape:
            rows.append(in_a_process(case, threshold, options.device))
            print(line(rows[-1]), flush=True)
    return rows


def plot(measured: Path, to: Path) -> None:
    """Cost per tested edge over the layer of the input under test, for circuits of several sizes."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "edgewise"
    from matplotlib import pyplot

    rows = json.loads(measured.read_text())["kept edges"]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colours = mpl.colormaps["viridis"]
    for number, one in enumerate(rows):
        layers = [*map(str, range(one["layers"])), "logits"]
        found = [(index, one["by_layer"][name]) for index, name in enumerate(layers) if name in one["by_layer"]]
        points = [(index, 1e3 * seconds / count) for index, (count, seconds) in found if count]
        colour = colours(0.9 * number / max(1, len(rows) - 1))
        axes.plot(*zip(*points, strict=True), "o-", ms=3, color=colour, label=f"{one['kept']:,} edges kept")
    plain = statistics.median(1e3 * one["plain_per_edge"] for one in rows)
    axes.axhline(plain, color="0.4", ls="--", label="plain engine, whatever is kept")
    axes.set(yscale="log", xlabel="layer of the input under test", ylabel="time per tested edge (ms)")
    axes.set_xticks(range(rows[0]["layers"] + 1), [*map(str, range(rows[0]["layers"])), "logits"])
    axes.set_title(f"{rows[0]['shape']} shape, {rows[0]['rows']} prompts x {rows[0]['length']} tokens", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(to, metadata={"Date": None} if to.suffix == ".svg" else None, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=["twins", "main", "growth", "all"], default="all")
    parser.add_argument("--only", default="", help="only shapes whose name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    parser.add_argument("--plot", nargs=2, type=Path, metavar=("JSON", "PICTURE"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        request = json.loads(options.one)
        print(json.dumps(measure(Case(**request["case"]), request["threshold"], request["device"])))
        return
    if options.plot:
        plot(*options.plot)
        return
    where = torch.cuda.get_device_name() if options.device != "cpu" else f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{where}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    found: dict[str, list[dict[str, Any]]] = {}
    if options.table in ("twins", "all"):
        found["twins"] = twins(options)
    if options.table in ("main", "all"):
        found["main"] = run_table("Whole runs", MAIN, options)
    if options.table in ("growth", "all"):
        for what, cases in GROWTH.items():
            found[what] = run_table(f"Growth with {what}", cases, options)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
