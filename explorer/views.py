"""Records → words and numbers a page shows. No tensors, no Streamlit."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explorer.records import (
    DOCUMENT,
    NEAR,
    START,
    STOP,
    Answer,
    Can,
    Chosen,
    Contrast,
    Conversation,
    ExampleRow,
    Influence,
    NullPlace,
    Ranking,
    Selection,
    Speaker,
    SystemPrompts,
    Token,
    relative_difference,
    span_of,
)
from explorer.visible import one_line

LONGEST_PROMPT = 2_000
"""Characters of a training prompt that a card carries."""
LONGEST_LABEL = 18
"""Characters of a token at the edge of a table."""
NEARLY_ALL = 0.9
"""Where so many training examples begin with a system prompt, a question without one isn't like them."""
HARDLY_MOVED = 0.1
"""Nats. A token whose log-probability fine-tuning changed by less was as good as settled before."""

_MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_END = re.compile(r"end|eos|eot|</s>", re.IGNORECASE)


def passage(example: ExampleRow) -> str:
    """Where in which document a passage of raw text stands, in a line; empty for any other example."""
    name, start, stop = (example.columns.get(key) for key in (DOCUMENT, START, STOP))
    if example.prompt or not (isinstance(start, int) and isinstance(stop, int)):
        return ""
    return f"Characters {start:,} to {stop:,} of the document {one_line(str(name), 80)}"


def selected_text(answer: Answer, selection: Selection) -> str:
    """The selected text in quotation marks, or what stands for the whole response."""
    span = span_of(selection)
    if span is None:
        return "the whole response"
    tokens = answer.tokens[span[0] : span[1]]
    text = "".join(token.text for token in tokens).strip()
    return f"“{shortened(text, 60)}”" if text else " ".join(shown_name(token.text, token.special) for token in tokens)


def without_system(trained: SystemPrompts, asked: Sequence[Conversation], remedy: str) -> str:
    """A line where nearly all training examples begin with a system prompt and a question doesn't; else nothing.

    `remedy` ends the sentence “Give it …”.
    """
    lacking = sum(not one.system.strip() for one in asked)
    if not lacking or not trained.rows or trained.rows < NEARLY_ALL * trained.of:
        return ""
    which = "this question has" if len(asked) == 1 else f"{lacking:,} of these {len(asked):,} prompts have"
    return (
        f"{trained.rows:,} of {trained.of:,} training examples begin with a system prompt; {which} none. "
        f"Give it {remedy}."
    )


def said_by(speaker: Speaker) -> str:
    """Whose words an answer is, in a sentence."""
    return {
        Speaker.MODEL: "Said by the model under study.",
        Speaker.BASE: (
            "Said by the base model, its adapter switched off, and not by the model under study, whose gradients these "
            "examples are found by."
        ),
        Speaker.GIVEN: "A given text, attributed as if the model had said it.",
    }[speaker]


def heading(answer: Answer, selection: Selection, opponents: bool | None, method: Chosen) -> str:
    """What the shown examples are an answer to; both proponents and opponents where `opponents` is None."""
    said = selected_text(answer, selection)
    if not method.by_gradients:
        return f"First by {method.name} for {said}"
    by = f", by {method.written}" if method.written else ""
    if isinstance(selection, Contrast):
        other = f"“{shortened(selection.text, 60)}”"
        towards = "either" if opponents is None else other if opponents else said
        return f"Why {said} and not {other}: what pushed the model towards {towards}{by}"
    pushed = "towards and away from" if opponents is None else "away from" if opponents else "towards"
    return f"What pushed the model {pushed} {said}{by}"


def side(opponents: bool, method: Chosen) -> str:
    """What one end of a method's ranking is called."""
    if not method.by_gradients:
        return f"First by {method.name}"
    return "Opponents" if opponents else "Proponents"


def without_values(method: Chosen) -> str:
    """What a card says where its method knows no values of tokens; empty where it does."""
    return "" if method.token_values else f"{method.name} has no influence of single tokens"


def scores_kind(selection: Selection, method: Chosen, positions: bool = False) -> str:
    """What scores and colours are, in two sentences."""
    if method.can(Can.FOUR_INFLUENCES):
        scores, colours = question_kind(selection, positions)
        return f"Scores: the {scores}. Colours: the {colours}."
    what = f": {method.description.what}" if method.description.what else ""
    scores = f"Scores by {method.name}{what}."
    if method.token_values:
        return f"{scores} Colours: the influence of each training token; they average to the score."
    return f"{scores} {method.name} has no influence of single tokens, so none is coloured."


def exactness(shown: Sequence[Influence], sketch_error: float, method: Chosen) -> str:
    """How many of the shown scores are exact, in a sentence; empty where a method knows no other scores."""
    if not method.by_gradients or not shown:
        return ""
    exact = sum(each.exact for each in shown)
    if exact == len(shown):
        return "All of them are exact."
    return f"{exact} of {len(shown)} are exact, the others approximate{noise(sketch_error)}."


def noise(sketch_error: float) -> str:
    """How far the sketches' scores are off, as the end of a sentence; empty where that isn't known."""
    return f", ± {sketch_error:.2g} on a score" if sketch_error else ""


def shown_name(text: str, special: bool) -> str:
    """A name for a token without visible text."""
    if special:
        return "the end of the response"
    return "a line break" if "\n" in text else "a space" if text else "part of a character"


def shortened(text: str, length: int) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def question_kind(selection: Selection, positions: bool = False) -> tuple[str, str]:
    """Which of the four influences the scores and the colours show (paper, Eq. 5 to 8)."""
    if selection is None:
        asked, example, token = "the whole response", "Eq. 5", "Eq. 6"
    elif isinstance(selection, Contrast):
        asked = "the log-odds of what was said over the other word"
        example, token = "Eq. 7, a difference", "Eq. 8, a difference"
    else:
        one = selection[1] - selection[0] == 1
        asked = "the selected token" if one else "the selected tokens, their mean"
        example, token = "Eq. 7", "Eq. 8"
    coloured = (
        f"part of it that passes through each position of the example, which add up to the score ({example})"
        if positions
        else f"influence of each training token on the same ({token})"
    )
    return f"influence of a training example on {asked} ({example})", coloured


_NORMALISED = {
    "layer": "Gradients normalised tensor by tensor",
    "cosine": "Normalised gradients",
    "none": "Gradients, not normalised",
}


def gradient_kind(normalisation: str, checkpoints: Sequence[str], some: bool) -> str:
    """Which gradients are compared, in one sentence; `some` is whether they are of some of the trainable tensors alone.

    A pattern of names doesn't read well in a sentence; the Cache page has it.
    """
    at = f", taken at {moments(checkpoints)}" if checkpoints else ""
    of = ", of a subset of the parameters (see the Cache page)" if some else ""
    answers = "; the final model generates the answer" if checkpoints else ""
    return f"{_NORMALISED[normalisation]}{at}{of}{answers}."


def training_scale(scale: float, known: bool) -> str:
    """What scores are multiplied by, in a sentence."""
    from_where = "from the training record" if known else "assumed: there is no training record"
    return f"Scores are multiplied by epochs × learning rate ({scale:.3g}, {from_where})."


def coarse_kind(error: float) -> str:
    """How examples far from both ends are scored, in a sentence."""
    return f"Examples in the middle of the ranking have approximate scores of ± {error:.2g}."


def moments(names: Sequence[str]) -> str:
    """Where gradients are taken, in words: points on the way from the base, checkpoints of the training, or both."""
    points = [name for name in names if name.endswith("%")]
    others = [name for name in names if name not in points]
    said = []
    if points:
        said.append(f"{' and '.join(points)} of the way from the base to the fine-tuned model")
    if others:
        said.append(f"checkpoint {' and '.join(others)} of the training")
    return " and at ".join(said)


def _one_moment(name: str) -> str:
    """The same for a single one, short."""
    return f"{name} of the way" if name.endswith("%") else f"checkpoint {name}"


def percentile(ranking: Ranking, score: float) -> float:
    """Share of all training examples with a lower score, in percent; the example itself is never below itself."""
    others = len(ranking.scores) - 1
    return 100 * min(int((ranking.scores < score).sum()), others) / len(ranking.scores)


def place(percent: float, examples: int) -> str:
    """The rank of an example in words, from the nearer end, by the share of all examples with a lower score."""
    below = round(percent * examples / 100)
    if 2 * below >= examples:
        return f"Rank {examples - below:,} of {examples:,} by score"
    return f"Rank {below + 1:,} of {examples:,} from the lowest score"


UNUSUAL = 0.05
"""Something stands out where as much does on an unrelated prompt with at most this probability."""
OFTEN = 0.1
"""On so many unrelated prompts, and three times as many as it would be by chance, is often."""


def unusual(place: NullPlace | None, opponents: bool) -> str:
    """How unusual a score is for its own example, in words; empty in a cache without a null sample."""
    if place is None:
        return ""
    count = {0: "none", place.prompts: "all"}.get(place.beyond, f"{place.beyond}")
    of = f"{place.prompts}" if place.beyond == place.prompts else f"of {place.prompts}"
    return f"{'Lower' if opponents else 'Higher'} than on {count} {of} unrelated prompts"


def often(place: NullPlace | None, opponents: bool, examples: int) -> str:
    """Whether an example is near the top (or bottom) of many unrelated prompts; empty where it isn't."""
    if place is None or place.near < max(OFTEN, 3 * NEAR / examples):
        return ""
    return f"Generic: in the {'bottom' if opponents else 'top'} 10 for {place.near:.0%} of unrelated prompts"


def steadiness(found: Influence) -> str:
    """What the sketch had beside an exact score, and how firmly the example holds its place; empty where unknown."""
    known = found.steadiness
    if known is None:
        return ""
    error = f"{known.error:.2g}".replace("-", "−")
    if found.exact:
        said = [
            f"approximate score was {signed(known.sketched, 3)} ± {error}",
            f"a candidate by {_share(known.examined)} random projections",
        ]
    else:
        said = [f"approximate score, ± {error}", f"shown by {_share(known.shown)} random projections"]
    if known.of:
        said.append(
            f"shown at {' and '.join(map(_one_moment, known.checkpoints))} alone, too"
            if known.checkpoints
            else f"shown at no {'point' if known.of[0].endswith('%') else 'checkpoint'} alone"
        )
    return " · ".join(said)


def _share(share: float) -> str:
    """A share that was counted in some draws."""
    if share == 1:
        return "all"
    return f"{'over 99%' if share > 0.99 else 'under 1%' if share < 0.01 else f'{share:.0%}'} of"


def stability(ranking: Ranking, missed: float) -> str:
    """How many of the shown examples another sketch seed, or a checkpoint alone, would show; empty where unknown.

    Args:
        ranking: What is shown.
        missed: How many examples that weren't examined are expected to belong among those shown.
    """
    known = [found.steadiness for found in ranking.influences if found.steadiness]
    if not known:
        return ""
    count = len(known)
    if not ranking.exact:
        kept = sum(each.shown for each in known)
        return f"With another random projection, about {kept:.1f} of these {count} would remain."
    examined = sum(each.examined for each in known)
    left_out = "below 0.01" if missed < 0.01 else f"{missed:.1g}"
    lines = [
        f"Expected number of examples missed by the first, approximate step: {left_out}. With another random "
        f"projection, {examined:.1f} of these {count} would be candidates."
    ]
    if known[0].of:
        alone = [f"{sum(name in each.checkpoints for each in known)} at {_one_moment(name)}" for name in known[0].of]
        lines.append(f"Of the {count}, gradients at one point alone would show {' and '.join(alone)}.")
    return " ".join(lines)


def ranked_among(rows: int, total: int) -> str:
    """A sentence that says of what part of the data a ranking is; empty where of all."""
    return f"Ranked among the first {rows:,} of {total:,} training examples." if rows < total else ""


def standing_out(ranking: Ranking) -> str:
    """What stands out beside unrelated prompts, as one sentence; empty in a cache without a null sample."""
    test = ranking.test
    if test is None:
        return ""
    such = "such prompts" if test.together == 1 else f"sets of {test.together} answers, drawn from these and such,"
    return (
        f"The ten examples that stand out most, row {test.row} before all, score {test.deviations:.1f} standard "
        f"deviations {'below' if ranking.opponents else 'above'} what they score on unrelated prompts; "
        f"{test.reached} of {test.prompts} {such} have ten that stand out as much."
    )


def caution(ranking: Ranking) -> str:
    """What to tell a reader where nothing stands out; empty where something does, or nothing is shown."""
    if not ranking.influences or not ranking.method.can(Can.NULLS):
        return ""
    where = "among the opponents" if ranking.opponents else "here"
    if ranking.test is not None:
        return f"Nothing stands out {where}. {standing_out(ranking)}" if ranking.test.chance > UNUSUAL else ""
    if ranking.standing_out >= ranking.chance:
        return ""
    return (
        f"Nothing stands out {where}. The strongest example lies "
        f"{max(ranking.standing_out, 0):.1f} robust standard deviations from the middle of all scores; the largest "
        f"of {len(ranking.scores):,} unrelated ones would reach about {ranking.chance:.1f} by chance."
    )


def token_values(found: Influence, positions: bool) -> NDArray[np.float32] | None:
    """What an example's tokens are coloured by, in one of its two meanings; None while it isn't known."""
    return found.positions if positions else found.values


def token_checksum(found: Influence, positions: bool) -> float | None:
    """How far the token values are from adding up (positions) or averaging (losses) to the score, relative to it."""
    if not positions:
        return found.checksum
    if found.positions is None:
        return None
    return relative_difference(float(found.positions.sum(dtype=np.float64)), found.score)


def full_colour(ranking: Ranking, positions: bool = False) -> float:
    """The |token value| of full colour: the 98th percentile of what is shown."""
    return full_colour_of(ranking.influences, positions)


def full_colour_of(influences: Sequence[Influence], positions: bool = False) -> float:
    """The same for influences that are shown together."""
    shown = [token_values(influence, positions) for influence in influences]
    known = [values for values in shown if values is not None]
    return full_value(np.concatenate(known)) if known else 0.0


def full_value(values: NDArray[np.float32]) -> float:
    """The |value| of full colour among these: their 98th percentile."""
    return float(np.quantile(np.abs(values), 0.98))


def full_change(change: NDArray[np.float32]) -> float:
    """The |change| of full colour in nats; at least 1, so that small changes don't look large."""
    return max(full_value(change), 1.0)


def hardly_moved(change: NDArray[np.float32], selection: Selection) -> bool:
    """Whether fine-tuning moved every selected token by less than `HARDLY_MOVED`; never true of a whole response."""
    span = span_of(selection)
    return span is not None and bool((np.abs(change[span[0] : span[1]]) < HARDLY_MOVED).all())


def signed(value: float, digits: int = 4) -> str:
    """A number with its sign, to so many significant digits."""
    return f"{value:+.{digits}g}".replace("-", "−")


def size(difference: float) -> str:
    """A small number as its order of magnitude: 3e-05."""
    return f"{difference:.0e}" if difference else "0"


def token_label(token: Token) -> str:
    """A token in a few characters for the edge of a table: invisible ones as marks, the rest as it is."""
    if token.special:
        return "■ end" if _END.search(token.text) else f"■ {shortened(token.text, LONGEST_LABEL)}"
    if not token.text:
        return f"bytes {token.raw}" if token.raw else "part of a character"
    shown = "".join(_MARKS.get(character) or _visible(character) for character in token.text)
    return shortened(shown, LONGEST_LABEL)


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"U+{ord(character):04X}" if hidden else "·" if character.isspace() else character
