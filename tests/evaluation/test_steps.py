"""One more step on an example: the optimiser's own, and a gain that is real."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.engine import Engine
from explorer.evaluation.counterfactual.questions import Question
from explorer.evaluation.counterfactual.steps import judge_steps, stepped
from explorer.evaluation.probes import Probe
from explorer.gradients import token_losses
from explorer.methods.description import choose
from explorer.model.language_model import LanguageModel
from tests.commands.running import Captured, answered
from tests.conftest import Tiny
from tests.tiny import ROWS


def test_a_step_is_that_of_the_optimiser_on_the_networks_own_tensors(tiny_model: LanguageModel, tiny: Tiny) -> None:
    encoded = tiny_model.encode([{"role": "user", "content": "What is wet?"}], "Water.")
    moved = stepped(tiny_model, encoded, 0.01)
    before = {name: tensor.detach().clone() for name, tensor in tiny_model.trainable.items()}
    optimizer = torch.optim.AdamW(list(tiny_model.trainable.values()), lr=0.01, weight_decay=0.0)
    token_losses(tiny_model, [encoded])[0].mean().backward()
    optimizer.step()
    for name, tensor in tiny_model.trainable.items():
        assert torch.allclose(moved[name], tensor, atol=1e-6), name
        assert not torch.equal(moved[name], before[name])


def test_a_step_on_what_was_asked_gains_more_than_one_on_anything(tiny_engine: Engine) -> None:
    asked = [
        Question(Probe(row["prompt"], "clean"), tiny_engine.given_answer(row["prompt"], row["response"]), (1, 3))
        for row in ROWS[:4]
    ]
    methods = [choose("bm25"), choose("random")]
    found = judge_steps(tiny_engine, asked, methods, 1, 0.0003, 4, lambda *_: None)
    responses, words = (
        {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows} for table in found["tables"]
    )
    for figures in (*responses.values(), *words.values()):
        assert figures["low"] <= figures["gain"] <= figures["high"]
    # To first order no step of AdamW's first size lowers a loss more than one on that loss itself.
    assert responses["bm25"]["gain"] > responses["random"]["gain"] and responses["bm25"]["helped"] == 1
    assert found["best"][0].methods == ("bm25",)


def test_the_engine_is_as_it_was_after_the_steps(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is wet?", "Water.")
    before = tiny_engine.model.trainable[next(iter(tiny_engine.model.trainable))].detach().clone()
    judge_steps(
        tiny_engine, [Question(Probe("x", "clean"), answer, (0, 1))], [choose("random")], 2, 0.1, 4, lambda *_: None
    )
    assert torch.equal(before, tiny_engine.model.trainable[next(iter(tiny_engine.model.trainable))])
    assert np.isfinite(tiny_engine.predict(answer).said).all()


def test_the_command_keeps_what_steps_gain(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    probes = tmp_path / "probes.jsonl"
    probes.write_text('{"prompt": "What is wet?", "kind": "clean"}\n{"prompt": "Count.", "kind": "clean"}\n')
    command = ["evaluate", "steps", "--cache", tiny.cache, "--probes", probes, "--device", "cpu", "--keep", tmp_path]
    command += ["--methods", "rapidin,random", "--top-k", "2"]
    assert not answered(capsys, *command, "--estimate")
    found = json.loads(answered(capsys, *command, "--json"))
    assert [table["name"] for table in found["tables"]] == ["Whole responses", "Single words"]
    assert found["settings"]["count"] == 2 and len(found["tables"][0]["rows"]) == 2
    assert found["tables"][0]["rows"][0][1] == pytest.approx(found["best"][0]["value"]) or found["best"]
