"""Questions as people write them in files: a prompt, or turns, or either behind a system prompt.

In come rows that were read as JSON or CSV; out come prompts and conversations. It knows neither files nor models.
"""

from explorer.questions.turns import FIELDS, read_question, read_turns

__all__ = ["FIELDS", "read_question", "read_turns"]
