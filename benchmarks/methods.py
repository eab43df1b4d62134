"""Methods side by side by the MIB benchmark's measures: a table of CPR, CMD and both areas on a logarithmic axis.

    python benchmarks/methods.py
    python benchmarks/methods.py --tasks ioi --model FOLDER --examples 8 --methods edge-attribution,edge-attribution-ig

Every method scores all edges of the benchmark's graph once (those that press masks to a size, to 5% of the edges), and
circuits at ten sizes are cut from the scores; a row for integer programming cuts those of edge-attribution-ig. CPR:
higher is better, 1 is the model throughout; CMD: 0 is best. Seconds are processor time of the scores.
"""

from __future__ import annotations

import argparse
import time

import torch

from edgewise import load_model, load_task
from edgewise.discovery import METHODS
from edgewise.evaluation.mib import METRIC, mib_scores
from edgewise.patching import Experiment

PRESSED_TO = 0.05
BY_PROGRAMME = "edge-attribution-ig"
HYBRID = "edge-attribution-ig, clean-corrupted, edge-pruning"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="ioi,greater-than,docstring,induction")
    parser.add_argument("--methods", default=",".join(name for name in METHODS if METHODS[name].score is not None))
    parser.add_argument("--model", help="a folder or a name; by default the one that comes with each task")
    parser.add_argument("--examples", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | method | CPR | CMD | log CPR | log CMD | seconds |\n|---|---|---|---|---|---|---|")
    for name in asked.tasks.split(","):
        model = load_model(asked.model or f"tiny-{name}")
        task = load_task(name, model, examples=asked.examples)
        graph = model.graph(ports=False, ungroup=True, split_embedding=task.split_embedding)
        experiment = Experiment(model, task, metric=METRIC, ablation="resample", graph=graph)
        cases = [(method, method, {}) for method in asked.methods.split(",")]
        if "ensemble" in asked.methods:
            cases.append((f"ensemble of {HYBRID}", "ensemble", {"members": HYBRID}))
        for title, method, options in cases:
            taken = METHODS[method].options | options
            if "target" in taken:
                taken["target"] = max(1, int(PRESSED_TO * graph.n_edges))
            start = time.process_time()
            scored = METHODS[method].scores(experiment, **taken).circuit
            seconds = time.process_time() - start
            ways = ("top", "ilp") if method == BY_PROGRAMME else ("top",)
            for way in ways:
                found = mib_scores(model, task, scored, select=way)
                areas = " | ".join(f"{one:.3f}" for one in (found.cpr, found.cmd, found.cpr_log, found.cmd_log))
                by = ", `--select ilp`" if way == "ilp" else ""
                print(f"| {name} | {title}{by} | {areas} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
