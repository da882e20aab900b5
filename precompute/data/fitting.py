"""Examples → token sequences of one model; those that it can't read are bad rows like any other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from explorer.errors import PromptError
from explorer.records import LAST_ANSWER, Counting, Encoded, Example
from precompute.data.forms import EARLIER
from precompute.data.passages import passages
from precompute.data.rows import Review

if TYPE_CHECKING:
    from explorer.model.language_model import LanguageModel


def sequences_of(model: "LanguageModel", example: Example, counting: Counting) -> list[tuple[Example, Encoded]]:
    """An example with its token ids, or of a document every passage with its own. Raises PromptError."""
    if example.is_text:
        return passages(model, example, counting)
    return [(example, model.encode(example.messages, example.answer, example.tools, counting, example.uncounted))]


def readable(
    model: "LanguageModel",
    examples: Sequence[Example],
    review: Review | None = None,
    counting: Counting = LAST_ANSWER,
) -> tuple[list[Example], list[Encoded]]:
    """The examples that a model can read, and their token ids; `counting` says which of these are in the loss.

    Documents become as many examples as they have passages. Raises DataError that names the rows that it can't read,
    unless the `review` leaves them out.
    """
    review = review or Review()
    kept, encoded = list[Example](), list[Encoded]()
    for number, example in enumerate(examples, start=1):
        try:
            for passage, ids in sequences_of(model, example, counting):
                kept.append(passage)
                encoded.append(ids)
        except PromptError as problem:
            review.refuse(example.place or f"row {number:,}", f"can't be read by the model: {problem}")
        if example.is_text:
            review.note(f"Raw text is cut into passages of {min(counting.chunk, model.context):,} tokens at most")
    for each in encoded:
        if len(each.ids) == counting.longest:
            review.note(f"Rows end at {counting.longest:,} tokens, where the training cut longer ones")
    if counting.loss != "last":
        review.forget(EARLIER)
    review.settle(len(kept))
    return kept, encoded
