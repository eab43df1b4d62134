"""What happens if: ablations, circuit runs, and experiments that measure them."""

from edgewise.patching.ablation import ABLATIONS, Ablated, Ablation, ablate
from edgewise.patching.constants import Constants
from edgewise.patching.costs import Costs, calibrate
from edgewise.patching.engine import Engine, PlainEngine, Removed
from edgewise.patching.experiment import Experiment
from edgewise.patching.incremental import IncrementalEngine
from edgewise.patching.memory import MemoryKind, MemoryPlan, OutOfMemoryError, memory_of, parse_size, plan_memory, size
from edgewise.patching.pruned import PrunedEngine
from edgewise.patching.running import circuit_run

__all__ = [
    "ABLATIONS",
    "Ablated",
    "Ablation",
    "Constants",
    "Costs",
    "Engine",
    "Experiment",
    "IncrementalEngine",
    "MemoryKind",
    "MemoryPlan",
    "OutOfMemoryError",
    "PlainEngine",
    "PrunedEngine",
    "Removed",
    "ablate",
    "calibrate",
    "circuit_run",
    "memory_of",
    "parse_size",
    "plan_memory",
    "size",
]
