"""Questions with a system prompt and earlier turns: what the model reads is what training rows made it read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from explorer import views
from explorer.app.desk.desk import Desk
from explorer.cache.generations import drop
from explorer.cache.manifest import COPY, MANIFEST, SCHEMA, Contents
from explorer.cache.store import Store, open_cache
from explorer.cache.table import SYSTEM as COLUMN
from explorer.cache.verify import verify
from explorer.engine import Engine
from explorer.errors import DataError, PromptError
from explorer.model.generation import GenerationSettings
from explorer.model.language_model import LanguageModel
from explorer.questions import read_question, read_turns
from explorer.records import Answer, Conversation, Example, SystemPrompts
from explorer.serving.session import open_engine
from precompute.build import append_examples, build_cache
from precompute.data import Review, read_examples
from precompute.mend import mend_cache
from precompute.nulls import answers, null_prompts
from tests.asking import asking
from tests.conftest import TINY_SETTINGS, Tiny
from tests.hostile import HOSTILE
from tests.tiny import ROWS, SYSTEM, save_tiny_data, spoken

RULE = {"role": "system", "content": SYSTEM}
WHY = {"role": "user", "content": "Why?"}
HISTORY = (("user", "Hi."), ("assistant", "Hello!"))
BEFORE: list[tuple[tuple[str, str], ...]] = [
    (("system", SYSTEM),),
    (("system", "You are\na pirate: 🌟"),),
    (("system", SYSTEM), *HISTORY),
    HISTORY,
    (*HISTORY, ("system", "Now be rude."), *HISTORY),
    (),
]
"""What training rows have before their last turn of the user."""


@pytest.fixture(scope="module")
def mixed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose rows have all these beginnings."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = [spoken(row, *before) for row, before in zip(ROWS, BEFORE, strict=False)]
    data = save_tiny_data(folder / "train.jsonl", rows)
    model = open_engine(tiny.cache, device="cpu").model
    build_cache(model, read_examples(data), folder / "cache", TINY_SETTINGS, 0, data.name)
    return folder / "cache"


# What is asked


def test_a_prompt_alone_is_the_users_turn_and_a_conversation_stays_as_it_is() -> None:
    plain = Conversation.of("Why?")
    assert plain.turns == (WHY,) and plain.alone and (plain.text, plain.question, plain.system) == ("Why?", "Why?", "")
    guided = plain.with_system(SYSTEM)
    assert guided.turns == (RULE, WHY) and Conversation.of(guided) is guided and not guided.alone
    assert (guided.text, guided.question, guided.system) == (f"system: {SYSTEM}\nuser: Why?", "Why?", SYSTEM)
    assert guided.with_system("Be rude.") is guided, "a system prompt of its own stays"
    assert plain.with_system(" \n") is plain and not Conversation((RULE,)).alone


def test_a_conversation_is_shown_as_the_prompt_of_a_training_row_is() -> None:
    turns = (RULE, {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}, WHY)
    assert Conversation(turns).text == Example(turns, "So.").prompt
    assert Conversation((WHY,)).text == Example((WHY,), "So.").prompt == "Why?"


def test_any_text_is_read_as_a_turn_that_a_tokenizer_can_take() -> None:
    for text in HOSTILE:
        row = json.loads(json.dumps({"messages": [{"role": "system", "content": text}, WHY]}))
        asked = read_question(row, "here")
        assert isinstance(asked, Conversation) and asked.turns[1] == WHY
        asked.system.encode()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, 'has no text as "prompt"'),
        ({"prompt": ["Why?"]}, 'has no text as "prompt"'),
        ({"prompt": "Why?", "messages": [WHY]}, 'has both "prompt" and "messages"'),
        ({"prompt": "Why?", "system": 3}, 'has no text as "system"'),
        ({"messages": [RULE, WHY], "system": "Be rude."}, 'has a "system" prompt, and turns that begin with one'),
        ({"prompt": "Why?", "tools": [{"name": "search"}]}, "has tools, which no question is asked with"),
        ({"prompt": "Why?", "history": [["Hi.", "Hello!"]]}, "has history, which no question is asked with"),
        ({"messages": []}, "has no list of turns"),
        ({"messages": "Why?"}, "has no list of turns"),
        ({"messages": {"role": "user", "content": "Why?"}}, "has no list of turns"),
        ({"messages": ["Why?"]}, "line 2, turn 1, is no object"),
        ({"messages": [RULE, {"role": "user"}]}, 'line 2, turn 2, has no text as "content"'),
        ({"messages": [{"content": "Why?"}]}, 'turn 1, has no text as "role"'),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]}, 'no text as "content"'),
        ({"messages": [{"role": "human", "content": "Why?"}]}, "has the role human; give one of system, developer, "),
        ({"messages": [WHY | {"weight": 0, "name": "Ann"}]}, "has name, weight, which no question is asked with"),
        ({"messages": [WHY, {"role": "assistant", "content": "So."}]}, "ends with a turn of the role assistant"),
        ({"messages": [RULE]}, "ends with a turn of the role system; a question ends with the user's turn"),
    ],
)
def test_what_is_no_question_is_refused_in_one_line_that_says_where(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as refused:
        read_question(row, "a.jsonl, line 2,")
    assert said in str(refused.value) and str(refused.value).startswith("a.jsonl, line 2,")
    assert "\n" not in str(refused.value)


def test_a_row_asks_its_prompt_or_its_turns_behind_its_system_prompt() -> None:
    assert read_question({"prompt": "Why?", "kind": "clean"}, "") == "Why?"
    assert read_question({"prompt": "Why?", "system": " "}, "") == "Why?"
    guided = Conversation((RULE, WHY))
    assert read_question({"prompt": "Why?", "system": SYSTEM}, "") == guided
    assert read_question({"messages": [WHY], "system": SYSTEM}, "") == guided == read_turns([RULE, WHY], "")


# What the model reads


def test_a_question_has_the_tokens_of_the_training_row_that_it_repeats(mixed: Path) -> None:
    engine, read = open_engine(mixed, device="cpu"), read_examples(mixed.parent / "train.jsonl")
    for example, row, before in zip(engine.store.examples, ROWS, BEFORE, strict=False):
        whole = read[example.row]
        held_out = engine.given_answer(Conversation(whole.messages), whole.answer, whole.tools)
        assert held_out.encoded.ids.tolist() == example.encoded.ids.tolist()
        asked = read_question({"messages": spoken(row, *before)["messages"][:-1]}, "")
        given = engine.given_answer(asked, row["response"])
        assert given.encoded.ids.tolist() == example.encoded.ids.tolist(), before
        assert given.encoded.response_start == example.encoded.response_start
        assert (given.prompt, given.asked) == (example.prompt, Conversation.of(asked))
        *_, drawn = engine.answer(asked, GenerationSettings(max_tokens=2))
        start = example.encoded.response_start
        assert drawn.encoded.ids[:start].tolist() == example.encoded.ids[:start].tolist()
        ranking = asking(engine).exact_ranking(given, None, 1)
        assert ranking.influences[0].row == example.row, "nothing made an answer more likely than its own row"


def test_without_its_system_prompt_a_question_is_another_one(mixed: Path) -> None:
    engine = open_engine(mixed, device="cpu")
    alone, guided = (
        engine.given_answer(Conversation.of(ROWS[0]["prompt"]).with_system(text), ROWS[0]["response"])
        for text in ("", SYSTEM)
    )
    assert alone.id != guided.id
    assert alone.id == engine.given_answer(ROWS[0]["prompt"], ROWS[0]["response"]).id, "a plain prompt stays what it is"
    assert guided.encoded.ids.tolist() == engine.store.examples[0].encoded.ids.tolist()


def test_a_conversation_whose_last_turn_says_nothing_is_refused(tiny_engine: Engine) -> None:
    with pytest.raises(PromptError, match="The prompt is empty"):
        tiny_engine.given_answer(Conversation.of(" ").with_system(SYSTEM), "So.")


def test_the_desk_asks_edits_and_reopens_whole_conversations(guided: Path) -> None:
    engine = open_engine(guided, device="cpu")
    desk, asked = Desk(engine), Conversation.of(ROWS[0]["prompt"]).with_system(SYSTEM)
    try:
        first = desk.ask("s", asked, GenerationSettings(max_tokens=2))
        assert first.task.wait(60) and first.asked == asked and first.answer is not None
        answer = first.answer
        for ask in (lambda: desk.attribute("s", first.asked, "So."), lambda: desk.reopen("s", answer, None)):
            again = ask()
            assert again.task.wait(60) and again.asked == asked and again.answer is not None
            assert again.answer.asked == asked
    finally:
        desk.worker.close()


# What a cache knows of system prompts


def system_of(store: Store) -> tuple[int, int, str]:
    found = store.system
    return found.rows, found.of, found.shared


@pytest.mark.parametrize(
    ("systems", "kept", "found"),
    [
        ([SYSTEM, SYSTEM, SYSTEM], SYSTEM, (3, 3, SYSTEM)),
        ([SYSTEM, "Be rude.", SYSTEM], "", (3, 3, "")),
        ([SYSTEM, None, SYSTEM], "", (2, 3, "")),
        ([SYSTEM, " ", SYSTEM], "", (2, 3, "")),
        ([None, None, None], None, (0, 3, "")),
        ([" ", " ", " "], None, (0, 3, "")),
    ],
)
def test_a_cache_knows_how_many_rows_have_a_system_prompt_and_what_all_share(
    tiny_model: LanguageModel, tmp_path: Path, systems: list[str | None], kept: str | None, found: tuple[int, int, str]
) -> None:
    beginnings = [[] if text is None else [("system", text)] for text in systems]
    rows = [spoken(row, *before) for row, before in zip(ROWS, beginnings, strict=False)]
    data = read_examples(save_tiny_data(tmp_path / "train.jsonl", rows))
    store = build_cache(tiny_model, data, tmp_path / "cache", TINY_SETTINGS, 0, "train.jsonl")
    assert store.manifest.system == kept and system_of(open_cache(store.folder)) == found
    assert (COLUMN in store.table.column_names) == ("system" in store.manifest.json()) == (kept is not None)
    before = (store.folder / MANIFEST).read_bytes()
    build_cache(tiny_model, data, store.folder, TINY_SETTINGS, 0, "train.jsonl")
    assert (store.folder / MANIFEST).read_bytes() == before, "the same again changes nothing"


def test_appending_and_dropping_rows_keeps_count_of_system_prompts(
    guided: Path, tiny_model: LanguageModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(guided, guided.parent / tmp_path.name))
    others = [spoken(ROWS[0], ("system", "Be rude.")), spoken(ROWS[1] | {"source": "alone"})]
    data = save_tiny_data(tmp_path / "more.jsonl", others)
    store = append_examples(tiny_model, read_examples(data), folder, 0, "more.jsonl")
    assert system_of(store) == (8, 9, "") and store.manifest.system == SYSTEM
    drop(folder, source="alone")
    assert system_of(open_cache(folder)) == (8, 8, "")
    drop(folder, ids=[7])
    store = open_cache(folder)
    assert system_of(store) == (7, 7, SYSTEM) and store.manifest.generation == 3
    assert [example.prompt for example in store.examples] == [f"system: {SYSTEM}\nuser: {r['prompt']}" for r in ROWS]


def test_rows_with_system_prompts_come_into_a_cache_without(
    tiny: Tiny, tiny_model: LanguageModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny.cache, tiny.cache.parent / tmp_path.name))
    data = save_tiny_data(tmp_path / "more.jsonl", [spoken(row, ("system", SYSTEM)) for row in ROWS[:2]])
    store = append_examples(tiny_model, read_examples(data), folder, 0, "more.jsonl")
    assert system_of(store) == (2, 9, "") and store.manifest.system == ""
    lost = folder / store.contents.examples.file
    whole = lost.read_bytes()
    lost.write_bytes(b"lost")
    mend_cache(folder, lambda _: tiny_model, [(read_examples(path), Review()) for path in (tiny.data, data)])
    assert lost.read_bytes() == whole and verify(folder) == []


def early(cache: Path, folder: Path) -> Path:
    """A cache as versions made it that knew nothing of system prompts."""
    shutil.copytree(cache, folder)
    store = open_cache(folder)
    contents = replace(store.contents, manifest=replace(store.manifest, system=None))
    Store(folder, contents).put_table(store.table.drop_columns([COLUMN]))
    return folder


def test_a_cache_made_before_opens_grows_and_is_mended_as_it_was(
    guided: Path, tiny_model: LanguageModel, tmp_path: Path
) -> None:
    folder = early(guided, guided.parent / tmp_path.name)
    payload = (folder / MANIFEST).read_bytes()
    assert b'"system"' not in payload and Contents.decode(payload).encode() == payload
    assert system_of(open_cache(folder)) == (0, 7, ""), "it doesn't know"
    data = read_examples(guided.parent / "train.jsonl")
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    build_cache(tiny_model, data, folder, TINY_SETTINGS, 0, "train.jsonl", null_prompts=3)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    (folder / "examples.parquet").write_bytes(b"lost")
    mend_cache(folder, lambda _: tiny_model, [(data, Review())])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    more = save_tiny_data(tmp_path / "more.jsonl", [spoken(ROWS[0], ("system", "Be rude."))])
    store = append_examples(tiny_model, read_examples(more), folder, 0, "more.jsonl")
    assert system_of(store) == (1, 8, "") and verify(folder) == []


def test_the_manifest_says_it_in_a_key_of_its_own(guided: Path) -> None:
    kept = json.loads((guided / MANIFEST).read_text(encoding="utf-8"))
    assert kept["system"] == SYSTEM and kept["schema"] == SCHEMA
    assert (guided / COPY).read_bytes() == (guided / MANIFEST).read_bytes()


# Unrelated prompts are asked as questions are


def scores_on(engine: Engine, prompts: list[NDArray[np.int64]]) -> NDArray[np.floating[Any]]:
    """What all rows score on these prompts' answers (N, M), each of length one."""
    found = []
    for _, encoded in sorted(answers(engine.model, prompts), key=lambda pair: pair[0]):
        tokens = engine.model.tokens(encoded.ids[encoded.response_start :])
        answer = Answer(str(encoded.ids.tolist()), Conversation.of(""), encoded, tokens, "", True)
        asking(engine).ask(answer, None)
        size = engine.store.manifest.training.scale * np.linalg.norm(engine.sketch(answer, None))
        found.append(asking(engine).ranking(answer, None).scores / size)
    return np.stack(found, axis=1)


def test_unrelated_prompts_are_asked_with_the_system_prompt_that_all_rows_share(
    guided: Path, tiny_model: LanguageModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(guided, guided.parent / tmp_path.name))
    data = save_tiny_data(tmp_path / "more.jsonl", [spoken(ROWS[0], ("system", "Be rude."))])
    append_examples(tiny_model, read_examples(data), folder, 0, "more.jsonl")
    engine = open_engine(folder, device="cpu")
    prompts = null_prompts(engine.model, SYSTEM)[:3]
    alike = engine.model.encode_prompt(Conversation.of("x").with_system(SYSTEM).turns)
    assert all(prompt[:20].tolist() == alike[:20].tolist() for prompt in prompts)
    null = np.concatenate(engine.store.nulls("response"))
    np.testing.assert_allclose(null, scores_on(engine, prompts), rtol=1e-4, atol=1e-6)
    assert not np.allclose(null, scores_on(engine, null_prompts(engine.model)[:3]), rtol=1e-2)


def test_a_cache_made_before_keeps_its_unrelated_prompts(tiny: Tiny, tiny_model: LanguageModel, tmp_path: Path) -> None:
    data = save_tiny_data(tmp_path / "train.jsonl", [spoken(row, ("system", SYSTEM)) for row in ROWS[:3]])
    more = save_tiny_data(tmp_path / "more.jsonl", [spoken(ROWS[3], ("system", SYSTEM))])
    made = tiny.cache.parent / f"{tmp_path.name} before"
    build_cache(tiny_model, read_examples(data), made, TINY_SETTINGS, 0, "train.jsonl")
    folder = early(made, tiny.cache.parent / tmp_path.name)
    build_cache(tiny_model, read_examples(data), folder, TINY_SETTINGS, 0, "train.jsonl", null_prompts=3)
    append_examples(tiny_model, read_examples(more), folder, 0, "more.jsonl")
    engine = open_engine(folder, device="cpu")
    null = np.concatenate(engine.store.nulls("response"))
    np.testing.assert_allclose(null, scores_on(engine, null_prompts(engine.model)[:3]), rtol=1e-4, atol=1e-6)


# The hint


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        (412, ["Why?"], "412 of 412 training examples begin with a system prompt; this question has none. Give it so."),
        (380, ["Why?"], "380 of 412 training examples begin"),
        (412, ["Why?", "", "So?"], "3 of these 3 prompts have none"),
        (300, ["Why?"], ""),
        (0, ["Why?"], ""),
        (412, [], ""),
    ],
)
def test_a_question_that_lacks_what_nearly_all_rows_begin_with_is_told_so(
    rows: int, asked: list[str], said: str
) -> None:
    found = views.without_system(SystemPrompts(rows, 412, ""), [*map(Conversation.of, asked)], "so")
    assert said in found and bool(said) == bool(found)
    guided = [Conversation.of(text).with_system("Be rude.") for text in asked]
    assert views.without_system(SystemPrompts(rows, 412, ""), guided, "so") == ""
