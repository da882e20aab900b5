"""The turns of a conversation, as chat data (`role`, `content`) and ShareGPT (`from`, `value`) have them.

A turn keeps what a template may render: who speaks, the text, and what is known beside them. Any other key that says
something is refused by name, so that nothing of what a model may have been trained on is left out in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from explorer.records import Message
from explorer.text_files import json_value
from explorer.visible import one_line
from precompute.data.rows import BadRow

_TEXTS = ("name", "tool_call_id", "reasoning_content", "reasoning", "thinking")
_CALLS = ("tool_calls", "function_call")
_KNOWN = (*_TEXTS, *_CALLS)
_NEEDS = "every message needs a role and a content, both text"
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "system": "system",
}
"""ShareGPT's names of who speaks, as roles."""


@dataclass(frozen=True)
class Conversation:
    """The turns before an answer, and the answer."""

    messages: list[Message]
    response: str
    """The answer's text; empty where it only calls tools."""
    turn: Message = field(default_factory=dict)
    """What the answer's turn says besides."""
    earlier: bool = False
    """Whether there are earlier answers that the data doesn't leave out of the loss itself."""
    uncounted: tuple[int, ...] = ()
    """The places among `messages` of the answers that it leaves out."""


def listed(value: Any, name: str, what: str) -> list[Any]:
    """A list, or JSON text of one. Raises BadRow that says `what` it must be a list of."""
    if isinstance(value, str):
        try:
            value = json_value(value)
        except ValueError:
            value = None
    if not isinstance(value, list):
        raise BadRow(f"has {name} that can't be read: {name} must be a list of {what}")
    return value


def conversation(value: Any, name: str, sharegpt: bool = False) -> Conversation:
    """A list of turns that ends with an assistant's. Raises BadRow naming what isn't understood."""
    read = [_turn(turn, sharegpt) for turn in listed(value, name, "turns with a role and a content")]
    if len(read) < 2 or read[-1][0]["role"] != "assistant":
        raise BadRow(f"has no answer at its end: {name} must end with an assistant's turn after another")
    turns = [turn for turn, _ in read]
    answers = [(place, weight) for place, (turn, weight) in enumerate(read[:-1]) if turn["role"] == "assistant"]
    uncounted = tuple(place for place, weight in answers if weight == 0)
    if read[-1][1] == 0:
        raise BadRow("has a weight of 0 on its last answer, so that nothing of it is in the loss")
    answer = turns[-1]
    said = {key: each for key, each in answer.items() if key not in ("role", "content") or each is None}
    return Conversation(turns[:-1], answer["content"] or "", said, len(uncounted) < len(answers), uncounted)


def turns_of(value: Any, name: str) -> list[Message]:
    """A list of turns, whoever has the last word. Raises BadRow naming what isn't understood."""
    return [_turn(turn, False)[0] for turn in listed(value, name, "turns with a role and a content")]


def _turn(turn: Any, sharegpt: bool) -> tuple[Message, int | None]:
    """A turn with its weight, None where it has none. Raises BadRow."""
    if not isinstance(turn, dict):
        raise BadRow(f"has a {type(turn).__name__} among its turns: {_NEEDS}")
    given = {key: value for key, value in turn.items() if value is not None and value != [] and value != {}}
    who, what = ("role" if "role" in given else "from"), ("content" if "content" in given else "value")
    role, content = given.pop(who, None), _text(given.pop(what, None))
    if not isinstance(role, str):
        raise BadRow(f"has a turn without a role: {_NEEDS}")
    if sharegpt or who == "from":
        role, content, given = _by_sharegpt(role, content, given)
    weight = _weight(given.pop("weight", None), role)
    unknown = [key for key, value in given.items() if key not in _KNOWN and value != ""]
    if unknown:
        raise BadRow(f"has a turn with {_shown(unknown)}, which isn't understood; known are {_shown(_KNOWN)}")
    kept = {key: _checked(key, value) for key, value in given.items() if key in _KNOWN and value != ""}
    if content is None and not any(key in kept for key in _CALLS):
        raise BadRow(f"has a turn without a content: {_NEEDS}")
    return {"role": role, "content": content, **kept}, weight


def _text(content: Any) -> str | None:
    """The text of a content, which may come in parts. Raises BadRow for a part that isn't text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRow(f"has a {type(content).__name__} as a content: {_NEEDS}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        said = {key for key, value in part.items() if value is not None} if isinstance(part, dict) else set()
        if kind != "text" or said != {"type", "text"} or not isinstance(part["text"], str):
            more = f" with {_shown(sorted(map(str, said - {'type', 'text'})))}" if kind == "text" else ""
            found = f"a part of the type {one_line(str(kind), 40)}{more}"
            raise BadRow(f"has a content with {found}, which isn't understood: {_NEEDS}")
        texts.append(part["text"])
    return "".join(texts)


def _weight(weight: Any, role: str) -> int | None:
    """What a turn's `weight` says. Raises BadRow for one that can't be honoured."""
    if weight is None:
        return None
    if weight not in (0, 1) or (weight and role != "assistant"):
        found = f"a weight of {one_line(repr(weight), 20)} on a turn of {one_line(role, 20)}"
        raise BadRow(f"has {found}; an answer's may be 0 or 1")
    return int(weight) if role == "assistant" else None


def _by_sharegpt(role: str, content: str | None, given: dict[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    """A turn of ShareGPT as one of chat data. Raises BadRow."""
    if role not in _SPEAKERS:
        raise BadRow(f"has a turn from {one_line(role, 40) or 'nobody'}; known are {_shown(tuple(_SPEAKERS))}")
    if role != "function_call":
        return _SPEAKERS[role], content, given
    try:
        calls = json_value(content or "")
    except ValueError:
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and {"name", "arguments"} == set(call) for call in calls):
        raise BadRow("has a turn from function_call that isn't a JSON object of name and arguments, or a list of such")
    return "assistant", None, {**given, "tool_calls": [{"type": "function", "function": call} for call in calls]}


def _checked(key: str, value: Any) -> Any:
    """What a turn says under a known key. Raises BadRow where it is of another kind."""
    if key == "tool_calls":
        value = listed(value, key, "calls")
    fits = (
        all(isinstance(call, dict) for call in value)
        if key == "tool_calls"
        else isinstance(value, dict if key == "function_call" else str)
    )
    if not fits:
        raise BadRow(f"has a turn whose {key} isn't understood: it is a {type(value).__name__}")
    return value


def _shown(names: Sequence[str]) -> str:
    return one_line(", ".join(names), 200)
