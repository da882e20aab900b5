"""Training data as people keep it → examples → token sequences that a model can read.

In come files, folders and hub data sets in many forms; out come examples, each with its row and line,
or one report of all rows that can't be used. It knows nothing of gradients, caches and templates.
"""

from precompute.data.fitting import readable, sequences_of
from precompute.data.reading import Reading, data_hash, named_columns, read_examples
from precompute.data.rows import Review

__all__ = ["Reading", "Review", "data_hash", "named_columns", "read_examples", "readable", "sequences_of"]
