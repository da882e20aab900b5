"""A benchmark of fact tracing made here: invented facts, a model that is taught them, and the caches of both stages.

In come a base model and a seed; out come a corpus, questions, two trained models and their caches, in one folder.
It knows nothing of methods and figures.
"""

from precompute.invented.making import Made, Settings, cost, make

__all__ = ["Made", "Settings", "cost", "make"]
