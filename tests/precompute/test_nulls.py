"""The null sample: what examples score on unrelated prompts, and what is said from it."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache.store import Arrays, Store, open_cache
from explorer.cache.verify import verify
from explorer.commands.report import Asked, question_report, question_text
from explorer.engine import Engine
from explorer.errors import MethodError
from explorer.evaluation.probes import evaluate_calibration
from explorer.gradients.sketch import generator
from explorer.methods.opening import open_method
from explorer.model.generation import GenerationSettings, generate, generate_together
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.paths import ASSETS, DEMO
from explorer.records import NEAR, Answer, Contrast, Conversation, Encoded, Selection, Token
from explorer.serving.session import open_engine
from explorer.trust.significance import KINDS, NullSample, kind_of, one_of_each_kind
from precompute.build import append_examples, build_cache
from precompute.data import read_examples
from precompute.filling import Report
from precompute.nulls import answers, null_prompts
from tests.asking import asking
from tests.conftest import TINY_SETTINGS, Tiny
from tests.tiny import ROWS, save_tiny_relative

PROMPTS = 12
PINNED = "9b408ae6039541dd0e7200bbc99d01ae00acf1bf05c2172e959295b3077865b3"
"""SHA-256 of the null prompts."""
QUESTION = "What shines by night?"


def build(
    tiny: Tiny, model: LanguageModel, folder: Path, count: int, report: Report = lambda stage, done, total: None
) -> Store:
    examples = read_examples(tiny.data)
    return build_cache(model, examples, folder, TINY_SETTINGS, 4, tiny.data.name, report, null_prompts=count)


@pytest.fixture(scope="module")
def judged(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cache with a null sample, added to it as it was, beside the model's folder."""
    folder = tiny.cache.parent / "judged"
    shutil.copytree(tiny.cache, folder)
    build(tiny, load_model(str(tiny.model), tiny.adapter, device="cpu"), folder, PROMPTS)
    return folder


@pytest.fixture
def judge(judged: Path) -> Engine:
    return open_engine(judged, device="cpu")


def asked(engine: Engine, selection: tuple[int, int] | None = None) -> Answer:
    answer = engine.given_answer(QUESTION, "It is the moon.")
    asking(engine).ask(answer, selection)
    return answer


# The prompts


def test_there_are_two_hundred_prompts_and_their_order_is_kept() -> None:
    """Caches keep one column a prompt: lines may be added behind the last, and never changed."""
    lines = (ASSETS / "null_prompts.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 200
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PINNED


def test_no_null_prompt_is_in_the_demos_data_its_probes_or_the_calibration() -> None:
    def words(text: str) -> str:
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).removeprefix("howdy").split())

    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    null = {words(line) for line in (ASSETS / "null_prompts.txt").read_text(encoding="utf-8").splitlines()}
    fresh = Path(__file__).parents[2] / "benchmarks" / "calibration_prompts.txt"
    calibration = {words(line) for line in fresh.read_text(encoding="utf-8").splitlines()}
    demo = {words(row["prompt"]) for name in ("train", "probes") for row in rows(name)}
    assert len(calibration) == 100
    assert not null & calibration and not (null | calibration) & demo


# Answering them


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "qwen3"])
def test_answers_of_many_prompts_at_once_are_those_of_each_alone(tmp_path: Path, family: str) -> None:
    model = load_model(str(save_tiny_relative(tmp_path, family)), None, device="cpu")
    asked = [Conversation.of(text).turns for text in ("Hi", "What is a river of stars?", "the moon", "a")]
    prompts = [model.encode_prompt(turns) for turns in asked]
    alone = [list(generate(model, turns, GenerationSettings(max_tokens=12))) for turns in asked]
    assert generate_together(model, prompts, 12) == alone
    assert len({len(prompt) for prompt in prompts}) > 1, "nothing was padded"


def test_every_prompt_is_answered_once_under_its_own_number(tiny_model: LanguageModel) -> None:
    prompts = null_prompts(tiny_model)[:40]
    found = dict(answers(tiny_model, prompts))
    assert sorted(found) == list(range(40))
    for number, answer in found.items():
        assert (answer.ids[: answer.response_start] == prompts[number]).all()
        assert 1 <= answer.response_length <= GenerationSettings().max_tokens


def test_a_prompt_longer_than_the_context_is_left_out(tiny_model: LanguageModel) -> None:
    assert len(null_prompts(tiny_model)) == 200
    tiny_model.network.config.max_position_embeddings = 100
    fitting = null_prompts(tiny_model)
    assert 100 < len(fitting) < 200 and max(map(len, fitting)) < 100


# The cache


def test_the_null_scores_are_those_of_the_engine(judge: Engine) -> None:
    prompts = null_prompts(judge.model)[:PROMPTS]
    expected: dict[str, list[NDArray[np.floating]]] = {kind: [] for kind in KINDS}
    for number, encoded in sorted(answers(judge.model, prompts), key=lambda each: each[0]):
        tokens = judge.model.tokens(encoded.ids[encoded.response_start :])
        answer = Answer(f"null {number}", Conversation.of(""), encoded, tokens, "", True)
        judge.predict(answer)
        drawn = generator(TINY_SETTINGS.seed, "null token", number)
        chosen = one_of_each_kind(tokens, drawn, judge.raised(answer))
        for kind, selection in chosen.items():
            asking(judge).ask(answer, selection)
            size = judge.store.manifest.training.scale * np.linalg.norm(judge.sketch(answer, selection))
            expected[kind].append(asking(judge).ranking(answer, selection).scores / size)
    assert len(expected["response"]) == len(expected["first"]) == PROMPTS
    for kind, scores in expected.items():
        null = judge.store.nulls(kind)
        if len(scores) < 3:
            assert null == ()
        else:
            assert np.concatenate(null).dtype == np.float32
            np.testing.assert_allclose(np.concatenate(null), np.stack(scores, axis=1), rtol=1e-4, atol=1e-6)


def test_a_null_sample_is_added_to_a_finished_cache_and_changes_nothing_else(tiny: Tiny, judged: Path) -> None:
    before, after = open_cache(tiny.cache), open_cache(judged)
    assert after.shards[: len(before.shards)] == before.shards
    assert [shard.kind for shard in after.shards[len(before.shards) :]] == ["nulls"]
    assert after.null_prompts == PROMPTS and verify(after.folder) == []


def test_a_stopped_run_is_finished_with_as_many_prompts_as_it_began_with(
    tiny: Tiny, judged: Path, tiny_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precompute.build.EXAMPLES_PER_SHARD", 2)
    whole = build(tiny, tiny_model, tmp_path / "whole", PROMPTS)
    true = Store.put_shard

    def stopping(self: Store, file: str, kind: str, arrays: Arrays, ids: NDArray[np.int64]) -> Store:
        if kind == "nulls" and len(self.shards_of("nulls")) == 2:
            raise KeyboardInterrupt
        return true(self, file, kind, arrays, ids)

    monkeypatch.setattr(Store, "put_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        build(tiny, tiny_model, tmp_path / "stopped", PROMPTS)
    stopped = open_cache(tmp_path / "stopped")
    assert len(stopped.shards_of("nulls")) == 2 and stopped.nulls("token") == ()
    monkeypatch.setattr(Store, "put_shard", true)
    finished = build(tiny, tiny_model, tmp_path / "stopped", 3)
    assert finished.shards == whole.shards, "hashes of all files"
    assert [shard.count for shard in finished.shards_of("nulls")] == [2, 2, 2, 1]


@pytest.fixture
def early(judged: Path, tmp_path: Path) -> Store:
    """A cache whose null sample tells no kinds of single tokens apart."""
    return with_kinds(judged, tmp_path / "early", "response", "token")


@pytest.fixture
def unraised(judged: Path, tmp_path: Path) -> Store:
    """A cache whose null sample knows nothing of raised words."""
    return with_kinds(judged, tmp_path / "unraised", *(kind for kind in KINDS if kind != "raised"))


def with_kinds(judged: Path, folder: Path, *kinds: str) -> Store:
    shutil.copytree(judged, folder)
    found = open_cache(folder)
    for shard in found.shards_of("nulls"):
        arrays = found.shard_arrays(shard)
        kept = {kind: np.array(arrays[kind]) for kind in kinds if kind in arrays}
        found = found.put_shard(shard.file, "nulls", kept, shard.example_ids)
    return found


def test_the_null_sample_of_an_early_cache_serves_all_single_tokens_and_is_made_anew(
    early: Store, judged: Path, tiny: Tiny, tiny_model: LanguageModel
) -> None:
    engine = open_engine(early.folder, str(tiny.model), str(tiny.adapter), device="cpu")
    assert (
        early.nulls("first") == ()
        and asking(engine).null_sample("first") is asking(engine).null_sample("token") is not None
    )
    assert asking(engine).null_sample("") is None
    assert build(tiny, tiny_model, early.folder, 3).shards == open_cache(judged).shards, "hashes of all files"


def test_what_a_cache_lacks_of_raised_words_is_added_and_the_rest_kept(
    unraised: Store, judged: Path, tiny: Tiny, tiny_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Selection] = []
    true = gradients.gradient

    def counting(model: LanguageModel, encoded: Encoded, selection: Selection = None) -> gradients.Gradient:
        asked.append(selection)
        return true(model, encoded, selection)

    monkeypatch.setattr("precompute.nulls.gradients.gradient", counting)
    assert build(tiny, tiny_model, unraised.folder, 3).shards == open_cache(judged).shards, "hashes of all files"
    assert asked.count(None) == PROMPTS and len(asked) <= 2 * PROMPTS, "of no other kind"


def test_without_null_questions_about_raised_words_one_is_asked_about_as_any_other(unraised: Store, tiny: Tiny) -> None:
    engine = open_engine(unraised.folder, str(tiny.model), str(tiny.adapter), device="cpu")
    assert asking(engine).null_sample("raised") is None
    answer = asked(engine, (1, 2))
    ranking = asking(engine).ranking(answer, (1, 2))
    token = asking(engine).null_sample("token")
    assert token is not None and ranking.test == token.test(
        ranking.scores / asking(engine).size(answer, (1, 2)), opponents=False
    )


def test_where_no_word_is_ever_raised_the_null_sample_says_so_once(
    tiny: Tiny, tiny_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a base model; the same command again finds nothing to do."""
    monkeypatch.setattr(LanguageModel, "has_base", property(lambda model: False))
    reports: list[str] = []
    for _ in range(2):
        build(tiny, tiny_model, tmp_path / "cache", 3, lambda stage, done, total: reports.append(stage))
    assert reports.count("unrelated prompts") == 3, "of the first time"
    assert verify(tmp_path / "cache") == [] and [
        part.size for part in open_cache(tmp_path / "cache").nulls("raised")
    ] == [0]
    assert asking(open_engine(tmp_path / "cache", device="cpu")).null_sample("raised") is None


def test_appending_to_an_early_cache_leaves_its_null_sample_as_it_is(
    early: Store, tiny: Tiny, tiny_model: LanguageModel
) -> None:
    """Until an append is complete, readers see the files that there were."""
    grown = append_examples(tiny_model, read_examples(tiny.data)[:1], early.folder, 0, "more")
    assert grown.shards[: len(early.shards)] == early.shards and verify(grown.folder) == []
    assert grown.nulls("first") == () and sum(map(len, grown.nulls("token"))) == len(ROWS) + 1


def test_prompts_are_answered_only_where_scores_are_missing(
    judged: Path, tiny: Tiny, tiny_model: LanguageModel
) -> None:
    reports: list[str] = []
    build(tiny, tiny_model, judged, PROMPTS, lambda stage, done, total: reports.append(stage))
    assert reports == []


# Percentiles

NULL = np.array([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0], [-1.0, -2.0, 0.0, 9.0]], dtype=np.float32)
SAMPLE = NullSample((NULL[:2], NULL[2:]))


@pytest.mark.parametrize(
    ("row", "score", "opponents", "beyond"),
    [
        (0, 9.0, False, 4),
        (0, 3.0, False, 3),
        (0, 2.5, False, 3),
        (0, -9.0, False, 0),
        (0, -9.0, True, 4),
        (0, 0.0, True, 3),
        (1, 5.0, False, 0),
        (1, 5.0, True, 0),
        (2, 8.0, False, 3),
        (2, -1.5, True, 3),
    ],
)
def test_a_score_has_its_place_among_the_same_examples_null_scores(
    row: int, score: float, opponents: bool, beyond: int
) -> None:
    assert SAMPLE.place(row, score, opponents).beyond == beyond


@given(
    null=st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=30),
    scores=st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    opponents=st.booleans(),
)
def test_a_more_extreme_score_never_has_a_lesser_place(
    null: list[float], scores: tuple[float, float], opponents: bool
) -> None:
    sample = NullSample((np.array([null], dtype=np.float32),))
    low, high = (sample.place(0, score, opponents).beyond for score in sorted(scores))
    assert (low >= high) if opponents else (low <= high)
    assert 0 <= low <= len(null) and 0 <= high <= len(null)


def test_places_of_exchangeable_scores_are_uniform() -> None:
    random = np.random.default_rng(0)
    draws = random.standard_t(3, size=(4000, 100)).astype(np.float32)
    beyond = [NullSample((draw[None, 1:],)).place(0, float(draw[0]), False).beyond for draw in draws]
    assert np.mean(np.array(beyond) >= 98) == pytest.approx(0.02, abs=0.006)


# What is often near the top


def test_an_example_that_wins_everywhere_is_near_the_top_on_all_prompts() -> None:
    null = np.random.default_rng(1).normal(size=(100, 40)).astype(np.float32)
    null[70], null[20] = 9.0, -9.0
    sample = NullSample((null[:32], null[32:64], null[64:]))
    assert sample.place(70, 0.0, False).near == sample.place(20, 0.0, True).near == 1
    assert sample.place(70, 0.0, True).near == sample.place(20, 0.0, False).near == 0
    shares = [sample.place(row, 0.0, False).near for row in range(100)]
    assert sum(shares) == pytest.approx(NEAR), "every prompt has ten first examples"
    first = (-null).argsort(axis=0)[:NEAR]
    assert shares == [np.mean((first == row).any(axis=0)) for row in range(100)]


# Whether anything stands out


def test_each_null_prompt_is_standardised_by_the_others_alone() -> None:
    null = np.random.default_rng(2).normal(size=(17, 9)).astype(np.float32)
    sample = NullSample((null[:4], null[4:]))
    for prompt in range(9):
        rest = np.delete(null.astype(np.float64), prompt, axis=1)
        standard = (null[:, prompt] - rest.mean(axis=1)) / rest.std(axis=1, ddof=1)
        assert sample._extremes[0][prompt] == pytest.approx(np.sort(standard)[-NEAR:].mean())
        assert sample._extremes[1][prompt] == pytest.approx(-np.sort(standard)[:NEAR].mean())


def test_the_chance_that_an_unrelated_prompt_stands_out_is_what_is_said() -> None:
    random = np.random.default_rng(3)
    common, own = random.normal(size=(1, 2000)), random.normal(size=(60, 2000))
    draws = (np.arange(60)[:, None] + common + own * np.linspace(0.1, 3, 60)[:, None]).astype(np.float32)
    sample = NullSample((draws[:, :400],))
    for opponents in (False, True):
        chances = [sample.test(draws[:, fresh], opponents).chance for fresh in range(400, 2000)]
        assert np.mean(np.array(chances) <= 0.05) == pytest.approx(0.05, abs=0.025)


def test_one_example_far_from_its_usual_scores_stands_out_though_others_score_more() -> None:
    null = np.random.default_rng(4).normal(size=(50, 100)) * 0.1 + np.arange(50)[:, None]
    sample = NullSample((null.astype(np.float32),))
    scores = np.arange(50.0)
    scores[3] += 9
    found = sample.test(scores, opponents=False)
    assert (found.row, found.reached) == (3, 0) and found.chance == pytest.approx(1 / 101)
    assert found.deviations == pytest.approx(90 / NEAR, rel=0.3), "one of the ten lies 90 deviations off"
    assert sample.test(scores, opponents=True).reached > 0


def test_scores_that_never_vary_and_huge_ones_give_finite_numbers() -> None:
    null = np.array([[1.0] * 5, [0.0] * 5, [1e30, -1e30, 0, 1e30, 5]], dtype=np.float32)
    sample = NullSample((null,))
    for opponents in (False, True):
        found = sample.test(np.array([2.0, 0.0, 0.0]), opponents)
        assert np.isfinite(found.deviations) and 0 <= found.reached <= 5
    assert np.isfinite(sample._extremes).all()


SENTENCE = tuple(Token(text) for text in ("It", " is", " it", "."))
ENDED = (*SENTENCE, Token("<end>", special=True))


@pytest.mark.parametrize(
    ("tokens", "selection", "kind"),
    [
        (ENDED, None, "response"),
        (ENDED, (0, 1), "first"),
        (ENDED, (1, 2), "token"),
        (ENDED, (3, 4), "token"),
        (ENDED, (4, 5), "end"),
        (SENTENCE, (3, 4), "token"),
        (ENDED, (0, 2), "token"),
        (ENDED, (1, 3), "raised"),
        (ENDED, (3, 5), "token"),
        (ENDED, (0, 5), "token"),
        (ENDED[4:], (0, 1), "first"),
        (ENDED, Contrast((0, 1), (7,)), ""),
    ],
)
def test_tokens_are_compared_with_those_at_a_like_place_and_contrasts_with_nothing(
    tokens: tuple[Token, ...], selection: Selection, kind: str
) -> None:
    assert kind_of(tokens, selection, raised=(1, 3)) == kind
    assert kind_of(tokens, selection) == ("token" if kind == "raised" else kind)


def test_a_question_of_each_kind_is_drawn_and_every_token_in_between_is_as_likely() -> None:
    draws = [one_of_each_kind(ENDED, np.random.default_rng(seed)) for seed in range(600)]
    assert all((each["response"], each["first"], each["end"]) == (None, (0, 1), (4, 5)) for each in draws)
    between = [each["token"] for each in draws]
    assert [between.count((place, place + 1)) for place in (1, 2, 3)] == pytest.approx([200] * 3, abs=45)


@pytest.mark.parametrize(
    ("tokens", "kinds"),
    [
        (SENTENCE, ["response", "first", "token"]),
        (SENTENCE[:1], ["response", "first"]),
        ((SENTENCE[0], ENDED[4]), ["response", "first", "end"]),
    ],
)
def test_an_answer_has_no_question_of_a_kind_that_it_lacks(tokens: tuple[Token, ...], kinds: list[str]) -> None:
    assert list(one_of_each_kind(tokens, np.random.default_rng(0))) == kinds


# What the engine makes of it


@pytest.mark.parametrize("selection", [None, (1, 2)])
@pytest.mark.parametrize("opponents", [False, True])
def test_every_shown_example_and_the_question_are_judged(
    judge: Engine, selection: tuple[int, int] | None, opponents: bool
) -> None:
    answer = asked(judge, selection)
    ranking = asking(judge).ranking(answer, selection, count=5, opponents=opponents)
    null = np.concatenate(judge.store.nulls(kind_of(answer.tokens, selection)))
    size = judge.store.manifest.training.scale * np.linalg.norm(judge.sketch(answer, selection))
    assert ranking.test is not None and ranking.test.prompts == PROMPTS
    for found in ranking.influences:
        assert found.place is not None
        below = (null[found.row] < found.score / size).sum()
        assert found.place.beyond == ((null[found.row] > found.score / size).sum() if opponents else below)


@pytest.mark.parametrize("ahead", [False, True])
def test_the_raised_word_is_judged_beside_raised_words_however_it_is_asked_about(judge: Engine, ahead: bool) -> None:
    answer = judge.given_answer(QUESTION, f"It is {'far' if ahead else 'not'} the moon.")
    for _ in asking(judge).ask_ahead(answer) if ahead else ():
        pass
    assert (judge.raised(answer) is None) != ahead, "known before a token is asked about, and asking is enough"
    asking(judge).ask(answer, (0, 1))
    word = judge.raised(answer)
    assert word is not None
    asking(judge).ask(answer, word)
    test = asking(judge).ranking(answer, word).test
    null, token = (np.concatenate(judge.store.nulls(kind)) for kind in ("raised", "token"))
    scores = asking(judge).ranking(answer, word).scores / asking(judge).size(answer, word)
    assert test == NullSample((null,)).test(scores, opponents=False) != NullSample((token,)).test(scores, False)


def test_an_exact_score_is_placed_anew(judge: Engine) -> None:
    answer = asked(judge)
    for row in asking(judge).candidates(answer, None, 2):
        asking(judge).refine(answer, None, row)
    null = judge.store.nulls("response")[0]
    size = judge.store.manifest.training.scale * np.linalg.norm(judge.sketch(answer, None))
    for found in asking(judge).ranking(answer, None, 2).influences:
        assert found.exact and found.place is not None
        assert found.place.beyond == (null[found.row] < found.score / size).sum()


def test_a_cache_without_a_null_sample_answers_without_it(tiny_engine: Engine) -> None:
    ranking = asking(tiny_engine).ranking(asked(tiny_engine), None, 3)
    assert tiny_engine.store.null_prompts == 0 and tiny_engine.store.nulls("token") == ()
    assert ranking.test is None and [found.place for found in ranking.influences] == [None] * 3


# Reports


def test_a_report_says_how_unusual_each_example_is(judge: Engine) -> None:
    for opponents in (False, True):
        report = question_report(
            Asked(QUESTION, "It is the moon.", count=3, opponents=opponents, approximate=True), asking(judge)
        )
        assert report["null_test"]["prompts"] == PROMPTS and 0 < report["null_test"]["chance"] <= 1
        for example in report["examples"]:
            assert example["null_prompts"] == PROMPTS and 0 <= example["beyond_null_prompts"] <= PROMPTS
            assert example["unusual"] in question_text(report)
        json.dumps(report)


def test_calibration_counts_every_score_of_every_prompt(judge: Engine) -> None:
    reports: list[tuple[int, int]] = []
    prompts = ["Hi", "What is the moon?"]
    found = evaluate_calibration(asking(judge), prompts, lambda *report: reports.append(report))
    assert reports == [(1, 2), (2, 2)]
    asked_about = Counter(
        kind
        for prompt in prompts
        for kind in one_of_each_kind(list(judge.answer(prompt))[-1].tokens, np.random.default_rng(0), (0, 1))
    )
    assert asked_about["response"] == asked_about["first"] == asked_about["raised"] == 2
    assert {kind: figures["prompts"] for kind, figures in found.items()} == asked_about
    for figures in found.values():
        assert figures["above_99"] == figures["below_1"] == 0, "twelve prompts know no 99th percentile"
        assert figures["prompts_strong"] == 0, "nor is anything strong beside twelve"
        assert 0 <= figures["prompts_standing_out"] <= 1


def test_calibration_finds_null_prompts_as_unusual_as_their_own_sample_says(
    judge: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples whose null scores are all far below what they score have every score above."""
    low = NullSample((np.full((len(ROWS), 199), -9, dtype=np.float32) + np.linspace(0, 1, 199, dtype=np.float32),))
    monkeypatch.setattr(asking(judge), "null_sample", lambda kind: low)
    found = evaluate_calibration(asking(judge), ["Hi"], lambda *_: None)
    assert found["response"]["above_99"] == found["first"]["above_99"] == found["token"]["above_99"] == 1
    assert found["response"]["below_1"] == 0 and found["response"]["prompts_standing_out"] == 1
    assert found["raised"]["prompts_strong"] == 1


# A method that takes them into account


def test_centred_scores_of_the_unrelated_questions_themselves_cancel_out(judge: Engine) -> None:
    """What is left of the mean of all unrelated questions, each brought to length one, is nothing."""
    method, total = open_method(judge, "rapidin-centred"), np.zeros(judge.store.manifest.rows)
    plain = np.zeros_like(total)
    for _, encoded in answers(judge.model, null_prompts(judge.model)[:PROMPTS]):
        answer = replace(judge.given_answer(QUESTION, "x"), id=str(encoded.ids.tolist()), encoded=encoded)
        asking(judge).ask(answer, None)
        size = asking(judge).size(answer, None)
        total += method.scores(answer, None) / size
        plain += open_method(judge, "rapidin").scores(answer, None) / size
    assert np.abs(total).max() < 1e-2 * np.abs(plain).max()


def test_a_cache_without_unrelated_prompts_cannot_be_asked_for_centred_scores(tiny_engine: Engine) -> None:
    with pytest.raises(MethodError, match="--null-prompts 200 adds them"):
        open_method(tiny_engine, "rapidin-centred").fit()
