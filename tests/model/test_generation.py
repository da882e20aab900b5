"""Prompt → answer: repeatable, bounded, ended by its stop token."""

import dataclasses

import numpy as np
import pytest
import torch

from explorer.engine import Engine
from explorer.errors import PromptError
from explorer.model.generation import GenerationSettings, _choose, generate
from explorer.model.language_model import LanguageModel

WHY = [{"role": "user", "content": "Why?"}]


def test_the_most_probable_token_is_taken_each_time(tiny_model: LanguageModel) -> None:
    ids = tiny_model.encode_prompt(WHY).tolist()
    for token in generate(tiny_model, WHY, GenerationSettings(max_tokens=5)):
        with torch.no_grad():
            logits = tiny_model.network(input_ids=torch.tensor([ids])).logits[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(tiny_model: LanguageModel) -> None:
    def drawn(seed: int) -> list[int]:
        return list(generate(tiny_model, WHY, GenerationSettings(max_tokens=12, temperature=2.0, seed=seed)))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_generation_stops_at_the_longest_length(tiny_model: LanguageModel) -> None:
    assert len(list(generate(tiny_model, WHY, GenerationSettings(max_tokens=3)))) <= 3


def test_generation_stops_where_the_context_is_full(tiny_model: LanguageModel) -> None:
    prompt = [{"role": "user", "content": "x" * 225}]
    room = tiny_model.context - len(tiny_model.encode_prompt(prompt))
    assert 0 < room < 20
    endless = dataclasses.replace(tiny_model)
    tokens = list(generate(endless, prompt, GenerationSettings(max_tokens=500, temperature=1.0)))
    assert len(tokens) <= room


def test_a_stop_token_is_the_last_one(tiny_model: LanguageModel) -> None:
    stop = tiny_model.tokenizer.eos_token_id
    assert stop in tiny_model.stop_ids
    for seed in range(20):
        settings = GenerationSettings(max_tokens=200, temperature=30.0, seed=seed)
        tokens = list(generate(tiny_model, WHY, settings))
        assert stop not in tokens[:-1], "it went on after the stop token"
        if tokens[-1] == stop:
            return
    pytest.fail("no answer of 20 ended by itself: the test can't tell")


def test_only_the_most_probable_tokens_are_drawn() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()

    def drawn(top_p: float) -> set[int | None]:
        random = torch.Generator().manual_seed(0)
        settings = GenerationSettings(temperature=1.0, top_p=top_p)
        return {_choose(logits, settings, random) for _ in range(300)}

    assert drawn(0.4) == {0}
    assert drawn(0.7) == {0, 1}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_an_answer_grows_token_by_token_and_is_finished_once(tiny_engine: Engine) -> None:
    answers = list(tiny_engine.answer("Why?", GenerationSettings(max_tokens=5)))
    assert [answer.finished for answer in answers] == [False] * (len(answers) - 1) + [True]
    lengths = [answer.encoded.response_length for answer in answers]
    assert lengths == [*range(1, len(answers)), len(answers) - 1]
    last = answers[-1]
    assert last.text == "".join(token.text for token in last.tokens if not token.special)
    assert answers[-2].id == last.id, "the finished answer is the one that was shown last"


def test_a_given_answer_is_closed_by_the_end_of_sequence(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("Why?", "So.")
    assert answer.finished and answer.text == "So." and answer.tokens[-1].special
    assert answer.encoded.ids[-1] == tiny_engine.model.tokenizer.eos_token_id


def test_equal_answers_have_equal_names(tiny_engine: Engine) -> None:
    one, same = (tiny_engine.given_answer("Why?", "So.") for _ in range(2))
    assert one.id == same.id and np.array_equal(one.encoded.ids, same.encoded.ids)
    assert len({one.id, tiny_engine.given_answer("Why?", "So").id, tiny_engine.given_answer("Why", "So.").id}) == 3


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(tiny_engine: Engine, prompt: str) -> None:
    with pytest.raises(PromptError, match="The prompt is empty"):
        next(tiny_engine.answer(prompt))
    with pytest.raises(PromptError, match="The prompt is empty"):
        tiny_engine.given_answer(prompt, "So.")


def test_an_empty_response_is_refused(tiny_engine: Engine) -> None:
    with pytest.raises(PromptError, match="The response is empty"):
        tiny_engine.given_answer("Why?", " ")
