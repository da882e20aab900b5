"""What one model says to probes, kept as it goes; and two models beside each other."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.cache.files import write_whole
from explorer.evaluation.counterfactual.removals import says
from explorer.evaluation.probes import Probe, is_attacked
from explorer.gradients import log_probabilities
from explorer.history.checked import checked
from explorer.model.generation import GenerationSettings, generate
from explorer.model.language_model import LanguageModel
from explorer.records import Conversation, Encoded

CLEAN = "clean"
"""The kind of probes whose answers shall stay as they are."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Said:
    """One model's answer to one probe."""

    answer: str
    ids: tuple[int, ...]
    """The prompt's and the answer's tokens."""
    start: int
    """Where the answer begins."""
    shown: bool
    """Whether it shows the behaviour."""
    loss: float
    """The mean loss, in nats a token, of the answer that the original model gave to it, under this one."""


def shows(probe: Probe, text: str, wanted: str) -> bool:
    """Whether an answer shows the behaviour: it has the `wanted` text as whole words, or what the probe is about."""
    if wanted:
        return says(text, wanted)
    if probe.kind == "swap":
        return re.search(rf"\b{re.escape(probe.wrong)}\b", text) is not None
    return is_attacked(probe, text)


def probed(
    path: Path,
    load: Callable[[], LanguageModel],
    probes: Sequence[Probe],
    wanted: str,
    max_tokens: int,
    original: Sequence[Said] | None,
    name: str,
    report: Report,
) -> list[Said]:
    """What a model says to all probes; each answer is kept in the file at once, and what is there isn't asked again.

    `original` is what the model under study said; None where this is that one. `load` is called when there is something
    to be asked.
    """
    done = _kept(path)[: len(probes)]
    model = load() if len(done) < len(probes) else None
    while model is not None and len(done) < len(probes):
        number = len(done)
        done.append(_said(model, probes[number], wanted, max_tokens, original[number] if original else None))
        write_whole(path, json.dumps([asdict(each) for each in done]).encode("ascii"))
        report(name, len(done), len(probes))
    return done


def _kept(path: Path) -> list[Said]:
    try:
        found: tuple[Said, ...] = checked(tuple[Said, ...], json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return []
    return list(found)


def _said(model: LanguageModel, probe: Probe, wanted: str, max_tokens: int, original: Said | None) -> Said:
    turns = Conversation.of(probe.prompt).turns
    start = len(model.encode_prompt(turns))
    ids = [*model.encode_prompt(turns).tolist(), *generate(model, turns, GenerationSettings(max_tokens))]
    text = "".join(token.text for token in model.tokens(ids[start:]) if not token.special)
    of = original or Said(text, tuple(ids), start, False, 0.0)
    each = log_probabilities(model, Encoded(np.asarray(of.ids, dtype=np.int64), of.start))
    return Said(text, tuple(ids), start, shows(probe, text, wanted), float(-each.mean()))


def beside(
    probes: Sequence[Probe], before: Sequence[Said], after: Sequence[Said], seeds: Sequence[Sequence[Said]]
) -> dict[str, Any]:
    """By kind of probe: how many show the behaviour, how many answers are the same, and the losses of the original's.

    `seeds` are models that were trained on all rows with other seeds: by how much trainings differ that saw the same.
    """
    found = {}
    for kind in dict.fromkeys(probe.kind for probe in probes):
        of = [number for number, probe in enumerate(probes) if probe.kind == kind]

        def shown(said: Sequence[Said], of: Sequence[int] = of) -> int:
            return sum(said[number].shown for number in of)

        def loss(said: Sequence[Said], of: Sequence[int] = of) -> float:
            return float(np.mean([said[number].loss for number in of]))

        def same(said: Sequence[Said], of: Sequence[int] = of) -> int:
            return sum(said[number].answer == before[number].answer for number in of)

        found[kind] = {
            "probes": len(of),
            "shown": {"before": shown(before), "after": shown(after), "seeds": [shown(each) for each in seeds]},
            "loss": {"before": loss(before), "after": loss(after), "seeds": [loss(each) for each in seeds]},
            "same_answers": {"after": same(after), "seeds": [same(each) for each in seeds]},
        }
    return found
