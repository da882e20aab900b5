"""Conversation → token ids: the one way that training rows, questions and given answers take.

A row's sequence is the whole conversation as the template writes it, its answer's own end included, tokenised in one
piece, as trainers do. The response begins where these ids part from those of the prompt alone. A question is the
prompt alone, which the model continues.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.errors import ModelError, PromptError, first_line
from explorer.records import LAST_ANSWER, Counting, Encoded, Message
from explorer.text_files import read_text

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The fine-tuning prompt of the paper (Figure 5, after Stanford Alpaca)."""
_PROMPT, _SYSTEM = "{prompt}", "{system}"
NAMED = {"alpaca": _ALPACA, "plain": _PROMPT}
"""Templates that go by a name, beside the tokenizer's own; `plain` puts the answer right behind the prompt."""
NO_END = "none"
"""For a `Counting` without a token behind the answer."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""One key of a turn under three names: templates are given all of them."""
_THOUGHT = "</think>"
"""Some templates leave out what stands before it."""

Tools = Sequence[Mapping[str, Any]]


class Template:
    """Writes a conversation as one text."""

    def __init__(self, name: str, tokenizer: Any):
        """Take `chat` (the tokenizer's own), one of `NAMED`, or a file holding `{prompt}`; `auto` is the first.

        Raises ModelError where there is no such template.
        """
        self._tokenizer = tokenizer
        self.name = name = "chat" if name == "auto" else name
        if name == "chat":
            if not tokenizer.chat_template:
                raise ModelError(
                    "The tokenizer has no chat template, so how the training wrote its rows isn't known; "
                    "use --template alpaca or a file with {prompt}."
                )
            self.text = str(tokenizer.chat_template)
        elif name in NAMED:
            self.text = NAMED[name]
        else:
            self.text = read_text(Path(name), "The template", ModelError)
            if _PROMPT not in self.text:
                raise ModelError(f"The template {name} has no {_PROMPT} in it; write it where the prompt belongs.")

    @property
    def is_chat(self) -> bool:
        """Whether it is the tokenizer's own, which writes control tokens and the ends of turns itself."""
        return self.name == "chat"

    def render(self, messages: Sequence[Message], answer: Message | None = None, tools: Tools = ()) -> str:
        """The text before the response, or, with an `answer`, the whole. Raises PromptError for what it can't write."""
        if not self.is_chat:
            return self._filled(messages, answer, tools)
        turns = [*messages] if answer is None else [*messages, answer]
        self._check_keys(turns, tools)
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=answer is None
            )
        except Exception as problem:
            # A template is a program of its own, and may fail in any way.
            raise PromptError(
                f"The chat template refuses this conversation ({first_line(problem)}); "
                "change its turns, or give another --template."
            ) from None
        _check_turns(turns, text)
        return text

    def _check_keys(self, turns: Sequence[Message], tools: Tools) -> None:
        """Raise PromptError for what a turn has and the template doesn't know: it would be left out in silence."""
        asked = {key for turn in turns for key, value in turn.items() if value is not None} - {"role", "content"}
        for key in sorted(asked | ({"tools"} if tools else set())):
            if not any(re.search(rf"\b{re.escape(name)}\b", self.text) for name in _names_of(key)):
                raise PromptError(f"The chat template writes no {key}, which this conversation has; leave it out.")

    def _filled(self, messages: Sequence[Message], answer: Message | None, tools: Tools) -> str:
        """A text with one place for a prompt, and perhaps one for a system prompt, before the answer."""
        roles = [str(turn["role"]) for turn in messages]
        known = ["system", "user"] if roles[:1] == ["system"] and _SYSTEM in self.text else ["user"]
        others = sorted({key for turn in [*messages, answer or {}] for key in turn} - {"role", "content"})
        if roles != known or tools or others:
            found = ", ".join([*roles, *(["tools"] if tools else []), *others])
            place = "" if _SYSTEM in self.text else f", or write {_SYSTEM} into a file of your own"
            raise PromptError(
                f"The template {self.name} has a place for {' and '.join(known)} alone, and this conversation has "
                f"{found}; use a model with a chat template{place}."
            )
        filled = {_PROMPT: messages[-1]["content"], _SYSTEM: messages[0]["content"] if len(known) > 1 else ""}
        text = re.sub("|".join(map(re.escape, filled)), lambda place: str(filled[place[0]]), self.text)
        return text + (str(answer["content"]) if answer else "")


def _names_of(key: str) -> Sequence[str]:
    return _REASONING if key in _REASONING else (key,)


def _check_turns(turns: Sequence[Message], text: str) -> None:
    """Raise PromptError where the text of a turn isn't in the whole: a role that the template doesn't know."""
    for turn in turns:
        content = turn.get("content")
        said = str(content).split(_THOUGHT)[-1].strip() if isinstance(content, str) else ""
        if said not in text and _in_json(said) not in text:
            raise PromptError(
                f"The chat template leaves out what the role {turn['role']} says, or changes it; "
                "leave out that turn, or give another --template."
            )


def _in_json(text: str) -> str:
    """A text as it stands in JSON, into which some templates write what a tool said."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join(escapes.get(character, character) for character in text)


def prompt_ids(tokenizer: Any, template: Template, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
    """Token ids of the text that the model continues. Raises PromptError where the template can't write it."""
    return _ids(tokenizer, template, template.render(messages, tools=tools))


def sequence(
    tokenizer: Any,
    template: Template,
    messages: Sequence[Message],
    answer: Message,
    tools: Tools = (),
    counting: Counting = LAST_ANSWER,
    uncounted: Collection[int] = (),
) -> Encoded:
    """The whole conversation, its answer closed as the template closes it, or by the end of sequence.

    `counting` says how else it is closed and cut, and which of it is in the loss; `uncounted` are the places of
    earlier answers that aren't. Raises PromptError where the template can't write the conversation, or leaves nothing
    of the prompt or the answer.
    """
    prompt = prompt_ids(tokenizer, template, messages, tools)
    ids = _ids(tokenizer, template, template.render(messages, answer, tools))
    start = _alike(prompt, ids)
    if not template.is_chat and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    closed = _closed(tokenizer, ids)
    if counting.end:
        closed = _ended(tokenizer, closed, counting.end)
    if not start:
        raise PromptError("The prompt is empty; type a question first.")
    if start >= len(closed):
        raise PromptError("The template leaves nothing of the answer; give another --template.")
    spans = [(start, len(closed))]
    if counting.loss == "prompt":
        spans = [(1, len(closed))]
    if counting.loss == "all":
        places = [n for n, turn in enumerate(messages) if turn["role"] == "assistant" and n not in uncounted]
        spans = [_span(tokenizer, template, messages, place, tools, closed) for place in places] + spans
    return _cut(np.asarray(closed, dtype=np.int64), spans, counting.longest)


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with together."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _ended(tokenizer: Any, closed: list[int], end: str) -> list[int]:
    """The ids with another token, or none, in place of what the answer is closed with. Raises PromptError."""
    control, stop = _control(tokenizer), len(closed)
    while stop and closed[stop - 1] in control:
        stop -= 1
    if end == NO_END:
        return closed[:stop]
    token = tokenizer.get_vocab().get(end)
    if token is None:
        raise PromptError(f"The vocabulary has no token {end} that could end an answer; give another --end.")
    return [*closed[:stop], token]


def _span(
    tokenizer: Any, template: Template, messages: Sequence[Message], place: int, tools: Tools, whole: list[int]
) -> tuple[int, int]:
    """Where an earlier answer stands in the whole, its end included. Raises PromptError where it isn't there."""
    before = prompt_ids(tokenizer, template, messages[:place], tools)
    through = _closed(tokenizer, _ids(tokenizer, template, template.render(messages[:place], messages[place], tools)))
    start, stop = _alike(before, whole), _alike(through, whole)
    if not 0 < start < stop == len(through):
        raise PromptError(
            "The template writes an earlier answer otherwise once others follow, so where it stands isn't known; "
            "count the last answer alone (--loss last)."
        )
    return start, stop


def _cut(ids: NDArray[np.int64], spans: Sequence[tuple[int, int]], longest: int) -> Encoded:
    """The sequence with the loss in these spans, cut behind so many tokens. Raises PromptError where none is left."""
    kept = ids[: longest or len(ids)]
    left = [(start, min(stop, len(kept))) for start, stop in spans if start < len(kept)]
    if not left:
        raise PromptError(
            f"The text is {len(ids):,} tokens long, and the training cut it behind {longest:,}, before its answer."
        )
    gaps = tuple((before[1], after[0]) for before, after in pairwise(left) if before[1] < after[0])
    return Encoded(kept[: left[-1][1]], left[0][0], gaps)


def _ids(tokenizer: Any, template: Template, text: str) -> list[int]:
    """The ids of a text. A chat template writes its control tokens out itself; others rely on the tokenizer."""
    begins = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
    ids: list[int] = tokenizer(text, add_special_tokens=not template.is_chat and not begins)["input_ids"]
    return ids[:-1] if not template.is_chat and ids and ids[-1] == tokenizer.eos_token_id else ids


def _closed(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids without the blanks that a template writes between turns, behind the control token that ends one."""
    control, end = _control(tokenizer), len(ids)
    while end and ids[end - 1] not in control and not tokenizer.decode(ids[end - 1]).strip():
        end -= 1
    return ids[:end] if end and ids[end - 1] in control else ids


_PROBE = ({"role": "user", "content": "Hello"},), {"role": "assistant", "content": "Yes."}


@dataclass(frozen=True)
class Habits:
    """What a template does to one short question and its answer, and so to all."""

    end: int | None = None
    """The control token that ends an answer."""
    unlike_prompt: str = ""
    """How the prompt that the model continues ends where a trained row has something else; mostly not at all."""
    as_before: bool = True
    """Whether earlier versions, which put the answer and the end of sequence behind the prompt, made the same ids."""


def habits(tokenizer: Any, template: Template) -> Habits:
    """The template's habits; the usual ones where it can't write that question."""
    try:
        prompt = prompt_ids(tokenizer, template, _PROBE[0])
        found = sequence(tokenizer, template, *_PROBE)
    except PromptError:
        return Habits()
    ids: list[int] = found.ids.tolist()
    said = tokenizer("Yes.", add_special_tokens=False)["input_ids"]
    return Habits(
        ids[-1] if ids[-1] in _control(tokenizer) else None,
        str(tokenizer.decode(prompt[found.response_start :])),
        ids == [*prompt, *said, tokenizer.eos_token_id],
    )


def _control(tokenizer: Any) -> set[int]:
    """The ids that stand for no text: special tokens, and what else was added to the vocabulary."""
    return {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
