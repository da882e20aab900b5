"""What every example scores on unrelated prompts: the null sample that a question's scores are compared with.

The model answers each prompt of `assets/null_prompts.txt`. The whole response, its first token, its end, another
token, drawn at random, and the word that fine-tuning raised most then make five questions, asked as `Engine.ask` asks.
One shard of scores belongs to each shard of sketches and is a pure function of it, the model and the settings.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import CacheSettings, Shard, Store
from explorer.errors import CacheError, PromptError, about
from explorer.gradients import Sketcher
from explorer.gradients.sketch import generator
from explorer.model.alternatives import predict
from explorer.model.generation import GenerationSettings, generate_together
from explorer.model.language_model import LanguageModel
from explorer.paths import ASSETS
from explorer.records import Conversation, Encoded
from explorer.trust.significance import FIRST, KINDS, RAISED, one_of_each_kind
from explorer.trust.words import raised_word

_TOGETHER = 32
"""So many prompts are answered at once."""
_LONGEST = GenerationSettings().max_tokens
"""Tokens of an answer at most: as long as the answers of which questions are asked, since the more words an answer has,
the more its most raised one was raised."""
_LEAST = 3
"""Without one of them, fewer prompts have no standard deviation."""


def null_prompts(model: LanguageModel, system: str = "") -> list[NDArray[np.int64]]:
    """Token ids of the unrelated prompts, everyday questions and instructions, as many as fit into the model's context.

    A `system` prompt stands before each. Their order never changes: a column of a cache's null sample is one of them.
    """
    found = []
    for line in (ASSETS / "null_prompts.txt").read_text(encoding="utf-8").splitlines():
        with suppress(PromptError):
            found.append(model.encode_prompt(Conversation.of(line).with_system(system).turns))
    return found


def add_nulls(
    model: LanguageModel,
    sketcher: Sketcher,
    store: Store,
    wanted: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    renew: bool = False,
) -> Store:
    """Score every example on the first `wanted` prompts, or on as many as the cache began with.

    Writes the shards that are missing; with `renew` also adds to those of an
    earlier cache the kinds of questions that they lack. All questions of these kinds are computed again.
    """
    have = {shard.ids for shard in store.shards_of("nulls") if not (renew and lacking(store.shard_arrays(shard)))}
    missing = [shard for shard in store.shards_of("sketches") if shard.ids not in have]
    return _score(model, sketcher, store, missing, store.null_prompts or wanted, report)


def lacking(arrays: Container[str]) -> tuple[str, ...]:
    """The kinds of questions that the scores of an earlier cache lack; none where they are as they are made now.

    Answers may have no end, or nothing in between. So only kinds that every new null sample names tell its age.
    """
    if FIRST in arrays and RAISED in arrays:
        return ()
    return tuple(kind for kind in KINDS if kind not in arrays)


def mend_nulls(
    model: LanguageModel,
    sketcher: Sketcher,
    store: Store,
    lost: Sequence[Shard],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Store:
    """Make listed shards of scores anew, on as many prompts as the others have.

    Raises CacheError where none is left that tells how many.
    """
    if not lost:
        return store
    whole = [shard for shard in store.shards_of("nulls") if shard not in lost]
    if not whole:
        raise CacheError(
            f"The null sample of {store.folder} is damaged as a whole, with it how many prompts it had; "
            "restore nulls/ from a copy, or make the cache anew."
        )
    wanted = int(store.shard_arrays(whole[0])["response"].shape[1])
    ids = {shard.ids for shard in lost}
    about = [shard for shard in store.shards_of("sketches") if shard.ids in ids]
    return _score(model, sketcher, store, about, wanted, report, damaged=True)


def _score(
    model: LanguageModel,
    sketcher: Sketcher,
    store: Store,
    shards: Sequence[Shard],
    wanted: int,
    report: Callable[[int, int], None],
    damaged: bool = False,
) -> Store:
    """Score the examples of these shards of sketches; each gets a shard of scores of the same number.

    What such a shard holds already is kept, unless it is `damaged`.
    """
    prompts = null_prompts(model, store.manifest.system or "")[:wanted]
    if not shards or len(prompts) < _LEAST:
        return store
    earlier = {shard.ids: shard for shard in store.shards_of("nulls")}
    kept = [dict(store.shard_arrays(earlier[s.ids])) if s.ids in earlier and not damaged else {} for s in shards]
    kinds = [kind for kind in KINDS if any(kind in lacking(arrays) for arrays in kept)]
    queries = null_queries(model, sketcher, store.manifest.settings, prompts, report, kinds)
    for shard, before in zip(shards, kept, strict=True):
        arrays = store.shard_arrays(shard)
        sketches = arrays["sketch"].astype(np.float32) * arrays["scale"][:, None]
        scored = before | {kind: sketches @ query.T for kind, query in queries.items() if kind not in before}
        store = store.put_shard(shard.file.replace("sketches", "nulls"), "nulls", scored, shard.example_ids)
    return store


def null_queries(
    model: LanguageModel,
    sketcher: Sketcher,
    settings: CacheSettings,
    prompts: Sequence[NDArray[np.int64]],
    report: Callable[[int, int], None] = lambda done, total: None,
    kinds: Sequence[str] = KINDS,
) -> dict[str, NDArray[np.float32]]:
    """RapidGrads (M, K) of the prompts' questions of some kinds, each of length one; `report` counts prompts.

    A kind has fewer than M where answers have none: one that was cut off has no
    end, one of a single word nothing in between. A kind that hardly any have is
    left out; of raised words there are then none, as where there is no base model.
    """
    queries: dict[str, dict[int, NDArray[np.float32]]] = {kind: {} for kind in KINDS}
    for done, (number, answer) in enumerate(answers(model, prompts), start=1):
        whole = gradients.gradient(model, answer)
        norms = gradients.norms(whole)
        tokens = model.tokens(answer.ids[answer.response_start :])
        raised = raised_word(tokens, predict(model, answer).change) if RAISED in kinds else None
        drawn = generator(settings.seed, "null token", number)
        for kind, selection in one_of_each_kind(tokens, drawn, raised).items():
            if kind not in kinds:
                continue
            gradient = whole if selection is None else gradients.gradient(model, answer, selection)
            with about(f"The unrelated prompt {number + 1}"):
                query = sketcher(gradients.normalised(model, gradient, norms, settings.normalisation))
            queries[kind][number] = query / (np.linalg.norm(query) or 1.0)
        report(done, len(prompts))
    found = {kind: [of[number] for number in sorted(of)] for kind, of in queries.items()}
    enough = {kind: np.stack(each) for kind, each in found.items() if len(each) >= _LEAST}
    none = np.zeros((0, sketcher.settings.length), dtype=np.float32)
    return enough if RAISED not in kinds else {RAISED: none} | enough


def answers(model: LanguageModel, prompts: Sequence[NDArray[np.int64]]) -> Iterator[tuple[int, Encoded]]:
    """The number of each prompt (token ids) with the model's most probable answer, short prompts first."""
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), _TOGETHER):
        batch = order[start : start + _TOGETHER]
        responses = generate_together(model, [prompts[number] for number in batch], _LONGEST)
        for number, response in zip(batch, responses, strict=True):
            ids = np.concatenate([prompts[number], np.asarray(response, dtype=np.int64)])
            yield number, Encoded(ids, len(prompts[number]))
