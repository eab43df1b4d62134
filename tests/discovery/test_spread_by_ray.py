"""Workers of Ray's take one process's decisions in random models, whatever is asked of them."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import tiny
import torch
from test_incremental_random import FEWER_HEADS, MODELS, Case, random_cases
from twins import same_decisions

from edgewise.discovery import acdc
from edgewise.discovery.spread import SpreadEngine
from edgewise.patching import Engine, Experiment, IncrementalEngine, optimal
from edgewise.runs.cluster import Cluster
from edgewise.runs.workers import spread_by_ray


def _engine(_: Experiment, *, case: Case) -> Engine:
    optimal.STEPS = 3  # as in this process (conftest.py)
    return IncrementalEngine(case.experiment(FEWER_HEADS.get(case.model, {})))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_random_cases(ray_session, count) -> None:
    cases = [case for model in MODELS for case in random_cases(model, 6)]
    assert len(cases) >= 50
    parted = []
    with spread_by_ray(Experiment(tiny.gpt2(layers=1), tiny.task()), Cluster(workers=count)) as spread:
        for case in cases:
            experiment = case.experiment(FEWER_HEADS.get(case.model, {}))
            threshold = case.share * (abs(experiment.full() - experiment.ablated()) or 1.0)
            options: dict[str, Any] = dict(order=case.order, absolute=case.absolute)
            alone = acdc(experiment, threshold, **options)

            def made(_: Any, __: Any, case: Case = case) -> SpreadEngine:
                return SpreadEngine(spread.workers, functools.partial(_engine, case=case))

            found = acdc(experiment, threshold, engine=made, **options)
            if not same_decisions(found, alone, case.dtype, case.absolute, case):
                parted.append(case)
    assert all(case.dtype == torch.float32 for case in parted)
    assert len(parted) <= 1, "near ties are rare"
