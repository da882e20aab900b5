"""Answers decoded in one batch: each says what it says alone, whoever joins and leaves, and few passes are made."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from explorer.errors import NonFiniteError
from explorer.model import generation
from explorer.model.generation import Decoder, GenerationSettings, _choose, generate
from explorer.model.language_model import LanguageModel
from explorer.records import Message

PROMPTS = ["Why?", "What is bright by day, and what by night?", "Hi", "Count the stars above the river.", "So?"]
GREEDY = GenerationSettings(max_tokens=12)


def said(prompt: str, system: str = "") -> list[Message]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]


def alone(model: LanguageModel, prompt: str, settings: GenerationSettings) -> list[int]:
    return list(generate(model, said(prompt), settings))


class Counted:
    """A network that notes how many rows each pass had."""

    def __init__(self, network: Any) -> None:
        self._network, self.rows = network, list[int]()

    def __call__(self, **inputs: Any) -> Any:
        self.rows.append(len(inputs["input_ids"]))
        return self._network(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def counted(model: LanguageModel) -> tuple[LanguageModel, Counted]:
    network = Counted(model.network)
    return replace(model, network=network), network


def in_turns(answers: list[Iterator[int | None]]) -> list[list[int]]:
    """Take one step of each answer after the other, as the worker does."""
    found: list[list[int]] = [[] for _ in answers]
    left = list(zip(answers, found, strict=True))
    while left:
        for pair in list(left):
            try:
                token = next(pair[0])
            except StopIteration:
                left.remove(pair)
            else:
                pair[1].extend([] if token is None else [token])
    return found


def test_answers_in_a_batch_say_what_they_say_alone_and_cost_about_one(tiny_model: LanguageModel) -> None:
    expected = [alone(tiny_model, prompt, GREEDY) for prompt in PROMPTS]
    model, network = counted(tiny_model)
    decoder = Decoder(model)
    assert in_turns([decoder.answer(said(prompt), GREEDY) for prompt in PROMPTS]) == expected
    longest = max(map(len, expected))
    assert len(network.rows) <= len(PROMPTS) + longest + 3, "a prompt each, the trial, and the rest together"
    assert max(network.rows) == len(PROMPTS)
    assert not decoder._writing and not any(batch.rows or batch.past for batch in decoder._batches.values())


@pytest.mark.parametrize("seed", range(3))
def test_whoever_joins_and_leaves_when_they_like_changes_nobodys_answer(tiny_model: LanguageModel, seed: int) -> None:
    chance, decoder = random.Random(seed), Decoder(tiny_model)
    going: list[tuple[Iterator[int | None], list[int], list[int]]] = []
    ended = 0
    for number in range(10):
        prompt = chance.choice(PROMPTS) + " x" * chance.randrange(20)
        settings = GenerationSettings(
            max_tokens=chance.randrange(1, 25),
            temperature=chance.choice([0.0, 0.7, 1.5, 8.0]),
            top_p=chance.choice([1.0, 0.9, 0.5]),
            seed=number,
            base=chance.random() < 0.3,
        )
        going.append((decoder.answer(said(prompt), settings), [], alone(tiny_model, prompt, settings)))
        for _ in range(chance.randrange(30)):
            if not going:
                break
            answer, found, expected = chance.choice(going)
            try:
                found.extend(filter(lambda token: token is not None, [next(answer)]))  # type: ignore[arg-type]
            except StopIteration:
                assert found == expected
                ended += 1
                going.remove((answer, found, expected))
                continue
            assert found == expected[: len(found)]
            if chance.random() < 0.02:
                answer.close()  # type: ignore[attr-defined]
                going.remove((answer, found, expected))
    for answer, found, expected in going:
        assert found + [token for token in answer if token is not None] == expected
        ended += 1
    assert ended > 4 and not decoder._writing


def test_the_base_and_the_fine_tuned_model_are_batches_of_their_own(tiny_model: LanguageModel) -> None:
    every = [replace(GREEDY, base=base) for base in (False, True, False, True)]
    expected = [alone(tiny_model, prompt, each) for prompt, each in zip(PROMPTS, every, strict=False)]
    assert expected[0] != alone(tiny_model, PROMPTS[0], replace(GREEDY, base=True))
    model, network = counted(tiny_model)
    decoder = Decoder(model)
    found = in_turns([decoder.answer(said(prompt), each) for prompt, each in zip(PROMPTS, every, strict=False)])
    assert found == expected and max(network.rows) == 2


def test_a_system_prompt_is_part_of_one_answer_alone(tiny_model: LanguageModel) -> None:
    asked = [said("Why?"), said("Why?", "Be brief, and count."), said("So?", "Sing.")]
    expected = [list(generate(tiny_model, messages, GREEDY)) for messages in asked]
    decoder = Decoder(tiny_model)
    assert in_turns([decoder.answer(messages, GREEDY) for messages in asked]) == expected


def test_a_choice_that_rounding_could_decide_is_made_alone(
    tiny_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = GenerationSettings(max_tokens=10, temperature=1.0, seed=5)
    settings = [GREEDY, drawn, replace(drawn, seed=6, top_p=0.8)]
    expected = [alone(tiny_model, prompt, each) for prompt, each in zip(PROMPTS, settings, strict=False)]
    model, network = counted(tiny_model)
    with monkeypatch.context() as patched:
        patched.setattr(generation, "rounding", lambda logits: 1e-2)
        decoder = Decoder(model)
        answers = [decoder.answer(said(prompt), each) for prompt, each in zip(PROMPTS, settings, strict=False)]
        assert in_turns(answers) == expected
    assert network.rows.count(1) > len(settings) + 1, "nothing was unclear: the test can't tell"


def test_a_model_whose_batches_are_wrong_is_asked_for_one_answer_at_a_time(tiny_model: LanguageModel) -> None:
    class Wrong(Counted):
        """Takes the padding for text."""

        def __call__(self, **inputs: Any) -> Any:
            if "attention_mask" in inputs:
                inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
            return super().__call__(**inputs)

    expected = [alone(tiny_model, prompt, GREEDY) for prompt in PROMPTS]
    network = Wrong(tiny_model.network)
    decoder = Decoder(replace(tiny_model, network=network))
    assert in_turns([decoder.answer(said(prompt), GREEDY) for prompt in PROMPTS]) == expected
    assert sum(rows > 1 for rows in network.rows) == 1


def test_what_goes_wrong_with_one_answer_is_its_own(tiny_model: LanguageModel) -> None:
    class Broken(Counted):
        """Expects nothing finite behind one token."""

        def __call__(self, **inputs: Any) -> Any:
            out = super().__call__(**inputs)
            out.logits[inputs["input_ids"][:, -1] == bad] = float("nan")
            return out

    mine, theirs = (alone(tiny_model, prompt, GREEDY) for prompt in PROMPTS[:2])
    bad = next(token for token in mine[1:] if token not in theirs)
    decoder = Decoder(replace(tiny_model, network=Broken(tiny_model.network)))
    first, second = (decoder.answer(said(prompt), GREEDY) for prompt in PROMPTS[:2])
    found = [next(second), next(first)]
    with pytest.raises(NonFiniteError):
        while True:
            next(first)
    assert [*found[:1], *second] == theirs


@pytest.mark.parametrize(
    "change", [{"num_experts": 4}, {"sliding_window": 8}, {"layer_types": ["full_attention", "linear_attention"]}]
)
def test_where_rows_of_a_batch_need_not_be_as_alone_none_is_made(
    tiny_model: LanguageModel, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(tiny_model.network.config, name, value, raising=False)
    assert not Decoder(tiny_model)._joins


def test_draws_are_those_of_torch_bit_by_bit() -> None:
    for seed in range(50):
        logits = torch.randn(300, generator=torch.Generator().manual_seed(seed)) * 3
        settings = GenerationSettings(temperature=0.8, seed=seed)
        order = logits.argsort(descending=True)
        probabilities = torch.softmax(logits[order] / 0.8, dim=0)
        place = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(seed))
        assert _choose(logits, settings, torch.Generator().manual_seed(seed)) == int(order[place])


@pytest.mark.parametrize("settings", [GREEDY, *(replace(GREEDY, temperature=1.0, top_p=p) for p in (1.0, 0.7))])
def test_a_clear_choice_outlives_any_rounding(settings: GenerationSettings) -> None:
    within, clear = 0.02, 0
    for seed in range(200):
        noise = torch.Generator().manual_seed(seed)
        logits = torch.randn(60, generator=noise) * 4

        def chosen(moved: torch.Tensor, within: float, seed: int = seed) -> int | None:
            return _choose(moved, settings, torch.Generator().manual_seed(seed), within)

        token = chosen(logits, within)
        if token is None:
            continue
        clear += 1
        for _ in range(20):
            moved = logits + within * (2 * torch.rand(60, generator=noise) - 1)
            assert chosen(moved, 0.0) == token
    assert 60 < clear < 200, "all are clear, or hardly any"
