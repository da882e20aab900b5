"""`counterfactual`: the rows are really left out, what was trained is never trained again, and what can't be asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from explorer.absence.asking import Training, Wanted
from explorer.cache.verify import verify
from explorer.corpus import Corpus
from explorer.engine import Engine
from explorer.errors import PromptError
from explorer.model.loading import load_model
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune, train_into
from tests.commands.running import Captured, answered, refused, reported
from tests.conftest import TINY_SETTINGS, Tiny
from tests.tiny import ROWS, save_tiny_data

LINEAR = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
RECIPE = FinetuneSettings(rank=8, targets=LINEAR, epochs=8, learning_rate=0.02, batch_size=2, seed=5)
TRAIN = "precompute.retraining.adapters.train_into"
WEIGHTS = "adapter_model.safetensors"
TWIN = ROWS[0] | {"response": f"{ROWS[0]['response']}!"}


@pytest.fixture(scope="module")
def study(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of an adapter that was trained here; its row 7 is a near-duplicate of row 0."""
    folder = tmp_path_factory.mktemp("study")
    data = save_tiny_data(folder / "train.jsonl", [*ROWS, TWIN])
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(data), folder / "adapter", RECIPE, lambda *_: None)
    model = load_model(str(tiny.model), folder / "adapter", device="cpu")
    build_cache(model, read_examples(data), folder / "cache", TINY_SETTINGS, tokens=0, data_name=data.name)
    return folder


@pytest.fixture(scope="module")
def engine(study: Path) -> Engine:
    return open_engine(study / "cache", device="cpu")


def asking(study: Path, *more: object, prompt: str = ROWS[0]["prompt"]) -> list[object]:
    asked = ["counterfactual", study / "cache", "--prompt", prompt, "--max-tokens", "8", "--device", "cpu"]
    return [*asked, "--token", "0", *more]


def found(capsys: Captured, *command: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(answered(capsys, *command, "--json"))
    return report


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each training saw that was begun."""
    sizes = list[int]()

    def counting(model: Any, encoded: Any, *more: Any) -> None:
        sizes.append(len(encoded))
        train_into(model, encoded, *more)

    monkeypatch.setattr(TRAIN, counting)
    return sizes


def test_the_rows_and_their_near_duplicates_are_left_out_and_others_beside_them(
    capsys: Captured, study: Path, tiny: Tiny, engine: Engine, tmp_path: Path, trained: list[int]
) -> None:
    command = asking(study, "--without", "rows:0", "--draws", "2", "--check")
    report = found(capsys, *command)
    assert trained == [6, 6, 6, 8]
    rows = report["rows"]
    assert rows["named"] == [0] and rows["near_duplicates"] == [7]
    assert all(len(each) == 2 and not {0, 7} & set(each) for each in rows["controls"])
    assert len(rows["controls"]) == 2 and rows["controls"][0] != rows["controls"][1]

    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(save_tiny_data(tmp_path / "rest.jsonl", ROWS[1:])), tmp_path / "a", RECIPE, print)
    capsys.readouterr()
    made = {place.joinpath(WEIGHTS).read_bytes(): place for place in (study / "cache/retraining/adapters").iterdir()}
    assert (tmp_path / "a" / WEIGHTS).read_bytes() in made, "the training without the rows, byte by byte"
    assert (study / "adapter" / WEIGHTS).read_bytes() in made, "the one on all rows is the given one"
    by_hand = load_model(str(tiny.model), made[(tmp_path / "a" / WEIGHTS).read_bytes()], device="cpu")
    assert report["hashes"]["without"] == by_hand.fingerprint.adapter != report["hashes"]["adapter_sha256"]

    word, answers = report["word"], report["answers"]
    assert answers["before"] == engine.answered(ROWS[0]["prompt"], None, 8).text != answers["without"]
    assert report["changed"] is (word["text"] not in answers["without"]) and 0 <= report["controls_changed"] <= 2
    assert word["span"][0] == 0 and answers["before"].strip().startswith(word["text"])
    odds = [word["before"], word["without"], *word["controls"]]
    assert len(set(odds)) == 4 and all(isinstance(each, float) for each in odds)
    assert report["seeds"] == {"training": 5, "controls": 0} and report["recipe"]["epochs"] == 8
    assert len(report["hashes"]["controls"]) == 2 and {"base_sha256", "data_sha256"} <= report["hashes"].keys()
    assert report["check"]["same_answer"] and report["check"]["difference"] == pytest.approx(0, abs=1e-5)
    assert report["said"].startswith("Without these 2 rows the model ") and "without 2 others" in report["said"]
    assert report["prompt"] == ROWS[0]["prompt"]

    trained.clear()
    assert found(capsys, *command) == report, "what was trained is kept"
    other = found(capsys, *asking(study, "--without", "rows:0", "--draws", "2", prompt="Count."))
    assert other["rows"] == rows and other["word"] != word, "other questions need no training"
    shown = answered(capsys, *command)
    assert report["said"] in shown and "1 rows and 1 near-duplicates were left out" in shown
    assert trained == [] and verify(study / "cache") == []


def test_a_stopped_run_goes_on_with_the_training_it_was_at(
    capsys: Captured, study: Path, monkeypatch: pytest.MonkeyPatch, trained: list[int]
) -> None:
    command = asking(study, "--without", "rows:1-3", "--draws", "1")

    def killed(model: Any, encoded: Any, out: Path, *more: Any) -> None:
        if len(trained) == 1:
            out.with_name(out.name + ".part").mkdir()
            raise KeyboardInterrupt
        trained.append(len(encoded))
        train_into(model, encoded, out, *more)

    with monkeypatch.context() as once, pytest.raises(AssertionError):
        once.setattr(TRAIN, killed)
        answered(capsys, *command)
    assert trained == [5]
    report = found(capsys, *command)
    assert trained == [5, 5] and len(report["word"]["controls"]) == 1


def test_the_cost_is_said_and_nothing_is_trained(capsys: Captured, study: Path, trained: list[int]) -> None:
    (said,) = reported(capsys, *asking(study, "--without", "label:odd", "--estimate"))
    assert said.startswith(
        "left out: 1 of 8 rows, 1 of them named and 0 near-duplicates; to train: 4 of 4 adapters, about "
    )
    assert trained == []


def test_the_fewest_first_rows_are_found_by_bisection(capsys: Captured, study: Path, trained: list[int]) -> None:
    report = found(capsys, *asking(study, "--without", "top:5", "--draws", "0", "--smallest", "--method", "bm25"))
    assert report["changed"] and report["word"]["controls"] == [] and report["said"].count(";") == 0
    small = report["smallest"]
    assert 1 <= small["at_most"] <= 5 and small["trainings"] == len(small["tried"]) <= 4
    assert small["tried"][0] == [5, True] and [small["at_most"], True] in small["tried"]
    assert len(trained) <= small["trainings"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--word", "never said"], "--word is not allowed with --token"),
        (["--token", "99"], "There is no token 99; the answer has the tokens 0 to 7"),
        (["--without", "top:9"], "names more rows than there are; the cache has 8"),
        (["--without", "top:0"], "--without takes top:N, label:VALUE"),
        (["--without", "best:3"], "--without takes top:N, label:VALUE"),
        (["--without", "rows:3,8"], "There is no row 8; the cache has the rows 0 to 7"),
        (["--without", "rows:a"], "takes numbers and ranges such as 3,5,8-10, not a"),
        (["--without", "label:nothing"], "No row has nothing in its column source"),
        (["--without", "label:colour=red"], "has no column colour; it has source"),
        (["--without", "rows:0-6"], "nothing is left to train on; leave out fewer"),
        (["--without", "rows:1-5"], "there aren't as many others to leave out in their place"),
        (["--smallest"], "--smallest shortens a ranking; give the rows as --without top:N"),
    ],
)
def test_what_cannot_be_asked_is_refused(capsys: Captured, study: Path, options: list[str], said: str) -> None:
    assert said in refused(capsys, *asking(study, "--without", "rows:0"), *options)


def test_what_is_no_word_and_what_is_not_said_is_refused(capsys: Captured, study: Path, engine: Engine) -> None:
    command = [each for each in asking(study, "--without", "rows:0") if each not in ("--token", "0")]
    answer = engine.given_answer("Why?", "So.")
    stop = next(at for at, token in enumerate(answer.tokens) if token.text == ".")
    with pytest.raises(PromptError, match="has no letter and no digit; select a word"):
        Training(engine, Corpus(()), lambda adapter: engine.model, Wanted(answer, (stop, stop + 1), (0,)), {})
    assert "The answer doesn't say “Ulan Bator”; it is “" in refused(capsys, *command, "--word", "Ulan Bator")


def test_an_adapter_from_elsewhere_needs_its_recipe(capsys: Captured, tiny: Tiny) -> None:
    command = ["counterfactual", tiny.cache, "--prompt", "x", "--token", "0", "--without", "rows:0", "--device", "cpu"]
    assert "it lacks batch_size, seed" in refused(capsys, *command)
    (said,) = reported(capsys, *command, "--batch-size", "2", "--seed", "0", "--draws", "0", "--estimate")
    assert "to train: 1 of 1 adapters, about" in said
