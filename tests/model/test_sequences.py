"""A training sequence is the whole conversation as the template writes it, whichever template."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from explorer.engine import Engine
from explorer.errors import DataError, MismatchError, ModelError, PromptError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.model.sequences import Habits, Template, habits, prompt_ids, sequence
from explorer.records import Counting, Encoded, Example, Message
from precompute.build import build_cache
from precompute.data import read_examples
from tests.conftest import TINY_SETTINGS, Tiny
from tests.model.templates import FAMILIES, Family
from tests.tiny import byte_tokenizer, save_tiny_model

TOKENIZERS: dict[str, Any] = {name: family.tokenizer() for name, family in FAMILIES.items()}
WITH_SYSTEM = [name for name, family in FAMILIES.items() if family.system]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}},
]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}]

text = st.text(st.sampled_from("ab the sunriver?.:,é🌟 \n\"'{}"), min_size=1, max_size=24).filter(str.strip)
pairs = st.lists(st.tuples(text, text), max_size=2)


def turn(role: str, content: str, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def conversation(history: list[tuple[str, str]], prompt: str, system: str = "") -> list[Message]:
    turns = [turn("system", system)] if system else []
    for asked, said in history:
        turns += [turn("user", asked), turn("assistant", said)]
    return [*turns, turn("user", prompt)]


def of(name: str, messages: list[Message], answer: Message, tools: list[dict[str, Any]] | None = None) -> Encoded:
    tokenizer = TOKENIZERS[name]
    return sequence(tokenizer, Template("chat", tokenizer), messages, answer, tools or ())


def held_to_the_template(
    name: str, messages: list[Message], answer: Message, tools: list[dict[str, Any]] | None = None
) -> str:
    """Compare with `apply_chat_template` of the whole conversation; return the text of what is in the loss."""
    tokenizer, family = TOKENIZERS[name], FAMILIES[name]
    encoded = of(name, messages, answer, tools)
    whole = tokenizer.apply_chat_template([*messages, answer], tools=tools, tokenize=True)["input_ids"]
    ids = encoded.ids.tolist()
    assert ids == whole[: len(ids)], "the sequence is the template's"
    assert not tokenizer.decode(whole[len(ids) :]).strip(), "nothing but blanks behind the answer's end is left out"
    before, response = (str(tokenizer.decode(part)) for part in np.split(encoded.ids, [encoded.response_start]))
    assert before.endswith(family.header), (before, response)
    assert response.endswith(family.end), response
    return response.removesuffix(family.end)


@pytest.mark.parametrize("name", FAMILIES)
@given(history=pairs, prompt=text, answer=text)
def test_a_sequence_is_what_the_template_makes_of_the_whole_conversation(
    name: str, history: list[tuple[str, str]], prompt: str, answer: str
) -> None:
    said = held_to_the_template(name, conversation(history, prompt), turn("assistant", answer))
    assert answer.strip() in said


@pytest.mark.parametrize("name", WITH_SYSTEM)
@given(system=text, history=pairs, prompt=text, answer=text)
def test_a_system_turn_is_part_of_it(
    name: str, system: str, history: list[tuple[str, str]], prompt: str, answer: str
) -> None:
    messages = conversation(history, prompt, system)
    held_to_the_template(name, messages, turn("assistant", answer))
    encoded = of(name, messages, turn("assistant", answer))
    assert system.strip() in TOKENIZERS[name].decode(encoded.ids[: encoded.response_start])


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "deepseek"])
@given(prompt=text, answer=text)
def test_the_answer_follows_the_prompt_that_a_question_is(name: str, prompt: str, answer: str) -> None:
    tokenizer, messages = TOKENIZERS[name], conversation([], prompt)
    asked = prompt_ids(tokenizer, Template("chat", tokenizer), messages)
    encoded = of(name, messages, turn("assistant", answer))
    assert encoded.ids[: encoded.response_start].tolist() == asked


@pytest.mark.parametrize("name", ["qwen3", "deepseek"])
@given(history=pairs, prompt=text, thought=text, answer=text)
def test_thoughts_in_the_text_are_written_as_the_template_writes_them(
    name: str, history: list[tuple[str, str]], prompt: str, thought: str, answer: str
) -> None:
    thinking = [(asked, f"<think>\n{thought}\n</think>\n\n{said}") for asked, said in history]
    messages = conversation(thinking, prompt)
    said = held_to_the_template(name, messages, turn("assistant", f"<think>\n{thought}\n</think>\n\n{answer}"))
    assert answer.strip() in said
    assert said.startswith("<think>") == (name == "qwen3")


@given(prompt=text, thought=text, answer=text, key=st.sampled_from(["reasoning_content", "thinking", "reasoning"]))
def test_thoughts_of_a_turns_own_are_in_the_loss(prompt: str, thought: str, answer: str, key: str) -> None:
    spoken = turn("assistant", answer, **{key: thought})
    said = held_to_the_template("qwen3", conversation([], prompt), spoken)
    assert said.startswith("<think>\n") and thought.strip("\n") in said and answer.strip() in said


@pytest.mark.parametrize("name", ["qwen3", "llama3"])
@given(prompt=text, found=text, answer=text)
def test_tools_calls_and_what_they_gave_are_part_of_it(name: str, prompt: str, found: str, answer: str) -> None:
    messages = [
        turn("user", prompt),
        {"role": "assistant", "content": None, "tool_calls": CALL},
        turn("tool", found),
    ]
    held_to_the_template(name, messages, turn("assistant", answer), TOOLS)
    called = held_to_the_template(name, messages[:1], messages[1], TOOLS)
    assert '"name": "weather"' in called and "Ulm" in called
    encoded = of(name, messages, turn("assistant", answer), TOOLS)
    before = TOKENIZERS[name].decode(encoded.ids[: encoded.response_start])
    assert "parameters" in before and "Ulm" in before


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_ends_where_the_template_ends_an_answer(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    end = habits(tokenizer, Template("chat", tokenizer)).end
    assert tokenizer.decode(end) == FAMILIES[name].end.split("\n")[-1]


def test_what_earlier_versions_made_otherwise_is_known() -> None:
    """Those put the tokenizer's end of sequence behind the answer, whatever the template ends it with."""
    assert not any(habits(made, Template("chat", made)).as_before for made in TOKENIZERS.values())
    chatml = FAMILIES["chatml"].tokenizer()
    chatml.eos_token = "<|im_end|>"
    assert habits(chatml, Template("chat", chatml)).as_before
    usual = byte_tokenizer()
    for template in ("chat", "alpaca"):
        assert habits(usual, Template(template, usual)).as_before


def test_a_prompt_that_trained_rows_do_not_continue_is_said() -> None:
    tails = {name: habits(made, Template("chat", made)).unlike_prompt for name, made in TOKENIZERS.items()}
    assert tails.pop("deepseek") == "<think>\n"
    assert not any(tails.values()), tails


# What a template doesn't write is refused by name


def refused(template: str, messages: list[Message], answer: Message, tools: list[dict[str, Any]] | None = None) -> str:
    family = Family(template, (), "", "")
    tokenizer = family.tokenizer()
    with pytest.raises(PromptError) as problem:
        sequence(tokenizer, Template("chat", tokenizer), messages, answer, tools or ())
    assert "\n" not in str(problem.value)
    return str(problem.value)


PLAIN = "{% for m in messages %}{{ m.role + ': ' + (m.content or '') + '\n' }}{% endfor %}"
YES = turn("assistant", "Yes.")
WHY = turn("user", "Why?")


@pytest.mark.parametrize("key", ["name", "weight", "tool_calls", "reasoning_content", "prefix", "recipient"])
def test_a_key_that_the_template_does_not_write_is_refused_by_name(key: str) -> None:
    assert f"writes no {key}" in refused(PLAIN, [WHY | {key: "x"}], YES)
    assert f"writes no {key}" in refused(PLAIN, [WHY], YES | {key: "x"})


def test_tools_that_the_template_does_not_write_are_refused() -> None:
    assert "writes no tools" in refused(PLAIN, [WHY], YES, TOOLS)


@pytest.mark.parametrize("role", ["system", "developer", "tool", "ipython"])
def test_a_role_that_the_template_leaves_out_is_refused_by_name(role: str) -> None:
    template = "{% for m in messages if m.role in ('user', 'assistant') %}" + PLAIN.split("%}", 1)[1]
    assert f"leaves out what the role {role} says" in refused(template, [turn(role, "Be kind."), WHY], YES)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Only one user turn, please') }}", "Only one user turn, please"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ messages[7].content }}", "undefined|no element"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ messages[0].__class__.__mro__ }}", "unsafe"),
        ("{% for m in messages %}{{ 1 / 0 }}{% endfor %}", "division by zero"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{% if %}", "(?i)expected"),
    ],
)
def test_whatever_goes_wrong_in_a_template_is_one_line(template: str, reason: str) -> None:
    said = refused(template, [WHY], YES)
    assert "The chat template refuses this conversation" in said
    assert re.search(reason, said), said


def test_a_template_that_writes_no_answer_is_refused() -> None:
    assert "leaves out what the role assistant says" in refused(
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", [WHY], YES
    )


# Text templates


def text_template(tmp_path: Path, content: str) -> tuple[PreTrainedTokenizerFast, Template]:
    path = tmp_path / "template.txt"
    path.write_text(content, encoding="utf-8")
    tokenizer = byte_tokenizer()
    return tokenizer, Template(str(path), tokenizer)


@pytest.mark.parametrize(
    "messages",
    [
        [turn("system", "Be kind."), WHY],
        [WHY, YES, WHY],
        [turn("assistant", "Hi."), WHY],
        [turn("tool", "x")],
    ],
)
def test_a_template_without_roles_refuses_what_it_has_no_place_for(messages: list[Message]) -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(PromptError, match=f"alpaca has a place for user alone.* has {messages[0]['role']}"):
        sequence(tokenizer, Template("alpaca", tokenizer), messages, YES)


def test_a_file_may_have_a_place_for_a_system_prompt(tmp_path: Path) -> None:
    tokenizer, template = text_template(tmp_path, "{system}\nQ: {prompt}\nA:")
    told = sequence(tokenizer, template, [turn("system", "Be {prompt}."), WHY], YES)
    assert tokenizer.decode(told.ids) == "Be {prompt}.\nQ: Why?\nA:Yes.<|end|>"
    assert tokenizer.decode(sequence(tokenizer, template, [WHY], YES).ids) == "\nQ: Why?\nA:Yes.<|end|>"


def test_a_beginning_of_sequence_is_not_doubled(tmp_path: Path) -> None:
    class Adding:
        """The tokenizer, as one that begins every text with its own token."""

        def __init__(self, tokenizer: PreTrainedTokenizerFast):
            self.own = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self.own, name)

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            ids = self.own(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [0, *ids] if add_special_tokens else ids}

    for content in ("<|start|>Q: {prompt}", "Q: {prompt}"):
        tokenizer, template = text_template(tmp_path, content)
        ids = prompt_ids(Adding(tokenizer), template, [WHY])
        assert ids.count(0) == 1 and ids[0] == 0


def test_a_byte_order_mark_before_a_template_is_none_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeffQ: {prompt}".encode())
    assert Template(str(tmp_path / "t.txt"), byte_tokenizer()).text == "Q: {prompt}"


def test_without_a_chat_template_nothing_is_assumed() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    for name in ("auto", "chat"):
        with pytest.raises(ModelError, match="use --template alpaca or a file"):
            Template(name, tokenizer)
    assert habits(tokenizer, Template("alpaca", tokenizer)) == Habits(end=1)


# From a file to a cache


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with Gemma's template, whose turns end otherwise than the tokenizer's sequences."""
    folder = save_tiny_model(tmp_path_factory.mktemp("gemma") / "model")
    tokenizer = TOKENIZERS["gemma"]
    tokenizer.save_pretrained(folder)
    network = LlamaForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(folder)
    return folder


def test_rows_and_given_answers_end_as_the_training_saw_them(gemma: Path, tiny: Tiny, tmp_path: Path) -> None:
    model = load_model(str(gemma), device="cpu")
    end = model.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    store = build_cache(model, read_examples(tiny.data)[:3], tmp_path / "cache", TINY_SETTINGS, 0, "train")
    assert {int(row.encoded.ids[-1]) for row in store.examples} == {end}
    assert end in model.stop_ids
    assert Engine(model, store).given_answer("Why?", "So.").encoded.ids[-1] == end


def test_a_cache_whose_answers_ended_otherwise_is_not_opened(gemma: Path, tiny: Tiny, tmp_path: Path) -> None:
    model = load_model(str(gemma), device="cpu")
    store = build_cache(model, read_examples(tiny.data)[:3], tmp_path / "cache", TINY_SETTINGS, 0, "train")
    before = hashlib.sha256(f"True\n{model.template.text}".encode()).hexdigest()
    assert model.fingerprint.template != before
    with pytest.raises(MismatchError, match=r"earlier version, which ended answers otherwise .* precompute"):
        store.check_model(replace(model.fingerprint, template=before))


def test_a_row_that_the_template_refuses_is_named(gemma: Path, tmp_path: Path) -> None:
    row = Example((turn("system", "Be kind."), WHY), "So.")
    plain = Example((WHY,), "So.")
    with pytest.raises(DataError, match=r"[Rr]ow 2\b.*System role not supported"):
        build_cache(load_model(str(gemma), device="cpu"), [plain, row], tmp_path / "c", TINY_SETTINGS, 0, "train")


def test_a_prompt_that_trained_rows_do_not_continue_is_told(gemma: Path, tmp_path: Path) -> None:
    shutil.copytree(gemma, tmp_path / "model")
    template = "Oh: ' }}{% endif %}".join(FAMILIES["gemma"].template.rsplit("' }}{% endif %}", 1))
    (tmp_path / "model" / "chat_template.jinja").write_text(template, encoding="utf-8")
    told: list[str] = []
    load_model(str(tmp_path / "model"), device="cpu", say=told.append)
    assert any("ends a prompt with 'Oh: '" in line for line in told), told


CONVERSATION = [turn("system", "Be kind."), WHY, turn("assistant", "So."), turn("user", "And?")]


@pytest.mark.parametrize(
    ("counting", "uncounted", "said"),
    [
        (Counting(), (), "Yes.<|end|>"),
        (Counting("all"), (), "So.<|end|>Yes.<|end|>"),
        (Counting("all"), (2,), "Yes.<|end|>"),
        (Counting("all", "none"), (), "So.<|end|>Yes."),
        (Counting("last", "<|start|>"), (), "Yes.<|start|>"),
        (Counting("last", "", 1000), (), "Yes.<|end|>"),
    ],
)
def test_what_is_in_the_loss_is_what_was_counted(
    tiny_model: LanguageModel, counting: Counting, uncounted: tuple[int, ...], said: str
) -> None:
    found = tiny_model.encode(CONVERSATION, "Yes.", (), counting, uncounted)
    assert tiny_model.tokenizer.decode(found.ids[found.positions]) == said
    plain = tiny_model.encode(CONVERSATION, "Yes.")
    assert found.ids[: len(plain.ids) - 1].tolist() == plain.ids[:-1].tolist()


def test_everything_but_the_first_token_may_be_in_the_loss_and_rows_may_be_cut(tiny_model: LanguageModel) -> None:
    whole = tiny_model.encode(CONVERSATION, "Yes.", counting=Counting("prompt"))
    assert whole.positions.tolist() == list(range(1, len(whole.ids)))
    cut = tiny_model.encode(CONVERSATION, "Yes.", counting=Counting("all", "", len(whole.ids) - 3))
    assert len(cut.ids) == len(whole.ids) - 3
    assert tiny_model.tokenizer.decode(cut.ids[cut.positions]) == "So.<|end|>Ye"
    # Where the cut is before the last answer, what is left of the conversation still counts.
    short = tiny_model.encode(CONVERSATION, "Yes.", counting=Counting("all", "", 50))
    assert tiny_model.tokenizer.decode(short.ids[short.positions]) == "So.<|end|>"
    with pytest.raises(PromptError, match=r"is \d+ tokens long, and the training cut it behind 10, before its answer"):
        tiny_model.encode(CONVERSATION, "Yes.", counting=Counting("last", "", 10))
    with pytest.raises(PromptError, match="has no token <eos> that could end an answer"):
        tiny_model.encode(CONVERSATION, "Yes.", counting=Counting("last", "<eos>"))
