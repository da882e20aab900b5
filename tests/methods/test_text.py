"""Methods without gradients against plain implementations of what they say they are."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from explorer.engine import Engine
from explorer.errors import ModelError
from explorer.methods.likeness.encoder import Encoder, minilm
from explorer.methods.likeness.similarity import hidden_states, said
from explorer.methods.opening import open_method
from explorer.records import Answer
from tests.tiny import ROWS, save_tiny_encoder


@pytest.fixture
def answer(tiny_engine: Engine) -> Answer:
    return tiny_engine.given_answer("What shines?", "The moon, and the Sun.")


def test_random_scores_are_the_same_for_the_same_question_and_seed(tiny_engine: Engine, answer: Answer) -> None:
    def scores(name: str, selection: tuple[int, int] | None = None) -> list[float]:
        found: list[float] = open_method(tiny_engine, name).scores(answer, selection).tolist()
        return found

    assert scores("random") == scores("random") == scores("random:0")
    assert scores("random") != scores("random:1")
    assert scores("random") != scores("random", (0, 1))


def plain_bm25(asked: list[str], texts: list[list[str]]) -> list[float]:
    """Lucene's BM25, k₁ = 1.5 and b = 0.75."""
    mean = sum(map(len, texts)) / len(texts)
    found = []
    for text in texts:
        score = 0.0
        for word in asked:
            holders = sum(word in other for other in texts)
            rarity = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
            times = text.count(word)
            score += rarity * times / (times + 1.5 * (0.25 + 0.75 * len(text) / mean))
        found.append(score)
    return found


def test_bm25_agrees_with_the_formula(tiny_engine: Engine, answer: Answer) -> None:
    strip = str.maketrans("", "", ".,?!:<>/*🌟")
    texts = [
        f"{row['prompt']}\n{row['response']}".replace("<b>", " b ").replace("</b>", " b ").casefold() for row in ROWS
    ]
    split = [text.translate(strip).split() for text in texts]
    asked = ["what", "shines", "the", "moon", "and", "the", "sun"]
    found = open_method(tiny_engine, "bm25").scores(answer, None)
    assert found == pytest.approx(plain_bm25(asked, split), rel=1e-5, abs=1e-6)


def test_bm25_of_a_word_that_no_example_has_is_zero(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("Xyzzy plugh", "Xyzzy!")
    assert not open_method(tiny_engine, "bm25").scores(answer, None).any()
    assert not open_method(tiny_engine, "bm25").scores(answer, (len(answer.tokens) - 1, len(answer.tokens))).any()


def test_a_span_is_asked_about_by_its_own_words(tiny_engine: Engine, answer: Answer) -> None:
    place = next(number for number, token in enumerate(answer.tokens) if token.text == " moon")
    found = open_method(tiny_engine, "bm25").scores(answer, (place, place + 1))
    assert np.flatnonzero(found).tolist() == [1], "one example has the moon in it"


def states(engine: Engine, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    with torch.no_grad():
        found = engine.model.network(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True)
    return found.hidden_states[-1][0].double().numpy()


def test_repsim_is_the_cosine_of_the_last_states_before_the_end(tiny_engine: Engine, answer: Answer) -> None:
    query = states(tiny_engine, answer.encoded.ids)[-2]
    expected = []
    for example in tiny_engine.store.examples:
        other = states(tiny_engine, example.encoded.ids)[-2]
        expected.append(query @ other / np.linalg.norm(query) / np.linalg.norm(other))
    assert open_method(tiny_engine, "repsim").scores(answer, None) == pytest.approx(expected, abs=1e-5)


def test_an_answer_that_was_cut_short_is_compared_by_its_last_token(tiny_engine: Engine) -> None:
    whole = tiny_engine.given_answer("Count.", "One, two")
    assert said(tiny_engine.model, whole.encoded) == slice(0, len(whole.tokens) - 1)
    cut = type(whole.encoded)(whole.encoded.ids[:-1], whole.encoded.response_start)
    assert said(tiny_engine.model, cut) == slice(0, len(whole.tokens) - 1)


def test_cka_agrees_with_kornblith(tiny_engine: Engine, answer: Answer) -> None:
    """‖YᵀX‖²/(‖XᵀX‖‖YᵀY‖) with units as samples and tokens as features, each feature centred."""
    expected = []
    for example in tiny_engine.store.examples:
        x, y = (
            states(tiny_engine, encoded.ids)[encoded.response_start : -1].T
            for encoded in (answer.encoded, example.encoded)
        )
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        bottom = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
        expected.append(np.linalg.norm(y.T @ x) ** 2 / bottom)
    # States are kept as float16.
    assert open_method(tiny_engine, "cka").scores(answer, None) == pytest.approx(expected, abs=2e-3)


def test_hidden_states_are_those_of_the_response(tiny_engine: Engine, answer: Answer) -> None:
    found = hidden_states(tiny_engine.model, answer.encoded)
    assert len(found) == len(answer.tokens)
    assert found == pytest.approx(states(tiny_engine, answer.encoded.ids)[answer.encoded.response_start :], abs=1e-5)


def test_embeddings_are_means_over_tokens_whatever_the_padding(
    tiny_engine: Engine, answer: Answer, tmp_path: Path
) -> None:
    folder = save_tiny_encoder(tmp_path)
    network, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def vector(text: str) -> NDArray[np.float64]:
        with torch.no_grad():
            mean = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).double().numpy()
        return np.asarray(mean / np.linalg.norm(mean))

    query = vector("What shines?\nThe moon, and the Sun.")
    expected = [query @ vector(f"{row['prompt']}\n{row['response']}") for row in ROWS]
    found = open_method(tiny_engine, f"embedding:{folder}").scores(answer, None)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(float(value), 4) for value in expected}) > 1


def test_a_folder_without_an_encoder_is_refused(tiny_engine: Engine, answer: Answer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no encoder"):
        open_method(tiny_engine, f"embedding:{tmp_path}").scores(answer, None)


@pytest.mark.long
def test_the_encoder_out_of_the_wheel_knows_likeness_of_meaning() -> None:
    (vectors,) = Encoder(minilm())(["A cat sleeps.", "The kitten is asleep.", "Interest rates rose."])
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
