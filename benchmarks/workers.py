"""What workers save, beside one process, in one run: a sweep, and one search.

    python benchmarks/workers.py [--workers 2] [--layers 3] [--examples 16]

The sweep: ACDC at 13 thresholds on the model that comes with edgewise for IOI. The search: ACDC on GPT-2's shape with
few layers, a small vocabulary and random weights, candidates and then prompts shared out. Each worker has one thread,
and so has the one process. Ray is started before the clock is, and its start is told by itself.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
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
from edgewise.tasks import load_task  # noqa: E402
from edgewise.tasks.task import PromptText, Task, last_token_prompts  # noqa: E402

THRESHOLDS = tuple(10 ** (-3 + step / 4) for step in range(13))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def tell(what: str, alone: float, shared: float, workers: int) -> None:
    speed_up = f"{alone / shared:.2f} times as fast with {workers} workers"
    print(f"{what:<28} {alone:7.1f} s alone {shared:7.1f} s shared out   {speed_up}", flush=True)


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
    parser.add_argument("--layers", type=int, default=3, help="of the search's model")
    parser.add_argument("--examples", type=int, default=16, help="prompt pairs, of both")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("tiny-ioi")
    ioi = Experiment(model, load_task("ioi", model, examples=asked.examples))
    cluster, ray = Cluster(workers=asked.workers), require_ray()
    plans = [SweepPlan("acdc", THRESHOLDS)]

    def warm_up() -> None:
        """Start Ray, and processes that have imported what they need."""
        ray.init(num_cpus=asked.workers, log_to_driver=False)
        with tempfile.TemporaryDirectory() as folder:
            sweep(ioi, [SweepPlan("acdc", (10.0, 0.5))], folder=Path(folder), cluster=cluster)

    started, _ = seconds(warm_up)
    print(f"Ray and {asked.workers} workers started, with a small sweep: {started:.1f} s")
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        alone, found = seconds(lambda: sweep(ioi, plans, folder=Path(one)))
        shared, same = seconds(lambda: sweep(ioi, plans, folder=Path(other), cluster=cluster))
    assert [(point.circuit, point.same_as) for point in found[0].points] == [
        (point.circuit, point.same_as) for point in same[0].points
    ]
    searches = sum(point.same_as is None for point in found[0].points)
    tell(f"sweep, {searches} searches", alone, shared, asked.workers)
    experiment = shape(asked.layers, asked.examples)
    threshold = abs(experiment.ablated() - experiment.full()) / 200
    alone, found_alone = seconds(lambda: acdc(experiment, threshold))
    for shard in ("candidates", "prompts"):
        with spread_by_ray(experiment, cluster, shard=shard) as spread:
            acdc(experiment, 1e9, engine=spread)  # workers load the model and everything falls
            shared, spread_found = seconds(lambda spread=spread: acdc(experiment, threshold, engine=spread))
        parted = [(one.edge, one.kept) for one in found_alone.trace] != [
            (one.edge, one.kept) for one in spread_found.trace
        ]
        note = ", near ties decided otherwise" if parted else ""
        tell(f"search by {shard}{note}", alone, shared, asked.workers)
    kept = found_alone.circuit.n_edges
    print(f"the search: {found_alone.tests:,} tests, {kept:,} of {experiment.graph.n_edges:,} edges kept")
    ray.shutdown()


if __name__ == "__main__":
    main()
