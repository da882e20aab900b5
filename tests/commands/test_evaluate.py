"""`evaluate`: its kinds, what they keep and refuse."""

import json
import re
from pathlib import Path

from explorer.cache.store import open_cache
from explorer.commands.main import main, parse
from explorer.evaluation.results import folder_of, load
from tests.commands.running import Captured, answered, refused
from tests.conftest import Tiny

REPOSITORY = Path(__file__).parents[2]


def test_probes_that_cannot_be_read_are_refused(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "a", "kind": "clean"}\n{"question": "b"}\n')
    said = refused(capsys, "evaluate", "probes", "--cache", tiny.cache, "--probes", tmp_path / "probes.jsonl")
    assert 'line 2, has no text as "prompt"' in said
    assert "can't be read" in refused(capsys, "evaluate", "probes", "--cache", tiny.cache, "--probes", "/nowhere")


def test_calibration_needs_prompts_and_a_null_sample(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    calibrate = ("evaluate", "calibration", "--cache", tiny.cache, "--device", "cpu")
    assert "needs --prompts" in refused(capsys, *calibrate)
    assert "can't be read" in refused(capsys, *calibrate, "--prompts", tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "holds no prompts" in refused(capsys, *calibrate, "--prompts", tmp_path / "empty.txt")
    (tmp_path / "prompts.txt").write_text("Hi\n")
    assert "precompute` again to add it" in refused(capsys, *calibrate, "--prompts", tmp_path / "prompts.txt")


def test_methods_are_judged_by_classes_and_their_cost_is_said_first(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    command = ["evaluate", "classes", "--cache", tiny.cache, "--questions", tiny.data, "--device", "cpu"]
    command += ["--label", "source", "--methods", "bm25,random"]
    assert not answered(capsys, *command, "--estimate")
    main([str(each) for each in command])
    said = capsys.readouterr()
    assert said.err.startswith("7 questions; for each of them:\n  bm25: an index of all words")
    assert re.search(r"^bm25\.accuracy +1$", said.out, re.MULTILINE), "every row is most like itself"
    found = json.loads(answered(capsys, *command, "--json", "--keep", tmp_path))
    assert found["kind"] == "classes" and found["settings"]["label"] == "source"
    assert len(found["fingerprints"]["adapter"]) == 64 and found["command"].startswith("rapidin-explorer evaluate")
    (kept,) = load(tmp_path)
    (table,) = kept.tables
    assert table.column("method") == ("bm25", "random") and table.column("accuracy")[0] == 1
    assert [best.methods[0] for best in kept.best if best.figure == "accuracy"] == ["bm25"]
    assert [each.settings for each in load(folder_of(open_cache(tiny.cache)))] == [kept.settings], "with the cache, too"
    shown = answered(capsys, "evaluate", "tables", "--results", tmp_path)
    assert shown.startswith("## The question's own class") and "| bm25 | 7 |" in shown


def test_a_kind_takes_only_its_own_options(capsys: Captured) -> None:
    assert "No such option '--damping'" in refused(capsys, "evaluate", "backdoor", "--damping", "1")
    assert "No such option '--methods'" in refused(capsys, "evaluate", "fidelity", "--methods", "bm25")
    assert "No such option '--questions'" in refused(capsys, "evaluate", "probes", "--questions", "x")


def test_what_comparisons_ask_unless_they_are_told() -> None:
    asked = {kind: parse(["evaluate", kind]).params for kind in ("ihvp", "fidelity", "cost", "classes")}
    assert [asked[kind]["count"] for kind in asked] == [3, 20, 5, None]
    assert (asked["ihvp"]["rows"], asked["fidelity"]["rows"]) == (200, 512)
    assert (asked["ihvp"]["curvature_rows"], asked["cost"]["curvature_rows"]) == (4, 16)
    assert parse(["evaluate", "tables", "--results", "a", "b"]).params["results"] == ("a", "b")


def test_methods_that_cannot_be_judged_are_refused(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    assert "needs --questions" in refused(capsys, "evaluate", "classes", "--cache", tiny.cache)
    judged = ("evaluate", "backdoor", "--cache", tiny.cache, "--probes", tmp_path / "probes.jsonl")
    assert "no method voodoo" in refused(capsys, *judged, "--methods", "bm25,voodoo")
    assert "can't be read" in refused(capsys, *judged)
