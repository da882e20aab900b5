"""The offline step: data → fine-tuned adapter, sketches of every example, token sketches, null scores.

In come data files and a model; out comes a cache, whose bytes are the same however often
the work was stopped, and wherever it was done. It knows nothing of questions and of pages.
"""
