"""The Explore page: the answer and its words, the training examples behind what is selected.

In come an answer and a selection; out come the answer's strip, its colours, cards, the
matrix, ranks by other methods, and what a first visitor sees.
"""
