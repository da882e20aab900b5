"""The derivative backwards through the whole training: kept, taken up again, shared, and refused where it isn't."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer import gradients
from explorer.engine import Engine
from explorer.errors import DataError, MethodError, ModelError
from explorer.methods.attributor import Attributor
from explorer.methods.method import Cost, Stage
from explorer.methods.opening import open_method
from explorer.model.loading import load_model
from explorer.records import Answer
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import append_examples, build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.conftest import TINY_SETTINGS, Tiny

RECIPE = FinetuneSettings(rank=4, targets=("q_proj", "v_proj"), epochs=3, learning_rate=0.01, batch_size=2, seed=3)


@pytest.fixture(scope="module")
def study(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache at points on the way, of an adapter that was trained here."""
    folder = tmp_path_factory.mktemp("study")
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(tiny.data), folder / "adapter", RECIPE, lambda *_: None)
    model = load_model(str(tiny.model), folder / "adapter", device="cpu", checkpoints="30%,60%", tensors="lora_B")
    settings = replace(TINY_SETTINGS, tensors="lora_B", normalisation="none")
    build_cache(model, read_examples(tiny.data), folder / "cache", settings, tokens=0, data_name=tiny.data.name)
    return folder


@pytest.fixture
def engine(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Of a copy, beside it: a cache names its model by where that lies."""
    folder = shutil.copytree(study, tmp_path_factory.mktemp("copy"), dirs_exist_ok=True)
    return open_engine(folder / "cache", device="cpu")


def question(engine: Engine) -> Answer:
    return engine.given_answer("What shines?", "The moon and the sun.")


def kept(engine: Engine) -> list[str]:
    return sorted(path.name for path in (engine.store.folder / "methods").glob("unrolled*.json"))


def test_questions_together_have_the_scores_that_they_have_alone_and_these_are_kept(engine: Engine) -> None:
    answer = question(engine)
    method = open_method(engine, "unrolled")
    assert Attributor(method).cost() == Cost.EACH
    method.expect([(answer, None), (answer, (2, 4)), (answer, None)])
    assert len(kept(engine)) == 2
    together = [method.scores(answer, selection) for selection in (None, (2, 4))]
    again = open_method(engine, "unrolled", report=forbidden)
    assert [np.array_equal(again.scores(answer, s), t) for s, t in zip((None, (2, 4)), together, strict=True)]
    anew = open_method(engine, "unrolled")
    anew.anew = True
    assert np.array_equal(anew.scores(answer, (2, 4)), together[1])
    assert len({*together[0].tolist(), *together[1].tolist()}) == 14


def forbidden(stage: str, done: int, total: int) -> None:
    raise AssertionError("what is kept isn't computed again")


def test_a_run_that_was_stopped_goes_on_where_it_was(engine: Engine) -> None:
    answer, told = question(engine), list[tuple[str, int, int]]()
    whole = open_method(engine, "unrolled", report=lambda *report: told.append(report))
    whole.anew = True
    expected = whole.scores(answer, None)
    steps = 3 * 4
    assert told[:steps] == [("training, from the beginning", step, steps) for step in range(1, steps + 1)]
    backwards = [done for name, done, _ in told[steps:]]
    assert backwards == sorted(backwards) and backwards[-1] == 2 * steps and backwards[0] == 1

    def stopping(stage: str, done: int, total: int) -> None:
        if stage == "training, backwards" and done == 13:
            raise KeyboardInterrupt

    (engine.store.folder / "methods" / kept(engine)[0]).unlink()
    with pytest.raises(KeyboardInterrupt):
        open_method(engine, "unrolled", report=stopping).scores(answer, None)
    assert [name.startswith("unrolled-halfway") for name in kept(engine)] == [True]
    told.clear()
    resumed = open_method(engine, "unrolled", report=lambda *report: told.append(report)).scores(answer, None)
    assert np.array_equal(resumed, expected)
    assert told[7] == ("training, from the beginning", 8, 8), "no further than it still has to go back"
    assert [name.startswith("unrolled-halfway") for name in kept(engine)] == [False]


def test_the_page_may_do_other_work_between_its_steps(engine: Engine) -> None:
    answer, stage = question(engine), Stage()
    asked = Attributor(open_method(engine, "unrolled"))
    pauses = sum(1 for _ in asked.ask_steps(answer, None, stage))
    assert pauses >= 3 * 12 and stage.share == 1
    ranking = asked.ranking(answer, None, 3)
    assert len(ranking.influences) == 3 and not ranking.influences[0].values


def test_the_sign_is_that_of_the_log_probability(engine: Engine) -> None:
    """Its own answer becomes more probable by a row's weight than any other row makes it."""
    row = engine.store.examples[0]
    prompt = "What shines by day?"
    scores = open_method(engine, "unrolled").scores(engine.given_answer(prompt, "It is the sun."), None)
    assert engine.given_answer(prompt, "It is the sun.").encoded.ids.tolist() == row.encoded.ids.tolist()
    assert int(np.argmax(scores)) == 0 and scores[0] > 0
    assert gradients.log_probabilities(engine.model, row.encoded).mean() < 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "SGD"}, r"was trained by SGD.* goes back through AdamW, no weight decay"),
        ({"data_sha256": "0"}, r"the cache's 7 rows aren't the 7 that the adapter was trained on"),
        ({"learning_rate": 0.5}, r"gone through once more, and ended \d+% of its way from the adapter"),
        ({"rank": 5}, r"isn't of the form that its training record says"),
        ({"epochs": 0}, r"epochs, batch_size, .* must be positive"),
    ],
)
def test_a_training_of_another_kind_than_recorded_is_refused(
    engine: Engine, change: dict[str, object], message: str
) -> None:
    path = Path(engine.model.adapter) / "training.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | change), encoding="utf-8")
    with pytest.raises((DataError, MethodError, ModelError), match=message):
        open_method(engine, "unrolled").scores(question(engine), None)


def test_a_training_in_which_small_changes_grow_is_refused(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("wild")
    recipe = replace(RECIPE, epochs=25, learning_rate=0.1)
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(tiny.data), folder / "adapter", recipe, lambda *_: None)
    model = load_model(str(tiny.model), folder / "adapter", device="cpu")
    build_cache(model, read_examples(tiny.data), folder / "cache", TINY_SETTINGS, tokens=0, data_name=tiny.data.name)
    engine = open_engine(folder / "cache", device="cpu")
    with pytest.raises(MethodError, match=r"more than any example can do: in this training small changes grow"):
        open_method(engine, "unrolled").scores(question(engine), None)


def test_other_rows_than_those_of_the_training_are_refused_before_there_is_work(engine: Engine, tiny: Tiny) -> None:
    append_examples(engine.model, read_examples(tiny.data)[:1], engine.store.folder, 0, "more")
    changed = open_engine(engine.store.folder, device="cpu")
    with pytest.raises(MethodError, match="the cache's 8 rows aren't the 7"):
        Attributor(open_method(changed, "unrolled")).cost()


def test_an_adapter_without_a_recipe_is_refused(tiny: Tiny) -> None:
    with pytest.raises(DataError, match="doesn't say how the adapter was trained"):
        Attributor(open_method(open_engine(tiny.cache, device="cpu"), "unrolled")).cost()
