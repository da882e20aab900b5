"""Adapters trained anew on some of the rows: what a model says that never saw the others.

In come a cache's rows, the recipe of its adapter, and which rows to leave out; out come adapters, kept as any adapter
is, and what each makes of some answers. It knows nothing of scores, methods and commands.
"""

from precompute.retraining.adapters import Retrained
from precompute.retraining.parts import Part, again, all_but, halves, membership, others, without
from precompute.retraining.trainings import LONGEST, Asked, Expected, Trainings, estimate

__all__ = [
    "LONGEST",
    "Asked",
    "Expected",
    "Part",
    "Retrained",
    "Trainings",
    "again",
    "all_but",
    "estimate",
    "halves",
    "membership",
    "others",
    "without",
]
