"""One word of an answer, asked of adapters that were trained without some rows, and without as many others.

In come an engine and which rows to do without; out comes what became of the word, as plain values, and the record of
the question in the cache's folder, by which it goes on wherever it was left. It knows nothing of pages and commands.
"""
