"""Many prompts at once: answered, attributed, and counted by what influenced them.

In come prompts and a label to count by; out come one record a prompt, a summary, CSV and
JSON. It knows nothing of who asked, a page or a command.
"""
