"""Methods side by side by the MIB benchmark's measures: a table of CPR, CMD and both areas on a logarithmic axis.

    python benchmarks/methods.py
    python benchmarks/methods.py --tasks ioi --model FOLDER --examples 8 --methods edge-attribution,edge-attribution-ig

With `--out FOLDER` each row is kept there as JSON when it is made, and a run that was stopped goes on after the last.

Every method scores all edges of the benchmark's graph once (those that press masks to a size, to 5% of the edges), and
circuits at ten sizes are cut from the scores; a row for integer programming cuts those of edge-attribution-ig,
where no model is named. CPR:
higher is better, 1 is the model throughout; CMD: 0 is best. Seconds are processor time of the scores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from edgewise import load_model, load_task
from edgewise.discovery import METHODS
from edgewise.evaluation.mib import METRIC, mib_scores
from edgewise.files import write_text
from edgewise.patching import Experiment
from edgewise.runs.mib_work import TARGET

Way = Literal["top", "ilp"]

AREAS = ("cpr", "cmd", "cpr_log", "cmd_log")
BY_PROGRAMME = "edge-attribution-ig"
HYBRID = "edge-attribution-ig, clean-corrupted, edge-pruning"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="ioi,greater-than,docstring,induction")
    parser.add_argument("--methods", default=",".join(name for name in METHODS if METHODS[name].score is not None))
    parser.add_argument("--model", help="a folder or a name; by default the one that comes with each task")
    parser.add_argument("--examples", type=int)
    parser.add_argument("--out", type=Path, help="a folder for the rows, which are not made again")
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
            ways: tuple[Way, ...] = ("top", "ilp") if method == BY_PROGRAMME and asked.model is None else ("top",)
            files = {way: kept_in(asked, name, title, way) for way in ways}
            if not all(file is not None and file.exists() for file in files.values()):
                rows = made(experiment, method, options, ways)
                for way, row in rows.items():
                    if (file := files[way]) is not None:
                        write_text(file, json.dumps(row) + "\n")
            else:
                rows = {way: json.loads(file.read_text()) for way, file in files.items() if file is not None}
            for way, row in rows.items():
                by = ", `--select ilp`" if way == "ilp" else ""
                areas = " | ".join(f"{row[one]:.3f}" for one in AREAS)
                print(f"| {name} | {title}{by} | {areas} | {row['seconds']:.1f} |", flush=True)


def kept_in(asked: argparse.Namespace, task: str, title: str, way: str) -> Path | None:
    """The file of one row, if rows are kept."""
    if asked.out is None:
        return None
    asked.out.mkdir(parents=True, exist_ok=True)
    model = "shipped" if asked.model is None else Path(asked.model).name
    return (
        asked.out / f"{task}-{model}-{asked.examples or 'all'}-{title.replace(', ', '+').replace(' ', '-')}-{way}.json"
    )


def made(experiment: Experiment, method: str, options: dict[str, Any], ways: Sequence[Way]) -> dict[str, Any]:
    """A row for each way of choosing edges by a method's scores."""
    taken = METHODS[method].options | options
    if "target" in taken:
        taken["target"] = max(1, int(TARGET * experiment.graph.n_edges))
    start = time.process_time()
    scored = METHODS[method].scores(experiment, **taken).circuit
    seconds, rows = time.process_time() - start, {}
    for way in ways:
        found = mib_scores(experiment.decoder, experiment.task, scored, select=way)
        rows[way] = {one: getattr(found, one) for one in AREAS} | {"seconds": seconds}
        rows[way]["faithfulness"] = [(one.share, one.faithfulness) for one in found.signed]
    return rows


if __name__ == "__main__":
    main()
