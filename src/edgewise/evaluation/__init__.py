"""How good is it: what the model says, and what a circuit keeps of it."""

from edgewise.evaluation.answers import Said, answers_of
from edgewise.evaluation.evaluate import Evaluation, Measured, evaluate
from edgewise.evaluation.random_circuits import random_circuit
from edgewise.evaluation.roc import Counted, RocCurve, RocPoint, area_under, frontier, roc_curve, roc_point, roc_points

__all__ = [
    "Counted",
    "Evaluation",
    "Measured",
    "RocCurve",
    "RocPoint",
    "Said",
    "answers_of",
    "area_under",
    "evaluate",
    "frontier",
    "random_circuit",
    "roc_curve",
    "roc_point",
    "roc_points",
]
