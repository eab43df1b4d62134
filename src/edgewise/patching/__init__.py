"""What happens if: ablations, circuit runs, and experiments that measure them."""

from edgewise.patching.ablation import ABLATIONS, Ablated, ablate
from edgewise.patching.circuit_run import circuit_run
from edgewise.patching.experiment import Experiment
from edgewise.patching.incremental import Costs, IncrementalEngine
from edgewise.patching.memory import MemoryKind, MemoryPlan, OutOfMemoryError, parse_size, plan_memory, size

__all__ = [
    "ABLATIONS",
    "Ablated",
    "Costs",
    "Experiment",
    "IncrementalEngine",
    "MemoryKind",
    "MemoryPlan",
    "OutOfMemoryError",
    "ablate",
    "circuit_run",
    "parse_size",
    "plan_memory",
    "size",
]
