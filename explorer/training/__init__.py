"""How `finetune` trains an adapter, and the same training once more: forwards, and backwards through every step.

In come a recipe, a loaded model and encoded rows; out come states of the training, and derivatives of what it ended
with by the weight of every row. It knows nothing of caches, of questions, or of where adapters are kept.
"""
