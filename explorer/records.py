"""The frozen records that cross layers. Numpy and plain Python only, never a tensor.

Axis letters, used in every signature of the project:
`N` examples, `T` tokens of a sequence, `G` response tokens, `D` trainable
parameters, `K` sketch length, `L` named tensors ("layers"), `Q` queries.

Records that hold arrays are equal only to themselves: arrays have no single truth value.
"""

import json
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.errors import MethodError


def relative_difference(found: float, expected: float) -> float:
    """How far a checksum is from what it ought to be, as a share of that."""
    return abs(found - expected) / max(abs(expected), 1e-12)


Message = dict[str, Any]
"""One turn of a conversation: `{"role": "user", "content": "..."}`, and what else templates render of a turn."""


def said(turn: Message) -> str:
    """What a person reads of a turn: its thoughts, its text and the tools that it calls."""
    calls = [json.dumps(turn[key], ensure_ascii=False) for key in ("tool_calls", "function_call") if turn.get(key)]
    thoughts = [turn[key] for key in ("reasoning_content", "reasoning", "thinking") if turn.get(key)]
    text = turn["content"] or ""
    return "\n".join([*thoughts, *([text] if text or not (calls or thoughts) else []), *calls])


@dataclass(frozen=True)
class Conversation:
    """What is asked: the turns before an answer."""

    turns: tuple[Message, ...]

    @classmethod
    def of(cls, prompt: "Prompt") -> "Conversation":
        """A prompt alone becomes the user's turn; a conversation stays as it is."""
        return prompt if isinstance(prompt, cls) else cls(({"role": "user", "content": prompt},))

    def with_system(self, text: str) -> "Conversation":
        """The same behind a system prompt; unchanged where it has one, or the text is blank."""
        if self.turns[0]["role"] == "system" or not text.strip():
            return self
        return Conversation(({"role": "system", "content": text}, *self.turns))

    @property
    def system(self) -> str:
        """The system prompt that it begins with; empty without one."""
        return said(self.turns[0]) if self.turns and self.turns[0]["role"] == "system" else ""

    @property
    def question(self) -> str:
        """The text of its last turn, which is to be answered."""
        return said(self.turns[-1])

    @property
    def alone(self) -> bool:
        """Whether it is the user's turn and nothing else."""
        return self == Conversation.of(self.question)

    @property
    def text(self) -> str:
        """What a person reads: a single turn's text; of several, each with its role before it."""
        if len(self.turns) == 1:
            return self.question
        return "\n".join(f"{turn['role']}: {said(turn)}" for turn in self.turns)


Prompt = str | Conversation
"""A question as it is handed in: the user's words alone, or a conversation that ends with them."""


@dataclass(frozen=True)
class SystemPrompts:
    """What the training examples say before the user's first turn."""

    rows: int
    """How many examples begin with a system prompt."""
    of: int
    """N, the number of training examples."""
    shared: str
    """The system prompt of every example, where all have the same; empty otherwise."""


DOCUMENT, START, STOP = "document", "start", "stop"
"""Columns of raw text: the document's name, and the characters of it that a passage is, as a half-open range."""


@dataclass(frozen=True)
class Example:
    """One training example as the user gave it."""

    messages: tuple[Message, ...]
    """The conversation before the response; none before raw text."""
    response: str
    """What the model is trained to answer, or raw text."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Every further column of the user's data, as it was."""
    turn: Message = field(default_factory=dict)
    """What the answer's turn says besides its text, such as `tool_calls` or `reasoning_content`."""
    tools: tuple[dict[str, Any], ...] = ()
    """Descriptions of the tools that the model was told of."""
    uncounted: tuple[int, ...] = ()
    """The places among `messages` of answers that the data leaves out of the loss."""
    place: str = field(default="", compare=False)
    """Where it stood in the data, such as `row 3 (line 4)`; empty where it comes from elsewhere."""

    @property
    def is_text(self) -> bool:
        """Whether it is raw text, which answers nothing: a document, or a passage of one."""
        return not self.messages

    @property
    def answer(self) -> Message:
        """The response as a turn."""
        return {"role": "assistant", "content": self.response, **self.turn}

    @property
    def prompt(self) -> str:
        """What a person reads as the prompt: the turns before the response."""
        return Conversation(self.messages).text


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt and a response as one token sequence."""

    ids: NDArray[np.int64]
    """All token ids (T), template included; the last is the end-of-sequence token."""
    response_start: int
    """Index of the first response token; everything before it is prompt."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of positions behind it that carry no loss, ascending: what others say between answers."""

    @property
    def positions(self) -> NDArray[np.int64]:
        """The places of the response tokens, those that carry a loss (G), ascending."""
        places = np.arange(self.response_start, len(self.ids))
        for start, stop in self.gaps:
            places = places[(places < start) | (places >= stop)]
        return places

    @property
    def response_length(self) -> int:
        """G, the number of response tokens that carry a loss."""
        return len(self.positions) if self.gaps else len(self.ids) - self.response_start


@dataclass(frozen=True)
class Counting:
    """Which tokens of a training row the trainer counted in the loss."""

    loss: str = "last"
    """One of `LOSSES`: the last answer of a conversation, all its answers, or the prompt, too."""
    end: str = ""
    """The token behind the answer: empty for the template's own, `none`, or a token of the vocabulary."""
    longest: int = 0
    """Rows are cut behind so many tokens; 0 for no cut."""
    chunk: int = 512
    """Raw text is cut into passages of so many tokens at most, or of the model's context where that is less."""


LAST_ANSWER = Counting()
"""The last answer with the template's own end, where nothing else is said."""
LOSSES = ("last", "all", "prompt")
"""What may be in the loss; see `Counting`."""


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
    def names(self) -> list[str]:
        """The checkpoints' names."""
        return [name for name, _ in self.checkpoints]

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
    start: str = ""
    """Of a wholly fine-tuned model, the base that its way begins at; empty where none is given."""

    @property
    def parameters(self) -> int:
        """D, the number of trainable parameters."""
        return sum(int(np.prod(shape)) for _, shape in self.layout)


@dataclass(frozen=True)
class ExampleRow:
    """One training example as the cache keeps it, ready to be shown and differentiated."""

    row: int
    """Its place in the cache, from 0."""
    id: int
    """Its place in all the data that ever came into the cache: it stays when other examples are dropped."""
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

    @property
    def title(self) -> str:
        """What it is called in a list: its prompt, or of raw text what it says."""
        return self.prompt or self.response


Span = tuple[int, int]
"""A half-open range of response tokens."""


@dataclass(frozen=True)
class Contrast:
    """Why this and not that: a span of the response against other tokens in its place."""

    span: Span
    """What was said."""
    instead: tuple[int, ...]
    """Token ids of what might have been said, after the same beginning."""
    text: str = field(default="", compare=False)
    """How the alternative is shown."""


Selection = Span | Contrast | None
"""What is asked about: response tokens, these against others in their place, or None for the whole response."""


def span_of(selection: Selection) -> Span | None:
    """The tokens of the response that a question is about; None for all of them."""
    return selection.span if isinstance(selection, Contrast) else selection


@dataclass(frozen=True)
class Answer:
    """A prompt and the response under study, t."""

    id: str
    """SHA-256 of its token ids; equal answers have equal ids."""
    asked: Conversation = field(hash=False)
    encoded: Encoded
    tokens: tuple[Token, ...]
    """The response tokens (G) as they are shown."""
    text: str
    finished: bool
    """False while it is being generated."""

    @property
    def prompt(self) -> str:
        """What a person reads as the prompt: the turns before the answer."""
        return self.asked.text


@dataclass(frozen=True)
class Part:
    """One of several questions that are asked as one: the sum of their gradients, each times its weight."""

    answer: Answer
    selection: Selection
    weight: float
    """1/m of m answers whose mean is asked about; below 0 on the side that is taken off."""


class Speaker(StrEnum):
    """Whose words an answer is."""

    MODEL = "model"
    BASE = "base model"
    GIVEN = "given text"


@dataclass(frozen=True)
class Candidate:
    """A token that the model might have said at one place of an answer."""

    id: int
    token: Token
    probability: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model expected at each response token of an answer, given the prompt and the tokens before it."""

    said: NDArray[np.float32]
    """log p(t^j) under the fine-tuned model (G), in nats."""
    base: NDArray[np.float32] | None
    """The same under the base model (G), its adapter switched off; None where there is no adapter."""
    candidates: tuple[tuple[Candidate, ...], ...]
    """The most probable tokens at each place (G), best first."""
    base_candidates: tuple[tuple[Candidate, ...], ...] = ()
    """The same under the base model; empty where there is no adapter."""

    @property
    def change(self) -> NDArray[np.float32] | None:
        """How much fine-tuning raised the log-probability of each token (G), in nats."""
        return None if self.base is None else self.said - self.base


@dataclass(frozen=True, eq=False)
class OutputValues:
    """What one training example did to every token of an answer."""

    row: int
    values: NDArray[np.float32]
    """I(t^j, s_k) of every output token (G)."""
    score: float
    """I(t, s_k), computed from the other side; the values average to it."""

    @property
    def checksum(self) -> float:
        """Relative difference between the values' mean and the score."""
        return relative_difference(float(self.values.mean(dtype=np.float64)), self.score)


@dataclass(frozen=True, eq=False)
class TokenMatrix:
    """M of one training example, for the output tokens of a selection (Eq. 8), or what passes through its positions."""

    row: int
    span: Span
    """The output tokens."""
    positions: bool
    """False: columns are response tokens of the example, whose mean counts; True: all its positions, whose sum does."""
    values: NDArray[np.float32]
    """(output tokens × training tokens)."""
    score: float
    """The example's influence on the selection, computed without the matrix."""

    @property
    def by_output(self) -> NDArray[np.float64]:
        """I(t^j, s_k): each row's mean, or its sum over positions."""
        whole = self.values.astype(np.float64)
        return whole.sum(axis=1) if self.positions else whole.mean(axis=1)

    @property
    def by_input(self) -> NDArray[np.float64]:
        """I(t, s_k^i), or the share of each position: each column's mean."""
        return self.values.mean(axis=0, dtype=np.float64)

    @property
    def checksum(self) -> float:
        """Relative difference between what the matrix comes to and the example's influence."""
        return relative_difference(float(self.by_output.mean()), self.score)


NEAR = 10
"""An example is near the top, or the bottom, if it is among so many first or last ones."""


@dataclass(frozen=True)
class NullPlace:
    """Where one example's score stands among the same example's scores on unrelated prompts."""

    prompts: int
    """M, how many unrelated prompts there are."""
    beyond: int
    """On how many of them the example scores less than here; for opponents, more."""
    near: float
    """On what share of them the example is near the top of all examples; for opponents, near the bottom."""


@dataclass(frozen=True)
class NullTest:
    """Whether anything stands out, beside what stands out on unrelated prompts."""

    prompts: int
    """M, how many unrelated prompts there are."""
    reached: int
    """On how many of them the ten examples that stand out most do so as much as here."""
    row: int
    """The example that stands out most here."""
    deviations: float
    """How many standard deviations the ten lie above what they score elsewhere, in the mean; for opponents, below."""
    together: int = 1
    """How many answers were asked about as one; of more than one, `prompts` and `reached` count sets of so many."""

    @property
    def chance(self) -> float:
        """The probability that on an unrelated prompt ten would stand out as much: (reached + 1) / (M + 1)."""
        return (self.reached + 1) / (self.prompts + 1)


@dataclass(frozen=True)
class Steadiness:
    """How firmly an example holds its place among those shown."""

    sketched: float
    """The score that the sketch had."""
    error: float
    """Standard deviation of the sketch's noise on it."""
    shown: float
    """Share of other sketch seeds by whose sketches it would be among those shown."""
    examined: float
    """Share of them by which it would be among the candidates that are made exact."""
    checkpoints: tuple[str, ...] = ()
    """The checkpoints whose part of the score alone would show it, among the candidates."""
    of: tuple[str, ...] = ()
    """All checkpoints; empty where there is one alone, or not all candidates' parts are known."""


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
    place: NullPlace | None = None
    """How unusual the score is for this example; None in a cache without a null sample."""
    parts: tuple[float, ...] = ()
    """What of an exact score each checkpoint gave; they add up to it."""
    steadiness: Steadiness | None = None
    """How firmly it holds its place; None while that isn't known."""


class Can(Enum):
    """What a method may be able to say besides scores; `methods.abilities` has the type that stands for each."""

    FOUR_INFLUENCES = "its scores and token values are the paper's four influences (Eq. 5 to 8), as the cache was made"
    NULLS = "how unusual a score is beside unrelated prompts"
    SEEDS = "what other sketch seeds, or one checkpoint alone, would make of its ranking"
    CHECKS = "an example's score a second time, by a computation of its own"
    POSITIONS = "what of a score passes through each position of an example"
    BOTH_WAYS = "what one example did to each token of an answer"
    TEXTS = "likeness of texts alone, without the model"


@dataclass(frozen=True)
class Description:
    """What a person should know of a method before using it."""

    name: str
    family: str
    """`no gradient`, `first order`, `second order` or `whole training`."""
    what: str
    """What its score is."""
    assumes: str
    costs: str
    value: str = ""
    """What `NAME:VALUE` sets; empty for a method without."""
    value_is_folder: bool = False
    """Whether VALUE names a folder of this machine, which a page must not ask for."""
    fitted: bool = False
    """Whether something is computed once, and kept in the cache folder."""
    token_values: bool = False
    """Whether it gives influences of single training tokens, which average to the score."""
    can: frozenset[Can] = frozenset()
    """What it can say besides, as it is; `NAME:VALUE` makes another method of it, which can't."""
    two_stages: bool = False
    """Whether it needs a cache that names the fine-tuning which followed."""
    unnamed: bool = False
    """Whether it is the one that is meant where none is named: in headings, and in files."""

    @property
    def by_gradients(self) -> bool:
        """Whether scores have a sign: above zero for proponents, below it for opponents."""
        return self.family != "no gradient"


@dataclass(frozen=True)
class Chosen:
    """A method with its value."""

    description: Description
    value: str = ""
    """Empty for the default."""

    @property
    def name(self) -> str:
        """As it was asked for."""
        return f"{self.description.name}:{self.value}" if self.value else self.description.name

    @property
    def written(self) -> str:
        """Its name in headings and files; empty for the method that is meant where none is named."""
        return "" if self.description.unnamed and not self.value else self.name

    def can(self, ability: Can) -> bool:
        """Whether it can say this."""
        return not self.value and ability in self.description.can

    @property
    def by_gradients(self) -> bool:
        """Whether scores have a sign."""
        return self.description.by_gradients

    @property
    def token_values(self) -> bool:
        """Whether it knows the influence of an example's single tokens."""
        return self.description.token_values

    def number(self, default: int, least: int = 1, most: int = 10_000_000) -> int:
        """The value as a whole number from `least` to `most`. Raises MethodError where it is none."""
        if not self.value:
            return default
        value = self.value
        if not (value.isascii() and value.isdecimal() and len(value) < 12 and least <= int(value) <= most):
            name, takes = self.description.name, self.description.value
            raise MethodError(f"{name}:VALUE takes {takes}, a number from {least} to {most:,}, not {value}.")
        return int(value)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The training examples ordered by their influence on one question."""

    answer_id: str
    selection: Selection
    opponents: bool
    """False: largest scores first; True: smallest first."""
    scores: NDArray[np.float32]
    """Scores of all training examples (N) from the cache; see `coarse_error`."""
    influences: tuple[Influence, ...]
    """The shown ones, best first."""
    sketch_error: float
    """Standard deviation of the sketch's noise on one score, in the score's unit; 0 where it isn't known."""
    method: Chosen = field(kw_only=True)
    """By which method examples were scored."""
    test: NullTest | None = None
    """Whether anything stands out among all examples; None in a cache without a null sample."""
    coarse_error: float = 0.0
    """The same for examples far from both ends, where their scores come from shorter sketches; 0 where they don't."""

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
