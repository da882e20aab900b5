"""The Audit page's parts: several of its answers asked about as one question.

In come the answers of an audit; out come what taught the model to give them, and its files.
"""
