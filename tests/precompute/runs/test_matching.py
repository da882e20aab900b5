"""Which reading of the data fits a run, and what is said where none does."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from explorer.model.loading import load_model
from explorer.model.sequences import NAMED
from precompute.data import read_examples
from precompute.runs import Known, Match, match, open_run
from precompute.runs.logs import Entry, Log
from tests.tiny import save_tiny_data
from tests.trained import chats, in_text, in_turns, rows, train

UNKNOWN = Known()
ALPACA, PLAIN = NAMED["alpaca"], NAMED["plain"]
RUNS: dict[str, tuple[list[dict[str, Any]], Any, tuple[str, str, str]]] = {
    "chat": (rows(), in_turns, ("chat", "last", "")),
    "chat, the prompt, too": (rows(), partial(in_turns, loss="prompt"), ("chat", "prompt", "")),
    "chat without an end": (rows(), partial(in_turns, end=""), ("chat", "last", "none")),
    "chat with another end": (rows(), partial(in_turns, end="<|start|>"), ("chat", "last", "<|start|>")),
    "Alpaca": (rows(), partial(in_text, form=ALPACA), ("alpaca", "last", "")),
    "Alpaca without an end": (rows(), partial(in_text, form=ALPACA, end=""), ("alpaca", "last", "none")),
    "plain": (rows(), partial(in_text, form=PLAIN), ("plain", "last", "")),
    "conversations, the last answer": (chats(), in_turns, ("chat", "last", "")),
    "conversations, all answers": (chats(), partial(in_turns, loss="all"), ("chat", "all", "")),
    "conversations, everything": (chats(), partial(in_turns, loss="prompt"), ("chat", "prompt", "")),
}


WITHOUT_LOG = ("chat, the prompt, too", "Alpaca without an end", "conversations, all answers")


def matched(folder: Path, base: Path, data: list[dict[str, Any]], log: Log | None = None) -> Match:
    run = open_run(folder)
    examples = read_examples(save_tiny_data(folder.with_suffix(".jsonl"), data))
    model = load_model(str(base), run.adapter, "plain", "cpu")
    return match(model, run.log if log is None else log, examples, UNKNOWN, UNKNOWN)


def read_as(found: Match) -> tuple[str, str, str]:
    return found.reading.template, found.reading.counting.loss, found.reading.counting.end


@pytest.mark.parametrize("name", RUNS)
def test_the_true_reading_is_found(learnt: Path, tmp_path: Path, name: str) -> None:
    data, write, true = RUNS[name]
    folder = train(tmp_path / "run", learnt, [write(row) for row in data])
    found = matched(folder, learnt, data)
    assert read_as(found) == true, str(found.reading)
    assert not found.warnings and found.by == "log" and found.expected is not None
    assert found.loss == pytest.approx(found.expected, rel=0.1)
    if name not in WITHOUT_LOG:
        return
    # The template and the end are told by what the model expects, and what is in the loss by what fell from the base.
    by_base = matched(folder, learnt, data, Log())
    assert (by_base.by, read_as(by_base)) == ("base", true)


def test_data_that_was_not_trained_on_is_warned_of(learnt: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", learnt, [in_turns(row) for row in rows()])
    other = [
        {"prompt": f"Add {number} and {number + 5}!", "response": f"= {2 * number + 5} (QED, {number}/7)"}
        for number in range(20)
    ]
    for log in (None, Log()):
        found = matched(folder, learnt, other, log)
        (said,) = found.warnings
        assert said.startswith("The rows don't match the run") and f"The next best reading is {found.second}." in said


def test_what_is_known_is_not_decided_anew(learnt: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", learnt, [in_turns(row) for row in rows()], epochs=6)
    run, data = open_run(folder), save_tiny_data(tmp_path / "data.jsonl", rows())
    model, examples = load_model(str(learnt), run.adapter, "plain", "cpu"), read_examples(data)
    found = match(model, run.log, examples, Known("alpaca", "last", "none", 300), UNKNOWN)
    assert read_as(found) == ("alpaca", "last", "none") and found.reading.counting.longest == 300
    assert found.warnings and found.loss > 1.5 * match(model, run.log, examples, UNKNOWN, UNKNOWN).loss


def test_the_log_lets_expect_what_lies_below_its_last_epoch() -> None:
    assert Log().expected is None
    losses = (4.0, 3.0, 2.0, 1.6)
    entries = tuple(Entry(step, step / 2, loss, 0.1) for step, loss in enumerate(losses, start=1))
    low, high = Log(entries, 2.0).expected or (0, 0)
    # The last epoch's mean is 1.8, that before it 3.5: another epoch would begin at about 1.8²/3.5.
    assert [low, high] == pytest.approx([1.8 * 1.8 / 3.5, 1.8])
