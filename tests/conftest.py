"""How the suite runs, and what it says of tests that could not.

One thread per process: the models are tiny, and the suite runs in as many processes as there are cores. Settings of a
run, by environment variable, for `make test-portable` and CI:

EDGEWISE_THREADS: threads of each process.
EDGEWISE_ONEDNN=off: products without oneDNN, as in a PyTorch that has none.
EDGEWISE_REQUIRE_ALL=1: a test that would be skipped fails, with the reason.

"FACTS" in the tests is `../shared/paper/FACTS.md`: the ACDC paper and its code, number by number. Tests that read files
beside the clone skip where they are not there.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from lacking import WHAT_BRINGS_IT

from edgewise.process import tune_process

tune_process()  # before torch comes
os.environ.setdefault("EDGEWISE_PRODUCTS", "onednn")  # nothing is measured and kept in whoever's cache folder

# Under nohup, or behind a shell's `&`, signals would be ignored, and so would what is tested with them.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine busy with other work is no failure.
# The same examples in every run; `pytest --hypothesis-profile anew` draws others.
hypothesis.settings.register_profile("edgewise", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("anew", deadline=None)
hypothesis.settings.load_profile("edgewise")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") == "no":  # else this process hands tests out, runs none and needs no torch
        _settle_torch()


def _settle_torch() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("EDGEWISE_THREADS", "1")))
    if os.environ.get("EDGEWISE_ONEDNN") == "off":
        from edgewise.models import matmul

        torch.backends.mkldnn.set_flags(False)
        matmul._LINEAR = None


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants of ablation `optimal` learn a few steps only: what is tested holds for any."""
    monkeypatch.setattr("edgewise.patching.optimal.STEPS", 3)


REQUIRE_ALL = os.environ.get("EDGEWISE_REQUIRE_ALL") == "1"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where EDGEWISE_REQUIRE_ALL lets nothing be: {_reason(report)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """At the very end, one line: what was not tested for want of something, and what would bring it."""
    result = yield
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    if skipped:
        brings = {why: f" ({how})" for why, how in WHAT_BRINGS_IT.items()}
        lacking = (f"{count} skipped: {why}{brings.get(why, '')}" for why, count in skipped.most_common())
        terminalreporter.write_line("; ".join(lacking), yellow=True)
    return result


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """One session of Ray for all tests, whose workers can import the tests; starting it takes longer than most."""
    ray = pytest.importorskip("ray")
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here / "discovery"), str(here / "runs"), os.environ.get("PYTHONPATH", "")]
    ray.init(num_cpus=3, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}})
    yield ray
    ray.shutdown()
