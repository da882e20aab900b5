"""Saved answers with all that was found about them in one sealed file, for people without the model and the cache.

In come records of the history and of trainings; out comes a file with its own checksum, the same records again out of
a file that anybody may have written, and whether a model and a cache still say the same. It knows nothing of commands
and pages.
"""
