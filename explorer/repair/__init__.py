"""From rows that are suspected to a model that never saw them: cleaned data, adapter, cache, and what changed.

In come a cache with its model, which rows to drop or replace, and probes; out comes a folder of its own that goes on
wherever it was stopped. Nothing of the original is written to but the place for what trainings found. It knows nothing
of commands and pages.
"""
