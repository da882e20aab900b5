"""Why this and not that, against backward passes written out in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from explorer import gradients, views
from explorer.cache.manifest import CacheSettings
from explorer.commands.report import Asked, question_report
from explorer.engine import Engine
from explorer.errors import PromptError
from explorer.model import alternatives
from explorer.model.loading import load_model
from explorer.records import Answer, Contrast, Conversation
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import OWN, asking
from tests.conftest import Tiny

KINDS = ["layer", "cosine", "none"]


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Computes in float64 throughout."""
    model = load_model(str(tiny.model), tiny.adapter, device="cpu", precision="float64")
    settings = CacheSettings(length=4096, token_length=1024, normalisation=request.param)
    folder = tmp_path_factory.mktemp("contrast") / "cache"
    return Engine(model, build_cache(model, read_examples(tiny.data), folder, settings, 2, data_name="train.jsonl"))


@pytest.fixture
def answer(engine: Engine) -> Answer:
    return engine.given_answer("What is bright?", "It is the sun.")


def log_probability(engine: Engine, answer: Answer, place: int, ids: list[int]) -> torch.Tensor:
    """Log p of a continuation after the first `place` tokens of the answer, differentiable."""
    first = answer.encoded.response_start + place
    sequence = torch.tensor([[*answer.encoded.ids[:first].tolist(), *ids]])
    logits = engine.model.network(input_ids=sequence).logits[0]
    chosen = logits.log_softmax(-1)[range(first - 1, first - 1 + len(ids)), ids]
    return chosen.sum()


def explicit(engine: Engine, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names = list(engine.model.trainable)
    return dict(zip(names, torch.autograd.grad(loss, list(engine.model.trainable.values())), strict=True))


def divisors(engine: Engine, gradient: dict[str, torch.Tensor]) -> dict[str, float]:
    kind = engine.store.manifest.settings.normalisation
    norms = {name: float(part.norm()) for name, part in gradient.items()}
    whole = {"none": 1.0, "cosine": sum(norm**2 for norm in norms.values()) ** 0.5}
    return norms if kind == "layer" else dict.fromkeys(norms, whole[kind])


def token_values(engine: Engine, answer: Answer, row: int, loss: torch.Tensor) -> NDArray[np.float64]:
    """e·η·⟨∇loss / n_t, ∇L(s^i) / n_k⟩ for every token of an example, one backward pass each."""
    example = engine.store.examples[row].encoded
    response = answer.encoded.ids[answer.encoded.response_start :].tolist()
    ours = divisors(engine, explicit(engine, -log_probability(engine, answer, 0, response) / len(response)))
    parts = list(gradients.token_gradients(engine.model, example))
    theirs = divisors(engine, {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]})
    query = explicit(engine, loss)
    values = [
        sum(float((query[name] * part[name]).sum()) / ours[name] / theirs[name] for name in query) for part in parts
    ]
    return np.array(values) * engine.store.manifest.training.scale


def close(found: NDArray[np.float32] | None, expected: NDArray[np.float64]) -> None:
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("place", "word"), [(2, "moon"), (3, " the"), (0, "So")])
def test_a_contrast_is_the_difference_of_two_questions(engine: Engine, answer: Answer, place: int, word: str) -> None:
    contrast = alternatives.contrast(engine.model, answer, (place, place + 1), word)
    said = [int(answer.encoded.ids[answer.encoded.response_start + place])]
    for row in (0, 2):
        of_said = token_values(engine, answer, row, -log_probability(engine, answer, place, said))
        of_other = token_values(engine, answer, row, -log_probability(engine, answer, place, list(contrast.instead)))
        found = asking(engine).check(answer, contrast, row)
        close(found.values, of_said - of_other)
        assert found.score == pytest.approx(float((of_said - of_other).mean()), rel=1e-5, abs=1e-6)
        close(asking(engine).refine(answer, (place, place + 1), row).values, of_said)
        larger = max(np.abs(of_said).max(), np.abs(of_other).max())
        assert found.checksum is not None and found.checksum * abs(found.score) < 1e-5 * larger


def test_words_of_several_tokens_compare_as_words(engine: Engine, answer: Answer) -> None:
    span, row = (1, 4), 1
    contrast = alternatives.contrast(engine.model, answer, span, "my star")
    assert len(contrast.instead) > 2
    said = answer.encoded.ids[answer.encoded.response_start :][slice(*span)].tolist()
    odds = log_probability(engine, answer, 1, said) - log_probability(engine, answer, 1, list(contrast.instead))
    close(asking(engine).refine(answer, contrast, row).values, token_values(engine, answer, row, -odds))


def test_what_both_words_begin_with_cancels(engine: Engine, answer: Answer) -> None:
    ids = answer.encoded.ids[answer.encoded.response_start :].tolist()
    long, short = Contrast((0, 3), (*ids[:2], 70)), Contrast((2, 3), (70,))
    for row in (0, 4):
        expected = asking(engine).refine(answer, short, row).values
        assert expected is not None
        close(asking(engine).refine(answer, long, row).values, expected.astype(np.float64))


@pytest.mark.parametrize("engine", ["none"], indirect=True)
def test_a_step_on_a_proponent_moves_the_odds_towards_what_was_said(engine: Engine, answer: Answer) -> None:
    contrast = alternatives.contrast(engine.model, answer, (3, 4), "the")
    said = [int(answer.encoded.ids[answer.encoded.response_start + 3])]

    def odds_after(gradient: gradients.Gradient, step: float) -> float:
        with torch.no_grad():
            for name, tensor in engine.model.trainable.items():
                tensor.sub_(step * gradient[name])
            others = log_probability(engine, answer, 3, list(contrast.instead))
            odds = float(log_probability(engine, answer, 3, said) - others)
            for name, tensor in engine.model.trainable.items():
                tensor.add_(step * gradient[name])
        return odds

    for row in range(3):
        gradient, step = gradients.gradient(engine.model, engine.store.examples[row].encoded), 1e-4
        slope = (odds_after(gradient, step) - odds_after(gradient, -step)) / (2 * step)
        expected = slope * engine.store.manifest.training.scale
        assert asking(engine).refine(answer, contrast, row).score == pytest.approx(expected, rel=1e-3)


def test_a_contrast_is_ranked_by_the_one_way(engine: Engine, answer: Answer) -> None:
    contrast = alternatives.contrast(engine.model, answer, (2, 3), "moon")
    with pytest.raises(PromptError, match="not computed yet"):
        asking(engine).ranking(answer, contrast)
    asking(engine).ask(answer, contrast)
    assert engine.known(answer, contrast) and engine.known(answer, replace(contrast, text="shown otherwise"))
    assert not engine.known(answer, (2, 3))
    rows = asking(engine).candidates(answer, contrast)
    sketched = asking(engine).ranking(answer, contrast).scores
    exact = np.array([asking(engine).refine(answer, contrast, row).score for row in range(len(sketched))])
    assert np.abs(sketched - exact).max() < 5 * asking(engine).ranking(answer, contrast).sketch_error
    towards = [found.row for found in asking(engine).ranking(answer, contrast).influences]
    away = [found.row for found in asking(engine).ranking(answer, contrast, opponents=True).influences]
    assert towards == away[::-1] == sorted(rows, key=lambda row: -exact[row])


# Alternatives as they are typed


def test_a_typed_word_stands_where_the_said_one_stood(tiny: Tiny) -> None:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    engine_answer = answer_of(model, "It is the sun.")
    place = [token.text for token in engine_answer.tokens].index(" sun")
    read = model.tokenizer.convert_ids_to_tokens
    for typed in ("moon", " moon"):
        contrast = alternatives.contrast(model, engine_answer, (place, place + 1), typed)
        assert read(contrast.instead) == ["Ġmoon"] and contrast.text == "moon"
    assert read(alternatives.contrast(model, engine_answer, (0, 1), "moon").instead) == list("moon")
    # Asked as one would type it, the word joins what stands before it: then it is read by itself.
    assert read(alternatives.contrast(model, engine_answer, (1, 2), "\tt").instead) == ["ĉ", "t"]


def answer_of(model: object, text: str) -> Answer:
    encoded = model.encode(({"role": "user", "content": "What?"},), text)  # type: ignore[attr-defined]
    tokens = model.tokens(encoded.ids[encoded.response_start :])  # type: ignore[attr-defined]
    return Answer("id", Conversation.of("What?"), encoded, tokens, text, True)


@pytest.mark.parametrize(("typed", "said"), [("", "empty"), ("  ", "empty"), ("y" * 400, "too many")])
def test_a_word_that_cannot_stand_there_is_refused(tiny_engine: Engine, typed: str, said: str) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    with pytest.raises(PromptError, match=said):
        alternatives.contrast(tiny_engine.model, answer, (2, 3), typed)


def test_the_word_that_was_said_is_no_alternative(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    place = [token.text for token in answer.tokens].index(" sun")
    with pytest.raises(PromptError, match="what the answer says"):
        asking(tiny_engine).ask(answer, alternatives.contrast(tiny_engine.model, answer, (place, place + 1), "sun"))
    with pytest.raises(PromptError, match="were asked about"):
        asking(tiny_engine).ask(answer, Contrast((2, 99), (5,)))


def test_the_command_line_reports_a_contrast(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    place = [token.text for token in answer.tokens].index(" sun")
    asked = Asked(answer.prompt, answer.text, (place, place + 1), "moon", count=3)
    report = question_report(asked, asking(tiny_engine))
    assert report["selection"] == [place, place + 1] and report["instead_tokens"] == ["Ġmoon"]
    assert "log-odds of what was said" in report["scores"] and report["exact"]
    expected = asking(tiny_engine).refine(
        answer,
        alternatives.contrast(tiny_engine.model, answer, (place, place + 1), "moon"),
        report["examples"][0]["row"],
    )
    assert report["examples"][0]["score"] == expected.score


def test_the_heading_says_which_way_the_examples_pushed(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    contrast = Contrast((5, 6), (70,), "**moon**")
    said = views.selected_text(answer, (5, 6))
    assert views.heading(answer, contrast, False, OWN).endswith(
        f"and not “**moon**”: what pushed the model towards {said}"
    )
    assert views.heading(answer, contrast, True, OWN).endswith("towards “**moon**”")
