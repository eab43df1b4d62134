"""How good a circuit is."""

from edgewise.evaluation.evaluate import Evaluation, Measured, evaluate

__all__ = ["Evaluation", "Measured", "evaluate"]
