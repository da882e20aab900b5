"""A training run as its trainer left it → what it trained, from what, how, and how it read its rows.

It reads output folders of transformers' Trainer and what builds on it (TRL, LLaMA-Factory, axolotl, unsloth), bare
adapters, whole models, and our own. Losses tell which reading of the data fits the run. It knows nothing of caches.
"""

from precompute.runs.folder import Run, open_run
from precompute.runs.matching import Match, match
from precompute.runs.readings import Known, Reading

__all__ = ["Known", "Match", "Reading", "Run", "match", "open_run"]
