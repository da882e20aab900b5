"""Methods without gradients: chance, likeness of texts, likeness of hidden states.

In come texts or hidden states; out come scores without a sign. They know nothing of
single tokens.
"""
