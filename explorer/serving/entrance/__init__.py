"""Who may come in, what whoever may not is told, and what browsers may do with what they get.

In come requests and the tokens of people; out comes what lies behind, told who asks, or a refusal. It knows nothing
of pages: all of it is ASGI middleware and plain values.
"""
