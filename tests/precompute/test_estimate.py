"""What making a cache will cost: the time of one example scaled up, the bytes counted."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

import precompute.build
from explorer.cache.manifest import CacheSettings
from explorer.cache.store import open_cache
from explorer.gradients.losses import group_count
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from precompute import estimate as costs
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.estimate import Cost, duration, estimate
from tests.conftest import Tiny
from tests.tiny import ROWS

SETTINGS = CacheSettings(length=4096, token_length=1024)


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter, device="cpu")


@pytest.fixture(scope="module")
def encoded(model: LanguageModel) -> list[Encoded]:
    return [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS]


def timed(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[], float]) -> None:
    """Let every measurement, whatever the machine, give what `seconds` says."""
    monkeypatch.setattr(costs, "seconds_of", lambda model, work: seconds())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "1 s"),
        (0.4, "1 s"),
        (12.6, "13 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (100, "2 min"),
        (3_600, "60 min"),
        (5_399, "90 min"),
        (5_400, "1.5 h"),
        (86_400, "24.0 h"),
        (172_799, "48.0 h"),
        (172_800, "2.0 days"),
        (1_000_000, "11.6 days"),
    ],
)
def test_a_length_of_time_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (Cost(1_000, 300, 50_000, 7_200, 12_345_678_901), "1,000 examples, about 5 min; 50,000 tokens, about 2.0 h; "),
        (Cost(1_000, 300, 0, 0, 12_345_678_901), "1,000 examples, about 5 min; "),
        (Cost(0, 0, 50_000, 7_200, 12_345_678_901), "50,000 tokens, about 2.0 h; "),
        (Cost(0, 0, 0, 0, 12_345_678_901), "nothing; "),
        (Cost(0, 0, 0, 0, 12_345_678_901, 200, 95), "200 unrelated prompts, about 2 min; "),
    ],
    ids=["both", "no tokens", "tokens alone", "nothing", "unrelated prompts"],
)
def test_a_cost_is_one_line_that_names_what_is_left(cost: Cost, said: str) -> None:
    assert str(cost) == f"to do: {said}12.3 GB on disk"


def test_the_time_of_one_example_is_scaled_by_the_positions_there_are(
    model: LanguageModel, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, lambda: 10.0)
    lengths = sorted(len(item.ids) for item in encoded)
    middle, mean = lengths[len(lengths) // 2], sum(lengths) / len(lengths)
    assert mean != middle, "the scale must show"
    found = estimate(model, encoded, SETTINGS, tokens=0)
    assert (found.examples, found.tokens, found.tokens_s) == (7, 0, 0)
    assert found.examples_s == pytest.approx(7 * 10 * mean / middle)


def test_unrelated_prompts_take_four_passes_each_until_they_are_done(
    model: LanguageModel, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, lambda: 10.0)
    without, found, done = (
        estimate(model, encoded, SETTINGS, 0, nulls=nulls, nulls_left=left)
        for nulls, left in ((0, True), (20, True), (20, False))
    )
    assert (without.nulls, found.nulls, done.nulls) == (0, 20, 0)
    assert (found.nulls_s, done.nulls_s) == (800, 0)
    assert found.size == done.size == without.size + len(ROWS) * 20 * 4 * 5


def test_a_batch_shares_its_time(model: LanguageModel, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, lambda: 10.0)
    alone, together = (
        estimate(model, encoded, CacheSettings(length=4096, token_length=1024, batch=batch), 0) for batch in (1, 4)
    )
    assert together.examples_s == pytest.approx(alone.examples_s / 4)


def test_a_token_costs_a_backward_pass_and_its_share_of_a_forward_pass(
    model: LanguageModel, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    # For examples; for one token: 2 s forward and 3 s backward; for two: 3 s more.
    measured = itertools.chain([10.0, 5.0, 8.0])
    timed(monkeypatch, lambda: next(measured))
    lengths = sorted(len(item.ids) for item in encoded)
    middle = next(item for item in encoded if len(item.ids) == lengths[3])
    found = estimate(model, encoded, SETTINGS, tokens=20)
    scale = sum(lengths) / 7 / len(middle.ids)
    assert found.tokens == 20 and group_count(middle) > 1
    assert found.tokens_s == pytest.approx(20 * scale * (3 + 2 * group_count(middle) / middle.response_length))


def test_what_is_done_already_costs_nothing_more(
    model: LanguageModel, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, lambda: 10.0)
    all_of_it = estimate(model, encoded, SETTINGS, tokens=60)
    rest = estimate(model, encoded, SETTINGS, tokens=60, done=(5, 45))
    assert (rest.examples, rest.tokens) == (2, 15)
    assert rest.examples_s == pytest.approx(all_of_it.examples_s * 2 / 7)
    assert rest.tokens_s == pytest.approx(all_of_it.tokens_s / 4)
    assert rest.size == all_of_it.size, "the size is that of the whole cache"


@pytest.mark.parametrize("done", [(7, 60), (7, 65)], ids=["all", "more tokens than were expected"])
def test_where_nothing_is_left_nothing_is_timed(
    model: LanguageModel, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch, done: tuple[int, int]
) -> None:
    def seconds() -> float:
        raise AssertionError("an example was timed")

    timed(monkeypatch, seconds)
    found = estimate(model, encoded, SETTINGS, tokens=60, done=done)
    assert (found.examples, found.examples_s, found.tokens, found.tokens_s) == (0, 0, 0, 0)
    assert str(found).startswith("to do: nothing; ")


def test_times_are_measured_where_nobody_says_them(model: LanguageModel, encoded: list[Encoded]) -> None:
    found = estimate(model, encoded, CacheSettings(length=4096, token_length=1024, batch=2), tokens=60)
    assert 0 < found.examples_s < 600 and 0 < found.tokens_s < 600
    one_token = [item for item in encoded if item.response_length > 1][:1]
    short = [Encoded(item.ids[: item.response_start + 1], item.response_start) for item in one_token]
    assert estimate(model, short, SETTINGS, tokens=1).tokens_s > 0


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("wanted", [0, 3, 7])
def test_the_size_is_that_of_the_files_but_for_their_headers(
    tiny: Tiny, model: LanguageModel, tmp_path: Path, dtype: str, wanted: int
) -> None:
    settings = CacheSettings(length=4096, token_length=1024, dtype=dtype)
    announced: list[Cost] = []

    def announce(cost: Cost) -> None:
        assert not (tmp_path / "cache").exists(), "something was written before the cost was said"
        announced.append(cost)

    store = build_cache(
        model, read_examples(tiny.data), tmp_path / "cache", settings, wanted, "train.jsonl", announce=announce
    )
    (cost,) = announced
    files = sum(shard.size for shard in store.shards)
    # Which rows get token sketches isn't known before; those of middling length are assumed.
    tokens = sum(shard.count for shard in store.shards_of("tokens"))
    per_token = 1024 * (2 if dtype == "float16" else 1) + 4
    expected = files + (cost.tokens - tokens) * per_token
    headers = 400 * len(store.shards) + 16 * 7
    assert expected - headers < cost.size <= expected
    if wanted == 7:
        assert cost.tokens == tokens


def test_a_stopped_run_has_its_rest_to_do_and_a_finished_one_nothing(
    tiny: Tiny, model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", 3)
    monkeypatch.setattr(precompute.build, "TOKEN_EXAMPLES_PER_SHARD", 1)
    announced: list[Cost] = []

    def run(stop_at: tuple[str, int]) -> None:
        def report(stage: str, done: int, total: int) -> None:
            if (stage, done) == stop_at:
                raise KeyboardInterrupt

        build_cache(
            model, read_examples(tiny.data), tmp_path / "cache", SETTINGS, 4, "t", report, announce=announced.append
        )

    with pytest.raises(KeyboardInterrupt):
        run(("examples", 5))
    first_tokens = announced[-1].tokens
    with pytest.raises(KeyboardInterrupt):
        run(("tokens", 20))
    assert (announced[-1].examples, announced[-1].tokens) == (4, first_tokens)
    sketched = sum(shard.count for shard in open_cache(tmp_path / "cache").shards_of("tokens"))
    run(("never", 0))
    tokens = sum(shard.count for shard in open_cache(tmp_path / "cache").shards_of("tokens"))
    # By now it is known which rows these are.
    assert (announced[-1].examples, announced[-1].tokens) == (0, tokens - sketched) and 0 < sketched < tokens
    run(("never", 0))
    assert str(announced[-1]).startswith("to do: nothing; ")
