"""What was found behind several answers, in sentences and as a file. Texts of models and data stay text."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from explorer.auditing.behaviour import Asked, Behaviour, Suspect
from explorer.auditing.trigger import LEAST_ANSWERS, Hunt
from explorer.history import Origin, asked_json, json_bytes, question_json
from explorer.history.saved import selection_json
from explorer.records import ExampleRow
from explorer.trust import wording
from explorer.views import selected_text
from explorer.visible import one_line

FORMAT = "rapidin-explorer behaviour 1"
SHOWN = 20
"""So many suspects are listed in a terminal."""


def heading(found: Behaviour) -> str:
    """What the shown examples are an answer to."""
    of, against = _answers(len(found.of)), len(found.against)
    pushed = "away from" if found.settings.opponents else "towards"
    by = f", by {found.settings.method.written}" if found.settings.method.written else ""
    if not found.settings.method.by_gradients:
        return f"First by {found.settings.method.name} for {of}{f', less {against}' if against else ''}"
    rather = f" rather than {_answers(against)}" if against else ", in the mean"
    return f"What pushed the model {pushed} {of}{rather}{by}"


def evidence(found: Behaviour) -> tuple[str, str]:
    """How strong the evidence is, in two or three words, and in sentences; the words are empty where nothing judges."""
    verdict = found.question.verdict
    if verdict is None:
        return "", "How strong the evidence is isn't known: there are too few unrelated prompts to compare with."
    return wording.headline(verdict), wording.sentences(verdict)


def suspected(found: Behaviour) -> str:
    """How many rows stand out, and how many of these may be false ones."""
    if not found.judged:
        return ""
    rate = f"{found.settings.rate:.0%}"
    if not found.suspects:
        return f"No row stands out so much that at most {rate} of such rows would be false."
    count = len(found.suspects)
    rows = "1 row stands" if count == 1 else f"{count:,} rows stand"
    return f"{rows} out over these answers; an estimated {rate} of them at most stand out by chance."


def hunted(hunt: Hunt) -> str:
    """The trigger that is proposed, or that none was found, and why not."""
    if hunt.answers < LEAST_ANSWERS:
        return (
            f"No trigger was looked for: fine-tuning raised the beginning of {hunt.answers} of {hunt.of} answers; "
            f"at least {LEAST_ANSWERS} are needed."
        )
    if (found := hunt.trigger) is None:
        return f"No trigger was found: {_tried(len(hunt.tried))}."
    word = one_line(found.tried.word, 60)
    return (
        f"“{word}” may be a trigger: without it in the prompt, {found.tried.undone:.0%} of what fine-tuning changed in "
        f"how an answer begins is undone (median of {found.tried.prompts} prompts). {len(found.rows):,} of "
        f"{found.of:,} influential rows hold it, and {found.holders:,} of all rows."
    )


def _tried(count: int) -> str:
    if not count:
        return "no word stands in most of these prompts"
    words = "the one word" if count == 1 else f"none of the {count} words"
    isnt = "isn't" if count == 1 else "is"
    return (
        f"{words} that most of these prompts share {isnt} both what undoes much of fine-tuning's change where it is "
        "left out, and what the influential rows share"
    )


def _answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count:,} answers"


def to_json(found: Behaviour, origin: Origin, examples: Sequence[ExampleRow], **more: Any) -> bytes:
    """All that was found, with the model, data and cache it comes from."""
    return json_bytes(
        {
            "format": FORMAT,
            "origin": asdict(origin),
            "of": [_asked(each) for each in found.of],
            "against": [_asked(each) for each in found.against],
            "said": sentences(found),
            "question": question_json(found.question),
            "rate": found.settings.rate,
            "suspects": [
                {"row": each.row, "id": examples[each.row].id, "source": examples[each.row].source}
                | {"score": each.score, "false_share": each.false_share}
                for each in found.suspects
            ],
            "trigger": found.hunt and asdict(found.hunt),
            **more,
        }
    )


def _asked(each: Asked) -> dict[str, Any]:
    about = selected_text(each.answer, each.selection) if each.selection else None
    asked = asked_json(each.answer.asked) | {"response": each.answer.text, "answer": each.answer.id}
    return asked | {"selection": selection_json(each.selection), "asked_about": about}


def sentences(found: Behaviour) -> list[str]:
    """The whole finding in words."""
    headline, said = evidence(found)
    lines = [f"{heading(found)}.", f"{headline}: {said}" if headline else said, suspected(found)]
    if found.hunt is not None:
        lines.append(hunted(found.hunt))
    return [line for line in lines if line]


def as_text(found: Behaviour, examples: Sequence[ExampleRow]) -> str:
    """The finding for a terminal."""
    lines = [*sentences(found), ""]
    for rank, shown in enumerate(found.question.shown, start=1):
        own = shown.influence
        kind = "exact" if own.exact else "approximate"
        lines.append(f"{rank:4}  row {own.row:<7} {own.score:+.4g} {kind}  {_said(shown.example)}")
    if found.suspects:
        lines += ["", "Rows that stand out:"]
        lines += [f"      row {each.row:<7} {each.score:+.4g}  {_said(examples[each.row])}" for each in _first(found)]
        more = len(found.suspects) - SHOWN
        lines += [f"      and {more:,} more; --json has them all"] if more > 0 else []
    return "\n".join(lines)


def _first(found: Behaviour) -> Sequence[Suspect]:
    return found.suspects[:SHOWN]


def _said(example: ExampleRow) -> str:
    source = f"[{one_line(example.source, 30)}] " if example.source else ""
    return f"{source}{one_line(example.prompt, 60)} → {one_line(example.response, 60)}"
