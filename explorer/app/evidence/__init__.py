"""What the training data themselves say of an answer: passages word for word, rows for and against a word.

Panels that are closed to one line each. They know nothing of scores.
"""
