"""How good is it: what the model says, and what a circuit keeps of it."""

from edgewise.evaluation.answers import Said, answers_of
from edgewise.evaluation.evaluate import Evaluation, Measured, evaluate

__all__ = ["Evaluation", "Measured", "Said", "answers_of", "evaluate"]
