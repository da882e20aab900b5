"""Methods that multiply the question's gradient with the examples': RapidIn, TracIn, TRAK.

In come answers and selections; out come scores and exact token values. They know
nothing of curvature.
"""
