"""Which of PyTorch's two ways of multiplying float32 matrices on CPU is the faster one here, measured once per machine.

A first large product measures both for a fifth of a second and keeps the answer in the user's cache folder, by
processor, PyTorch version and number of threads, so that the next run multiplies, and rounds, as this one did. Run
records have it among their versions.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.files import user_cache, write_text
from edgewise.json_files import read_json

ONEDNN, DEFAULT = "oneDNN", "default"
"""`default` is what PyTorch does by itself: MKL, or whatever it was built with."""
VARIABLE = "EDGEWISE_PRODUCTS"
"""Environment variable: `onednn` or `default` decides, and nothing is measured."""
LARGE = 1 << 18
"""Numbers in a weight matrix from which the choice matters; products with smaller ones are oneDNN's everywhere."""
CLEARLY = 1.1
"""How many times as fast the default has to be to be taken: less is the noise of a busy machine."""
ROWS, INNER, OUTER, REPEATS = 256, 768, 1536, 5

Product = Callable[[Tensor, Tensor], Tensor]


def chosen(onednn: Product) -> str:
    """`ONEDNN` or `DEFAULT`, for the threads that PyTorch has now.

    Args:
        onednn: `x` `[rows, in]` times `weight` `[out, in]`, transposed, by oneDNN.
    """
    wanted = os.environ.get(VARIABLE, "").lower()
    if wanted in (ONEDNN.lower(), DEFAULT):
        return ONEDNN if wanted == ONEDNN.lower() else DEFAULT
    return _chosen(torch.get_num_threads(), onednn)


@functools.cache
def _chosen(threads: int, onednn: Product) -> str:
    file, key = _file(), f"{_processor()}, torch {torch.__version__}, {threads} threads"
    try:
        kept = read_json(file, "what was measured of matrix products") if file.is_file() else {}
    except (EdgewiseError, OSError):
        kept = {}  # measured anew, and written whole
    entry = kept.get(key)
    if not isinstance(entry, dict) or entry.get("chosen") not in (ONEDNN, DEFAULT):
        entry = measured(onednn)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps({**kept, key: entry}, indent=1) + "\n")
        except (EdgewiseError, OSError):
            pass  # no folder of one's own: it is measured in each process
    return str(entry["chosen"])


def measured(onednn: Product) -> dict[str, float | str]:
    """Billions of operations per second of processor time by both ways, the best of a few each in turn, and the choice.

    Processor time, since other work on the machine changes it least.
    """
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, INNER, generator=draw) for size in (ROWS, OUTER))
    ways: dict[str, Product] = {ONEDNN: onednn, DEFAULT: torch.nn.functional.linear}
    best = dict.fromkeys(ways, float("inf"))
    with torch.no_grad(), torch._C.DisableTorchFunction():
        for number in range(REPEATS + 1):
            for name, way in ways.items():
                started = time.process_time()
                way(x, weight)
                if number:  # the first one warms up
                    best[name] = min(best[name], time.process_time() - started)
    speed = {name: 2e-9 * ROWS * INNER * OUTER / seconds for name, seconds in best.items()}
    choice = DEFAULT if speed[DEFAULT] >= CLEARLY * speed[ONEDNN] else ONEDNN
    return {**{name: round(one, 1) for name, one in speed.items()}, "chosen": choice}


def _file() -> Path:
    return user_cache() / "products.json"


def _processor() -> str:
    """The processor's model; of some virtual ones no more than family and stepping tell them apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in about.items()}
    wanted = ("model name", "cpu family", "model", "stepping")
    found = " ".join(named[name] for name in wanted if name in named)
    return f"{found} {torch.backends.cpu.get_cpu_capability()}".strip()
