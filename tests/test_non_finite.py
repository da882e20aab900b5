"""Numbers that aren't finite are found where they arise, whoever computes them, with the row and the way out."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer import gradients
from explorer.cache import CacheSettings
from explorer.commands.main import main
from explorer.engine import Engine, make_sketcher
from explorer.errors import NonFiniteError
from explorer.model.generation import GenerationSettings, generate, generate_together
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.batching import fastest_batch
from precompute.build import append_examples, build_cache
from precompute.data import Review, read_examples
from precompute.finetune import finetune
from precompute.moments import moments_by_rule
from precompute.sketches import NormalisedSketch, sketch_shard, token_shard
from tests.asking import asking, by
from tests.commands.running import Captured, precompute_command
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_adapter, save_tiny_data, save_tiny_relative

REMEDY = "--precision bfloat16 or float32"
BROKEN = "§"
"""A sign that one row alone has in its prompt, and whose embedding isn't finite."""
BROKEN_ROW = 4
ROW = f"Row {BROKEN_ROW + 1} of the data"
SETTINGS = CacheSettings(length=4096, token_length=1024)
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A model whose embeddings aren't its output layer's, so that a spoiled one shows in texts that have it alone."""
    folder = tmp_path_factory.mktemp("untied")
    model = save_tiny_relative(folder / "model", "llama", tie_word_embeddings=False)
    adapter = save_tiny_adapter(folder / "adapter", model)
    rows = [dict(row) for row in ROWS]
    rows[BROKEN_ROW]["prompt"] += BROKEN
    data = save_tiny_data(folder / "train.jsonl", rows)
    loaded = load_model(str(model), adapter, device="cpu")
    build_cache(loaded, read_examples(data), folder / "cache", SETTINGS, tokens=4, data_name=data.name)
    return Tiny(model, adapter, data, folder / "cache")


def spoil(model: LanguageModel, value: float = NAN) -> LanguageModel:
    """Change what the model knows of the sign, in memory."""
    for token in model.tokenizer(BROKEN, add_special_tokens=False)["input_ids"][-1:]:
        model.network.get_input_embeddings().weight.data[token] = value
    return model


@pytest.fixture(params=[NAN, INFINITY], ids=["NaN", "infinity"])
def model(request: pytest.FixtureRequest, untied: Tiny) -> LanguageModel:
    return spoil(load_model(str(untied.model), untied.adapter, device="cpu"), request.param)


@pytest.fixture
def engine(untied: Tiny) -> Engine:
    """Over a cache that was made while all was well."""
    engine = open_engine(untied.cache, device="cpu")
    spoil(engine.model)
    return engine


def rows_of(model: LanguageModel, data: Path) -> list[tuple[int, Encoded]]:
    return [(row, model.encode(each.messages, each.response)) for row, each in enumerate(read_examples(data))]


# While a cache is made


@pytest.mark.parametrize("batch", [1, 3])
def test_a_row_whose_loss_is_not_finite_is_named(model: LanguageModel, untied: Tiny, batch: int) -> None:
    settings = CacheSettings(length=4096, token_length=1024, batch=batch)
    rows = rows_of(model, untied.data)
    with pytest.raises(
        NonFiniteError, match=rf"^Row {BROKEN_ROW + 1} of the data has a loss at response token 0 "
    ) as found:
        list(sketch_shard(model, make_sketcher(model, settings), settings, rows))
    assert REMEDY in str(found.value)
    del rows[BROKEN_ROW]
    *_, arrays = sketch_shard(model, make_sketcher(model, settings), settings, rows)
    assert arrays is not None and np.isfinite(arrays["norms"]).all()


def test_how_many_rows_at_a_time_are_fastest_is_tried_without_a_word_of_it(model: LanguageModel, untied: Tiny) -> None:
    items = [item for _, item in rows_of(model, untied.data)]
    assert fastest_batch(model, make_sketcher(model, SETTINGS), SETTINGS, [items[BROKEN_ROW]] * 3) == 1


def test_a_row_is_named_where_the_points_on_the_way_are_looked_for(model: LanguageModel, untied: Tiny) -> None:
    with pytest.raises(NonFiniteError, match=rf"^{ROW} has a loss at response token 0 at 0%"):
        moments_by_rule(model, dict(rows_of(model, untied.data)))


def test_a_token_whose_gradient_is_not_finite_is_named(model: LanguageModel, untied: Tiny) -> None:
    norms = {BROKEN_ROW: np.ones(len(model.fingerprint.layout), np.float32)}
    (row,) = (pair for pair in rows_of(model, untied.data) if pair[0] == BROKEN_ROW)
    with pytest.raises(NonFiniteError, match=rf"^{ROW} has a gradient at response token 0 "):
        list(token_shard(model, make_sketcher(model, SETTINGS), SETTINGS, norms, [row]))


@pytest.mark.parametrize("kind", ["layer", "cosine", "none"])
@pytest.mark.parametrize("value", [NAN, INFINITY, 3e38])
def test_a_gradient_that_overflows_on_the_way_back_is_named_with_its_tensor(
    untied: Tiny, kind: str, value: float
) -> None:
    model = load_model(str(untied.model), untied.adapter, device="cpu")
    names = [name for name, _ in model.fingerprint.layout]
    sketch = NormalisedSketch(make_sketcher(model, SETTINGS), names, kind)
    sketch.add({names[0]: torch.ones_like(model.trainable[names[0]])})
    sketch.add({names[1]: torch.full_like(model.trainable[names[1]], value)})
    with pytest.raises(NonFiniteError, match=rf"a gradient with respect to {names[1]}"):
        sketch.values()


def test_fine_tuning_that_diverges_writes_nothing(untied: Tiny, tmp_path: Path) -> None:
    base = spoil(load_model(str(untied.model), device="cpu"))
    settings = FinetuneSettings(rank=2, epochs=1, batch_size=2)
    with pytest.raises(NonFiniteError, match=r"^Step \d of the fine-tuning has a loss .* smaller --learning-rate"):
        finetune(base, read_examples(untied.data), tmp_path / "out", settings, lambda step, of, loss: None)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_that_overflows_is_refused_with_formats_that_do_not(
    untied: Tiny, tmp_path: Path, capsys: Captured
) -> None:
    """Weights that float16 can hold, and sums of products with them that it can't."""
    large = Tiny(tmp_path / "model", untied.adapter, untied.data, tmp_path / "cache")
    shutil.copytree(untied.model, large.model)
    weights = load_file(large.model / "model.safetensors")
    weights["lm_head.weight"] *= 60_000 / weights["lm_head.weight"].abs().max()
    save_file(weights, large.model / "model.safetensors", metadata={"format": "pt"})
    options = ("--checkpoints", "final", "--precision")
    assert main([str(each) for each in precompute_command(large, large.cache, *options, "float16")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("rapidin-explorer: Row 1 (line 1) of the data has a loss at ") and REMEDY in said
    assert main([str(each) for each in precompute_command(large, tmp_path / "other", *options, "bfloat16")]) == 0
    # Another format than a cache's is asked for on purpose, and is as bad for questions.
    model = load_model(str(large.model), large.adapter, device="cpu", precision="float16")
    with pytest.raises(NonFiniteError, match=r"^This prompt has a prediction for token 0"):
        list(generate(model, [{"role": "user", "content": "What is bright?"}]))


def test_a_row_is_named_by_its_place_in_the_data_though_others_were_left_out(
    model: LanguageModel, untied: Tiny, tmp_path: Path
) -> None:
    review = Review(str(untied.data), skip=True)
    rows = untied.data.read_text(encoding="utf-8").splitlines()
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join([rows[0], "{}", "", *rows[1:]]), encoding="utf-8")
    examples = read_examples(data, review=review)
    assert len(examples) == len(ROWS)
    with pytest.raises(
        NonFiniteError, match=rf"^Row {BROKEN_ROW + 2} \(line {BROKEN_ROW + 3}\) of the data has a loss "
    ):
        build_cache(model, examples, tmp_path / "cache", SETTINGS, tokens=0, data_name="x")


def test_a_row_that_is_appended_is_named_by_its_place_in_what_is_appended(untied: Tiny, tmp_path: Path) -> None:
    cache = shutil.copytree(untied.cache, untied.cache.parent / tmp_path.name)
    model = spoil(load_model(str(untied.model), untied.adapter, device="cpu"))
    data = save_tiny_data(tmp_path / "more.jsonl", [ROWS[0], {"prompt": BROKEN, "response": "It is a sign."}])
    with pytest.raises(NonFiniteError, match=r"^Row 2 \(line 2\) of the data has a loss "):
        append_examples(model, read_examples(data), cache, 0, data.name)


# In answers


def test_a_prompt_whose_answer_is_not_finite_is_refused_and_others_are_not(engine: Engine) -> None:
    for settings in (GenerationSettings(max_tokens=3), GenerationSettings(max_tokens=3, temperature=1.0, top_p=0.9)):
        with pytest.raises(NonFiniteError, match=r"^This prompt has a prediction for token 0 of its answer"):
            list(generate(engine.model, [{"role": "user", "content": f"What is {BROKEN}?"}], settings))
        assert list(generate(engine.model, [{"role": "user", "content": "What is bright?"}], settings))


def test_tokens_that_are_ruled_out_are_no_overflow(untied: Tiny) -> None:
    model = load_model(str(untied.model), untied.adapter, device="cpu")
    head = model.network.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, logits: logits.index_fill(-1, torch.tensor([5, 6]), -INFINITY))
    assert list(generate(model, [{"role": "user", "content": "What is bright?"}], GenerationSettings(max_tokens=2)))


def test_of_prompts_that_are_answered_together_the_bad_one_is_named(model: LanguageModel) -> None:
    prompts = [model.encode_prompt([{"role": "user", "content": text}]) for text in ("Hello", f"Hello {BROKEN}")]
    with pytest.raises(NonFiniteError, match=rf"^The prompt '.*Hello {BROKEN}.*' has a prediction"):
        generate_together(model, prompts, 3)


def ask(engine: Engine) -> None:
    engine.ask(engine.given_answer(f"What is {BROKEN}?", "It is the sun."), None)


def ask_tokens(engine: Engine) -> None:
    list(engine.ask_tokens(engine.given_answer("What is bright?", f"It {BROKEN} the sun.")))


def predict(engine: Engine) -> None:
    engine.predict(engine.given_answer(f"What is {BROKEN}?", "It is the sun."))


@pytest.mark.parametrize(
    ("work", "whose"), [(ask, "This question"), (ask_tokens, "This question"), (predict, "This answer")]
)
def test_a_question_whose_numbers_are_not_finite_is_refused(
    engine: Engine, work: Callable[[Engine], None], whose: str
) -> None:
    with pytest.raises(NonFiniteError, match=rf"^{whose} has a (gradient|prediction) ") as found:
        work(engine)
    assert REMEDY in str(found.value)


def test_exact_values_of_a_row_that_are_not_finite_are_refused_with_the_row(engine: Engine) -> None:
    answer, method = engine.given_answer("What is bright?", "It is the sun."), asking(engine)
    list(method.ask_steps(answer, None))
    list(method.refine_steps(answer, None, [0, 1]))
    with pytest.raises(NonFiniteError, match=rf"^Row {BROKEN_ROW} of the cache has a derivative"):
        list(method.refine_steps(answer, None, [BROKEN_ROW]))
    direction = engine.direction(answer, None)
    with pytest.raises(NonFiniteError, match="has a gradient"):
        gradients.position_shares(engine.model, engine.store.examples[BROKEN_ROW].encoded, direction)


@pytest.mark.parametrize("name", ["graddot", "datainf", "ekfac", "arnoldi", "repsim", "cka"])
def test_no_method_is_fitted_to_numbers_that_are_not_finite(engine: Engine, name: str) -> None:
    answer, method = engine.given_answer("What is bright?", "It is the sun."), by(engine, name)
    with pytest.raises(
        NonFiniteError, match=rf"^Row {BROKEN_ROW} of the cache has a (gradient|loss|curvature|hidden state) "
    ):
        list(method.ask_steps(answer, None))
    assert not method.known(answer, None)


def test_the_error_crosses_processes_as_workers_of_a_cluster_send_it() -> None:
    error = NonFiniteError("a gradient", "Row 3 of the data", 2)
    sent = pickle.loads(pickle.dumps(error))
    assert str(sent) == str(error) and sent.row == 2
