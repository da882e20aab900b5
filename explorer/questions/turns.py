"""A row of a file → the question that it asks."""

from collections.abc import Mapping
from typing import Any

from explorer.errors import DataError
from explorer.records import Conversation, Message, Prompt
from explorer.visible import one_line, well_formed

ROLES = ("system", "developer", "user", "assistant", "tool")
FIELDS = ("prompt", "messages", "system")
"""The keys of a row that make a question."""
_REFUSED = ("tools", "functions", "history")
"""Keys that would change what the model reads, and that no question is made with."""


def read_question(row: Mapping[str, Any], where: str) -> Prompt:
    """The question of a row: its `prompt`, or its turns as `messages`; behind its `system` prompt, where it has one.

    Raises DataError, whose message begins with `where` the row stands.
    """
    refused = [name for name in _REFUSED if row.get(name)]
    if refused:
        raise DataError(f"{where} has {refused[0]}, which no question is asked with; give its turns as messages.")
    prompt, turns, system = (row.get(name) for name in FIELDS)
    if turns is None:
        if not isinstance(prompt, str):
            raise DataError(
                f'{where} has no text as "prompt"; write {{"prompt": "…"}}, or a list of turns as "messages".'
            )
        question: Prompt = well_formed(prompt)
    elif prompt is not None:
        raise DataError(f'{where} has both "prompt" and "messages"; leave one of them out.')
    else:
        question = read_turns(turns, where)
    if system is None:
        return question
    if not isinstance(system, str):
        raise DataError(f'{where} has no text as "system"; write {{"system": "…"}}, or leave it out.')
    asked = Conversation.of(question)
    if asked.turns[0]["role"] == "system":
        raise DataError(f'{where} has a "system" prompt, and turns that begin with one; leave one of them out.')
    with_it = asked.with_system(well_formed(system))
    return question if with_it is asked else with_it


def read_turns(turns: Any, where: str) -> Conversation:
    """A list of turns, the last of them the user's. Raises DataError, whose message begins with `where` it stands."""
    if not isinstance(turns, list) or not turns:
        raise DataError(f'{where} has no list of turns; write [{{"role": "user", "content": "…"}}].')
    found = tuple(_turn(turn, f"{where.rstrip(',')}, turn {number},") for number, turn in enumerate(turns, start=1))
    last = found[-1]["role"]
    if last != "user":
        raise DataError(
            f"{where} ends with a turn of the role {last}; a question ends with the user's turn, without the answer."
        )
    return Conversation(found)


def _turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f'{where} is no object; write {{"role": "user", "content": "…"}}.')
    for key in ("role", "content"):
        if not isinstance(turn.get(key), str):
            raise DataError(f'{where} has no text as "{key}"; write {{"role": "user", "content": "…"}}.')
    if turn["role"] not in ROLES:
        raise DataError(f"{where} has the role {one_line(turn['role'], 40)}; give one of {', '.join(ROLES)}.")
    others = ", ".join(sorted(key for key in turn if key not in ("role", "content")))
    if others:
        raise DataError(f"{where} has {one_line(others, 100)}, which no question is asked with; leave it out.")
    return {"role": turn["role"], "content": well_formed(turn["content"])}
