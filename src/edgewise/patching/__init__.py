"""What happens if: ablations, circuit runs, and experiments that measure them."""

from edgewise.patching.ablation import ABLATIONS, Ablated, ablate
from edgewise.patching.circuit_run import circuit_run
from edgewise.patching.experiment import Experiment
from edgewise.patching.incremental import IncrementalEngine

__all__ = ["ABLATIONS", "Ablated", "Experiment", "IncrementalEngine", "ablate", "circuit_run"]
