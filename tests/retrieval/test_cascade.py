"""The cascade: what it reads, what it finds, and that it says the same as a scan."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer.cache import manifest, store
from explorer.cache.generations import drop
from explorer.cache.manifest import CacheSettings, Manifest, Part
from explorer.cache.store import Store
from explorer.cache.verify import verify
from explorer.engine import Engine
from explorer.records import Fingerprint, TrainingRecord
from explorer.retrieval import ExampleScores, cascade
from precompute.sketches import levels
from tests.asking import OWN, asking
from tests.tiny import ROWS

N, K = 500, 256
SHORT, COARSE = 32, 64
RANDOM = np.random.default_rng(0)
SKETCHES = RANDOM.normal(size=(N, K)).astype(np.float32)
SKETCHES[250:260] = SKETCHES[240:250]  # equal rows: ties
QUERIES = RANDOM.normal(size=(3, K)).astype(np.float32)


def cache(folder: Path, dtype: str, *coarse: int) -> Store:
    """A cache of `SKETCHES` in shards of 32 rows."""
    settings = CacheSettings(K, 32, dtype=dtype, normalisation="none", coarse_lengths=coarse)
    fingerprint = Fingerprint("", "", "", "", "float32", (("a", (K,)),))
    made_from = Manifest(fingerprint, TrainingRecord(2, 0.5), settings, "", "", "", (Part("", "", N),), N, 0, {})
    text = {
        "prompt": "",
        "response": "",
        "ids": np.zeros(1, np.int64),
        "response_start": 0,
        "tokens": [],
        "columns": {},
    }
    made = store.create_cache(folder, made_from, [text] * N)
    for start in range(0, N, 32):
        some = SKETCHES[start : start + 32]
        rest = {"norms": np.linalg.norm(some, axis=1, keepdims=True), "loss": np.ones(len(some), np.float32)}
        made = made.add_shard("sketches", {**levels(some, settings), **rest}, len(some))
    return made


@pytest.fixture(scope="module")
def float16(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return cache(tmp_path_factory.mktemp("float16") / "cache", "float16", SHORT, COARSE)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return cache(tmp_path_factory.mktemp("int8") / "cache", "int8", SHORT, COARSE)


@pytest.fixture(params=["float16", "int8"])
def both(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def true() -> NDArray[np.float32]:
    """The scores of the sketches before they were stored; e·η is one."""
    return QUERIES @ SKETCHES.T


def alone(cached: Store, query: NDArray[np.float32]) -> cascade.ExampleScores:
    """A cascade for one question."""
    return cascade.cascade(cached, query[None])[0]


@pytest.mark.parametrize("length", [SHORT, COARSE])
def test_a_coarse_level_is_the_folded_sketch(both: Store, length: int) -> None:
    kept = np.concatenate([rows * scale[:, None] for rows, scale in both.sketches(length)])
    folded = store.fold(SKETCHES, length)
    assert np.abs(kept - folded).max() <= np.abs(folded).max() / 127


@pytest.mark.parametrize("opponents", [False, True])
def test_a_cascade_that_reads_every_row_in_full_ranks_as_the_scan_does(
    both: Store, opponents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "FOUND", N)
    for query in QUERIES:
        some = alone(both, query)
        (whole,) = cascade.rescored(both, query[None], cascade.scan(both, query[None]))
        assert some.lengths == (SHORT, COARSE, K) and not np.isnan(some.levels[-1]).any()
        assert np.array_equal(some.values, whole.values)
        assert np.array_equal(cascade.best(some, N, opponents), cascade.best(whole, N, opponents))


def doubtful(monkeypatch: pytest.MonkeyPatch, found: int, doubt: float) -> None:
    """Be content with fewer rows than is usual: these caches have 500."""
    monkeypatch.setattr(cascade, "FOUND", found)
    monkeypatch.setattr(cascade, "DOUBT", doubt)


def test_each_level_reads_what_may_be_best_as_far_as_the_one_before_tells(
    both: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful(monkeypatch, 10, 0.5)
    first = cascade.first_scores(both, QUERIES[:1], (SHORT, COARSE, K))
    (found,) = cascade.rescored(both, QUERIES[:1], first, 10)
    norms = np.linalg.norm(QUERIES[0]) * np.linalg.norm(SKETCHES, axis=1)
    rows = [np.arange(N), np.arange(N)]
    for step, length in enumerate((SHORT, COARSE)):
        deviation = norms * (np.sqrt(1 / length - 1 / K) + cascade.ROUNDING)
        for end, sign in enumerate((1, -1)):
            scores = sign * found.levels[step][rows[end]]
            line = np.sort(scores)[-10]
            rows[end] = rows[end][scores + 0.5 * deviation[rows[end]] >= line]
        read = ~np.isnan(found.levels[step + 1])
        assert np.array_equal(np.flatnonzero(read), np.union1d(*rows))
        assert 20 < read.sum() < N / 2
    tolerance = 0.05 if both.manifest.settings.dtype == "float16" else 1
    assert np.allclose(found.values[read], true()[0][read], atol=tolerance)
    between = ~np.isnan(found.levels[1]) & ~read
    assert np.array_equal(found.values[between], found.levels[1][between])
    rest = np.isnan(found.levels[1])
    assert np.array_equal(found.values[rest], found.first[rest]), "the others keep their coarse scores"
    assert found.length == SHORT


def test_the_noise_of_a_level_is_what_its_scores_differ_by(both: Store) -> None:
    whole = cascade.scan(both, QUERIES)
    for length in (SHORT, COARSE):
        ratios = [
            np.std((coarse.first - exact.first) / cascade.noise(coarse.sizes, length, K))
            for exact, coarse in zip(whole, cascade.first_scores(both, QUERIES, (length, K)), strict=True)
        ]
        assert np.mean(ratios) == pytest.approx(1, abs=0.15)


def test_large_examples_are_doubted_more() -> None:
    level = np.array([3.0, 2.0, 1.0, 1.0, -5.0], dtype=np.float32)
    doubt = np.array([0.1, 0.1, 0.1, 0.5, 0.1], dtype=np.float32)
    assert cascade.survivors(level, doubt, 2, opponents=False).tolist() == [0, 1, 3]
    assert cascade.survivors(level, doubt, 1, opponents=True).tolist() == [4]
    assert cascade.survivors(level, doubt, 1, False, among=[2, 1]).tolist() == [1]
    assert cascade.survivors(level, doubt, 1, False, among=[]).tolist() == []


def test_no_row_outside_the_candidates_is_ever_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse scores are noisier: among full ones they would win too often."""
    doubtful(monkeypatch, 20, 3.0)
    first = np.arange(N, dtype=np.float32)
    full = np.full(N, np.nan, dtype=np.float32)
    full[-20:] = full[:20] = -1  # All candidates turned out worse than every other row.
    found = cascade.ExampleScores((first, full), (K // 2, K), np.full(N, 1e-3, dtype=np.float32))
    assert cascade.best(found, 5).tolist() == [480, 481, 482, 483, 484]


def test_a_filter_comes_before_the_ranking(both: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = alone(both, QUERIES[0])
    doubtful(monkeypatch, 5, 0.3)
    worst = np.argsort(-before.first)[100:400]
    first = cascade.first_scores(both, QUERIES[:1], (SHORT, COARSE, K))
    (found,) = cascade.rescored(both, QUERIES[:1], first, 5, worst.tolist())
    read = np.flatnonzero(~np.isnan(found.levels[-1]))
    assert 10 <= len(read) < 150 and set(read) <= set(worst.tolist())
    assert set(cascade.best(found, 5, among=worst.tolist()).tolist()) <= set(read)


def test_what_was_asked_before_makes_no_difference(float16: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful(monkeypatch, 5, 0.3)
    first = cascade.first_scores(float16, QUERIES[:1], (SHORT, COARSE, K))
    some, others = list(range(0, N, 2)), list(range(0, N, 3))
    (fresh,) = cascade.rescored(float16, QUERIES[:1], first, 5, some)
    (later,) = cascade.rescored(float16, QUERIES[:1], cascade.rescored(float16, QUERIES[:1], first, 5, others), 5, some)
    assert (~np.isnan(later.levels[-1])).sum() > (~np.isnan(fresh.levels[-1])).sum()
    assert np.array_equal(cascade.best(fresh, 5, among=some), cascade.best(later, 5, among=some))
    (again,) = cascade.rescored(float16, QUERIES[:1], [later], 5, some)
    assert again is later, "nothing is read twice"


def test_questions_score_alike_alone_and_together(both: Store) -> None:
    for score in (cascade.cascade, cascade.scan):
        together = score(both, QUERIES)
        for query, found in zip(QUERIES, together, strict=True):
            (known,) = score(both, query[None])
            rounding = np.std(true()[0]) * 0.05  # By whether and how the question is rounded for int8 rows.
            np.testing.assert_allclose(known.values, found.values, rtol=2**-8, atol=rounding)
            if score is cascade.cascade:
                assert np.array_equal(known.levels[-1], found.levels[-1]), "rows are rounded alike, whoever asks"


def test_many_questions_begin_with_the_longest_coarse_level(both: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "MANY", 3)
    doubtful(monkeypatch, 5, 5.0)
    for query, found in zip(QUERIES, cascade.cascade(both, QUERIES), strict=True):
        known = alone(both, query)
        assert (known.lengths, found.lengths) == ((SHORT, COARSE, K), (COARSE, K))
        assert cascade.best(known, 3).tolist() == cascade.best(found, 3).tolist()


def test_equal_rows_come_by_number(both: Store) -> None:
    found = alone(both, SKETCHES[245])
    assert cascade.best(found, 2).tolist() == [245, 255]
    found = alone(both, -SKETCHES[245])
    assert cascade.best(found, 2, opponents=True).tolist() == [245, 255]


@given(seed=st.integers(0, 1000), count=st.integers(1, 60), among=st.sets(st.integers(0, N - 1), max_size=80))
def test_the_best_are_the_head_of_the_full_ranking(float16: Store, seed: int, count: int, among: set[int]) -> None:
    query = np.random.default_rng(seed).normal(size=(1, K)).astype(np.float32)
    (found,) = cascade.cascade(float16, query)
    rows = sorted(among)
    order = sorted(rows, key=lambda row: (-found.values[row], row))
    assert cascade.best(found, count, among=rows).tolist() == order[:count]


def test_only_a_large_cache_with_coarse_levels_is_cascaded(
    float16: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cascade.cascades(float16)
    (found,) = cascade.example_scores(float16, QUERIES[:1])
    assert found.length == K
    monkeypatch.setattr(cascade, "SCANNED", N * K * 2 - 1)
    assert cascade.cascades(float16)
    (found,) = cascade.example_scores(float16, QUERIES[:1])
    assert found.lengths == (SHORT, COARSE, K)
    plain = cache(tmp_path / "plain", "float16")
    assert not cascade.cascades(plain)
    (found,) = cascade.example_scores(plain, QUERIES[:1])
    np.testing.assert_allclose(found.values, true()[0], atol=0.05)


def test_new_caches_carry_the_levels_that_a_cascade_would_read() -> None:
    assert cascade.coarse_lengths(52_002, 65_536, "float16") == cascade.COARSE
    assert cascade.coarse_lengths(1_000_000, 16_384, "int8") == cascade.coarse_lengths(572, 65_536, "float16") == ()


def schema_3(cached: Store) -> None:
    """Turn a cache with one coarse level into what a program of that time wrote."""
    contents, shards = cached.contents, []
    (length,) = cached.manifest.settings.coarse_lengths
    for shard in cached.shards:
        arrays = dict(cached.shard_arrays(shard))
        arrays |= {"coarse": arrays.pop(f"coarse_{length}"), "coarse_scale": arrays.pop(f"coarse_{length}_scale")}
        shards.append(store.write_shard(cached.folder, shard.file, shard.kind, arrays, shard.example_ids))
    kept = json.loads(replace(contents, shards=tuple(shards)).encode())
    del kept["sha256"], kept["settings"]["coarse_lengths"]
    kept |= {"schema": 3, "settings": kept["settings"] | {"coarse_length": length}}
    rest = f"{json.dumps(kept)[1:]}".encode()
    payload = b'{"sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode() + rest
    for name in (manifest.MANIFEST, manifest.COPY):
        (cached.folder / name).write_bytes(payload)


def test_a_cache_of_schema_3_with_its_one_coarse_level_is_cascaded_and_written_on(tmp_path: Path) -> None:
    made = cache(tmp_path / "old", "int8", COARSE)
    expected = alone(made, QUERIES[0])
    schema_3(made)
    old = store.open_cache(made.folder)
    assert verify(old.folder) == [] and old.manifest.settings.coarse_lengths == (COARSE,)
    assert np.array_equal(alone(old, QUERIES[0]).values, expected.values)
    assert drop(old.folder, [3]) == 1
    shrunk = store.open_cache(old.folder)
    assert verify(shrunk.folder) == []
    assert np.array_equal(alone(shrunk, QUERIES[0]).first, np.delete(expected.first, 3))
    kept = json.loads((shrunk.folder / manifest.MANIFEST).read_bytes())
    assert kept["schema"] == 4 and kept["settings"]["coarse_lengths"] == [COARSE]


def test_the_engine_says_how_noisy_the_coarse_scores_are(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = tiny_engine.given_answer("What shines by night?", "It is the moon.")
    asking(tiny_engine).ask(answer, None)
    ranking = asking(tiny_engine).ranking(answer, None)
    assert ranking.coarse_error == 0.0, "a small cache is scanned"
    memory, question = asking(tiny_engine)._memory, (OWN.name, answer.id, None)
    known = memory.scores.get(question)
    assert isinstance(known, ExampleScores)
    memory.scores.put(question, replace(known, lengths=(1024, known.lengths[-1])))
    ranking = asking(tiny_engine).ranking(answer, None)
    assert ranking.coarse_error == pytest.approx(2 * ranking.sketch_error), "K is four times as long"


def test_the_tokens_asked_ahead_are_scored_together(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What shines by night?", "It is the moon.")
    list(asking(tiny_engine).ask_ahead(answer))
    for position in range(len(answer.tokens)):
        selection = (position, position + 1)
        found = asking(tiny_engine)._memory.scores.get((OWN.name, answer.id, selection))
        assert isinstance(found, ExampleScores)
        (single,) = cascade.example_scores(tiny_engine.store, tiny_engine.sketch(answer, selection)[None])
        np.testing.assert_allclose(found.values, single.values, rtol=1e-4, atol=1e-6)
        assert len(found.values) == len(ROWS)
