"""Saved answers → one HTML page that stands by itself.

It holds no script and fetches nothing, and its policy forbids both. Every text passes `_text`, the one place
that escapes. Colours follow the reader's light or dark setting; each coloured token says its number, too.
"""

import html
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from explorer import views
from explorer.history.evidence import Retraining
from explorer.history.saved import Annotation, SavedAnswer, SavedInfluence, SavedQuestion
from explorer.records import Chosen, Token, span_of
from explorer.trust import wording
from explorer.visible import visible

_STEPS = 12
"""Shades of a colour on either side of none."""

_MOST_ROWS = 100
"""So many rows are named in a sentence."""

_STYLE = """
:root { color-scheme: light dark; --text: #31333f; --paper: #ffffff; --line: #d5d6dc; --muted: #5b5e6b;
  --up: #ff9f40; --down: #7db8ff; --strong-up: #a34a00; --strong-down: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --text: #fafafa; --paper: #0e1117; --line: #3a3d46; --muted: #b4b7c0;
  --up: #b05c06; --down: #1f66c1; --strong-up: #ffab5e; --strong-down: #82b9ff; } }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; background: var(--paper); color: var(--text);
  font: 16px/1.6 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { margin-top: 3rem; font-size: 1.2rem; } h3 { margin-top: 2rem; font-size: 1rem; }
.text { white-space: pre-wrap; unicode-bidi: plaintext; }
.muted, dt { color: var(--muted); font-size: 0.85rem; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: 0.1rem 1rem; } dd { margin: 0; }
.card { margin: 0.8rem 0; padding: 0.6rem 0.9rem; border: 1px solid var(--line); border-radius: 0.5rem; }
.score { color: var(--strong-up); font-weight: 600; } .score.minus { color: var(--strong-down); }
.tokens { margin: 0.3rem 0 0; line-height: 1.8; white-space: pre-wrap; unicode-bidi: plaintext; }
.token { border-radius: 0.15em; } .asked { outline: 2px solid; }
.minus.token { text-decoration: underline dotted 1px; text-underline-offset: 0.25em; }
.verdict { padding: 0.5rem 0.9rem; border-inline-start: 4px solid var(--line); }
.verdict[data-state="strong"] { border-color: var(--strong-up); }
.verdict[data-state="some"] { border-color: var(--up); }
.special { color: var(--muted); font-size: 0.85em; }
"""


def document(answers: Sequence[SavedAnswer], retrainings: Sequence[Retraining] = ()) -> str:
    """The whole page; what trainings found stands with the answers that they are about."""
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [part for saved in answers for part in _answer(saved, retrainings)]
    count = f"{len(answers)} saved answer{'s' * (len(answers) != 1)}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>RapidIn Explorer: {count}</title>",
            f"<style>{_STYLE}{_shades()}</style></head><body><main>",
            f"<h1>RapidIn Explorer: {count}</h1>",
            f'<p class="muted">Written {written}. Orange, positive: training on it made the answer more likely. '
            "Blue and dotted, negative: less likely. Influence is first-order: what a small step on an example would "
            "do, not what the model would be without it.</p>",
            *parts,
            "</main></body></html>\n",
        ]
    )


def _shades() -> str:
    """The classes u1 to u12 and d1 to d12: from the paper's colour to full orange and blue."""
    return "\n".join(
        f".{side}{step} {{ background: color-mix(in oklab, var(--{name}) {100 * step // _STEPS}%, var(--paper)); }}"
        for side, name in (("u", "up"), ("d", "down"))
        for step in range(1, _STEPS + 1)
    )


def _answer(saved: SavedAnswer, retrainings: Sequence[Retraining]) -> Iterator[str]:
    asked = saved.answer.asked
    yield f"<h2>{_text(views.shortened(asked.question, 200))}</h2>"
    yield f'<p class="text">{_text(asked.text)}</p>' if len(asked.text) > 200 or not asked.alone else ""
    yield f'<p class="muted">{_text(views.said_by(saved.said_by))}</p>'
    yield f'<p class="tokens">{_plain_tokens(saved.answer.tokens)}</p>'
    yield f'<p class="verdict">{_text(saved.origin.ranked_among)}</p>' if saved.origin.unread_rows else ""
    yield _annotation(saved.annotation)
    if not saved.questions:
        yield '<p class="muted">No ranking was kept of this answer.</p>'
    for question in saved.questions:
        yield from _question(saved, question)
    for each in retrainings:
        if each.answer == saved.answer.id:
            yield from _retraining(each)
    yield _origin(saved)


def _question(saved: SavedAnswer, question: SavedQuestion) -> Iterator[str]:
    yield f"<h3>{_text(views.heading(saved.answer, question.selection, question.opponents, question.method))}</h3>"
    if question.verdict is not None:
        state, told = wording.headline(question.verdict), wording.sentences(question.verdict)
        yield f'<p class="verdict" data-state="{question.verdict.state}"><b>{_text(state)}.</b> {_text(told)}</p>'
    if question.selection is not None:
        yield f'<p class="tokens">{_plain_tokens(saved.answer.tokens, span_of(question.selection))}</p>'
    lines = [views.scores_kind(question.selection, question.method)]
    if not question.wanted.empty:
        lines.append(question.wanted.description)
    lines.append(views.exactness([shown.influence for shown in question.shown], question.sketch_error, question.method))
    if question.caution and question.verdict is None:
        lines.append(question.caution)
    yield f'<p class="muted">{_text(" ".join(filter(None, lines)))}</p>'
    scale = views.full_colour_of([shown.influence for shown in question.shown])
    for rank, shown in enumerate(question.shown, start=1):
        yield _card(rank, shown, scale, question.opponents, question.method, saved.origin.rows)


def _retraining(kept: Retraining) -> Iterator[str]:
    found = kept.found
    yield f"<h3>Trained without {len(found.rows.named) + len(found.rows.near_duplicates):,} rows</h3>"
    yield f'<p class="verdict"><b>{_text(found.said)}</b></p>'
    for label, answer, odds in found.told:
        yield f'<p class="text"><span class="muted">{_text(label)} ({_number(odds)}):</span> {_text(answer)}</p>'
    rows = ", ".join(map(str, found.rows.named[:_MOST_ROWS]))
    more = " …" if len(found.rows.named) > _MOST_ROWS else ""
    yield (
        f'<p class="muted">In brackets the log-odds of “{_text(found.word.text)}” behind what stood before it, in '
        f"nats. Left out: rows {rows}{more} and {len(found.rows.near_duplicates):,} near-duplicates; in each control "
        "as many others of similar length.</p>"
    )


def _card(rank: int, shown: SavedInfluence, scale: float, opponents: bool, method: Chosen, examples: int) -> str:
    found, example = shown.influence, shown.example
    facts = [f"row {found.row}", views.place(shown.percentile, examples)]
    if method.by_gradients:
        facts.insert(0, "exact" if found.exact else "approximate")
    if found.place:
        facts.append(views.unusual(found.place, opponents))
    if example.source:
        facts.append(f"source {example.source}")
    if found.checksum is not None:
        facts.append(f"mean of tokens = score to {found.checksum:.1g}")
    sign = " minus" if found.score < 0 else ""
    return (
        f'<section class="card"><div>{rank}. <span class="score{sign}">{_number(found.score)}</span> '
        f'<span class="muted">{_text(" · ".join(facts))}</span></div>'
        f'<div class="text muted">{_text(example.prompt)}</div>'
        f'<div class="tokens" role="list">{_valued_tokens(example.tokens, found.values, scale)}</div>'
        f"{_annotation(shown.annotation)}</section>"
    )


def _valued_tokens(tokens: Sequence[Token], values: NDArray[np.float32] | None, scale: float) -> str:
    known = [None] * len(tokens) if values is None else [float(value) for value in values]
    spans = []
    for token, value in zip(tokens, known, strict=True):
        said = "not known" if value is None else _number(value)
        name = f"{_text(_shown(token))}: {said}"
        classes = " ".join(["token", *_colour(value, scale), *(["special"] if token.special else [])])
        spans.append(
            f'<span class="{classes}" role="listitem" title="{said}" aria-label="{name}">{_text(_shown(token))}</span>'
        )
    return "".join(spans)


def _plain_tokens(tokens: Sequence[Token], selection: tuple[int, int] | None = None) -> str:
    start, stop = selection or (0, 0)
    before, inside, after = (
        "".join(_shown(token) for token in part) for part in (tokens[:start], tokens[start:stop], tokens[stop:])
    )
    marked = f'<span class="asked">{_text(inside)}</span>' if inside else ""
    return f"{_text(before)}{marked}{_text(after)}"


def _colour(value: float | None, scale: float) -> list[str]:
    if value is None or not math.isfinite(value) or not scale > 0:
        return []
    step = round(_STEPS * min(abs(value) / scale, 1.0))
    if step == 0:
        return []
    return [f"u{step}"] if value > 0 else [f"d{step}", "minus"]


def _shown(token: Token) -> str:
    if token.special:
        return "■ end"
    return token.text or "\ufffd"


def _annotation(note: Annotation) -> str:
    parts = [f"Verdict: {note.verdict}."] if note.verdict else []
    parts += [f"Tags: {', '.join(note.tags)}."] if note.tags else []
    parts += [note.note] if note.note else []
    return f'<p class="text">{_text(" ".join(parts))}</p>' if parts else ""


def _origin(saved: SavedAnswer) -> str:
    about = {"saved as": saved.id, "asked": datetime.fromtimestamp(saved.asked, UTC).isoformat(timespec="seconds")}
    if saved.drawn is None:
        about["response"] = "given, not generated"
    else:
        about["generation"] = ", ".join(f"{name} {value}" for name, value in saved.drawn.items())
    about |= saved.origin.facts()
    return f"<dl>{''.join(f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>' for name, value in about.items())}</dl>"


def _number(value: float) -> str:
    return f"{value:+.6g}".replace("-", "−")


def _text(text: str) -> str:
    """The one way of a text into the page."""
    return html.escape(visible(text), quote=True)
