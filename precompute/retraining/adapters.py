"""Adapters trained on some of a cache's rows, kept so that any question can be asked of them later.

    retraining/adapters/DIGEST/     in a cache's folder: an adapter as `finetune` writes it, whole or not there

DIGEST is of all that decides an adapter: the base, the recipe, the seed, and the rows as they were read. Rows that were
trained on before, for whichever question, aren't trained on again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from explorer.cache.files import only_writer
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from explorer.training.recipe import FinetuneSettings
from precompute.finetune import train_into
from precompute.retraining.parts import Part

Report = Callable[[str, int, int], None]
"""Called with the part's name, the steps that are done, and the steps in all."""


class Retrained:
    """The adapters of parts of one cache's rows, in a folder."""

    def __init__(
        self,
        folder: Path,
        load: Callable[[Path | None], LanguageModel],
        recipe: FinetuneSettings,
        rows: Sequence[Encoded],
        base_sha256: str,
    ):
        """`load` gives the base with the adapter in a folder, or without one; it is called when one is needed."""
        self._folder, self._load, self.recipe, self.rows = folder, load, replace(recipe, checkpoints=1), rows
        self._base = base_sha256
        self._read = [_digest([each.ids.tolist(), each.response_start]) for each in rows]

    def place(self, part: Part) -> Path:
        """The folder of a part's adapter, whether it is there or not."""
        seen = [self._read[row] for row in part.rows]
        return self._folder / _digest([self._base, replace(self.recipe, seed=part.seed).recorded(), seen])[:16]

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """Those that have to be trained, one of each that see the same."""
        return list({place: part for part in parts if not (place := self.place(part)).is_dir()}.values())

    def model(self, part: Part, report: Report) -> LanguageModel:
        """The base with a part's adapter, which is trained and kept where it isn't there."""
        place = self.place(part)
        if not place.is_dir():
            with only_writer(place.parent):
                train_into(
                    self._load(None),
                    [self.rows[row] for row in part.rows],
                    place,
                    replace(self.recipe, seed=part.seed),
                    lambda step, steps, loss: report(part.name, step, steps),
                    {"examples": len(part.rows)},
                )
        return self._load(place)


def _digest(told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
