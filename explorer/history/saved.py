"""What is kept of a question, so that it opens again without model and cache.

Records, and how they become JSON and bytes and back. Texts go through JSON in ASCII, which keeps every
character, half surrogates too; arrays are raw little-endian bytes with their dtype (safetensors); numbers
come back to the last digit. Nothing is pickled. Knows nothing of databases.
"""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Arrays, Store
from explorer.cache.files import file_sha256
from explorer.cache.shards import pack_arrays, unpack_arrays
from explorer.corpus import Filter
from explorer.records import (
    Answer,
    Chosen,
    Contrast,
    Conversation,
    Encoded,
    ExampleRow,
    Influence,
    NullPlace,
    NullTest,
    Ranking,
    Selection,
    Speaker,
    Steadiness,
    Token,
)
from explorer.trust import Shared, Verdict
from explorer.views import caution, percentile, ranked_among

Describe = Callable[[str], Chosen]
"""What a method is whose name was kept: files hold names alone, empty ones for the default."""
MOST_SCORES = 100_000
"""All scores are kept of data sets up to this size; of larger ones only what is shown."""


@dataclass(frozen=True)
class Origin:
    """The model, data and cache behind an answer; hashes are SHA-256."""

    model: str
    adapter: str
    template: str
    data: str
    rows: int
    """N, the number of training examples."""
    checkpoints: str
    normalisation: str
    sketch_length: int
    sketch_dtype: str
    scale: float
    """e·η, which every score includes."""
    scale_known: bool
    base_sha256: str
    adapter_sha256: str
    tokenizer_sha256: str
    template_sha256: str
    data_sha256: str
    cache_sha256: str
    """Of the cache's manifest, which lists every file with its own."""
    versions: dict[str, str]
    cache: str = ""
    """The name of the cache's folder; empty in what older versions kept."""
    unread_rows: int = 0
    """How many more examples the data has, which weren't in the cache yet when it was asked."""

    @property
    def ranked_among(self) -> str:
        """A sentence that says so where it was asked of a part of the data; empty where of all."""
        return ranked_among(self.rows, self.rows + self.unread_rows)

    def facts(self) -> dict[str, str]:
        """All of it in words, to be listed."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        kept = dataclasses.asdict(self) | {"versions": versions}
        if not self.unread_rows:
            del kept["unread_rows"]
        return {name.replace("_", " "): str(value) for name, value in kept.items()}


@dataclass(frozen=True)
class Annotation:
    """What the auditor thinks of an answer or a training example."""

    verdict: str = ""
    """For instance planted, hallucination, fine, unclear; empty when none was given."""
    tags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, eq=False)
class SavedInfluence:
    """One shown training example with everything its card says."""

    influence: Influence
    percentile: float
    example: ExampleRow
    sequence: tuple[Token, ...] | None = None
    """All its tokens, prompt included, where positions were shown."""
    annotation: Annotation = Annotation()


@dataclass(frozen=True, eq=False)
class SavedQuestion:
    """What was asked about an answer, and the ranking that was found."""

    id: str
    asked: float
    """Seconds since 1970, UTC."""
    selection: Selection
    opponents: bool
    wanted: Filter
    """Only examples that pass were ranked."""
    sketch_error: float
    caution: str
    """What the page said where nothing stood out; empty where something did."""
    shown: tuple[SavedInfluence, ...]
    """Best first."""
    scores: NDArray[np.float32] | None
    """Scores of all training examples (N) from the sketches; None for more than `MOST_SCORES`."""
    method: Chosen = field(kw_only=True)
    """By which method examples were scored."""
    verdict: Verdict | None = field(default=None, kw_only=True)
    """How strong the evidence was, and what the first examples shared; None where that wasn't known, or not kept."""


@dataclass(frozen=True, eq=False)
class SavedAnswer:
    """A prompt, the response under study, and what was asked about it."""

    id: str
    asked: float
    """Seconds since 1970, UTC."""
    answer: Answer
    drawn: dict[str, Any] | None
    """The generation settings, seed included; None for a response from elsewhere."""
    origin: Origin
    annotation: Annotation = Annotation()
    questions: tuple[SavedQuestion, ...] = field(default=())
    """In the order they were asked."""

    @property
    def said_by(self) -> Speaker:
        """Whose words it is, which everything that shows the answer says, too."""
        if self.drawn is None:
            return Speaker.GIVEN
        return Speaker.BASE if self.drawn.get("base") else Speaker.MODEL


def origin_of(store: Store) -> Origin:
    """The origin of what is computed with a cache. Reads the manifest's file once more."""
    kept = store.manifest
    return Origin(
        model=kept.model,
        adapter=kept.adapter,
        template=kept.template,
        data=kept.data,
        rows=kept.rows,
        checkpoints=", ".join(name for name, _ in kept.training.checkpoints) or "final",
        normalisation=kept.settings.normalisation,
        sketch_length=kept.settings.length,
        sketch_dtype=kept.settings.dtype,
        scale=kept.training.scale,
        scale_known=kept.training.known,
        base_sha256=kept.fingerprint.base,
        adapter_sha256=kept.fingerprint.adapter,
        tokenizer_sha256=kept.fingerprint.tokenizer,
        template_sha256=kept.fingerprint.template,
        data_sha256=kept.data_sha256,
        cache_sha256=file_sha256(store.folder / store.file),
        versions=kept.versions,
        cache=store.folder.name,
        unread_rows=store.awaited,
    )


def question_id(answer_id: str, selection: Selection, opponents: bool, wanted: Filter, method: Chosen) -> str:
    """The name of a question about a saved answer: asking it again, or making it exact, keeps its name."""
    asked = [answer_id, selection_json(selection), opponents, dataclasses.asdict(wanted)]
    # Names that were given before there were other methods stay.
    asked += [method.written] if method.written else []
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def saved_question(
    answer_id: str,
    asked: float,
    ranking: Ranking,
    wanted: Filter,
    shown: tuple[tuple[ExampleRow, tuple[Token, ...] | None], ...],
    verdict: Verdict | None = None,
) -> SavedQuestion:
    """A ranking as it is kept; `shown` has the example (and its sequence) of each of its influences, in order."""
    return SavedQuestion(
        id=question_id(answer_id, ranking.selection, ranking.opponents, wanted, ranking.method),
        asked=asked,
        selection=ranking.selection,
        opponents=ranking.opponents,
        wanted=wanted,
        sketch_error=ranking.sketch_error,
        caution=caution(ranking),
        shown=tuple(
            SavedInfluence(found, percentile(ranking, found.score), example, sequence)
            for found, (example, sequence) in zip(ranking.influences, shown, strict=True)
        ),
        scores=ranking.scores if len(ranking.scores) <= MOST_SCORES else None,
        method=ranking.method,
        verdict=verdict,
    )


# Records ↔ JSON and bytes


def answer_document(saved: SavedAnswer) -> str:
    """An answer without its annotation and questions."""
    answer = saved.answer
    return _json(
        {
            "answer_id": answer.id,
            **asked_json(answer.asked),
            "response": answer.text,
            "ids": answer.encoded.ids.tolist(),
            "response_start": answer.encoded.response_start,
            "tokens": _tokens_json(answer.tokens),
            "drawn": saved.drawn,
            "origin": dataclasses.asdict(saved.origin),
        }
    )


def read_answer(document: str, **rest: Any) -> SavedAnswer:
    """The answer that `answer_document` wrote; `rest` are the fields it leaves out."""
    kept = json.loads(document)
    encoded = Encoded(np.asarray(kept["ids"], dtype=np.int64), kept["response_start"])
    asked = Conversation(tuple(kept["messages"])) if "messages" in kept else Conversation.of(kept["prompt"])
    answer = Answer(kept["answer_id"], asked, encoded, _read_tokens(kept["tokens"]), kept["response"], finished=True)
    return SavedAnswer(answer=answer, drawn=kept["drawn"], origin=Origin(**kept["origin"]), **rest)


def question_document(saved: SavedQuestion) -> str:
    """A question without its examples and scores."""
    return _json(
        {
            "selection": selection_json(saved.selection),
            "opponents": saved.opponents,
            "wanted": dataclasses.asdict(saved.wanted),
            "sketch_error": saved.sketch_error,
            "caution": saved.caution,
        }
        | ({"method": saved.method.written} if saved.method.written else {})
        | ({"verdict": dataclasses.asdict(saved.verdict)} if saved.verdict else {})
    )


def read_question(document: str, scores: bytes | None, describe: Describe, **rest: Any) -> SavedQuestion:
    """The question that `question_document` and `scores_bytes` wrote; `rest` are the fields they leave out."""
    kept = json.loads(document)
    selection = _read_selection(kept["selection"])
    where = tuple((column, tuple(values)) for column, values in kept["wanted"]["where"])
    wanted = Filter(where, kept["wanted"]["text"])
    found = None if scores is None else _arrays(zlib.decompress(scores))["scores"]
    fields = {"selection": selection, "wanted": wanted, "method": describe(kept.get("method", ""))}
    said = _read_verdict(kept.pop("verdict", None))
    return SavedQuestion(**kept | fields, scores=found, verdict=said, **rest)


def scores_bytes(saved: SavedQuestion) -> bytes | None:
    """All scores, compressed."""
    return None if saved.scores is None else zlib.compress(pack_arrays({"scores": saved.scores}), 1)


def influence_document(saved: SavedInfluence) -> str:
    """What one example has to do with a question, without its token values and its text."""
    found = saved.influence
    return _json(
        {
            "score": found.score,
            "exact": found.exact,
            "checksum": found.checksum,
            "percentile": saved.percentile,
            "place": found.place and dataclasses.asdict(found.place),
            "parts": found.parts,
            "steadiness": found.steadiness and dataclasses.asdict(found.steadiness),
        }
    )


def influence_bytes(saved: SavedInfluence) -> bytes:
    """Its token values."""
    values, positions = saved.influence.values, saved.influence.positions
    return pack_arrays({k: v for k, v in (("values", values), ("positions", positions)) if v is not None})


def read_influence(row: int, document: str, arrays: bytes, **rest: Any) -> SavedInfluence:
    """What `influence_document` and `influence_bytes` wrote; `rest` are the fields they leave out."""
    kept, known = json.loads(document), _arrays(arrays)
    place = kept["place"] and NullPlace(**kept["place"])
    values, positions = known.get("values"), known.get("positions")
    parts, steadiness = tuple(kept.get("parts", ())), _read_steadiness(kept.get("steadiness"))
    found = Influence(row, kept["score"], kept["exact"], values, kept["checksum"], positions, place, parts, steadiness)
    return SavedInfluence(influence=found, percentile=kept["percentile"], **rest)


def _read_verdict(kept: Any) -> Verdict | None:
    if kept is None:
        return None
    shared = kept["shared"] and Shared(**kept["shared"])
    return Verdict(**kept | {"test": NullTest(**kept["test"]), "shared": shared})


def _read_steadiness(kept: Any) -> Steadiness | None:
    if kept is None:
        return None
    return Steadiness(**kept | {name: tuple(kept[name]) for name in ("checkpoints", "of")})


def example_document(example: ExampleRow) -> str:
    """A training example as the cache keeps it."""
    return _json(
        {
            "id": example.id,
            "prompt": example.prompt,
            "response": example.response,
            "ids": example.encoded.ids.tolist(),
            "response_start": example.encoded.response_start,
            **({"gaps": example.encoded.gaps} if example.encoded.gaps else {}),
            "tokens": _tokens_json(example.tokens),
            "loss": example.loss,
            "columns": example.columns,
        }
    )


def read_example(row: int, document: str) -> ExampleRow:
    """What `example_document` wrote."""
    kept = json.loads(document)
    gaps = tuple((start, stop) for start, stop in kept.get("gaps", ()))
    encoded = Encoded(np.asarray(kept["ids"], dtype=np.int64), kept["response_start"], gaps)
    tokens = _read_tokens(kept["tokens"])
    return ExampleRow(row, kept["id"], kept["prompt"], kept["response"], encoded, tokens, kept["loss"], kept["columns"])


def sequence_document(sequence: tuple[Token, ...] | None) -> str | None:
    """All tokens of an example."""
    return None if sequence is None else _json(_tokens_json(sequence))


def read_sequence(document: str | None) -> tuple[Token, ...] | None:
    """What `sequence_document` wrote."""
    return None if document is None else _read_tokens(json.loads(document))


def asked_json(asked: Conversation) -> dict[str, Any]:
    """What was asked as plain JSON values: the prompt as a person reads it and, unless that is all, its turns."""
    return {"prompt": asked.text} | ({} if asked.alone else {"messages": list(asked.turns)})


def selection_json(selection: Selection) -> Any:
    """A selection as plain JSON values: a span, a contrast by its parts, or None."""
    return dataclasses.asdict(selection) if isinstance(selection, Contrast) else selection


def _read_selection(kept: Any) -> Selection:
    if isinstance(kept, dict):
        return Contrast((kept["span"][0], kept["span"][1]), tuple(kept["instead"]), kept["text"])
    return None if kept is None else (kept[0], kept[1])


def _arrays(payload: bytes) -> Arrays:
    return unpack_arrays(np.frombuffer(payload, dtype=np.uint8), Path("history"))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, default=str)


def _tokens_json(tokens: tuple[Token, ...]) -> list[list[Any]]:
    return [[token.text, token.raw, token.special] for token in tokens]


def _read_tokens(kept: list[list[Any]]) -> tuple[Token, ...]:
    return tuple(Token(text, raw, special) for text, raw, special in kept)
