"""A bundle for a terminal: what was found about each answer, and what it was found with."""

from collections.abc import Iterator

from explorer import views
from explorer.bundles.sealed import Bundle
from explorer.history import Annotation, Retraining, SavedAnswer, SavedQuestion
from explorer.history.export import moment
from explorer.trust import wording
from explorer.visible import one_line, visible

_WIDE = 110
"""Characters of a text on a line."""


def as_text(bundle: Bundle) -> str:
    """The bundle, its answers one after the other."""
    return "\n".join([*_about(bundle), *(line for saved in bundle.answers for line in _answer(saved, bundle))])


def summary(bundle: Bundle) -> str:
    """What a bundle holds, in a sentence."""
    questions = sum(len(saved.questions) for saved in bundle.answers)
    counted = [
        _counted(len(bundle.answers), "answer"),
        _counted(questions, "ranking"),
        _counted(len(bundle.rows), "training example"),
        _counted(len(bundle.retrainings), "retraining"),
    ]
    return f"{', '.join(counted[:-1])} and {counted[-1]}"


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"


def _about(bundle: Bundle) -> Iterator[str]:
    yield f"A bundle of {summary(bundle)}, sealed {moment(bundle.made)}."
    yield f"SHA-256 {bundle.sha256}"
    yield f"Written with {', '.join(f'{one_line(k, 40)} {one_line(v, 40)}' for k, v in bundle.versions.items())}"


def _answer(saved: SavedAnswer, bundle: Bundle) -> Iterator[str]:
    yield from ("", f"── {one_line(saved.answer.asked.question, _WIDE)}")
    if not saved.answer.asked.alone:
        yield visible(saved.answer.prompt)
    yield f"→ {visible(saved.answer.text.strip())}"
    yield f"{views.said_by(saved.said_by)} Saved as {one_line(saved.id, 40)}, {moment(saved.asked)}."
    yield from _noted(saved.annotation)
    for question in saved.questions:
        yield from _question(saved, question)
    for each in bundle.retrainings:
        if each.answer == saved.answer.id:
            yield from _retraining(each)
    yield from _origin(saved)


def _question(saved: SavedAnswer, question: SavedQuestion) -> Iterator[str]:
    yield ""
    yield visible(views.heading(saved.answer, question.selection, question.opponents, question.method))
    if question.verdict is not None:
        yield visible(f"{wording.headline(question.verdict)}. {wording.sentences(question.verdict)}")
    elif question.caution:
        yield visible(question.caution)
    for rank, shown in enumerate(question.shown, start=1):
        found, example = shown.influence, shown.example
        source = f" [{one_line(example.source, 40)}]" if example.source else ""
        exact = "" if found.exact or not question.method.by_gradients else ", approximate"
        yield f"{rank:3}  {found.score:+.4g}{source}  row {found.row}{exact}"
        yield f"     {one_line(example.prompt, _WIDE)}"
        yield f"     → {one_line(example.response, _WIDE)}"
        yield from (f"     {line}" for line in _noted(shown.annotation))


def _retraining(kept: Retraining) -> Iterator[str]:
    found = kept.found
    yield from ("", visible(found.said))
    yield f"Log-odds of “{one_line(found.word.text, 60)}” in nats, and the answer:"
    for label, answer, odds in found.told:
        yield f"{odds:+8.2f}  {label}: {one_line(answer, _WIDE)}"


def _origin(saved: SavedAnswer) -> Iterator[str]:
    yield ""
    yield from (f"  {name}: {one_line(value, 300)}" for name, value in saved.origin.facts().items())


def _noted(note: Annotation) -> Iterator[str]:
    if note.verdict:
        yield f"Verdict: {one_line(note.verdict, _WIDE)}"
    if note.tags:
        yield f"Tags: {one_line(', '.join(note.tags), _WIDE)}"
    if note.note:
        yield f"Note: {visible(note.note)}"
