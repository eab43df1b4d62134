"""What happens if: ablations, circuit runs, and experiments that measure them."""

from edgewise.patching.ablation import ABLATIONS, Ablated, ablate
from edgewise.patching.circuit_run import circuit_run
from edgewise.patching.experiment import Experiment

__all__ = ["ABLATIONS", "Ablated", "Experiment", "ablate", "circuit_run"]
