"""How good is it: what the model says, and what a circuit keeps of it."""

from edgewise.evaluation.answers import Said, answers_of
from edgewise.evaluation.evaluate import Evaluation, Measured, evaluate
from edgewise.evaluation.roc import RocPoint, roc_point, roc_points

__all__ = ["Evaluation", "Measured", "RocPoint", "Said", "answers_of", "evaluate", "roc_point", "roc_points"]
