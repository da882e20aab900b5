"""Examples → token sequences of one model; those that it can't read are bad rows like any other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from explorer.errors import PromptError
from explorer.records import LAST_ANSWER, Counting, Encoded, Example
from precompute.data.forms import EARLIER
from precompute.data.rows import Review

if TYPE_CHECKING:
    from explorer.model.language_model import LanguageModel


def readable(
    model: "LanguageModel",
    examples: Sequence[Example],
    review: Review | None = None,
    counting: Counting = LAST_ANSWER,
) -> tuple[list[Example], list[Encoded]]:
    """The examples that a model can read, and their token ids; `counting` says which of these are in the loss.

    Raises DataError that names the rows that it can't read, unless the `review` leaves them out.
    """
    review = review or Review()
    kept, encoded = list[Example](), list[Encoded]()
    for number, example in enumerate(examples, start=1):
        try:
            encoded.append(model.encode(example.messages, example.answer, example.tools, counting, example.uncounted))
            kept.append(example)
        except PromptError as problem:
            review.refuse(example.place or f"row {number:,}", f"can't be read by the model: {problem}")
    for each in encoded:
        if len(each.ids) == counting.longest:
            review.note(f"Rows end at {counting.longest:,} tokens, where the training cut longer ones")
    if counting.loss != "last":
        review.forget(EARLIER)
    review.settle(len(kept))
    return kept, encoded
