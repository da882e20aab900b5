"""A language model, its adapter and its tokenizer, as the rest of the project sees them.

In come names of models, adapter folders and messages; out come token ids, generated
tokens, logits, the trainable tensors and their checkpoints, and a fingerprint that
tells models apart. It knows nothing of gradients, caches and scores.

Modules are imported one by one, for most of them load torch.
"""
