"""Scores beside what the model becomes: after training on other rows, or after one more step on a row.

In come an engine, probes, methods and what trainings expect; out come the tables of a result. It trains no model from
the beginning, and knows nothing of files.
"""
