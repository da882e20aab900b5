"""The four influences of Eq. 5 to 8 against explicit per-token backward passes, and against each other."""

from collections.abc import Generator, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.cache.shards import fold
from explorer.engine import Engine, make_sketcher
from explorer.gradients import sketch
from explorer.methods.first_order.rapidin import RapidIn
from explorer.model.loading import load_model
from explorer.normalisation import divisors
from explorer.records import Answer, Encoded, Selection, Span
from explorer.retrieval import scores
from explorer.serving.session import open_engine
from explorer.trust.words import words_of
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import OWN, asking
from tests.conftest import Tiny
from tests.tiny import ROWS

KINDS = ["layer", "cosine", "none", "all parameters", "int8"]
"""The tiny cache; two with other normalisations; one of a model without an adapter; one of int8 sketches."""


@pytest.fixture(scope="module")
def engines(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """One engine of every kind; every example has token sketches in all but the first."""
    folder = tmp_path_factory.mktemp("kinds")
    made = {"layer": open_engine(tiny.cache, device="cpu")}
    examples = read_examples(tiny.data)
    for kind in KINDS[1:]:
        model = load_model(str(tiny.model), None if kind == "all parameters" else tiny.adapter, device="cpu")
        settings = CacheSettings(
            length=8192,
            token_length=2048,
            dtype="int8" if kind == "int8" else "float16",
            normalisation=kind if kind in ("cosine", "none") else "layer",
        )
        store = build_cache(model, examples, folder / kind, settings, tokens=len(examples), data_name="train.jsonl")
        made[kind] = Engine(model, store)
    return made


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Iterator[Engine]:
    yield engines[request.param]


@pytest.fixture
def answer(engine: Engine) -> Answer:
    return engine.given_answer("What is bright?", "It is the sun.")


def explicit_matrix(engine: Engine, answer: Answer, row: int) -> NDArray[np.float64]:
    """M[j, i] = e·η·⟨∇L(t^j)/‖∇L(t)‖, ∇L(s^i)/‖∇L(s)‖⟩ with one backward pass for every token (G_t × G_k).

    The norms are those of each tensor, or of the whole gradient, or there are none.
    """
    model, example = engine.model, engine.store.examples[row]
    kept = engine.store.manifest

    def tokens(encoded: Encoded) -> list[gradients.Gradient]:
        parts = list(gradients.token_gradients(model, encoded))
        norms = {name: float(torch.stack([part[name] for part in parts]).mean(0).norm()) for name in parts[0]}
        if kept.settings.normalisation == "cosine":
            norms = dict.fromkeys(norms, sum(norm**2 for norm in norms.values()) ** 0.5)
        if kept.settings.normalisation == "none":
            norms = dict.fromkeys(norms, 1.0)
        return [{name: g[name] / norms[name] for name in g} for g in parts]

    outputs, inputs = tokens(answer.encoded), tokens(example.encoded)
    matrix = np.array([[gradients.inner_product(q, g) for g in inputs] for q in outputs])
    return matrix * kept.training.scale


def over_outputs(matrix: NDArray[np.float64], selection: Span | None) -> NDArray[np.float64]:
    """Rows of M averaged over what is selected: (G_t, G_k) → (G_k)."""
    return matrix.mean(axis=0) if selection is None else matrix[selection[0] : selection[1]].mean(axis=0)


@pytest.mark.parametrize("selection", [None, (0, 1), (2, 3), (1, 5)])
def test_exact_influences_equal_explicit_backward_passes(
    engine: Engine, answer: Answer, selection: Span | None
) -> None:
    for row in range(3):
        expected = over_outputs(explicit_matrix(engine, answer, row), selection)
        found = asking(engine).refine(answer, selection, row)
        assert found.values is not None
        np.testing.assert_allclose(found.values, expected, rtol=5e-4, atol=2e-6 * np.abs(expected).max())
        assert found.score == pytest.approx(expected.mean(), rel=5e-4, abs=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("selection", [None, (2, 3), (1, 5)])
def test_the_checksum_is_tiny_for_every_example(engine: Engine, answer: Answer, selection: Selection) -> None:
    for row in range(len(ROWS)):
        checked = asking(engine).check(answer, selection, row)
        assert checked.values is not None and checked.checksum is not None
        # Against the token values' size, not their mean's: a mean near zero has no relative precision.
        size = float(np.abs(checked.values).mean())
        error = checked.checksum * abs(checked.score) / size
        assert error < 1e-4, f"row {row}: token values average to {checked.score}, a backward pass says otherwise"


def test_the_checksum_of_the_whole_response_is_below_one_in_ten_thousand(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What shines?", "It is the sun and the moon.")
    checksums = [asking(tiny_engine).check(answer, None, row).checksum for row in range(len(ROWS))]
    assert all(checksum is not None and checksum < 1e-4 for checksum in checksums), checksums


def test_the_checksum_notices_a_value_that_does_not_belong(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tiny_engine.given_answer("What shines?", "It is the sun.")
    true = gradients.directional_steps

    def first_dropped(*arguments: object) -> Generator[None, None, NDArray[np.float32]]:
        values = yield from true(*arguments)  # type: ignore[arg-type]
        return values[:, 1:]

    monkeypatch.setattr(gradients, "directional_steps", first_dropped)
    checked = asking(tiny_engine).check(answer, None, 0)
    assert checked.checksum is not None and checked.checksum > 1e-3


def test_influence_on_an_example_is_the_mean_of_the_matrix(engine: Engine, answer: Answer) -> None:
    for row in (1, 4):
        matrix = explicit_matrix(engine, answer, row)
        score = asking(engine).refine(answer, None, row).score
        assert score == pytest.approx(matrix.mean(), rel=5e-4, abs=1e-6 * np.abs(matrix).max())


def test_output_tokens_average_to_the_whole_response(engine: Engine, answer: Answer) -> None:
    for row in (0, 5):
        whole = asking(engine).refine(answer, None, row)
        single = [asking(engine).refine(answer, (j, j + 1), row) for j in range(len(answer.tokens))]
        assert whole.values is not None
        values = np.mean([found.values for found in single if found.values is not None], axis=0)
        size = float(np.abs(whole.values).max())
        np.testing.assert_allclose(values, whole.values, rtol=1e-3, atol=1e-5 * size)
        assert np.mean([found.score for found in single]) == pytest.approx(whole.score, rel=1e-3, abs=1e-5 * size)


# The swapped direction


def over_inputs(matrix: NDArray[np.float64], selection: Span | None) -> NDArray[np.float64]:
    """Columns of M averaged over what is selected of the training example: (G_t, G_k) → (G_t)."""
    return matrix.mean(axis=1) if selection is None else matrix[:, selection[0] : selection[1]].mean(axis=1)


def test_what_an_example_did_to_output_tokens_equals_explicit_backward_passes(engine: Engine, answer: Answer) -> None:
    for row in range(3):
        matrix = explicit_matrix(engine, answer, row)
        for selection in (None, (0, 1), (2, 3), (1, 5), (matrix.shape[1] - 1, matrix.shape[1])):
            expected = over_inputs(matrix, selection)
            found = asking(engine).output_values(answer, row, selection)
            assert found.shape == (len(answer.tokens),)
            np.testing.assert_allclose(found, expected, rtol=5e-4, atol=2e-6 * np.abs(expected).max())


def test_what_an_example_did_to_output_tokens_averages_to_its_influence_on_the_response(
    engine: Engine, answer: Answer
) -> None:
    for row in range(len(ROWS)):
        found = asking(engine).output_values(answer, row)
        size = float(np.abs(found).max())
        assert found.mean() == pytest.approx(asking(engine).refine(answer, None, row).score, rel=5e-4, abs=2e-6 * size)


def test_both_directions_agree_on_every_pair_of_tokens(tiny_engine: Engine) -> None:
    answer, row = tiny_engine.given_answer("What is bright?", "The sun."), 0
    by_output = [asking(tiny_engine).refine(answer, (j, j + 1), row).values for j in range(len(answer.tokens))]
    inputs = range(len(tiny_engine.store.examples[row].tokens))
    by_input = [asking(tiny_engine).output_values(answer, row, (i, i + 1)) for i in inputs]
    forth, back = np.array(by_output), np.array(by_input).T
    assert forth.shape == back.shape != back.T.shape
    np.testing.assert_allclose(forth, back, rtol=1e-3, atol=1e-5 * float(np.abs(back).max()))


# Positions


@pytest.mark.parametrize("selection", [None, (2, 3), (1, 5)])
def test_the_shares_of_positions_sum_to_the_score(engine: Engine, answer: Answer, selection: Selection) -> None:
    for row in range(len(ROWS)):
        found, encoded = asking(engine).locate(answer, selection, row), engine.store.examples[row].encoded
        assert found.positions is not None and found.positions.shape == (len(encoded.ids),)
        # Against the size of the shares, of which a score near zero is a small difference.
        size = float(np.abs(found.positions).sum())
        assert found.positions.sum() == pytest.approx(
            asking(engine).refine(answer, selection, row).score, abs=2e-5 * size
        )
        prompt, response = found.positions[: encoded.response_start], found.positions[encoded.response_start :]
        assert np.abs(prompt).sum() > 1e-3 * size, "nothing passes through the prompt"
        assert np.abs(response).sum() > 1e-3 * size, "nothing passes through the response"
        assert found.positions[-1] == 0, "nothing is predicted at the last position"


@pytest.mark.parametrize("steps", [("locate", "check"), ("check", "locate")], ids=" then ".join)
def test_the_checksum_and_the_positions_are_kept_in_either_order(tiny_engine: Engine, steps: tuple[str, str]) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    asking(tiny_engine).ask(answer, None)
    refined = asking(tiny_engine).refine(answer, None, 0)
    assert refined.checksum is None and refined.positions is None
    for step in steps:
        last = getattr(asking(tiny_engine), step)(answer, None, 0)
    assert last.checksum is not None and last.checksum < 1e-4
    assert last.positions is not None and last.positions.sum() == pytest.approx(last.score, rel=1e-3)
    assert last.score == refined.score and last.values is refined.values
    shown = {found.row: found for found in asking(tiny_engine).ranking(answer, None).influences}
    for known in (asking(tiny_engine).refine(answer, None, 0), shown[0]):
        assert known.checksum == last.checksum and known.positions is last.positions


def test_the_positions_of_one_question_are_not_those_of_another(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    parts = [asking(tiny_engine).locate(answer, (j, j + 1), 0).positions for j in range(len(answer.tokens))]
    whole = asking(tiny_engine).locate(answer, None, 0).positions
    assert whole is not None
    mean = np.array(parts).mean(axis=0)
    np.testing.assert_allclose(mean, whole, rtol=1e-3, atol=1e-5 * float(np.abs(whole).max()))
    assert not np.allclose(parts[0], whole, rtol=0.1)  # type: ignore[arg-type]


def test_a_sequence_is_shown_with_its_prompt_and_one_token_a_position(tiny_engine: Engine) -> None:
    for row, example in enumerate(tiny_engine.store.examples):
        tokens = tiny_engine.sequence(row)
        assert len(tokens) == len(example.encoded.ids)
        assert tokens[example.encoded.response_start :] == example.tokens
        prompt = "".join(token.text for token in tokens[: example.encoded.response_start])
        assert example.prompt in prompt


def test_a_model_like_itself_is_its_own_proponent(engine: Engine) -> None:
    own = engine.given_answer(ROWS[0]["prompt"], ROWS[0]["response"])
    score = asking(engine).refine(own, None, 0).score
    assert score > 0, "an example must be a proponent of its own response: the sign is wrong"
    squared_norm = {"layer": len(engine.model.trainable), "cosine": 1}.get(engine.store.manifest.settings.normalisation)
    if squared_norm is not None:
        assert score == pytest.approx(engine.store.manifest.training.scale * squared_norm, rel=1e-3)


@pytest.mark.parametrize("selection", [None, (2, 3)])
def test_scores_from_sketches_follow_exact_ones(engine: Engine, answer: Answer, selection: Selection) -> None:
    asking(engine).ask(answer, selection)
    found = asking(engine).ranking(answer, selection).scores
    exact = np.array([asking(engine).refine(answer, selection, row).score for row in range(len(ROWS))])
    assert np.corrcoef(found, exact)[0, 1] > 0.9, "sketch scores don't follow the exact ones"


@pytest.mark.parametrize("selection", [None, (2, 3)])
@pytest.mark.parametrize("kind", KINDS[:4])
def test_the_announced_sketch_error_is_how_far_scores_scatter_over_seeds(
    engines: dict[str, Engine], kind: str, selection: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shorter permutations than those of caches, which take longest of all to draw.
    monkeypatch.setattr(sketch, "_SHORTEST", 1 << 12)
    engine = Engine(engines[kind].model, engines[kind].store)
    model, kept, seeds = engine.model, engine.store.manifest, 60
    answer = engine.given_answer("What is bright?", "It is the sun.")
    exact = np.array([asking(engine).refine(answer, selection, row).score for row in range(len(ROWS))])
    examples = [gradients.gradient(model, example.encoded) for example in engine.store.examples]
    by = [divisors(gradients.norms(g), kept.settings.normalisation) for g in examples]
    examples = [gradients.divided(g, norms) for g, norms in zip(examples, by, strict=True)]
    off, announced = np.zeros((seeds, len(ROWS))), np.zeros(seeds)
    for seed in range(seeds):
        # So short a sketch that parameters meet in thousands: in a long one few do, and chance has wider swings.
        sketcher = make_sketcher(model, CacheSettings(length=128, seed=seed))
        query = sketcher(engine.direction(answer, selection))
        off[seed] = [kept.training.scale * float(query @ sketcher(g)) for g in examples] - exact
        engine._sketches.put((answer.id, selection), query)
        announced[seed] = RapidIn(engine, OWN, 1, lambda *_: None).sketch_error(answer, selection)
    scatter, mean = np.sqrt(np.median(np.mean(off**2, axis=0))), announced.mean()
    assert 0.7 < scatter / mean < 1.4, f"scores scatter by {scatter}, {mean} was announced"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_token_sketches_average_to_the_example_sketch(engines: dict[str, Engine], kind: str) -> None:
    store = engines[kind].store
    stored = [sketch * scale[:, None] for sketch, scale in store.sketches()]
    examples = np.concatenate(stored).astype(np.float32)
    for row in range(len(ROWS)):
        tokens = store.token_sketches(row)
        assert tokens is not None
        expected = fold(examples[row], store.manifest.settings.token_length)
        assert len(tokens) == store.examples[row].encoded.response_length
        error = np.linalg.norm(tokens.mean(axis=0) - expected) / np.linalg.norm(expected)
        # int8 keeps a row's entries to 1/254 of its largest.
        assert error < (0.05 if kind == "int8" else 2e-3), f"row {row}: off by {error:.1e} of its length"


def test_cached_token_values_average_to_the_score_from_the_sketch(engine: Engine, answer: Answer) -> None:
    engine = Engine(engine.model, engine.store)
    asking(engine).ask(answer, None)
    ranking = asking(engine).ranking(answer, None, count=len(ROWS))
    with_values = [found for found in ranking.influences if found.values is not None]
    assert len(with_values) == engine.store.manifest.token_rows
    for found in with_values:
        assert found.values is not None
        size = float(np.abs(found.values).max())
        assert found.values.mean() == pytest.approx(found.score, abs=1e-5 * size)


def test_cached_token_values_approximate_exact_ones(engines: dict[str, Engine]) -> None:
    engine = engines["none"]
    own = engine.given_answer(ROWS[1]["prompt"], ROWS[1]["response"])
    asking(engine).ask(own, None)
    sketch_values = scores.token_scores(engine.store, engine.sketch(own, None), 1, 0.0)
    exact = asking(engine).refine(own, None, 1).values
    assert sketch_values is not None and exact is not None
    assert np.corrcoef(sketch_values, exact)[0, 1] > 0.95


def test_an_example_without_cached_tokens_has_no_values_until_refined(tiny_engine: Engine) -> None:
    missing = sorted(set(range(len(ROWS))) - set(tiny_engine.store._token_places))[0]
    answer = tiny_engine.given_answer("What shines?", "The sun.")
    asking(tiny_engine).ask(answer, None)

    def shown() -> bool:
        ranking = asking(tiny_engine).ranking(answer, None, count=len(ROWS))
        return next(found for found in ranking.influences if found.row == missing).values is not None

    assert not shown()
    asking(tiny_engine).refine(answer, None, missing)
    assert shown()


def test_asking_ahead_gives_the_sketches_of_asking(engine: Engine, answer: Answer, engines: dict[str, Engine]) -> None:
    ahead = Engine(engine.model, engine.store)
    steps = sum(1 for _ in asking(ahead).ask_ahead(answer))
    passes = (len(answer.tokens) + gradients.group_count(answer.encoded)) * len(engine.model.checkpoints)
    words = [(start, stop) for start, stop in words_of(answer.tokens) if stop - start > 1]
    asked = [*((j, j + 1) for j in range(len(answer.tokens))), *words]
    assert words and steps == passes + 1 + len(words) + -(-len(asked) // 16), "the norms, words, scores of 16 at once"
    for selection in asked:
        asking(engine).ask(answer, selection)
        found, expected = (one.sketch(answer, selection) for one in (ahead, engine))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))


def test_asking_for_the_only_token_span_asks_for_the_response(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What shines?", "It is the sun.")
    whole, span = None, (0, len(answer.tokens))
    for selection in (whole, span):
        asking(tiny_engine).ask(answer, selection)
    sketches = [tiny_engine.sketch(answer, selection) for selection in (whole, span)]
    np.testing.assert_allclose(sketches[0], sketches[1], rtol=1e-4, atol=1e-6)


def test_scores_scale_with_epochs_times_learning_rate(tiny: Tiny, tiny_engine: Engine) -> None:
    assert tiny_engine.store.manifest.training.known
    assert tiny_engine.store.manifest.training.scale == pytest.approx(2 * 0.01)
    answer = tiny_engine.given_answer("What shines?", "It is the sun.")
    asking(tiny_engine).ask(answer, None)
    query = tiny_engine.sketch(answer, None)
    (sketches, scale), *_ = tiny_engine.store.sketches()
    expected = 0.02 * (sketches.astype(np.float32) @ query) * scale
    np.testing.assert_allclose(asking(tiny_engine).ranking(answer, None).scores, expected, rtol=1e-4, atol=1e-7)
