"""Ways to score training examples, all by one interface.

In come an engine's cache, answers and what is selected of them; out come scores of all
examples, exact values, and whatever else a method can say (`abilities`). `Attributor`
is how any of them is asked; `Bench` holds all of one engine. Nobody outside asks which
method it is. Methods know nothing of browsers, of commands, or of how well they do.

`description` alone loads no torch, so that pages and records can speak of methods.
"""
