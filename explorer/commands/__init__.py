"""`rapidin-explorer`: what a person types, and what is printed.

In come arguments; out come lines, JSON, files and an exit status. All that is computed
is computed in other rooms; this is the only one that knows `precompute`.
"""
