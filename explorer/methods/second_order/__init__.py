"""Influence functions: the question's gradient times a damped inverse curvature, then as first-order methods do.

In come some training rows and a damping; out comes a preconditioned direction. Its
solvers know nothing of language models.
"""
