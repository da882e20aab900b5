"""What every example scores on unrelated prompts: the null sample that a question's scores are compared with.

The model answers each prompt of `assets/null_prompts.txt`. The whole response, its first token, its end and another
token, drawn at random, then make four questions, asked as `Engine.ask` asks. One shard of scores belongs to each
shard of sketches and is a pure function of it, the model and the settings.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import CacheSettings, Shard, Store
from explorer.errors import CacheError, PromptError, about
from explorer.gradients import Sketcher
from explorer.gradients.sketch import generator
from explorer.model.generation import generate_together
from explorer.model.language_model import LanguageModel
from explorer.paths import ASSETS
from explorer.records import Conversation, Encoded
from explorer.trust.significance import FIRST, KINDS, one_of_each_kind

_TOGETHER = 32
"""So many prompts are answered at once."""
_LONGEST = 40
"""Tokens of an answer at most."""
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

    Writes the shards that are missing, with `renew` also those of an early
    cache anew, which tell no single tokens apart; to know the questions again,
    all of them are computed again.
    """
    have = {shard.ids for shard in store.shards_of("nulls") if not renew or FIRST in store.shard_arrays(shard)}
    missing = [shard for shard in store.shards_of("sketches") if shard.ids not in have]
    return _score(model, sketcher, store, missing, store.null_prompts or wanted, report)


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
    return _score(model, sketcher, store, about, wanted, report)


def _score(
    model: LanguageModel,
    sketcher: Sketcher,
    store: Store,
    shards: Sequence[Shard],
    wanted: int,
    report: Callable[[int, int], None],
) -> Store:
    """Score the examples of these shards of sketches; each gets a shard of scores of the same number."""
    prompts = null_prompts(model, store.manifest.system or "")[:wanted]
    if not shards or len(prompts) < _LEAST:
        return store
    queries = null_queries(model, sketcher, store.manifest.settings, prompts, report)
    for shard in shards:
        arrays = store.shard_arrays(shard)
        sketches = arrays["sketch"].astype(np.float32) * arrays["scale"][:, None]
        scored = {kind: sketches @ query.T for kind, query in queries.items()}
        store = store.put_shard(shard.file.replace("sketches", "nulls"), "nulls", scored, shard.example_ids)
    return store


def null_queries(
    model: LanguageModel,
    sketcher: Sketcher,
    settings: CacheSettings,
    prompts: Sequence[NDArray[np.int64]],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, NDArray[np.float32]]:
    """RapidGrads (M, K) of the prompts' questions of each kind, each of length one; `report` counts prompts.

    A kind has fewer than M where answers have none: one that was cut off has no
    end, one of a single word nothing in between. A kind that hardly any have is
    left out.
    """
    queries: dict[str, dict[int, NDArray[np.float32]]] = {kind: {} for kind in KINDS}
    for done, (number, answer) in enumerate(answers(model, prompts), start=1):
        whole = gradients.gradient(model, answer)
        norms = gradients.norms(whole)
        tokens = model.tokens(answer.ids[answer.response_start :])
        for kind, selection in one_of_each_kind(tokens, generator(settings.seed, "null token", number)).items():
            gradient = whole if selection is None else gradients.gradient(model, answer, selection)
            with about(f"The unrelated prompt {number + 1}"):
                query = sketcher(gradients.normalised(model, gradient, norms, settings.normalisation))
            queries[kind][number] = query / (np.linalg.norm(query) or 1.0)
        report(done, len(prompts))
    found = {kind: [of[number] for number in sorted(of)] for kind, of in queries.items()}
    return {kind: np.stack(each) for kind, each in found.items() if len(each) >= _LEAST}


def answers(model: LanguageModel, prompts: Sequence[NDArray[np.int64]]) -> Iterator[tuple[int, Encoded]]:
    """The number of each prompt (token ids) with the model's most probable answer, short prompts first."""
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), _TOGETHER):
        batch = order[start : start + _TOGETHER]
        responses = generate_together(model, [prompts[number] for number in batch], _LONGEST)
        for number, response in zip(batch, responses, strict=True):
            ids = np.concatenate([prompts[number], np.asarray(response, dtype=np.int64)])
            yield number, Encoded(ids, len(prompts[number]))
