"""Saved answers made without any model, for the tests of history and exports."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explorer.corpus.filters import EVERYTHING
from explorer.history.saved import Origin, SavedAnswer, SavedQuestion, saved_question
from explorer.records import Answer, Conversation, Encoded, ExampleRow, Influence, Prompt, Ranking, Selection, Token
from tests.asking import OWN

ORIGIN = Origin(
    model="tiny",
    adapter="../adapter",
    template="chat",
    data="train.jsonl",
    rows=5,
    checkpoints="final",
    normalisation="layer",
    sketch_length=64,
    sketch_dtype="int8",
    scale=0.1 + 0.2,
    scale_known=True,
    base_sha256="ba5e" * 16,
    adapter_sha256="ada0" * 16,
    tokenizer_sha256="70ce" * 16,
    template_sha256="7e3a" * 16,
    data_sha256="da7a" * 16,
    cache_sha256="cac4" * 16,
    versions={"numpy": "2"},
)
SCORES: NDArray[np.float32] = np.array([0.1, -1 / 3, 3e-12, 2e30, -0.0], dtype=np.float32)
VALUES: NDArray[np.float32] = np.array([1 / 3, -1e-38, 7e36], dtype=np.float32)


def tokens_of(text: str) -> tuple[Token, ...]:
    return (Token(text), Token("", raw="f0 9f"), Token("<|end|>", special=True))


def answer_of(prompt: Prompt, response: str) -> Answer:
    encoded = Encoded(np.array([5, 6, 7, 2, 1], dtype=np.int64), 2)
    return Answer("feed", Conversation.of(prompt), encoded, tokens_of(response), response, finished=True)


def example_of(row: int, text: str) -> ExampleRow:
    encoded = Encoded(np.array([3, 4, 9, 8, 1], dtype=np.int64), 2)
    return ExampleRow(row, row, f"prompt {text}", text, encoded, tokens_of(text), 0.7 + row, {"source": text, "n": row})


def question_of(
    answer_id: str, selection: Selection = None, text: str = "example", rows: Sequence[int] = (3, 0), exact: bool = True
) -> SavedQuestion:
    found = tuple(
        Influence(row, float(SCORES[row]) * (1 + 1e-15), exact, VALUES * np.float32(1 + row), 1e-7 / 3, None)
        for row in rows
    )
    ranking = Ranking("feed", selection, False, SCORES, found, 0.012345678901234567, method=OWN)
    return saved_question(
        answer_id, 1_700_000_001.25, ranking, EVERYTHING, tuple((example_of(row, text), None) for row in rows)
    )


def saved_of(
    name: str = "a1",
    prompt: Prompt = "Why?",
    response: str = "Because.",
    text: str = "example",
    asked: float = 1.7e9 + 1 / 3,
) -> SavedAnswer:
    drawn = {"max_tokens": 80, "temperature": 0.7, "top_p": 1.0, "seed": 3}
    return SavedAnswer(
        name, asked, answer_of(prompt, response), drawn, ORIGIN, questions=(question_of(name, text=text),)
    )
