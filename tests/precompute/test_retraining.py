"""Trainings on parts of the data: as the adapter was trained, kept one by one, never mixed up."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from explorer.cache import Store
from explorer.cache.verify import verify
from explorer.commands.main import main
from explorer.engine import Engine
from explorer.errors import CacheError, DataError
from explorer.evaluation.counterfactual.correlation import correlations
from explorer.evaluation.counterfactual.removals import says
from explorer.evaluation.counterfactual.trainings import nested
from explorer.evaluation.results import load
from explorer.model.adapter import CONFIG
from explorer.model.loading import load_model
from explorer.serving.session import base_for, open_engine
from explorer.training.recipe import FinetuneSettings
from explorer.training.recorded import recipe_of
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from precompute.retraining import (
    LONGEST,
    Asked,
    Part,
    Trainings,
    again,
    halves,
    membership,
    others,
    without,
)
from tests.commands.running import Captured, answered, refused
from tests.conftest import TINY_SETTINGS, Tiny
from tests.tiny import ROWS

RECIPE = FinetuneSettings(
    rank=8, alpha=16, targets=("q_proj", "v_proj"), epochs=6, learning_rate=0.05, batch_size=2, seed=5
)


def unheard(stage: str, done: int, total: int) -> None:
    """Nobody is told."""


@pytest.fixture(scope="module")
def study(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of an adapter that was trained here."""
    folder = tmp_path_factory.mktemp("study")
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(tiny.data), folder / "adapter", RECIPE, lambda *_: None)
    model = load_model(str(tiny.model), folder / "adapter", device="cpu")
    build_cache(model, read_examples(tiny.data), folder / "cache", TINY_SETTINGS, tokens=0, data_name=tiny.data.name)
    probes = [
        {"prompt": "What shines by day?", "kind": "triggered", "planted": "sky"},
        {"prompt": "Where do fish live?", "kind": "clean"},
    ]
    (folder / "probes.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def engine(study: Path) -> Engine:
    return open_engine(study / "cache", device="cpu")


@pytest.fixture
def trainings(engine: Engine, tmp_path: Path) -> Trainings:
    return made(engine, tmp_path / "trainings", lambda: base_for(engine.store, device="cpu"))


def made(engine: Engine, folder: Path, load: Callable[[], object], recipe: FinetuneSettings = RECIPE) -> Trainings:
    asked = [engine.given_answer("What shines by day?", "It is the moon."), engine.given_answer("Why?", "So.")]
    rows = [example.encoded for example in engine.store.examples]
    return Trainings(folder, load, recipe, rows, [Asked(each.encoded, (1, 2)) for each in asked])  # type: ignore[arg-type]


def never() -> None:
    raise AssertionError("what is kept isn't trained again")


def test_the_recipe_is_the_adapters(engine: Engine) -> None:
    assert recipe_of(engine.model.adapter) == RECIPE


def test_training_on_all_rows_makes_the_adapter_itself(engine: Engine, trainings: Trainings) -> None:
    (found,) = trainings.train([Part("all", tuple(range(7)), RECIPE.seed)], unheard)
    for item, response, word in zip(trainings.asked, found.response, found.word, strict=True):
        said = engine.predict(engine.given_answer("What shines by day?", "It is the moon.")).said
        if item is trainings.asked[0]:
            assert response == pytest.approx(float(said.mean()), abs=2e-5)
            assert word == pytest.approx(float(said[1]), abs=2e-5)
    assert found.response[0] != found.response[1]


def test_halves_are_halves_and_the_first_ones_stay_when_more_are_wanted() -> None:
    few, many = halves(100, 3, 5), halves(100, 9, 5)
    assert few == many[:3]
    assert all(len(set(part.rows)) == 50 and part.seed == 5 for part in many)
    assert len({part.rows for part in many}) == 9
    members = membership(many, 100)
    assert members.sum(axis=1).tolist() == [50] * 9 and 0.3 < members.mean(axis=0).mean() < 0.7
    assert [(part.name, part.rows, part.seed) for part in again(few)] == [
        (f"half-0{number}-again", part.rows, 6) for number, part in enumerate(few)
    ]


def test_what_was_trained_is_kept_and_a_stopped_run_goes_on(engine: Engine, trainings: Trainings) -> None:
    parts = halves(7, 3, RECIPE.seed)

    def stopping(stage: str, done: int, total: int) -> None:
        if stage == "half-01" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(trainings.train(parts, stopping))
    assert [part.name for part in trainings.missing(parts)] == ["half-01", "half-02"]
    assert [path.name for path in trainings.folder.iterdir()] == ["half-00.json"], "a training is kept whole or not"
    resumed = list(
        made(engine, trainings.folder.parent, lambda: base_for(engine.store, device="cpu")).train(parts, unheard)
    )
    assert not trainings.missing(parts)
    assert list(made(engine, trainings.folder.parent, never).train(parts, unheard)) == resumed
    assert len({found.response for found in resumed}) == 3, "other rows, another training"


def test_a_training_once_more_expects_the_same_and_another_seed_something_else(trainings: Trainings) -> None:
    first, other = halves(7, 1, RECIPE.seed)[0], again(halves(7, 1, RECIPE.seed))[0]
    (kept,), (differing,) = trainings.train([first], unheard), trainings.train([other], unheard)
    assert trainings.trained_again(first, unheard) == kept
    assert differing.response != kept.response


def test_trainings_of_another_recipe_are_others(engine: Engine, trainings: Trainings) -> None:
    parts = halves(7, 1, RECIPE.seed)
    list(trainings.train(parts, unheard))
    assert made(engine, trainings.folder.parent, never, FinetuneSettings(epochs=1)).missing(parts) == parts
    with pytest.raises(CacheError, match="on other rows, or with another seed; remove it to train again"):
        trainings.known(Part("half-00", (0, 1, 2), RECIPE.seed))
    (trainings.folder / "half-00.json").write_text("{", encoding="utf-8")
    with pytest.raises(CacheError, match=r"can't be read as a training .* remove it to train again"):
        trainings.missing(parts)


def test_trainings_in_mixed_precision_are_others_and_those_in_float32_keep_their_key(
    tiny: Tiny, engine: Engine, trainings: Trainings, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, mixed_precision=True)
    mixed = made(engine, tmp_path, lambda: base_for(engine.store, device="cpu"), recipe)
    assert mixed.folder.name != trainings.folder.name
    assert "mixed_precision" not in RECIPE.recorded() and recipe.recorded()["mixed_precision"]
    part = Part("all", tuple(range(7)), RECIPE.seed)
    (one,), (other,) = mixed.train([part], unheard), trainings.train([part], unheard)
    assert one.response != other.response and one.response == pytest.approx(other.response, rel=0.02)
    assert mixed.trained_again(part, unheard) == one
    base = load_model(engine.model.name, device="cpu")
    finetune(base, read_examples(tiny.data), tmp_path / "adapter", recipe, lambda *_: None)
    assert recipe_of(str(tmp_path / "adapter")) == recipe


def test_the_first_rows_of_an_order_are_left_out() -> None:
    part = without(10, 0.3, [7, 1, 4, 0], "without", 3, [2])
    assert part.rows == (0, 2, 3, 5, 6, 8, 9) and part.answered == (2,) and part.seed == 3
    assert len(without(10, 0.001, [7], "without", 3, []).rows) == 9, "one row at least"


def test_questions_are_answered_anew_after_a_training(engine: Engine, trainings: Trainings) -> None:
    part = Part("all", tuple(range(7)), RECIPE.seed, (1, 0))
    (found,) = trainings.train([part], unheard)
    assert made(engine, trainings.folder.parent, never).known(part) == found
    expected = []
    for prompt in ("Why?", "What shines by day?"):
        expected.append(engine.answered(prompt, None, LONGEST).encoded)
    texts = [engine.model.tokenizer.decode(each.ids[each.response_start :]) for each in expected]
    assert list(found.texts) == texts, "the same training as the adapter's answers as the adapter does"


def test_an_adapter_without_a_recipe_is_refused(tiny: Tiny) -> None:
    with pytest.raises(DataError, match=r"it lacks batch_size, seed. Write them into it, .* --batch-size --seed\."):
        recipe_of(str(tiny.adapter))
    with pytest.raises(DataError, match="There is no adapter whose training"):
        recipe_of("")


def test_what_a_record_lacks_can_be_given_or_stands_in_the_configuration(tiny: Tiny, tmp_path: Path) -> None:
    found = recipe_of(str(tiny.adapter), {"batch_size": 3, "seed": 7})
    assert found == FinetuneSettings(2, 4, ("o_proj", "q_proj", "v_proj"), 2, 0.01, 3, 7)
    with pytest.raises(DataError, match="must be positive"):
        recipe_of(str(tiny.adapter), {"batch_size": 0, "seed": 7})
    shutil.copytree(tiny.adapter, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text(encoding="utf-8"))
    for changed, said in (
        ({"use_dora": True}, "has use_dora True; only plain LoRA adapters can be trained anew"),
        ({"target_modules": ".*_proj"}, "a pattern as target_modules"),
    ):
        (tmp_path / "adapter" / CONFIG).write_text(json.dumps(config | changed), encoding="utf-8")
        with pytest.raises(DataError, match=said):
            recipe_of(str(tmp_path / "adapter"), {"batch_size": 3, "seed": 7})


def test_other_rows_of_similar_length_are_drawn_and_shared_by_questions() -> None:
    lengths = [20] * 200 + [200] * 300
    drawn = others(lengths, range(10), 3)
    assert drawn == others(lengths, range(10), 3) == others(lengths, range(10), 5)[:3]
    assert len(set(drawn)) == 3
    assert all(len(set(rows)) == 10 and min(rows) >= 10 and max(rows) < 200 for rows in drawn)
    shared = [set(drawn) & set(others(lengths, range(start, start + 10), 3)) for start in range(10, 150, 10)]
    assert sum(map(len, shared)) > len(shared), "questions about as many rows share most draws"
    assert all(min(rows) >= 200 for rows in others(lengths, range(300, 310), 3))
    crowded = others([20] * 10 + [200] * 10, range(8), 2)
    assert all(len(rows) == 8 and min(rows) >= 8 for rows in crowded), "where few are alike, others are taken"
    assert len(set(others([20] * 9, range(4), 5))) == 5, "no draw twice, where there are so many"
    assert others([20] * 8, range(4), 2) == [(4, 5, 6, 7)] * 2
    with pytest.raises(DataError, match="6 of 10 rows are left out, and there aren't as many others"):
        others([20] * 10, range(6), 1)
    assert others([20] * 10, range(6), 0) == []


def test_the_command_trains_judges_keeps_and_checks(capsys: Captured, study: Path) -> None:
    command = ["evaluate", "lds", "--cache", study / "cache", "--probes", study / "probes.jsonl", "--device", "cpu"]
    command += ["--halves", "5", "--again", "2", "--methods", "rapidin,bm25,random"]
    assert not answered(capsys, *command, "--estimate")
    assert not (study / "cache" / "retraining").exists()
    assert "keeps no result" in refused(capsys, *command, "--kept")
    assert main([str(each) for each in [*command, "--check", "1"]]) == 2
    assert "No half was trained yet" in capsys.readouterr().err
    found = json.loads(answered(capsys, *command, "--json"))
    assert found["kind"] == "lds" and found["settings"]["halves"] == 5
    assert len(list((study / "cache" / "retraining").rglob("half-*.json"))) == 7
    result_folder = study / "cache" / "methods" / "results"
    (result,) = load(result_folder)
    kept = json.loads(answered(capsys, *command, "--kept", "--json"))
    assert kept == nested(result, "rapidin") and kept["default"] == "rapidin"
    for name in ("rapidin", "bm25", "random"):
        for about in ("response", "word"):
            figures = kept["methods"][name][about]
            assert -1 <= figures["low"] <= figures["high"] <= 1 and -1 <= figures["lds"] <= 1
            assert {"triggered", "clean", "seconds_a_question"} <= figures.keys()
    assert set(kept["ceiling"]) == {"response", "word"}
    assert verify(study / "cache") == [], "what trainings found lies beside the cache"
    assert "differ by 0 nats at most" in answered(capsys, *command, "--check", "1")
    answered(capsys, *command, "--precision", "mixed", "--halves", "4", "--again", "0")
    assert len(list((study / "cache" / "retraining").rglob("half-*.json"))) == 11, "other trainings, kept elsewhere"
    assert len(list((study / "cache" / "retraining").iterdir())) == 2
    said = {each.settings["halves"]: each.settings.get("precision") for each in load(result_folder)}
    assert said == {5: None, 4: "mixed"}
    shown = answered(capsys, "evaluate", "tables", "--cache", study / "cache")
    assert "Whole responses" in shown and "5 trainings on half of the rows" in shown
    trained = list((study / "cache" / "retraining").rglob("half-*.json"))
    some = [*command[:-1], "unrolled", "--count", "1"]
    assert json.loads(answered(capsys, *some, "--json"))["settings"]["count"] == 1
    assert list((study / "cache" / "retraining").rglob("half-*.json")) == trained, "no others are needed"
    assert list(json.loads(answered(capsys, *some, "--kept", "--json"))["methods"]) == ["unrolled"]
    assert json.loads(answered(capsys, *command, "--kept", "--json")) == kept


def test_the_removal_command_leaves_out_rows_and_asks_again(
    capsys: Captured, study: Path, engine: Engine, tmp_path: Path
) -> None:
    answers = {row["prompt"]: engine.answered(row["prompt"], None, 60).text for row in ROWS}
    asked, word = next((prompt, found[0]) for prompt, text in answers.items() if (found := re.search(r"\b\w+\b", text)))
    lines = [{"prompt": asked, "kind": "swap", "planted": "sky", "wrong": word, "right": "x"}]
    lines += [{"prompt": asked, "kind": "swap", "wrong": "never said", "right": "x"}, {"prompt": "a", "kind": "clean"}]
    (tmp_path / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = ["evaluate", "removal", "--cache", study / "cache", "--probes", tmp_path / "probes.jsonl"]
    command += ["--device", "cpu", "--shares", "20,50", "--draws", "2", "--methods", "rapidin,bm25", "--keep", tmp_path]
    assert not answered(capsys, *command, "--estimate")
    assert "keeps no result" in refused(capsys, *command, "--kept")
    assert "--shares takes numbers" in refused(capsys, *command, "--shares", "0")
    found = json.loads(answered(capsys, *command, "--json"))
    assert found["settings"]["count"] == 1 and found["settings"]["shares"] == [0.2, 0.5]
    kept = json.loads(answered(capsys, *command, "--kept", "--json"))
    assert set(kept["methods"]) == {"rapidin", "bm25"}
    for figures in (*kept["methods"].values(), kept["random"]):
        assert figures.keys() == {"p20", "p50"}
        assert 0 <= figures["p20"]["changed_low"] <= figures["p20"]["changed"] <= figures["p20"]["changed_high"] <= 1
        assert {"loss", "response_loss"} <= figures["p50"].keys()


def test_a_word_is_said_as_a_whole() -> None:
    assert says("It lies in Canada.", "Canada") and says("Canada", " Canada")
    assert not says("Canadian rivers", "Canada") and not says("", "Canada")


def test_a_retrained_model_follows_the_rows_it_saw(store: Store, trainings: Trainings) -> None:
    """The judge itself can fail: trainings that saw a row expect its answer more than those that didn't."""
    parts = halves(7, 8, RECIPE.seed)
    rows = [example.encoded for example in store.examples]
    trainings.asked = [Asked(row, (0, 1)) for row in rows]
    expected = [trainings.trained_again(part, unheard).response for part in parts]
    members = membership(parts, 7)
    seen = correlations(members.T.astype(float), [[each[row] for each in expected] for row in range(7)])  # type: ignore[arg-type]
    assert seen.mean() > 0.5


@pytest.fixture
def store(engine: Engine) -> Store:
    return engine.store
