"""A GPU in one command: first whether it is right, then how fast, with memory, launches and what the time goes to.

Needs torch, transformers and what comes with them; no model hub and no package index. Every stage is a process of its
own, so that one that fails or takes too long loses nothing but itself, and its peak memory is its own. Stages that no
time is left for are told as "not run".

* Right: the incremental engine against whole circuit runs on the device; decisions on the CPU against decisions on the
  device, on the tasks whose models come along, with the margin of the first that differs; a search in so little memory
  that blocks have to be halved; bfloat16 against float32.
* Fast: whole searches of well-known shapes with random weights (shapes.py), the larger ones among the best 5,000 edges
  by attribution (`--within`), each with time, peak memory, and of a short piece of the search launches and kernels.

Usage: python benchmarks/gpu.py [--device cuda] [--minutes 9] [--only llama] [--out gpu.json]
       python benchmarks/gpu.py --device cpu --small       the same code on tiny shapes, anywhere
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

from edgewise.process import tune_process  # noqa: E402

tune_process()

import torch  # noqa: E402 - after the process is tuned
from shapes import Case, make_model, make_task  # noqa: E402

from edgewise.discovery import Interrupted, acdc  # noqa: E402
from edgewise.models import load_model  # noqa: E402
from edgewise.models.guard import compare  # noqa: E402
from edgewise.patching import Experiment, IncrementalEngine  # noqa: E402
from edgewise.tasks import load_task  # noqa: E402

BEGAN = time.monotonic()

PROFILED = 8
"""Inputs of a search that are profiled."""

NEAR = 1e-4
"""A decision may be another where a metric is nearer than this, as a share of its size, to where it tips."""


@dataclass(frozen=True)
class Speed:
    """A search whose time is taken.

    Attributes:
        within: among so many edges; None for all.
        need: seconds that it takes at least, made or loaded and measured, so that it is not begun in less.
    """

    name: str
    case: Case
    threshold: float
    within: int | None = None
    need: float = 20.0


SPEEDS = (
    Speed("gpt2-small", Case("GPT-2 small", 200, 16), 0.001),
    Speed("smollm2-135m", Case("SmolLM2 135M", 16, 16), 0.003, 5000),
    Speed("llama-3.2-1b", Case("Llama 3.2 1B", 16, 16, dtype="bfloat16"), 0.01, 5000, need=30),
    Speed("llama-3.1-8b", Case("Llama 3.1 8B", 16, 16, dtype="bfloat16"), 0.01, 5000, need=60),
)
SMALL = (
    Speed("gpt2-tiny", Case("4 layers x 4 heads, width 128", 8, 8), 0.002, need=0),
    Speed("llama-tiny", Case("Llama, 2 layers x 4 heads, width 64", 4, 8), 0.002, 100, need=0),
    Speed("llama-tiny-bf16", Case("Llama, 2 layers x 4 heads, width 64", 4, 8, dtype="bfloat16"), 0.01, 100, need=0),
)
SHARE = 0.5
"""Of the time that is left, what one search may take before it is stopped and told as far as it came."""


# -- right -----------------------------------------------------------------------------------------------------------


def twin(device: str, small: bool, seconds: float) -> dict[str, Any]:
    """Incremental searches against whole circuit runs, decision by decision, both on the device."""
    ends = time.monotonic() + seconds
    cases = [(Case("4 layers x 4 heads, width 128", *((4, 6) if small else (32, 16))), 0.002 if small else 0.0005)]
    if not small:
        cases.append((Case("GPT-2 small", 4, 8), 0.002))
    rows = []
    for case, threshold in cases:
        experiment = Experiment(model := make_model(case, device), make_task(model, case))
        found = _compared(experiment, experiment, threshold, ends)
        rows.append({"what": f"{case.shape}, {case.rows} x {case.length}", **found})
    return {"rows": rows, "right": all(one["right"] for one in rows)}


def _until(ends: float, experiment: Experiment, threshold: float, engine: Any = "incremental") -> Any:
    """A search as far as it comes in its time."""

    def progress(now: Any) -> None:
        if time.monotonic() > ends:
            raise KeyboardInterrupt

    try:
        return acdc(experiment, threshold, engine=engine, progress=progress)
    except Interrupted as stop:
        if not isinstance(stop.__cause__, KeyboardInterrupt):
            raise
        return stop.discovery


def _compared(
    ours: Experiment, theirs: Experiment, threshold: float, ends: float, engine: str = "plain"
) -> dict[str, Any]:
    """The decisions of an incremental search beside those of another one, up to the first that differs."""
    now = time.monotonic()
    fast = _until(now + (ends - now) / 3, ours, threshold)
    slow = _until(ends - 5, theirs, threshold, engine)
    pairs = list(zip(fast.trace, slow.trace, strict=False))
    differs = next((at for at, (a, b) in enumerate(pairs) if (a.edge, a.kept) != (b.edge, b.kept)), None)
    same = pairs if differs is None else pairs[:differs]
    found: dict[str, Any] = {
        "decisions": len(same),
        "of": len(pairs),
        "all": max(len(fast.trace), len(slow.trace)),
        "kept": sum(one.kept for one in slow.trace),
        "off": max((abs(a.after - b.after) for a, b in same), default=0.0),
    }
    if differs is not None:
        mine, other = pairs[differs]
        margin = abs(other.after - other.before - threshold) / max(abs(other.after), threshold)
        # After it the two search other circuits, so nothing further can be held against each other.
        found |= {"differs_at": other.edge, "margin": margin, "edges_apart": _apart(fast, slow)}
        found |= {"after": [mine.after, other.after]}
    found["right"] = len(pairs) > 0 and (differs is None or found["margin"] < NEAR)
    return found


def _apart(fast: Any, slow: Any) -> int:
    return int((fast.circuit.edges != slow.circuit.edges).sum())


def decisions(device: str, small: bool, seconds: float) -> dict[str, Any]:
    """Decisions on the CPU and on the device, on the tasks whose models come along."""
    from edgewise.models.built_in import BUILT_IN
    from edgewise.models.hand_built import HAND_BUILT
    from edgewise.tasks.load import TASKS

    rows: list[dict[str, Any]] = []
    ends = time.monotonic() + seconds
    for name in TASKS:
        spec = TASKS[name]
        model = spec.default_model("default")
        if model not in BUILT_IN and model not in HAND_BUILT:
            continue
        if rows and (time.monotonic() > ends - 15 or small):
            break
        experiments: list[Experiment] = []
        for where in (device, "cpu"):
            decoder = load_model(model, device=where)
            experiments.append(Experiment(decoder, load_task(name, decoder, examples=4 if small else None)))
        threshold = experiments[0].task.threshold or 0.01
        there, here = experiments
        found = _compared(there, here, 4 * threshold if small else threshold, ends, engine="incremental")
        rows.append({"what": name, "model": model, **found})
    return {"rows": rows, "right": all(one["right"] for one in rows)}


def halving(device: str, small: bool, seconds: float) -> dict[str, Any]:
    """A search in so little memory that blocks of candidates have to be halved; it has to decide the same."""
    case = Case("4 layers x 4 heads, width 128", 8, 8) if small else Case("GPT-2 small", 64, 16)
    experiment = Experiment(model := make_model(case, device), make_task(model, case))
    made: list[IncrementalEngine] = []

    def engine(given: Experiment, max_memory: int | None) -> IncrementalEngine:
        made.append(IncrementalEngine(given, max_memory))
        return made[-1]

    before, each = _allocated(device), (seconds - 10) / 4
    plenty = _until(time.monotonic() + each, experiment, 0.002, engine)
    peak = _peak(device)
    tried: list[dict[str, Any]] = []
    for share in (0.6, 0.4, 0.25):
        most, halved = made[0].most, None
        try:
            with _cramped(device, before, int(share * (peak - before)), share):
                scarce = _until(time.monotonic() + each, experiment, 0.002, engine)
            halved, pairs = made[-1].most, list(zip(plenty.trace, scarce.trace, strict=False))
            same = bool(pairs) and all((one.edge, one.kept) == (other.edge, other.kept) for one, other in pairs)
        except Interrupted as stop:
            tried.append({"what": f"{share:.0%} of the peak", "most": most, "halved": 0, "stopped": str(stop)})
            continue
        tried.append({"what": f"{share:.0%} of the peak", "most": most, "halved": halved, "right": same})
    met = [one for one in tried if "right" in one and one["halved"] < one["most"]]
    return {"rows": tried, "right": bool(met) and all(one.get("right", True) for one in tried)}


class _cramped:  # noqa: N801 - used like a function
    """Within it, the device has so many bytes to spare; on a CPU, blocks of more than a few candidates find it full."""

    def __init__(self, device: str, held: int, spare: int, share: float) -> None:
        self.cuda, self.most = device != "cpu", held + spare
        self.candidates = int(64 * share) // 8
        self.measure: Any = IncrementalEngine._measure

    def __enter__(self) -> None:
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, max(self.most, torch.cuda.memory_reserved()) / whole))
            return
        measure, most = self.measure, self.candidates

        def full(engine: IncrementalEngine, reading: Any, candidates: Any) -> list[float]:
            if len(candidates) > most:
                raise torch.OutOfMemoryError("full on purpose")
            return measure(engine, reading, candidates)

        IncrementalEngine._measure = full  # pyright: ignore[reportAttributeAccessIssue]

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
        IncrementalEngine._measure = self.measure


def bfloat16(device: str, small: bool, seconds: float) -> dict[str, Any]:
    """A bfloat16 model on the device: the guard, the two engines beside each other, and the float32 model's circuit."""
    case = Case("4 layers x 4 heads, width 128", *((4, 6) if small else (16, 16)))
    whole = Experiment(model := make_model(case, device), make_task(model, case))
    half_case = replace(case, dtype="bfloat16")
    half = Experiment(model := make_model(half_case, device), make_task(model, half_case))
    prompts = half.task.prompts
    seen = compare(half.decoder, prompts.clean, prompts.mask)
    ends = time.monotonic() + seconds
    found = _compared(half, half, 0.002, ends)
    full, other = (_until(ends, one, 0.002).circuit for one in (whole, half))
    both = int((full.edges & other.edges).sum())
    found |= {"what": f"{case.shape}, {case.rows} x {case.length}", "guard": seen.right, "logits_off": seen.difference}
    found |= {"kept_in_float32": full.n_edges, "kept_in_both": both}
    # In bfloat16 two ways to the same number lie 1e-2 apart, so decisions near the threshold may well differ.
    found["right"] = seen.right and ("margin" not in found or found["margin"] < 0.5)
    return {"rows": [found], "right": found["right"]}


# -- fast ------------------------------------------------------------------------------------------------------------


def speed(asked: Speed, device: str, seconds: float) -> dict[str, Any]:
    """One search: time, peak memory, launches, kernels."""
    started, last = time.perf_counter(), time.monotonic() + seconds
    model = make_model(asked.case, device)
    task = make_task(model, asked.case)
    weights = sum(one.nbytes for one in {id(one): one for one in model.source.parameters()}.values())
    held = _allocated(device)
    _reset(device)
    _wait(device)
    made = time.perf_counter()
    experiment = Experiment(model, task)
    start = None
    if asked.within is not None:
        from edgewise.runs.shortlist import shortlist_of

        start = shortlist_of(asked.within, experiment)
    _wait(device)
    scored = time.perf_counter()
    scoring_peak = _peak(device) - held
    _reset(device)
    ends = time.monotonic() + SHARE * (last - time.monotonic())
    done: dict[str, Any] = {}

    def progress(now: Any) -> None:
        done.update(tests=now.tests, decided=now.decided, edges=now.edges)
        if time.monotonic() > ends:
            raise KeyboardInterrupt

    try:
        found, finished = acdc(experiment, asked.threshold, start=start, progress=progress), True
    except Interrupted as stop:
        found, finished = stop.discovery, False
    _wait(device)
    searched = time.perf_counter()
    peak = _peak(device) - held
    row: dict[str, Any] = {
        "what": asked.name,
        **asdict(asked.case),
        "threshold": asked.threshold,
        "within": asked.within,
        "edges": experiment.graph.n_edges,
        "finished": finished,
        "kept": found.circuit.n_edges,
        "tests": found.tests,
        "decided": done.get("decided"),
        "seconds": {"model": made - started, "scores": scored - made, "search": searched - scored},
        "bytes": {"weights": weights, "scores": scoring_peak, "search": peak},
    }
    row["profile"] = _profiled(experiment, asked.threshold, start, device, last - 10)
    return {"rows": [row], "right": True}


def _profiled(experiment: Experiment, threshold: float, start: Any, device: str, ends: float) -> dict[str, Any]:
    """Of the first inputs of a search, after one to warm up: launches per test, and what took most time."""
    from torch.profiler import ProfilerActivity, profile

    cuda, seen = device != "cpu", [0, 0]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    watch = profile(activities=activities)
    began = 0.0

    def progress(now: Any) -> None:
        nonlocal began
        seen[0] += 1
        late = time.monotonic() > ends
        if seen[0] < 2 and late:
            raise KeyboardInterrupt
        if seen[0] == 2:
            _wait(device)
            watch.start()
            seen[1], began = now.tests, time.perf_counter()
        elif seen[0] == 2 + PROFILED or (seen[0] > 2 and late):
            seen[1] = now.tests - seen[1]
            raise KeyboardInterrupt

    finished = False
    try:
        acdc(experiment, threshold, start=start, progress=progress)
        finished = True
    except Interrupted:
        pass
    if seen[0] < 2:
        return {"not_run": "the search, or its time, is over too soon"}
    _wait(device)
    elapsed = time.perf_counter() - began
    watch.stop()
    return profiled(watch.key_averages(), elapsed, None if finished else seen[1], cuda=cuda)


def profiled(averages: Iterable[Any], elapsed: float, tests: int | None, *, cuda: bool) -> dict[str, Any]:
    """What a profile says: launches, how busy the device was, and what it did most of the time.

    A kernel's time is the kernel's and once more the operation's that launched it: on a GPU kernels alone count.
    """
    launch, kind = ("LaunchKernel", "CUDA") if cuda else ("aten::", "CPU")
    launches = sum(one.count for one in averages if launch in one.key)
    spent = {
        one.key: (one.count, one.self_device_time_total if cuda else one.self_cpu_time_total)
        for one in averages
        if one.device_type.name == kind and not one.is_user_annotation
    }
    busy = sum(took for _, took in spent.values()) / 1e6
    ranked = sorted(spent.items(), key=lambda one: -one[1][1])[:8]
    return {
        "tests": tests,
        "seconds": elapsed,
        "launches": launches,
        "launches_per_test": None if not tests else launches / tests,
        "busy": busy / elapsed,
        "top": [
            {"name": key[:80], "count": count, "share": took / 1e6 / busy} for key, (count, took) in ranked if took
        ],
    }


# -- memory and time of a device -------------------------------------------------------------------------------------


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated() if device != "cpu" else _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device != "cpu" else _status("VmHWM")


def _reset(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


# -- stages ----------------------------------------------------------------------------------------------------------

RIGHT: dict[str, tuple[Callable[[str, bool, float], dict[str, Any]], float]] = {
    "twin": (twin, 20.0),
    "decisions": (decisions, 20.0),
    "halving": (halving, 15.0),
    "bfloat16": (bfloat16, 10.0),
}
"""By name: what is done, and the seconds without which it is not begun."""


def run_stage(name: str, device: str, small: bool, seconds: float) -> dict[str, Any]:
    """One stage, in this process."""
    if name in RIGHT:
        return RIGHT[name][0](device, small, seconds)
    asked = next(one for one in (*SPEEDS, *SMALL) if one.name == name)
    return speed(asked, device, seconds)


def in_a_process(name: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """One stage in a process of its own, which has so many seconds."""
    command = [sys.executable, __file__, "--stage", name, "--seconds", f"{seconds:.0f}", "--device", options.device]
    try:
        done = subprocess.run(
            [*command, *["--small"] * options.small], capture_output=True, text=True, check=False, timeout=seconds + 5
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {seconds:.0f} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"failed": said[-1] if said else f"exit code {done.returncode}", "stderr": said[-30:]}
    return json.loads(done.stdout.splitlines()[-1])


def machine(device: str) -> dict[str, Any]:
    import transformers

    where: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    where |= {"transformers": transformers.__version__, "processor": f"{platform.machine()}, {os.cpu_count()} cores"}
    if device != "cpu":
        about = torch.cuda.get_device_properties(0)
        where |= {"gpu": about.name, "gpu_memory": about.total_memory, "cuda": torch.version.cuda}
    return where


def table(found: dict[str, dict[str, Any]]) -> str:
    """Everything measured, in Markdown."""
    lines = ["| check | what | decisions alike | off by | |", "|---|---|---|---|---|"]
    for name in (one for one in found if one in RIGHT):
        stage = found[name]
        if "rows" not in stage:
            lines.append(f"| {name} | | | | {stage.get('failed') or stage['not_run']} |")
        lines += [f"| {name} | {_row_of_check(one)} |" for one in stage.get("rows", ())]
    lines += [
        "",
        "| shape | prompts x tokens | dtype | edges | searched | kept | tests | scores | search | per test | weights | "
        "peak beyond them: scores, search | launches per test | device busy | most of the time |",
        "|" + "---|" * 15,
    ]
    for name in (one for one in found if one not in RIGHT):
        stage = found[name]
        if "rows" not in stage:
            lines.append(f"| {name} | {stage.get('failed') or stage['not_run']} |" + " |" * 13)
        lines += [_row_of_speed(one) for one in stage.get("rows", ())]
    return "\n".join(lines)


def _row_of_check(one: dict[str, Any]) -> str:
    if "halved" in one:
        said = one.get("stopped") or ("all alike" if one["right"] else "NOT alike")
        return f"{one['what']} | {said} | | blocks of at most {one['most']}, then {one['halved']}"
    about = "" if one["right"] else "**NOT alike** "
    if "differs_at" in one:
        about += (
            f"first at {one['differs_at']}, {one['margin']:.1e} from the threshold; {one['edges_apart']} edges apart"
        )
    if "guard" in one:
        about += f" guard {'passes' if one['guard'] else 'FAILS'}; {one['kept_in_both']} of {one['kept_in_float32']} "
        about += "edges of float32 are kept"
    if one["of"] < one["all"]:
        about += f" stopped, of {one['all']} in all"
    return f"{one['what']} | {one['decisions']} of {one['of']} | {one['off']:.0e} | {about.strip()}"


def _row_of_speed(one: dict[str, Any]) -> str:
    spent, taken, profile = one["seconds"], one["bytes"], one["profile"]
    whole = "all" if one["within"] is None else f"within {one['within']:,}"
    whole += "" if one["finished"] else f", stopped at {one['tests']:,} tests"
    launches = profile.get("launches_per_test")
    top = "; ".join(f"{100 * kernel['share']:.0f}% {kernel['name'][:40]}" for kernel in profile.get("top", ())[:3])
    busy = "" if "busy" not in profile else f"{100 * profile['busy']:.0f}%"
    return (
        f"| {one['shape']} | {one['rows']} x {one['length']} | {one['dtype']} | {one['edges']:,} | {whole} | "
        f"{one['kept']:,} | {one['tests']:,} | {spent['scores']:.1f} s | {spent['search']:.1f} s | "
        f"{1e3 * spent['search'] / max(1, one['tests']):.2f} ms | {taken['weights'] / 1e9:.2f} GB | "
        f"{taken['scores'] / 1e9:.2f} GB, {taken['search'] / 1e9:.2f} GB | "
        f"{'' if launches is None else f'{launches:.0f}'} | {busy} | {top.replace('|', '/')} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="the time for everything")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the code")
    parser.add_argument("--only", default="", help="only stages whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="everything measured, as JSON")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("torch finds no CUDA device here; --device cpu --small tries the same code without one", file=sys.stderr)
        return 2
    if options.stage:
        seconds = options.seconds - (time.monotonic() - BEGAN)
        print(json.dumps(run_stage(options.stage, options.device, options.small, seconds)))
        return 0
    ends, where, found = time.monotonic() + 60 * options.minutes, machine(options.device), {}
    print(json.dumps(where), flush=True)
    speeds = {one.name: one.need for one in (SMALL if options.small else SPEEDS)}
    needs = {name: 0.0 if options.small else need for name, (_, need) in RIGHT.items()} | speeds
    for name, need in needs.items():
        if options.only not in name:
            continue
        left = ends - time.monotonic()
        if left < need:
            found[name] = {"not_run": f"not run: {max(0, left):.0f} s were left"}
        else:
            began = time.monotonic()
            found[name] = in_a_process(name, options, left if name in speeds else min(left, 90))
            found[name]["took"] = time.monotonic() - began
        told = found[name].get("failed") or found[name].get("not_run") or ("right" if found[name]["right"] else "WRONG")
        print(f"{name}: {told} ({found[name].get('took', 0):.0f} s)", flush=True)
        # Written as it grows, so that nothing is lost if this process is.
        options.out.write_text(json.dumps({"machine": where, "stages": found}, indent=1) + "\n")
    print(f"\n{table(found)}\n\nwritten to {options.out}")
    return 0 if all(one.get("right", "not_run" in one) for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
