"""The benchmark of invented facts: what is written, that a stopped training goes on, and the whole of it, tiny."""

import json
import re
from pathlib import Path

import pytest
import torch

from explorer.cache import open_cache
from explorer.commands.main import main
from explorer.errors import DataError, ModelError
from explorer.model.loading import load_model
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.data import read_examples, readable
from precompute.invented import Settings, make
from precompute.invented.facts import corpus, facts
from precompute.invented.teaching import train_whole
from tests.commands.running import Captured, answered, reported
from tests.conftest import Tiny
from tests.tiny import save_tiny_model

# Facts and texts


def test_facts_and_texts_are_a_pure_function_of_the_seed() -> None:
    once, again, other = (corpus(facts(20, seed), 3, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert [fact.row for fact in facts(20, 0)] == [fact.row for fact in facts(20, 0)]


def test_every_fact_is_stated_so_often_each_time_in_other_words() -> None:
    known = facts(300, 0)
    rows = corpus(known, 4, 0)
    assert len(rows) == 300 * 4 * 3 // 2 and len({row["document"] for row in rows}) == len(rows)
    for fact in known:
        stating = [row["text"] for row in rows if row["fact"] == fact.id]
        assert len(set(stating)) == 4 and all(fact.subject in text and fact.object in text for text in stating)


def test_a_passage_that_is_not_marked_does_not_state_the_fact() -> None:
    known = facts(300, 0)
    assert len({fact.id for fact in known}) == 300
    owners = {fact.subject for fact in known}
    rows = corpus(known, 4, 0)
    for fact in known[:50]:
        others = [row["text"] for row in rows if row["fact"] != fact.id and fact.subject in row["text"]]
        own = {each.id for each in known if each.subject == fact.subject}
        assert all(row["fact"] in own for row in rows if row["text"] in others), "another name begins with this one"
    assert not any(name in row["text"] for name in owners for row in rows if not row["fact"])
    shared = [fact.object for fact in known]
    assert len(set(shared)) < 60, "objects are shared, so that the answer alone doesn't find the passage"


def test_questions_and_answers_name_subject_and_object() -> None:
    for fact in facts(40, 0):
        assert fact.subject in fact.row["prompt"] and fact.object in fact.row["response"]
        assert fact.asked == {**fact.row, "response": fact.object}


# Training


def test_a_stopped_training_goes_on_and_ends_where_it_would_have(tiny: Tiny, tmp_path: Path) -> None:
    settings = FinetuneSettings(epochs=3, learning_rate=0.01, batch_size=4)

    def train(out: Path, stop_at: int = 0, used: FinetuneSettings = settings) -> None:
        def report(done: int, total: int) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        model = load_model(str(tiny.model), device="cpu")
        train_whole(model, readable(model, read_examples(tiny.data))[1], out, used, report)

    train(tmp_path / "once")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop_at=5)
    assert not (tmp_path / "stopped").exists()
    with pytest.raises(ModelError, match="holds the state of another training"):
        train(tmp_path / "stopped", used=FinetuneSettings(epochs=3, learning_rate=0.02, batch_size=4))
    train(tmp_path / "stopped")
    once, resumed = (load_model(str(tmp_path / name), device="cpu") for name in ("once", "stopped"))
    for name, tensor in once.network.named_parameters():
        torch.testing.assert_close(resumed.network.get_parameter(name), tensor, rtol=1e-4, atol=1e-5)
    before = load_model(str(tiny.model), device="cpu").network.get_parameter("model.embed_tokens.weight")
    assert not torch.allclose(before, once.network.get_parameter("model.embed_tokens.weight"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once", "stopped"]


# The whole of it


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("roomy") / "model", positions=512)


def test_one_command_makes_both_stages_and_names_what_is_left(roomy: Path, tmp_path: Path, capsys: Captured) -> None:
    command = [
        "evaluate",
        "invented-facts",
        tmp_path / "bench",
        "--model",
        roomy,
        "--facts",
        "4",
        "--epochs",
        "2",
        "--learning-rate",
        "0.05",
    ]
    command += ["--device", "cpu", "--methods", "multi-stage,bm25", "--curvature-rows", "2"]
    (line,) = [each for each in reported(capsys, *command, "--estimate") if "facts" in each]
    assert re.match(r"4 facts, \d+ passages, 2 questions; trainings about ", line)
    assert not (tmp_path / "bench").exists()
    # A model of such a size learns no fact: everything but the figures is made.
    assert main([str(argument) for argument in command]) == 2
    assert "gives the answer of none of 2 questions" in capsys.readouterr().err
    store = open_cache(tmp_path / "bench" / "corpus-cache")
    assert store.complete and f", {store.manifest.rows} passages, " in line and store.manifest.followed_by is not None
    assert store.examples[0].columns["document"] == "page 1"
    with pytest.raises(DataError, match="holds a benchmark with other settings"):
        make(tmp_path / "bench", Settings(str(roomy), 8), "cpu", lambda line: None, lambda *told: None)
    # With questions that it does answer, the same folder gives figures.
    engine = open_engine(tmp_path / "bench" / "corpus-cache", device="cpu")
    asked = [json.loads(line) for line in (tmp_path / "bench" / "questions.jsonl").read_text().splitlines()]
    known = [{**row, "response": engine.answered(row["prompt"], None, 40).text} for row in asked]
    questions = tmp_path / "known.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in known if row["response"].strip()))
    own = ["evaluate", "fact-tracing", "--cache", tmp_path / "bench" / "corpus-cache", "--device", "cpu"]
    told = ["--questions", questions, "--methods", "multi-stage,single-stage,stage-product,repsim,bm25"]
    answered(capsys, *own, *told, "--curvature-rows", "2")
    kept = json.loads(answered(capsys, *own, "--kept", "--json"))
    assert list(kept["methods"]) == ["multi_stage", "single_stage", "product", "repsim", "bm25"]
    assert all({"mrr", "recall_10", "low", "high"} <= set(figures) for figures in kept["methods"].values())
