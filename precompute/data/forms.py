"""A row → an example, in every form that people keep conversations in.

Texts (`prompt` and `response`, `prompt` and `completion`, Alpaca's `instruction`, `input` and `output`), lists of turns
(`messages`, ShareGPT's `conversations`, TRL's `prompt` and `completion` as lists), preference pairs (`chosen` and
`rejected`, with a prompt or as whole conversations), of which the chosen answer is read, and what goes with any of
them: `system`, `history`, `tools`. Columns that a form doesn't use stay labels. A row that has none of these but a
`text` is a document of raw text.
"""

import json
from collections.abc import Mapping
from typing import Any

from explorer.records import DOCUMENT, START, STOP, Example, Message
from explorer.visible import one_line
from precompute.data.rows import BadRow, Review, Row
from precompute.data.turns import Conversation, conversation, listed, turns_of

_FORMS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("conversations",),
    ("prompt", "chosen"),
    ("instruction", "chosen"),
    ("chosen",),
)
"""The columns that each form needs. A row that has several is read by the first."""
TEXT = "text"
"""The column of raw text."""
NAMES = tuple(
    dict.fromkeys(
        [name for form in _FORMS for name in form] + ["rejected", "input", "system", "history", "tools", TEXT]
    )
)
"""The columns that are known."""
_EXPECTED = (
    "expected prompt and response (or completion), instruction and output (Alpaca), messages (chat), conversations "
    "(ShareGPT), chosen and rejected, or text (raw text); --column prompt=NAME reads another column as one of them"
)
_PAIRS = "pairs of a question and an answer (rename the column if it is a label)"
_DESCRIPTIONS = "descriptions of functions (rename the column if it is a label)"
PAIRS = (
    "Of preference pairs the chosen answer is read, and gradients are of its loss alone; the rejected one is a label"
)
EARLIER = "Only the last answer of a conversation is in the loss; earlier ones are part of its prompt"
_ALIKE = {"context": "input", "system_prompt": "system"}
"""Columns that other programs put into the prompt, and what they are known as here."""


class _Fields:
    """The known columns of a row, by the names that they are known by."""

    def __init__(self, row: Row, columns: Mapping[str, str]):
        self._row, self._columns = row, columns
        self._value: dict[str, Any] = _without_nulls(row.value) if row.columnar else row.value
        self.used = set[str]()
        """The names of those that became part of the example."""

    def __getitem__(self, name: str) -> Any:
        return self._value.get(self._columns.get(name, name))

    def says(self, name: str) -> bool:
        """Whether there is such a column, with something in it."""
        return self[name] not in (None, "", [], {})

    def use(self, *names: str) -> None:
        """These became part of the example."""
        self.used |= {self._columns.get(name, name) for name in names}

    def candidates(self) -> list[tuple[str, ...]]:
        """The forms whose columns are all there; those without an answer only where none has one.

        Where a mapping names a column of some forms, only those count.
        """
        chosen = [form for form in _FORMS if not self._columns.keys().isdisjoint(form)] or _FORMS
        there = [form for form in chosen if all(self[name] is not None for name in form)]
        if self["rejected"] is None:
            # A column of this name alone may be anything.
            there = [form for form in there if form[-1] != "chosen"]
        return [form for form in there if self.says(form[-1])] or there

    def again(self) -> "_Fields":
        """The same, of which nothing is used yet."""
        return _Fields(self._row, self._columns)


def read_row(row: Row, columns: Mapping[str, str], review: Review) -> Example:
    """The example that a row holds; `columns` names the column of a known name, where it has another.

    Raises BadRow.
    """
    if row.problem:
        raise BadRow(row.problem)
    if not isinstance(row.value, dict):
        raise BadRow(f"is a {type(row.value).__name__}; expected an object")
    _check_text(row.value)
    if row.value.get("chat_template_kwargs"):
        raise BadRow("has chat_template_kwargs, which a template isn't given here")
    if row.value.get("functions") and "functions" not in columns.values():
        raise BadRow("has functions, an older name of tools; --column tools=functions reads them as such")
    fields = _Fields(row, columns)
    forms = fields.candidates()
    if TEXT in columns or (not forms and isinstance(row.value.get(TEXT), str)):
        return _document(fields, row)
    if forms and forms[0] == ("prompt", "completion") and row.value.get("label") is False:
        raise BadRow("has a completion whose label is false, an answer that the training avoids (KTO)")
    if not forms:
        raise BadRow(_formless(row.value))
    found = _read(fields, forms[0])
    if not found.response.strip() and not found.turn.keys() & {"tool_calls", "function_call"}:
        raise BadRow("has an empty response")
    _check_agreed(found, fields, forms)
    fields.use(*forms[0])
    system = _system(fields, found.messages)
    messages = [*system, *found.messages]
    uncounted = tuple(place + len(system) for place in found.uncounted)
    tools = _tools(fields)
    for name in ("system", "history", "tools"):
        if (column := columns.get(name, name)) in fields.used:
            review.note(f"The column {one_line(column, 40)} is read as {name}, and is part of the prompt")
    if found.earlier:
        review.note(EARLIER)
    if forms[0][-1] == "chosen":
        review.note(PAIRS)
    labels = {key: value for key, value in row.value.items() if key not in fields.used}
    for column, name in _ALIKE.items():
        fits = "instruction" in forms[0] if name == "input" else messages[0]["role"] != "system"
        if fits and isinstance(labels.get(column), str) and labels[column] and not fields.says(name):
            review.note(
                f"The column {column} is a label and no part of the prompt; --column {name}={column} puts it there"
            )
    return Example(tuple(messages), found.response, labels, found.turn, tools, uncounted, row.place)


def _document(fields: _Fields, row: Row) -> Example:
    """A document of raw text, by its name or that of its row. Raises BadRow."""
    text = fields[TEXT]
    if not isinstance(text, str) or not text.strip():
        raise BadRow("has an empty text" if isinstance(text, str) or text is None else "has a text that is no text")
    fields.use(TEXT)
    labels = {key: value for key, value in row.value.items() if key not in fields.used}
    if taken := sorted({START, STOP} & labels.keys()):
        raise BadRow(f"has a column {taken[0]}, under which the place of a passage is kept; rename that column")
    name = labels.get(DOCUMENT)
    labels[DOCUMENT] = str(name) if name else f"row {row.number}"
    return Example((), text, labels, place=row.place)


def _read(fields: _Fields, form: tuple[str, ...]) -> Conversation:
    if form[-1] == "chosen" and _is_whole(fields["chosen"]):
        return _of_pair(fields, form)
    if len(form) == 1:
        if form[-1] == "chosen":
            raise BadRow(
                "is a preference pair that doesn't say where its prompt ends; expected prompt, chosen, rejected"
            )
        return conversation(fields[form[0]], form[0], form[0] == "conversations")
    ask, answer = form
    prompt, response = fields[ask], fields[answer]
    extra = fields["input"] or "" if ask == "instruction" else ""
    if isinstance(prompt, list) or isinstance(response, list):
        return _of_turns(prompt, response, ask, answer)
    if not all(isinstance(text, str) for text in (prompt, response, extra)):
        raise BadRow(f"has another kind of value: {ask} and {answer} must be text")
    if ask == "instruction":
        fields.use("input")
    content, history = f"{prompt}\n{extra}" if extra else prompt, _history(fields)
    return Conversation([*history, {"role": "user", "content": content}], response, earlier=bool(history))


def _is_whole(chosen: Any) -> bool:
    """Whether a pair's side is a conversation, and not an answer alone."""
    return isinstance(chosen, list) and bool(chosen) and not _answers(chosen[0])


def _answers(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role", turn.get("from")) in ("assistant", "gpt")


def _of_pair(fields: _Fields, form: tuple[str, ...]) -> Conversation:
    """The chosen conversation; a prompt beside it says the same as its last question, or all before the answer."""
    found, prompt = conversation(fields["chosen"], "chosen"), fields[form[0]]
    questions = [turn["content"] for turn in found.messages if turn["role"] == "user"]
    if (
        len(form) > 1
        and prompt not in questions
        and (isinstance(prompt, str) or turns_of(prompt, form[0]) != found.messages)
    ):
        raise BadRow(f"has a {form[0]} that its chosen conversation doesn't hold")
    return found


def _of_turns(prompt: Any, response: Any, ask: str, answer: str) -> Conversation:
    """A prompt and an answer of which one is a list of turns, or both."""
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else turns_of(prompt, ask)
    after = [{"role": "assistant", "content": response}] if isinstance(response, str) else response
    found = conversation([*before, *after] if isinstance(after, list) else after, answer)
    answers = sum(isinstance(turn, dict) and turn.get("role") == "assistant" for turn in after)
    asked = {place for place, turn in enumerate(before) if turn["role"] == "assistant"}
    uncounted = tuple(sorted(asked | set(found.uncounted)))
    return Conversation(found.messages, found.response, found.turn, answers > 1, uncounted)


def _history(fields: _Fields) -> list[Message]:
    """The turns before an instruction, which are kept as pairs of a question and an answer."""
    if not fields.says("history"):
        return []
    pairs = listed(fields["history"], "history", _PAIRS)
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(e, str) for e in pair) for pair in pairs):
        raise BadRow(f"has history that can't be read: history must be a list of {_PAIRS}")
    fields.use("history")
    speakers = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(speakers, pair, strict=True)]


def _system(fields: _Fields, messages: list[Message]) -> list[Message]:
    """The system turn of a row that has it as a column."""
    if not fields.says("system"):
        return []
    text = fields["system"]
    if not isinstance(text, str):
        raise BadRow(f"has a {type(text).__name__} as system: system must be text; rename the column if it is a label")
    own = [turn["content"] for turn in messages if turn["role"] in ("system", "developer")]
    if own and own != [text]:
        raise BadRow("has a column system that says something else than the system turn of its conversation")
    fields.use("system")
    return [] if own else [{"role": "system", "content": text}]


def _tools(fields: _Fields) -> tuple[dict[str, Any], ...]:
    """The descriptions of the tools that a row's model is told of."""
    if not fields.says("tools"):
        return ()
    tools = listed(fields["tools"], "tools", _DESCRIPTIONS)
    if not all(isinstance(tool, dict) for tool in tools):
        raise BadRow(f"has tools that can't be read: tools must be a list of {_DESCRIPTIONS}")
    fields.use("tools")
    return tuple(tools)


def _check_agreed(found: Conversation, fields: _Fields, forms: list[tuple[str, ...]]) -> None:
    """Raises BadRow where another form that the row has, too, says another answer: which was trained isn't known."""
    for form in forms[1:]:
        try:
            other = _read(fields.again(), form)
        except BadRow:
            continue
        if other.response.strip() != found.response.strip():
            first, second = " and ".join(forms[0]), " and ".join(form)
            raise BadRow(
                f"has {first} and also {second}, with another answer; --column {forms[0][-1]}={forms[0][-1]} reads the "
                f"former, --column {form[-1]}={form[-1]} the latter"
            )


def _formless(row: dict[str, Any]) -> str:
    """What is wrong with a row that has no form."""
    for ask, answer in (form for form in _FORMS if len(form) == 2 and form[-1] != "chosen"):
        if ask in row and answer in row:
            return f"has nothing in {ask if row[ask] is None else answer}: {ask} and {answer} must be text"
    names = sorted(map(str, row))
    shown = ", ".join(name if name.strip().isprintable() and name == name.strip() else repr(name) for name in names)
    return f"has the columns {one_line(shown, 300) or 'nothing'}; {_EXPECTED}"


def _check_text(row: dict[str, Any]) -> None:
    """Raises BadRow for what no file of ours can hold."""
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise BadRow("holds half of a character (a lone surrogate)") from None
    except (RecursionError, ValueError, TypeError) as problem:
        raise BadRow(f"can't be kept as JSON ({problem})") from None


def _without_nulls(value: Any) -> Any:
    """Lists and objects without the keys that only other rows of their table have."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
