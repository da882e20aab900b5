"""Trainings on parts of the data: as the adapter was trained, kept one by one, never mixed up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from explorer.cache import Store
from explorer.commands.main import main
from explorer.engine import Engine
from explorer.errors import CacheError, DataError
from explorer.evaluation.counterfactual.correlation import correlations
from explorer.evaluation.counterfactual.trainings import nested
from explorer.evaluation.results import load
from explorer.model.loading import load_model
from explorer.serving.session import base_for, open_engine
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import FinetuneSettings, finetune
from precompute.retraining import Asked, Part, Trainings, again, halves, membership, recipe_of
from tests.commands.running import Captured, answered, refused
from tests.conftest import TINY_SETTINGS, Tiny

RECIPE = FinetuneSettings(
    rank=2, alpha=4, targets=("q_proj", "v_proj"), epochs=3, learning_rate=0.02, batch_size=2, seed=5
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
    resumed = list(made(engine, trainings.folder, lambda: base_for(engine.store, device="cpu")).train(parts, unheard))
    assert not trainings.missing(parts)
    assert list(made(engine, trainings.folder, never).train(parts, unheard)) == resumed
    assert len({found.response for found in resumed}) == 3, "other rows, another training"


def test_a_training_once_more_expects_the_same_and_another_seed_something_else(trainings: Trainings) -> None:
    first, other = halves(7, 1, RECIPE.seed)[0], again(halves(7, 1, RECIPE.seed))[0]
    (kept,), (differing,) = trainings.train([first], unheard), trainings.train([other], unheard)
    assert trainings.trained_again(first, unheard) == kept
    assert differing.response != kept.response


def test_trainings_of_another_recipe_are_refused(engine: Engine, trainings: Trainings) -> None:
    parts = halves(7, 1, RECIPE.seed)
    list(trainings.train(parts, unheard))
    other = made(engine, trainings.folder, never, FinetuneSettings(epochs=1))
    with pytest.raises(CacheError, match="another recipe, other data or other answers"):
        other.missing(parts)
    with pytest.raises(CacheError, match="another recipe"):
        trainings.known(Part("half-00", (0, 1, 2), RECIPE.seed))
    (trainings.folder / "half-00.json").write_text("{", encoding="utf-8")
    with pytest.raises(CacheError, match="remove it to train again"):
        trainings.missing(parts)


def test_an_adapter_without_a_recipe_is_refused(tiny: Tiny) -> None:
    with pytest.raises(DataError, match=r"doesn't say how the adapter was trained .* finetune"):
        recipe_of(str(tiny.adapter))
    with pytest.raises(DataError, match="can't be read"):
        recipe_of("")


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
    assert len(list((study / "cache" / "retraining").iterdir())) == 7
    (result,) = load(study / "cache" / "methods" / "results")
    kept = json.loads(answered(capsys, *command, "--kept", "--json"))
    assert kept == nested(result, "rapidin") and kept["default"] == "rapidin"
    for name in ("rapidin", "bm25", "random"):
        for about in ("response", "word"):
            figures = kept["methods"][name][about]
            assert -1 <= figures["low"] <= figures["high"] <= 1 and -1 <= figures["lds"] <= 1
            assert {"triggered", "clean", "seconds_a_question"} <= figures.keys()
    assert set(kept["ceiling"]) == {"response", "word"}
    assert "differ by 0 nats at most" in answered(capsys, *command, "--check", "1")
    shown = answered(capsys, "evaluate", "tables", "--cache", study / "cache")
    assert "Whole responses" in shown and "5 trainings on half of the rows" in shown


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
