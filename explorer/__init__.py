"""Which training examples made a fine-tuned model say that: the library, its commands and its app.

Rooms build on each other in one direction: model, gradients, cache, retrieval, corpus, trust, history, engine, methods,
evaluation and auditing, commands and app. ARCHITECTURE.md says what each is for; `lint-imports` checks the order.
"""
