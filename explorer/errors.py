"""The errors a person can cause and mend.

Each message says what was found, what was expected and what mends it; the
command line prints it as one sentence and exits with status 2, the page shows
it in a box.

    ExplorerError
    ├── DataError        the training data can't be read as examples
    ├── ModelError       the model, adapter, tokenizer or template can't be used
    │   └── UnsupportedError the model is of a kind that this can't be computed for
    ├── PromptError      the prompt, answer or selection can't be asked about
    ├── CacheError       the cache is missing, damaged or not readable
    │   └── MismatchError    the cache belongs to another model, adapter or data
    └── Cancelled        the person, or a newer question, stopped the work
"""


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


class CacheError(ExplorerError):
    """The cache is missing, damaged or of a version this program can't read."""


class MismatchError(CacheError):
    """The cache was made for another model, adapter, template or data set."""


class Cancelled(ExplorerError):
    """The work was stopped on request; nothing is wrong."""


def first_line(problem: BaseException) -> str:
    """What a library's error says, without the lines that follow."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
