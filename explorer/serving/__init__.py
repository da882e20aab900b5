"""What is needed before the first question: the cache opened with its model, the server started.

In come folders and settings; out come an engine, or a running server's address. It knows
nothing of what pages show.
"""
