"""The errors a person can cause and mend.

Each message says what was found, what was expected and what mends it; the
command line prints it as one sentence and exits with status 2, the page shows
it in a box.

    ExplorerError
    ├── DataError        the training data can't be read as examples
    ├── ModelError       the model, adapter, tokenizer or template can't be used
    │   └── UnsupportedError the model is of a kind that this can't be computed for
    ├── PromptError      the prompt, answer or selection can't be asked about
    ├── FilterError      the training data can't be filtered so
    ├── CacheError       the cache is missing, damaged or not readable
    │   ├── MismatchError    the cache belongs to another model, adapter or data
    │   └── DamageError      a file of the cache isn't what was written
    ├── NonFiniteError   a loss, gradient or prediction isn't a finite number
    ├── MethodError      there is no such method, or it can't be asked this
    ├── HistoryError     the saved questions can't be read or written
    ├── BundleError      the sealed file isn't what was written, or can't be read
    ├── ClusterError     the Ray cluster can't be used, or its workers keep dying
    └── Cancelled        the person, or a newer question, stopped the work
"""

from collections.abc import Iterator
from contextlib import contextmanager


class ExplorerError(Exception):
    """Something the person using the explorer can put right."""


class DataError(ExplorerError):
    """The training data can't be read as prompt and response pairs."""


class ModelError(ExplorerError):
    """The model, adapter, tokenizer or prompt template can't be used."""


class UnsupportedError(ModelError):
    """The model, or one of its trainable tensors, is of a kind that this can't be computed for."""


class PromptError(ExplorerError):
    """The prompt, answer or selection can't be asked about."""


class FilterError(ExplorerError):
    """The training data can't be filtered so."""


class CacheError(ExplorerError):
    """The cache is missing, damaged or of a version this program can't read."""


class MismatchError(CacheError):
    """The cache was made for another model, adapter, template or data set."""


class DamageError(CacheError):
    """A file of the cache isn't what was written."""

    def __init__(self, path: object, what: str):
        """`what` is wrong, as the rest of a sentence that begins with the file's path."""
        super().__init__(f"{path} {what}; `rapidin-explorer mend` makes it anew, `verify` lists all damage.")
        self.path, self.what = path, what

    def __reduce__(self) -> tuple[type["DamageError"], tuple[object, str]]:
        # It may cross from one process to another, and is made from more than its message.
        return DamageError, (self.path, self.what)


class ClusterError(ExplorerError):
    """The Ray cluster can't be used, or its workers keep dying."""


class NonFiniteError(ExplorerError):
    """A loss, gradient or prediction isn't a finite number: it overflowed, or weights of the model aren't finite."""

    def __init__(self, what: str, whose: str = "", row: int | None = None):
        """`what` isn't finite, such as `a gradient`, and `whose` it is, where that is known already.

        `row` is an example's number, where it is an example's.
        """
        super().__init__(
            f"{whose or 'The model'} has {what} that isn't a finite number. Numbers overflow in half precision: load "
            "the model with --precision bfloat16 or float32, for a cache when it is made. Where that doesn't help, "
            "weights of the model aren't finite, or too large; fine-tune it anew with a smaller --learning-rate."
        )
        self.what, self.whose, self.row = what, whose, row

    def __reduce__(self) -> tuple[type["NonFiniteError"], tuple[str, str, int | None]]:
        # As for damage.
        return NonFiniteError, (self.what, self.whose, self.row)


@contextmanager
def about(whose: str) -> Iterator[None]:
    """Say whose numbers are computed, should one of them not be finite."""
    try:
        yield
    except NonFiniteError as problem:
        raise (problem if problem.whose else NonFiniteError(problem.what, whose)) from None


class MethodError(ExplorerError):
    """There is no such method, or it can't be asked this."""


class HistoryError(ExplorerError):
    """The history of questions, or one of them, can't be read or written."""


class BundleError(ExplorerError):
    """A sealed file of answers isn't what was written, or can't be read."""


class Cancelled(ExplorerError):
    """The work was stopped on request; nothing is wrong."""


def first_line(problem: BaseException) -> str:
    """What a library's error says: its first line, and those that follow where it only announces them."""
    said = ""
    for line in filter(None, map(str.strip, str(problem).splitlines())):
        said = f"{said} {line}".strip()
        if not line.endswith(":"):
            break
    if isinstance(problem, KeyError):
        # Of a missing key Python says the key alone.
        return f"there is no {said}"
    return said or type(problem).__name__
