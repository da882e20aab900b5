"""A repair in a folder: the cleaned data, the adapter, its cache, what both models say, and the report.

    OUT/asked.json        what was asked for; the same command goes on, another one is refused
    OUT/data.jsonl        the cleaned data
    OUT/adapter/          trained on it, by the recipe of the adapter under study
    OUT/cache/            made as the cache under study was
    OUT/seeds/7/          adapters trained on all rows with other seeds, where that was asked for
    OUT/said/before.json  what each model says to the probes
    OUT/repair.json       the report

Every step leaves whole files, so that a stopped run goes on with the step that it was at; a cache goes on with the
shard, and probes with the answer.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from explorer.cache import Store
from explorer.cache.files import make_folder, only_writer, write_whole
from explorer.cache.manifest import MANIFEST
from explorer.cache.store import load
from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.kinds import spaced
from explorer.gradients import log_probabilities
from explorer.history import origin_of
from explorer.model.checkpoints import FINAL, training_record
from explorer.model.generation import GenerationSettings, generate
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Conversation, Encoded, Example
from explorer.repair.asked import Cost, Wanted
from explorer.repair.cleaned import cleaned, encoded, examples_of, write_data
from explorer.repair.kept import keep
from explorer.repair.probing import Said, beside, probed
from explorer.training.recipe import FinetuneSettings
from explorer.training.recorded import recipe_of
from precompute import estimate as costs
from precompute.build import build_cache
from precompute.data import data_hash
from precompute.finetune import train_into
from precompute.retraining import Part
from precompute.retraining import estimate as training_seconds

FORMAT = "rapidin-explorer repair 1"
_MEASURED = 8
"""So many tokens are generated to tell how long answers take."""
_MOST_ROWS = 200
"""Of so many rows that stayed, and of so many that were dropped, the loss is computed."""
Load = Callable[[Path | None], LanguageModel]
"""Gives a cache's base with the adapter in a folder, or without one."""
Report = Callable[[str, int, int], None]


class Repair:
    """One repair of a cache's adapter."""

    def __init__(self, engine: Engine, load: Load, wanted: Wanted, out: Path, given: Mapping[str, Any]):
        """`given` is what is known of the adapter's recipe otherwise than by its record.

        Raises DataError where the adapter can't be trained anew, or the rows can't be told as they were trained on.
        """
        self.engine, self.wanted, self.out, self._load = engine, wanted, out, load
        self._store = engine.store
        adapter = Path(engine.model.adapter)
        self.recipe = replace(recipe_of(engine.model.adapter, given), checkpoints=_moments(adapter))
        if out.resolve() == self._store.folder.resolve() or out.resolve() == adapter.resolve():
            raise DataError(f"{out} is what is to be repaired; give another folder.")
        self._all = examples_of(self._store, engine.model, wanted.data)
        self._check_folder()

    @cached_property
    def _kept(self) -> list[tuple[int, Example]]:
        return cleaned(self._all, self.wanted.suspects)

    @cached_property
    def _encoded(self) -> list[Encoded]:
        """The cleaned rows as they are trained on; those that weren't changed just as they were."""
        new = {each.row for each in self.wanted.suspects.replaced}
        old = self._store.examples
        return [
            encoded(self.engine.model, example, self._store, row) if row in new else old[row].encoded
            for row, example in self._kept
        ]

    @property
    def _adapter(self) -> Path:
        return self.out / "adapter"

    @property
    def _seeds(self) -> list[int]:
        return [self.recipe.seed + number for number in range(1, self.wanted.seeds + 1)]

    def _with_seed(self, seed: int) -> Path:
        return self.out / "seeds" / str(seed)

    def cost(self) -> Cost:
        """What it takes, measured on one step of training, one example and a few tokens."""
        everything = [example.encoded for example in self._store.examples]
        rows = {self._adapter: self._encoded} | {self._with_seed(seed): everything for seed in self._seeds}
        left = {place: of for place, of in rows.items() if not place.is_dir()}
        parts = [Part(place.name, tuple(range(len(of))), 0) for place, of in left.items()]
        seconds = training_seconds(self.engine.model, everything, self.recipe, parts)
        done = [len(self._answered(name)) for name in ("before", "after", *map(str, self._seeds))]
        answers = len(self.wanted.probes) * len(done) - sum(done)
        token = self._token_seconds() if answers else 0.0
        answering = token * self.wanted.max_tokens * answers
        fresh = len(self._encoded) if self._adapter in left else 0
        return Cost(fresh, len(left), seconds, self._cache_cost(), answers, answering)

    def _cache_cost(self) -> costs.Cost | None:
        folder, settings = self.out / "cache", self._store.manifest.settings
        if self._finished is not None:
            return None
        done = 0
        if (folder / MANIFEST).is_file():
            done = sum(shard.count for shard in load(folder).shards_of("sketches"))
        tokens = sum(each.response_length for each in self._encoded[: self._with_tokens])
        nulls = self._store.null_prompts
        return costs.estimate(self.engine.model, self._encoded, settings, tokens, (done, 0), nulls, bool(nulls))

    @property
    def _finished(self) -> Store | None:
        """The new cache, where it is complete."""
        folder = self.out / "cache"
        if not (folder / MANIFEST).is_file():
            return None
        found = load(folder)
        return found if found.complete and found.null_prompts == self._store.null_prompts else None

    def _token_seconds(self) -> float:
        started = time.perf_counter()
        turns = Conversation.of(self.wanted.probes[0].prompt).turns
        told = sum(1 for _ in generate(self.engine.model, turns, GenerationSettings(_MEASURED)))
        return (time.perf_counter() - started) / max(told, 1)

    @property
    def _with_tokens(self) -> int:
        """How many rows get token sketches, as in the cache under study."""
        kept = self._store.manifest
        return len(self._kept) if kept.token_rows == kept.rows else min(kept.token_rows, len(self._kept))

    def done(self, report: Report) -> dict[str, Any]:
        """Do what is left, and return the report. Raises DataError where the folder holds another repair."""
        with only_writer(self.out):
            self._begin()
            data = self.out / "data.jsonl"
            if not data.is_file():
                write_data(data, [example for _, example in self._kept])
            before = self._said("before", lambda: self.engine.model, None, report)
            said = {"data_sha256": data_hash([example for _, example in self._kept]), "examples": len(self._kept)}
            self._train(self._adapter, self._encoded, self.recipe, said, "training", report)
            store = self._cached(report)
            after = self._said("after", lambda: self._load(self._adapter), before, report)
            seeds = [self._seed(seed, before, report) for seed in self._seeds]
            found = self._found(store, before, after, seeds)
            payload = (json.dumps(found, indent=1) + "\n").encode("ascii")
            write_whole(self.out / "repair.json", payload)
            keep(self._store, hashlib.sha256(self._asked).hexdigest()[:16], payload)
            return found

    @cached_property
    def _asked(self) -> bytes:
        now, kept = origin_of(self._store), self.wanted.recorded()
        of = {"cache_sha256": now.cache_sha256, "base_sha256": now.base_sha256, "recipe": self.recipe.recorded()}
        return (json.dumps({"format": FORMAT, "of": of, **kept}, indent=1) + "\n").encode("ascii")

    def _check_folder(self) -> None:
        """Raise DataError where the folder holds something else."""
        asked = self.out / "asked.json"
        if asked.is_file() and asked.read_bytes() != self._asked:
            raise DataError(f"{self.out} holds another repair; give the command that began it, or another folder.")
        there = self.out.is_dir() and any(path.name != "asked.json.part" for path in self.out.iterdir())
        if self.out.is_file() or (there and not asked.is_file()):
            raise DataError(f"{self.out} isn't an empty folder; give another one.")

    def _begin(self) -> None:
        self._check_folder()
        if not (self.out / "asked.json").is_file():
            write_whole(self.out / "asked.json", self._asked)

    def _train(
        self,
        place: Path,
        rows: Sequence[Encoded],
        recipe: FinetuneSettings,
        data: Mapping[str, Any],
        name: str,
        report: Report,
    ) -> None:
        if not place.is_dir():
            make_folder(place.parent)
            train_into(self._load(None), rows, place, recipe, lambda step, steps, loss: report(name, step, steps), data)

    def _seed(self, seed: int, before: Sequence[Said], report: Report) -> list[Said]:
        place, everything = self._with_seed(seed), [example.encoded for example in self._store.examples]
        data = {"data_sha256": self._store.manifest.data_sha256, "examples": len(everything)}
        recipe = replace(self.recipe, seed=seed, checkpoints=1)
        self._train(place, everything, recipe, data, f"training, seed {seed}", report)
        return self._said(str(seed), lambda: self._load(place), before, report)

    def _cached(self, report: Report) -> Store:
        if self._finished is not None:
            return self._finished
        kept, asked, folder = self._store.manifest, self.engine.model, self.out / "cache"
        model = load_model(
            asked.name,
            self._adapter,
            asked.template.name,
            str(asked.device),
            checkpoints=",".join(kept.training.names) or FINAL,
            precision=kept.fingerprint.precision,
            tensors=kept.settings.tensors,
            checked=True,
        )
        return build_cache(
            model,
            [example for _, example in self._kept],
            folder,
            replace(kept.settings, shard_rows=0),
            self._with_tokens,
            "data.jsonl",
            report,
            None,
            self._store.null_prompts,
            None,
            self._encoded,
            kept.counting,
        )

    def _answered(self, name: str) -> list[Any]:
        try:
            found = json.loads((self.out / "said" / f"{name}.json").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def _said(
        self, name: str, model: Callable[[], LanguageModel], original: Sequence[Said] | None, report: Report
    ) -> list[Said]:
        make_folder(self.out / "said")
        path, wanted = self.out / "said" / f"{name}.json", self.wanted
        told = f"answers, {name}" if name in ("before", "after") else f"answers, seed {name}"
        return probed(path, model, wanted.probes, wanted.text, wanted.max_tokens, original, told, report)

    def _found(
        self, store: Store, before: Sequence[Said], after: Sequence[Said], seeds: Sequence[Sequence[Said]]
    ) -> dict[str, Any]:
        suspects, probes = self.wanted.suspects, self.wanted.probes
        report: dict[str, Any] = {"format": FORMAT, "kinds": beside(probes, before, after, seeds)}
        report["text"] = self.wanted.text or None
        report["rows"] = asdict(suspects) | {"all": self._store.manifest.rows, "left": len(self._kept)}
        report["losses"] = self._losses()
        report["answers"] = [
            {
                "prompt": Conversation.of(probe.prompt).text,
                "kind": probe.kind,
                "before": old.answer,
                "after": new.answer,
                "shown": {"before": old.shown, "after": new.shown},
            }
            for probe, old, new in zip(probes, before, after, strict=True)
        ]
        report["hashes"] = {"before": _hashes(self._store), "after": _hashes(store)}
        report["recipe"], report["seeds"] = self.recipe.recorded(), self._seeds
        return report

    def _losses(self) -> dict[str, Any]:
        """The mean loss of training rows, in nats a token: of those that stayed as they were, and of the dropped."""
        new = {each.row for each in self.wanted.suspects.replaced}
        stayed = [row for row, _ in self._kept if row not in new]
        model = self._load(self._adapter)
        rows = {"kept": spaced(stayed, _MOST_ROWS), "dropped": spaced(self.wanted.suspects.dropped, _MOST_ROWS)}
        return {
            name: {"rows": len(of), "before": self._loss(self.engine.model, of), "after": self._loss(model, of)}
            for name, of in rows.items()
        }

    def _loss(self, model: LanguageModel, rows: Sequence[int]) -> float | None:
        each = [float(-log_probabilities(model, self._store.examples[row].encoded).mean()) for row in rows]
        return float(np.mean(each)) if each else None


def _hashes(store: Store) -> dict[str, str]:
    found = origin_of(store)
    names = ("base_sha256", "adapter_sha256", "data_sha256", "cache_sha256")
    return {name: str(getattr(found, name)) for name in names}


def _moments(adapter: Path) -> int | tuple[float, ...]:
    """After how many epochs the adapter's training kept a checkpoint, so that the new one keeps the same."""
    kept = training_record(adapter).get("checkpoints", ())
    spans = [each.get("epochs", 1.0) for each in kept if isinstance(each, dict)] if isinstance(kept, list) else []
    return tuple(float(moment) for moment in np.cumsum(spans)) if len(spans) > 1 else 1
