"""What workers save, beside one process, in one run: a sweep, and one search.

    python benchmarks/workers.py [--workers 2] [--layers 3] [--examples 16] [--only sweep]

Both are ACDC on GPT-2's shape with few layers, a small vocabulary and random weights: a sweep over nine thresholds, and
one search with candidates and then prompts shared out. Each worker has one thread, and so has the one process. Ray is
started before the clock is, and its start is told by itself.

Beside seconds there is processor time, which other work on the machine changes little: of one process alone, and of
this process and the busiest worker together. Their ratio is what cores of its own would give a sweep; of one search
it is the most they could, since workers wait for each other at every input.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.process import tune_process

tune_process()

import torch  # noqa: E402
import transformers  # noqa: E402

from edgewise.discovery import acdc  # noqa: E402
from edgewise.models import load_model  # noqa: E402
from edgewise.patching import Experiment  # noqa: E402
from edgewise.runs.cluster import Cluster, require_ray  # noqa: E402
from edgewise.runs.sweep import SweepPlan, sweep  # noqa: E402
from edgewise.runs.workers import spread_by_ray  # noqa: E402
from edgewise.tasks.task import PromptText, Task, last_token_prompts  # noqa: E402

THRESHOLDS = tuple(10 ** (-3 + step / 4) for step in range(9))
"""As shares of the way from the model to the ablated run."""


@dataclass(frozen=True)
class Taken:
    """What some work took, in seconds, and in processor time of this process and of the busiest worker."""

    seconds: float
    own: float
    busiest: float


def taken(work: Callable[[], Any]) -> tuple[Taken, Any]:
    before, started, own = of_workers(), time.perf_counter(), time.process_time()
    found = work()
    elapsed, own = time.perf_counter() - started, time.process_time() - own
    busiest = max((spent - before.get(pid, 0.0) for pid, spent in of_workers().items()), default=0.0)
    return Taken(elapsed, own, busiest), found


def of_workers() -> dict[int, float]:
    """Processor time of each of this process' workers so far; they are children of a child of it, Ray's raylet."""
    about: dict[int, tuple[int, float, bool]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            worker = (folder / "cmdline").read_bytes().startswith(b"ray::")
        except OSError:  # it has ended meanwhile
            continue
        about[int(folder.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), worker
    ours = {pid for pid, (parent, *_) in about.items() if parent == os.getpid()}
    return {pid: spent for pid, (parent, spent, worker) in about.items() if worker and parent in ours}


def tell(what: str, alone: Taken, shared: Taken, workers: int | None) -> None:
    on_own_cores = alone.own / (shared.own + shared.busiest)
    by_clock = (
        f"{alone.seconds:7.1f} s alone {shared.seconds:7.1f} s shared out, {alone.seconds / shared.seconds:.2f} times"
    )
    spent = f"{alone.own:.1f} s, and {shared.own:.1f} s + {shared.busiest:.1f} s of the busiest"
    print(f"{what:<22} {by_clock} with {workers} workers; processor {spent}, {on_own_cores:.2f} times", flush=True)


def shape(layers: int, examples: int) -> Experiment:
    """GPT-2 small's heads and widths in few layers, 16 tokens a prompt."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=layers, n_positions=32, vocab_size=2000, bos_token_id=0, eos_token_id=0)
    model = load_model(transformers.GPT2LMHeadModel(config))
    generator = torch.Generator().manual_seed(0)

    def ids(rows: int, length: int) -> list[list[int]]:
        return torch.randint(1, 2000, (rows, length), generator=generator).tolist()

    prompts = last_token_prompts(ids(examples, 16), ids(examples, 16), ids(examples, 1), ids(examples, 1))
    text = tuple(PromptText("", "") for _ in range(examples))
    return Experiment(model, Task(name="random", prompts=prompts, text=text, metric="kl_div", metrics=("kl_div",)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--layers", type=int, default=3, help="of the model")
    parser.add_argument("--examples", type=int, default=16, help="prompt pairs")
    parser.add_argument("--only", choices=("sweep", "search"), help="one of the two")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    experiment = shape(asked.layers, asked.examples)
    cluster, ray = Cluster(workers=asked.workers), require_ray()

    def warm_up() -> None:
        """Start Ray, and processes that have imported what they need."""
        ray.init(num_cpus=asked.workers, log_to_driver=False)
        with tempfile.TemporaryDirectory() as folder:
            sweep(experiment, [SweepPlan("acdc", (1e9, 1e8))], folder=Path(folder), cluster=cluster)

    started, _ = taken(warm_up)
    print(
        f"Ray and {asked.workers} workers started, with a small sweep: {started.seconds:.1f} s; the machine's load is "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    way = abs(experiment.ablated() - experiment.full())
    if asked.only != "search":
        swept(experiment, [way * share for share in THRESHOLDS], cluster)
    if asked.only != "sweep":
        searched(experiment, way / 200, cluster)
    ray.shutdown()


def swept(experiment: Experiment, thresholds: Sequence[float], cluster: Cluster) -> None:
    plans = [SweepPlan("acdc", tuple(thresholds))]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        alone, found = taken(lambda: sweep(experiment, plans, folder=Path(one)))
        shared, same = taken(lambda: sweep(experiment, plans, folder=Path(other), cluster=cluster))
    ours, theirs = ([(point.circuit, point.same_as) for point in each[0].points] for each in (found, same))
    assert ours == theirs
    tell(f"sweep, {sum(known is None for _, known in ours)} searches", alone, shared, cluster.workers)


def searched(experiment: Experiment, threshold: float, cluster: Cluster) -> None:
    alone, found = taken(lambda: acdc(experiment, threshold))
    for shard in ("candidates", "prompts"):
        with spread_by_ray(experiment, cluster, shard=shard) as spread:
            acdc(experiment, 1e9, engine=spread)  # workers load the model and everything falls
            shared, same = taken(lambda spread=spread: acdc(experiment, threshold, engine=spread))
        ours, theirs = ([(one.edge, one.kept) for one in each.trace] for each in (found, same))
        tell(f"search by {shard}{'' if ours == theirs else ', near ties otherwise'}", alone, shared, cluster.workers)
    kept = found.circuit.n_edges
    print(f"the search: {found.tests:,} tests, {kept:,} of {experiment.graph.n_edges:,} edges kept")


if __name__ == "__main__":
    main()
