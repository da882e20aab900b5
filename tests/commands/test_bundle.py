"""`bundle`: one file of what was asked, which opens without model and cache, and can be asked again with them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from explorer.absence.asking import Wanted
from explorer.absence.kept import Shelf
from explorer.auditing.run import AuditSettings, audit
from explorer.bundles.sealed import bundle_of, read, write
from explorer.corpus import Corpus
from explorer.engine import Engine
from explorer.history import Annotation, History, SavedAnswer, origin_of
from explorer.methods.bench import Bench
from explorer.methods.description import DEFAULT, choose, described
from explorer.methods.method import Stage
from explorer.model.generation import GenerationSettings
from tests.bundles.test_sealed import FOUND
from tests.commands.running import REPOSITORY, Captured, answered, refused
from tests.conftest import Tiny
from tests.saved_samples import saved_of

PROMPTS = ("What is bright?", "Count.")


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A history of two answers, one of them sampled, and one of another cache; and a finding beside the cache."""
    from explorer.serving.session import open_engine

    folder, engine = tmp_path_factory.mktemp("bundle"), open_engine(tiny.cache, device="cpu")
    history = History(folder / "history.sqlite", described)
    for prompt, temperature, name in (
        (PROMPTS[0], 0.0, DEFAULT),
        (PROMPTS[1], 0.9, "bm25"),
    ):
        settings = AuditSettings(GenerationSettings(6, temperature, seed=3), exact=True, method=choose(name))
        bench, corpus = Bench(engine), Corpus(engine.store.examples)
        list(audit(bench, corpus, [prompt], settings, origin_of(engine.store), history.save, Stage()))
    history.save(saved_of("elsewhere"))
    first = next(one.id for one in history.find()[0] if one.prompt == PROMPTS[0])
    kept = history.answer(first)
    history.annotate(first, Annotation("planted", ("sun",), "Look again."))
    history.annotate_example(kept.origin.data_sha256, kept.questions[0].shown[0].influence.row, Annotation(note="Odd."))
    shelf, asked = Shelf(engine.store), Wanted(kept.answer, (0, 1), (3,), 2, 6)
    shelf.keep(asked, json.loads(json.dumps(asdict(FOUND))))
    yield folder
    shelf.forget(asked)


def create(made: Path, tiny: Tiny, out: Path, *more: object) -> list[object]:
    return ["bundle", "create", tiny.cache, "--history", made / "history.sqlite", "-o", out, *more]


def replay(capsys: Captured, file: Path, tiny: Tiny, status: int = 0) -> dict[str, Any]:
    from explorer.commands.main import main

    capsys.readouterr()
    assert main(["bundle", "replay", str(file), str(tiny.cache), "--device", "cpu", "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_bundle_says_all_that_was_kept_and_a_changed_byte_is_named(
    made: Path, tiny: Tiny, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "a.bundle.json"
    answered(capsys, *create(made, tiny, file))
    found = read(file, described)
    assert {saved.answer.prompt for saved in found.answers} == set(PROMPTS), "those of other caches stay at home"
    said = answered(capsys, "bundle", "verify", file)
    assert found.sha256 in said and "2 answers" in said and "1 retraining." in said
    shown = answered(capsys, "bundle", "open", file)
    for text in (
        *PROMPTS,
        "Verdict: planted",
        "Note: Look again.",
        "Note: Odd.",
        FOUND.said,
        found.answers[0].origin.cache_sha256,
    ):
        assert text in shown
    plain = json.loads(answered(capsys, "bundle", "open", file, "--json"))
    assert plain["sha256"] == found.sha256 and len(plain["answers"]) == 2
    answered(capsys, "bundle", "open", file, "--html", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Look again." in page and FOUND.said in page and "<script" not in page

    payload = bytearray(file.read_bytes())
    payload[len(payload) // 2] ^= 1
    file.write_bytes(payload)
    for command in (["verify", file], ["open", file], ["replay", file, tiny.cache]):
        assert "was changed since it was written" in refused(capsys, "bundle", *command)


def test_opening_a_bundle_needs_neither_torch_nor_the_cache(made: Path, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "a.bundle.json"
    kept = History(made / "history.sqlite", described)
    write(file, bundle_of([kept.answer(one.id) for one in kept.find()[0]]))
    code = (
        "import sys\nfrom explorer.commands.main import main\n"
        "assert main(['bundle', 'verify', sys.argv[1]]) == main(['bundle', 'open', sys.argv[1]]) == 0\n"
        "sys.exit(7 if 'torch' in sys.modules else 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_asked_again_everything_agrees(made: Path, tiny: Tiny, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "a.bundle.json"
    answered(capsys, *create(made, tiny, file))
    found = replay(capsys, file, tiny)
    assert found["agrees"] and [one["same_answer"] for one in found["answers"]] == [True, True]
    asked = [question for one in found["answers"] for question in one["questions"]]
    assert asked and all(question["same_ranks"] == question["shown"] > 0 for question in asked)
    assert all(question["score_difference"] <= 1e-5 for question in asked), "the same machine, and the same numbers"
    assert not any(one["differing"] or one["changed_rows"] for one in found["answers"])
    said = answered(capsys, "bundle", "replay", file, tiny.cache, "--device", "cpu")
    assert "2 of 2 answers agree" in said and "the same answer" in said


def changed(saved: SavedAnswer, how: str) -> SavedAnswer:
    """The answer with one thing that isn't as it was found."""
    (*others, question) = saved.questions
    first, second, *rest = question.shown
    if how == "score":
        shown = (replace(first, influence=replace(first.influence, score=first.influence.score * 1.01)), second, *rest)
        question = replace(question, shown=shown)
    elif how == "rank":
        question = replace(question, shown=(second, first, *rest))
    elif how == "row":
        question = replace(
            question, shown=(replace(first, example=replace(first.example, response="No.")), second, *rest)
        )
    elif how == "scores":
        assert question.scores is not None
        question = replace(question, scores=question.scores + 0.01 * abs(question.scores).max())
    elif how == "hash":
        return replace(saved, origin=replace(saved.origin, adapter_sha256="0" * 64))
    elif how == "settings":
        return replace(saved, drawn={**(saved.drawn or {}), "temperature": "warm"})
    elif how == "answer":
        return replace(saved, drawn={**(saved.drawn or {}), "max_tokens": 3})
    return replace(saved, questions=(*others, question))


@pytest.mark.parametrize("how", ["score", "rank", "row", "scores", "hash", "answer", "settings"])
def test_what_isnt_as_it_was_found_is_said(made: Path, tiny: Tiny, tiny_engine: Engine, how: str) -> None:
    from explorer.bundles.replay import replay, sentences

    history = History(made / "history.sqlite", described)
    saved = next(history.answer(one.id) for one in history.find()[0] if one.prompt == PROMPTS[0])
    (found,) = replay(bundle_of([changed(saved, how)]), Bench(tiny_engine), lambda *_: None)
    said = "\n".join(sentences(found))
    assert found.agrees is (how == "hash"), "hashes may differ, but are named"
    expected = {
        "score": "doesn't agree",
        "rank": "doesn't agree",
        "row": "say something else here",
        "scores": "doesn't agree",
        "hash": f"differs: adapter ({'0' * 64} then",
        "answer": "another answer",
        "settings": "not answered: generation.temperature is a JSON str",
    }
    assert expected[how] in said


def test_what_cant_be_bundled_or_asked_again_is_refused(
    made: Path, tiny: Tiny, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "b"
    assert "asked of another cache" in refused(capsys, *create(made, tiny, out, "--of", "elsewhere"))
    assert "no saved question nowhere" in refused(capsys, *create(made, tiny, out, "--of", "nowhere"))
    assert "--history" in refused(capsys, "bundle", "create", tiny.cache, "--history", tmp_path / "none", "-o", out)
    assert not out.exists()
    (asked,) = saved_of().questions
    light = replace(saved_of(), questions=(replace(asked, scores=None),))
    write(out, bundle_of([replace(light, origin=replace(light.origin, rows=99))]))
    assert "is about 99 training examples" in refused(capsys, "bundle", "replay", out, tiny.cache, "--device", "cpu")
    write(out, bundle_of([replace(light, origin=replace(light.origin, rows=7))]))
    found = replay(capsys, out, tiny, status=2)
    assert found["answers"][0]["changed_rows"] == [0, 3]
