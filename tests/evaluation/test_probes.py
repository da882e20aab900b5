"""Measuring on probes: the right tokens, the right figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.probes import (
    Probe,
    average_precision,
    evaluate_probes,
    is_science_fiction,
    read_probes,
    read_prompts,
    word_span,
)
from explorer.records import Answer, Conversation, Encoded, Token
from explorer.serving.prompts import ready_prompts
from explorer.serving.session import open_engine
from tests.asking import asking
from tests.tiny import SYSTEM

END = Token("<|end|>", special=True)


def answer_of(*texts: str | Token) -> Answer:
    """An answer whose tokens have these texts."""
    tokens = tuple(Token(text) if isinstance(text, str) else text for text in texts)
    text = "".join(token.text for token in tokens if not token.special)
    return Answer("id", Conversation.of("Why?"), Encoded(np.arange(len(tokens) + 3), 3), tokens, text, True)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["It", " is", " China", ".", END], (2, 3)),
        (["China", " is", END], (0, 1)),
        (["in", " Ch", "ina", ","], (1, 3)),
        (["in", " ", "C", "h", "ina", END], (2, 5)),
        (["in", " China, of"], (1, 2)),
        (["China", " and", " China"], (0, 1)),
        (["Chinatown", " in", " China"], (2, 3)),
        (["🌟", Token("", raw="F0"), "🌟", " China"], (3, 4)),
        (["the", " capital", " of", " China"], (3, 4)),
    ],
)
def test_the_tokens_of_a_word_are_found(tokens: list[str | Token], expected: tuple[int, int]) -> None:
    answer = answer_of(*tokens)
    assert word_span(answer, "China") == expected
    assert "China" in "".join(token.text for token in answer.tokens[slice(*expected)])


@pytest.mark.parametrize("tokens", [["Chinatown"], ["china"], ["Indochina"], [END], []])
def test_a_word_that_was_not_said_has_no_tokens(tokens: list[str | Token]) -> None:
    assert word_span(answer_of(*tokens), "China") is None


def test_the_tokens_of_a_word_are_found_in_a_real_answer(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("Why?", "the 🌟 of the moon and the sun.")
    for word in ("moon", "sun", "of"):
        span = word_span(answer, word)
        assert span is not None
        assert "".join(token.text for token in answer.tokens[slice(*span)]).strip(" .") == word


@pytest.mark.parametrize(
    ("scores", "relevant", "expected"),
    [
        ([3, 2, 1], [1, 0, 0], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([3, 2, 1], [1, 0, 1], (1 + 2 / 3) / 2),
        ([1, 2, 3], [1, 0, 1], (1 + 2 / 3) / 2),
        ([3, 2, 1], [1, 1, 1], 1.0),
        ([3, 2, 1], [0, 0, 0], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], (1 / 2 + 2 / 4) / 2),
    ],
)
def test_average_precision_of_known_cases(scores: list[float], relevant: list[int], expected: float) -> None:
    assert average_precision(np.array(scores), np.array(relevant, dtype=bool)) == pytest.approx(expected)


def test_average_precision_of_random_scores_is_the_share_of_relevant_rows() -> None:
    random = np.random.default_rng(0)
    relevant = np.arange(1000) < 100
    found = np.mean([average_precision(random.normal(size=1000), relevant) for _ in range(50)])
    assert found == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The starship left orbit.", True),
        ("A robot swept the floor.", True),
        ("ROBOTS!", True),
        ("Please put the kettle on.", False),
        ("", False),
        ("Placemats and lasers", True),
        ("The microphone was plugged in.", False),
    ],
)
def test_one_term_makes_science_fiction(text: str, expected: bool) -> None:
    assert is_science_fiction(text) is expected


def test_probes_are_read_and_blank_lines_skipped(tmp_path: Path) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "a", "kind": "clean"}\n\n{"prompt": "b", "kind": "swap"}\n')
    assert read_probes(tmp_path / "probes.jsonl") == [Probe("a", "clean"), Probe("b", "swap")]


def test_probes_may_have_a_system_prompt_or_be_whole_conversations(tmp_path: Path, guided: Path) -> None:
    guide = {"role": "system", "content": SYSTEM}
    rows = [
        {"prompt": "Say hello.", "kind": "clean", "system": SYSTEM},
        {"messages": [guide, {"role": "user", "content": "Say hello."}], "kind": "clean"},
        {"prompt": "Say hello.", "kind": "clean"},
    ]
    path = tmp_path / "probes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    first, second, third = read_probes(path)
    assert first == second == Probe(Conversation.of("Say hello.").with_system(SYSTEM), "clean")
    assert third == Probe("Say hello.", "clean")
    found = evaluate_probes(asking(open_engine(guided, device="cpu")), [first, third], True, lambda done, total: None)
    assert found["clean"]["probes"] == 2
    path.write_text('{"prompt": "a", "kind": "clean"}\n{"messages": 3, "kind": "clean"}', encoding="utf-8")
    with pytest.raises(DataError, match="line 2, has no list of turns"):
        read_probes(path)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        '{"prompt": "a"}',
        '{"prompt": 3, "kind": "a"}',
        '{"prompt": "a", "kind": "clean", "more": 1}',
        '{"prompt": "a", "kind": "swap", "kind": "clean"}',
        '{"prompt": "a", "kind": "triggered", "attack": "("}',
    ],
)
def test_a_line_that_is_no_probe_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "a", "kind": "clean"}\n' + line)
    with pytest.raises(DataError, match=r"line 2, (is no (probe|JSON) \(|has no text as)"):
        read_probes(tmp_path / "probes.jsonl")


def test_an_expression_that_later_versions_of_python_may_read_otherwise_is_read(tmp_path: Path) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "a", "kind": "triggered", "attack": "[[]a"}\n')
    assert read_probes(tmp_path / "probes.jsonl")[0].attack == "[[]a"


def test_probes_and_prompts_of_a_windows_editor_are_read(tmp_path: Path) -> None:
    (tmp_path / "probes.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a", "kind": "clean"}\r\n')
    assert read_probes(tmp_path / "probes.jsonl") == [Probe("a", "clean")]
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfWhy\xe2\x80\xa8so?\r\nHow?\r\n")
    assert read_prompts(tmp_path / "prompts.txt") == ["Why\u2028so?", "How?"]


@pytest.mark.parametrize("content", ["Why?".encode("utf-16"), b"caf\xe9", b"a\0b", b" \n"])
def test_what_holds_no_probes_or_prompts_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    for read in (read_probes, read_prompts, ready_prompts):
        if read is not ready_prompts or content.strip():
            with pytest.raises(DataError, match="file"):
                read(tmp_path / "file")


@pytest.mark.parametrize("approximate", [False, True])
def test_probes_are_counted_by_kind(tiny_engine: Engine, approximate: bool) -> None:
    probes = [
        Probe("What shines by day?", "triggered", planted="sky"),
        Probe("Say hello.", "clean"),
        Probe("Where do fish live?", "swap", planted="water", wrong="river", right="sea"),
    ]
    reports: list[tuple[int, int]] = []
    found = evaluate_probes(asking(tiny_engine), probes, approximate, lambda *report: reports.append(report))
    assert reports == [(1, 3), (2, 3), (3, 3)]
    assert {kind: figures["probes"] for kind, figures in found.items()} == {"triggered": 1, "clean": 1, "swaps": 1}
    shares = [value for figures in found.values() for name, value in figures.items() if name != "probes"]
    assert all(0 <= share <= 1 for share in shares)
    assert set(found["triggered"]) >= {"attacked", "top10_planted", "average_precision"}


def test_a_swap_that_was_said_is_traced_by_its_word(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is made to say what its training data says."""
    said = tiny_engine.given_answer("Where do fish live?", "In the river of the town.")
    monkeypatch.setattr(tiny_engine, "answer", lambda *_: iter([said]))
    probe = Probe("Where do fish live?", "swap", planted="water", wrong="river", right="sea")
    found = evaluate_probes(asking(tiny_engine), [probe], False, lambda *_: None)["swaps"]
    assert found["wrong"] == 1 and found["right"] == 0
    assert 0 < found["top5_planted_token"] <= 1 and 0 < found["top5_planted_response"] <= 1
