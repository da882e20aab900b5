"""What stands behind an answer besides scores: passages word for word, rows for and against a word, trainings without.

Panels that are closed to one line each. They know nothing of how examples were scored.
"""
