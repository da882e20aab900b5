"""How well methods do where the truth is known, what they cost, how true sketches are.

In come probes, questions with classes, and methods; out come figures, kept as JSON with
how they were made, and tables of them. It knows nothing of the command line and of pages.
"""
