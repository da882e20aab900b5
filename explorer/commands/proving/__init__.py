"""`bundle` and `repair`: what an audit leaves behind, as evidence for others and as a mended model.

In come a cache, saved answers and rows; out come one sealed file, or a folder with the cleaned data, the adapter that
was trained on it, its cache, and both models side by side.
"""
