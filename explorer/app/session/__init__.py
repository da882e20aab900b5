"""What a browser's session remembers, and how it is found again: state, caches, history, addresses.

In come session keys and addresses; out come the desks, stores and answers that they name.
"""
