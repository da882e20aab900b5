"""The Compare page: two answers side by side, and the training examples behind both.

In come two answers; out come the page's form, its two sides and its examples.
"""
