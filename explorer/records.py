"""The frozen records that cross layers. Numpy and plain Python only, never a tensor.

Axis letters, used in every signature of the project:
`N` examples, `T` tokens of a sequence, `G` response tokens, `D` trainable
parameters, `K` sketch length, `L` named tensors ("layers"), `Q` queries.

Records that hold arrays are equal only to themselves: arrays have no single truth value.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user", "content": "..."}`."""


@dataclass(frozen=True)
class Example:
    """One training example as the user gave it."""

    messages: tuple[Message, ...]
    """The conversation before the response."""
    response: str
    """What the model is trained to answer."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Every further column of the user's data, as it was."""

    @property
    def prompt(self) -> str:
        """What a person reads as the prompt: the turns before the response."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in self.messages)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt and a response as one token sequence."""

    ids: NDArray[np.int64]
    """All token ids (T), template included; the last is the end-of-sequence token."""
    response_start: int
    """Index of the first response token; everything before it is prompt."""

    @property
    def response_length(self) -> int:
        """G, the number of response tokens that carry a loss."""
        return len(self.ids) - self.response_start


@dataclass(frozen=True)
class Token:
    """One token as it is shown."""

    text: str
    """What the token adds to the text; empty when it completes no character."""
    raw: str = ""
    """For a token that is no whole character: its bytes in hexadecimal."""
    special: bool = False
    """True for the tokenizer's control tokens, the end of sequence among them."""


@dataclass(frozen=True)
class TrainingRecord:
    """How the model was fine-tuned, as far as it is known."""

    epochs: float = 1.0
    learning_rate: float = 1.0
    known: bool = False
    """True when read from the record beside the adapter, False when assumed."""
    checkpoints: tuple[tuple[str, float], ...] = ()
    """Name and e·η of every checkpoint that influence sums over (Eq. 4); empty for the final model alone."""

    @property
    def scale(self) -> float:
        """e·η of Eq. 5, epochs times initial learning rate; over checkpoints, the sum of theirs."""
        return sum(weight for _, weight in self.checkpoints) if self.checkpoints else self.epochs * self.learning_rate


@dataclass(frozen=True)
class Fingerprint:
    """What a cache must agree on with the model that reads it; hashes are SHA-256."""

    base: str
    adapter: str
    tokenizer: str
    template: str
    precision: str
    """Number format of the base's weights, or `4bit`."""
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of every trainable tensor, in the order of the sketch."""

    @property
    def parameters(self) -> int:
        """D, the number of trainable parameters."""
        return sum(int(np.prod(shape)) for _, shape in self.layout)


@dataclass(frozen=True)
class ExampleRow:
    """One training example as the cache keeps it, ready to be shown and differentiated."""

    row: int
    """Its place in the training data, from 0."""
    prompt: str
    """What a person reads as the prompt."""
    response: str
    """The text it was trained to answer."""
    encoded: Encoded
    """Its token ids."""
    tokens: tuple[Token, ...]
    """The response tokens (G) as they are shown."""
    loss: float
    """L(s_k), the mean response loss under the cached model."""
    columns: dict[str, Any]
    """Every further column of the user's data."""

    @property
    def source(self) -> str:
        """The `source` column, or an empty text."""
        return str(self.columns.get("source", ""))


Selection = tuple[int, int] | None
"""What is asked about: a half-open range of response tokens, or None for the whole response."""


@dataclass(frozen=True)
class Answer:
    """A prompt and the response under study, t."""

    id: str
    """SHA-256 of its token ids; equal answers have equal ids."""
    prompt: str
    encoded: Encoded
    tokens: tuple[Token, ...]
    """The response tokens (G) as they are shown."""
    text: str
    finished: bool
    """False while it is being generated."""


@dataclass(frozen=True, eq=False)
class Influence:
    """What one training example has to do with what was asked about."""

    row: int
    score: float
    """I(t, s_k) or I(t^j, s_k): positive made it more likely, negative less."""
    exact: bool
    """True when the score and values come without sketch noise."""
    values: NDArray[np.float32] | None
    """Influence of every response token of the example (G); they average to the score."""
    checksum: float | None = None
    """Relative difference between the values' mean and the example's value from a backward pass of its own."""
    positions: NDArray[np.float32] | None = None
    """What of the score passes through each position of prompt and response (T); they sum to it."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The training examples ordered by their influence on one question."""

    answer_id: str
    selection: Selection
    opponents: bool
    """False: largest scores first; True: smallest first."""
    scores: NDArray[np.float32]
    """Scores of all training examples (N) from the cache."""
    influences: tuple[Influence, ...]
    """The shown ones, best first."""
    sketch_error: float
    """Standard deviation of the sketch's noise on one score, in the score's unit."""

    @property
    def exact(self) -> bool:
        """True when every shown influence is exact."""
        return all(influence.exact for influence in self.influences)

    @property
    def standing_out(self) -> float:
        """How many robust standard deviations the best shown score lies beyond the median of all scores."""
        if not self.influences:
            return 0.0
        centre = float(np.median(self.scores))
        spread = 1.4826 * float(np.median(np.abs(self.scores - centre)))
        distance = self.influences[0].score - centre
        return (-distance if self.opponents else distance) / spread if spread > 0 else 0.0

    @property
    def chance(self) -> float:
        """What `standing_out` the best of N unrelated, normally distributed scores would reach: √(2 ln N)."""
        return float(np.sqrt(2 * np.log(max(len(self.scores), 2))))
