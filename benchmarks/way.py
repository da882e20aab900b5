"""Quality and training loss along the straight way from the base to the fine-tuned model, by exact inner products.

`measure` keeps one file of inner products a moment in a folder, so a stopped run goes on; `report` judges any sums of
those moments, by any normalisation, and prints or keeps the figures. Moments are points on the way (`25%`), `final`, or
checkpoints of the training. Questions are probes (planted rows) or labelled examples (classes).

    python -m benchmarks.way measure WORK --adapter A --data D.jsonl --probes P.jsonl --moments 0%,25%,50%,final
    python -m benchmarks.way report WORK --sums 25% 25%,50% --keep docs/results/way-demo.json
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import options
from explorer import gradients
from explorer.evaluation.judging import area_under_roc, two_ends
from explorer.evaluation.probes import average_precision, is_attacked, read_probes, word_span
from explorer.gradients import Gradient
from explorer.model.checkpoints import taken_at
from explorer.model.generation import GenerationSettings, generate
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.normalisation import KINDS
from explorer.records import Answer, Conversation, Encoded, Selection
from precompute.data import read_examples

BATCH = 8
KS = (5, 10, 50)
TENSORS = ("moving", "all")
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """Something asked, the rows that ought to be found, and what it is judged as."""

    encoded: Encoded
    selection: Selection
    right: NDArray[np.bool_]
    kind: str


def main() -> None:
    """Measure, or report."""
    parser = options(__doc__)
    parser.add_argument("what", choices=["measure", "report"])
    parser.add_argument("work", type=Path, help="where inner products are kept")
    parser.add_argument("--probes", nargs="*", default=[], help="probes of planted rows")
    parser.add_argument("--questions", help="labelled examples that weren't trained on")
    parser.add_argument("--label", default="class", help="their label (class)")
    parser.add_argument("--moments", default="0%,5%,10%,25%,50%,75%,final", help="where gradients are taken")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th row and question (1)")
    parser.add_argument("--sums", nargs="*", default=[], help="sums of moments to report beside the single ones")
    parser.add_argument("--keep", type=Path, help="also write the figures there, as JSON")
    chosen = parser.parse_args()
    if chosen.what == "measure":
        measure(chosen)
    else:
        found = report(chosen.work, chosen.sums)
        if chosen.keep:
            chosen.keep.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        show(found)


# Measuring


def measure(chosen: argparse.Namespace) -> None:
    """Keep the inner products of all rows and questions at every moment that isn't kept yet."""
    chosen.work.mkdir(parents=True, exist_ok=True)
    model = load_model(chosen.model, chosen.adapter, device=chosen.device, precision=chosen.precision)
    examples = read_examples(chosen.data)[:: chosen.every]
    rows = [model.encode(example.messages, example.response) for example in examples]
    if chosen.questions:
        labels = np.array([str(example.columns[chosen.label]) for example in examples])
        asked = [
            Question(
                model.encode(each.messages, each.response), None, labels == str(each.columns[chosen.label]), "class"
            )
            for each in read_examples(chosen.questions)[:: chosen.every]
        ]
    else:
        sources = np.array([str(example.columns.get("source", "")) for example in examples])
        asked = [each for path in chosen.probes for each in probed(model, Path(path), sources, chosen.every)]
    facts = {
        "command": {k: str(v) for k, v in vars(chosen).items() if k in ("adapter", "data", "probes", "questions")},
        "fingerprint": {k: v for k, v in vars(model.fingerprint).items() if k != "layout"},
        "rows": len(rows),
        "questions": [each.kind for each in asked],
    }
    (chosen.work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    np.save(chosen.work / "right.npy", np.stack([each.right for each in asked]))
    print(len(rows), "rows,", len(asked), "questions", flush=True)
    for moment in chosen.moments.split(","):
        path = chosen.work / f"{moment}.npz"
        if not path.is_file():
            found = products(taken_at(model, moment), rows, asked)
            part = path.with_suffix(".part.npz")
            np.savez_compressed(part, **cast(Any, found))
            part.rename(path)
            print(moment, "loss", float(found["loss"].mean()), flush=True)


def probed(model: LanguageModel, path: Path, sources: NDArray[Any], every: int) -> Iterator[Question]:
    """The probes whose answers came out as planted; a swap is asked about as a whole, and about the wrong word."""
    for probe in read_probes(path)[::every]:
        if probe.kind == "clean":
            continue
        asked = Conversation.of(probe.prompt)
        prompt = model.encode_prompt(asked.turns)
        ids = np.asarray([*prompt, *generate(model, asked.turns, GenerationSettings(max_tokens=60))], dtype=np.int64)
        encoded, tokens = Encoded(ids, len(prompt)), model.tokens(ids[len(prompt) :])
        text = "".join(token.text for token in tokens if not token.special)
        right, of = sources == probe.planted, path.stem
        if probe.kind == "triggered" and is_attacked(probe, text):
            yield Question(encoded, None, right, f"{of} triggered")
        elif probe.kind == "swap" and (span := word_span(Answer("", asked, encoded, tokens, text, True), probe.wrong)):
            yield Question(encoded, None, right, f"{of} response")
            yield Question(encoded, span, right, f"{of} word")


def products(model: LanguageModel, rows: Sequence[Encoded], asked: Sequence[Question]) -> dict[str, NDArray[Any]]:
    """Inner products (Q, N) of a model's one moment, of all tensors and of those that move, raw and layer-wise."""
    (point,) = model.checkpoints
    whole: dict[int, Gradient] = {}
    queries: list[Gradient] = []
    norms: list[dict[str, float]] = []
    for each in asked:
        gradient = gradients.gradient(model, each.encoded, each.selection)
        # A word's gradient is divided by the norms of its whole response.
        key = hash(each.encoded.ids.tobytes())
        if key not in whole or each.selection is None:
            whole[key] = gradient if each.selection is None else gradients.gradient(model, each.encoded)
        queries.append({name: part.detach().float() for name, part in gradient.items()})
        norms.append({name: float(part.norm()) for name, part in whole[key].items()})
    names = list(queries[0])
    moving = [name for name in names if torch.is_tensor(model.way.start(name.split("/")[-1], queries[0][name]))]
    stacked = {name: torch.stack([query.pop(name).flatten() for query in queries]) for name in names}
    own = {name: torch.tensor([each[name] for each in norms]) for name in names}
    shape = (len(asked), len(rows))
    found: dict[str, NDArray[Any]] = {
        f"{kind} {of}": np.zeros(shape, np.float32) for kind in ("raw", "layer") for of in TENSORS
    }
    found |= {f"rows {of}": np.zeros(len(rows), np.float32) for of in TENSORS}
    found |= {f"asked {of}": np.zeros(len(asked), np.float32) for of in TENSORS}
    for name in names:
        for of in ("all", "moving") if name in moving else ("all",):
            found[f"asked {of}"] += np.square(own[name].numpy())
    losses = np.zeros(len(rows), np.float32)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    for start in range(0, len(rows), BATCH):
        batch = order[start : start + BATCH]
        parts: list[dict[str, torch.Tensor]] = [{} for _ in batch]

        def receive(place: int, some: Mapping[str, torch.Tensor], into: Any = parts) -> None:
            into[place].update(some)

        each_loss = gradients.example_gradients(model, point, [rows[row] for row in batch], receive)
        losses[batch] = [float(loss.mean()) for loss in each_loss]
        for name in names:
            held = torch.stack([part[name].flatten().float() for part in parts])
            size = held.norm(dim=1)
            raw = stacked[name] @ held.T
            divided = raw / (own[name][:, None] * size).clamp_min(1e-30)
            for of in ("all", "moving") if name in moving else ("all",):
                found[f"raw {of}"][:, batch] += raw.numpy()
                found[f"layer {of}"][:, batch] += divided.numpy()
                found[f"rows {of}"][batch] += np.square(size.numpy())
    return {**found, "loss": losses}


# Reporting


def report(work: Path, sums: Sequence[str]) -> dict[str, Any]:
    """The figures of every moment and sum, by tensors and normalisation."""
    facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
    right = np.load(work / "right.npy")
    kept = {path.stem: dict(np.load(path)) for path in sorted(work.glob("*.npz"))}
    losses = {moment: float(arrays["loss"].mean()) for moment, arrays in kept.items()}
    figures = []
    for moments in [*kept, *sums]:
        arrays = [kept[moment] for moment in moments.split(",")]
        for of in TENSORS:
            for normalisation in KINDS:
                scores = summed(arrays, of, normalisation)
                figures.append(
                    {"moments": moments, "tensors": of, "normalisation": normalisation}
                    | judged(scores, right, facts["questions"])
                )
    return {**facts, "questions": len(facts["questions"]), "losses": losses, "figures": figures}


def summed(arrays: Sequence[Mapping[str, Matrix]], of: str, normalisation: str) -> Matrix:
    """Scores (Q, N), the moments weighted alike; the cosine divides by one norm over all of them, as caches do."""
    kind = "layer" if normalisation == "layer" else "raw"
    scores: Matrix = np.sum([each[f"{kind} {of}"] for each in arrays], axis=0)
    if normalisation == "cosine":
        rows, asked = (np.sqrt(np.sum([each[f"{side} {of}"] for each in arrays], axis=0)) for side in ("rows", "asked"))
        scores = scores / np.maximum(rows * asked[:, None], 1e-30)
    return scores


def judged(scores: Matrix, right: NDArray[np.bool_], kinds: Sequence[str]) -> dict[str, float]:
    """The mean of every figure over the questions of its kind."""
    rows: dict[str, list[float]] = {}
    for own, planted, kind in zip(scores, right, kinds, strict=True):
        order = np.argsort(-own, kind="stable")
        if kind == "class":
            rows.setdefault("accuracy", []).append(float(planted[order[0]]))
            rows.setdefault("coverage", []).append(float(planted[order[: planted.sum()]].mean()))
        elif kind.endswith("triggered"):
            rows.setdefault(f"{kind} precision", []).append(average_precision(own, planted))
            for k in KS:
                ends, labels = two_ends(own, planted, k)
                rows.setdefault(f"{kind} auPRC {k}", []).append(average_precision(ends, labels))
                rows.setdefault(f"{kind} auROC {k}", []).append(area_under_roc(ends, labels))
        else:
            rows.setdefault(f"{kind} top 5", []).append(float(planted[order[:5]].mean()))
            rows.setdefault(f"{kind} precision", []).append(average_precision(own, planted))
    return {name: round(float(np.mean(each)), 4) for name, each in rows.items()}


def show(found: Mapping[str, Any]) -> None:
    """Print the losses and figures."""
    import pandas as pd

    print({moment: round(loss, 4) for moment, loss in found["losses"].items()})
    print(pd.DataFrame(found["figures"]).to_string(index=False, float_format=lambda x: f"{x:.3f}"))


if __name__ == "__main__":
    main()
