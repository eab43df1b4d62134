"""What a sweep saves by sharing, beside the same circuits found one by one, in one run.

    python benchmarks/sweeps.py [--repeats 3] [--steps 100]

ACDC at 21 thresholds, and subnetwork probing with 11 lambdas, on the models that come with edgewise. Both ways have to
give the same circuits. Every time is a median of several, taken in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from edgewise.process import tune_process

tune_process()

from edgewise.discovery import acdc, acdc_sweep, probe_sweep  # noqa: E402
from edgewise.discovery.methods.subnetwork_probing import subnetwork_probing  # noqa: E402
from edgewise.models import load_model  # noqa: E402
from edgewise.patching import Experiment  # noqa: E402
from edgewise.tasks import TASKS, load_task  # noqa: E402

THRESHOLDS = [10 ** (-5 + step / 5) for step in range(21)]
LAMBDAS = [10 ** (-3 + 0.3 * step) for step in range(11)]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of subnetwork probing")
    given = parser.parse_args()
    print(f"{'task':20}{'sweep':32}{'one by one':>12}{'shared':>10}{'ratio':>8}")
    for name in ("tracr-reverse", "tracr-xproportion", "induction", "greater-than", "ioi"):
        model = load_model(TASKS[name].model)
        experiment = Experiment(model, load_task(name, model))
        pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "ACDC, 21 thresholds": (
                lambda one=experiment: [acdc(one, threshold).circuit for threshold in THRESHOLDS],
                lambda one=experiment: [found.discovery.circuit for found in acdc_sweep(one, THRESHOLDS)],
            ),
            f"SP, 11 lambdas, {given.steps} steps": (
                lambda one=experiment: [
                    subnetwork_probing(one, regularisation=weight, steps=given.steps).circuit for weight in LAMBDAS
                ],
                lambda one=experiment: [probe.circuit for probe in probe_sweep(one, LAMBDAS, steps=given.steps)],
            ),
        }
        for what, ways in pairs.items():
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(given.repeats):
                results = [seconds(way) for way in ways]
                assert results[0][1] == results[1][1], "both ways give the same circuits"
                for kept, (took, _) in zip(times, results, strict=True):
                    kept.append(took)
            alone, shared = (statistics.median(one) for one in times)
            print(f"{name:20}{what:32}{alone:10.2f} s{shared:8.2f} s{alone / shared:8.1f}", flush=True)


if __name__ == "__main__":
    main()
