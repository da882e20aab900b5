"""Methods judged by one more training step: what a step on an example that a method shows does to the answer.

After "tail-patch" (Chang et al., Scalable Influence and Fact Tracing for Large Language Model Pretraining, 2024): one
step of the optimiser on one example, from the model as it is; the gain is how much more probable the answer then is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.engine import Engine
from explorer.evaluation.counterfactual.correlation import interval
from explorer.evaluation.counterfactual.questions import ABOUT, Question, Report, scored
from explorer.evaluation.results import Table, best_of
from explorer.gradients import Gradient, log_probabilities
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.records import Chosen, Encoded

Floats = NDArray[np.float64]


def judge_steps(
    engine: Engine,
    asked: Sequence[Question],
    methods: Sequence[Chosen],
    top: int,
    learning_rate: float,
    curvature_rows: int,
    report: Report,
) -> dict[str, Any]:
    """What a step on each of the `top` examples of every method gains: tables, best methods and notes of a result.

    Gains are in nats of mean log-probability, of responses and of words, each by the examples that the method shows
    when it is asked about that.
    """
    scores, seconds = scored(engine, asked, methods, curvature_rows, report)
    shown = {
        about: {name: [np.argsort(-one, kind="stable")[:top] for one in each] for name, each in by_method.items()}
        for about, by_method in scores.items()
    }
    wanted: dict[int, set[int]] = {}
    for by_method in shown.values():
        for each in by_method.values():
            for number, rows in enumerate(each):
                for row in rows.tolist():
                    wanted.setdefault(row, set()).add(number)
    model, examples = engine.model, engine.store.examples
    before = [_expected(model, question, {}) for question in asked]
    gained: dict[tuple[int, int], dict[str, float]] = {}
    for done, (row, numbers) in enumerate(sorted(wanted.items()), start=1):
        moved = stepped(model, examples[row].encoded, learning_rate)
        for number in numbers:
            after = _expected(model, asked[number], moved)
            gained[row, number] = {about: after[about] - before[number][about] for about in ABOUT}
        report("steps", done, len(wanted))
    tables, best = [], []
    for about, title in ABOUT.items():
        found = {
            name: _figures([np.array([gained[int(row), q][about] for row in rows]) for q, rows in enumerate(each)])
            | {"seconds_a_question": seconds[name]}
            for name, each in shown[about].items()
        }
        tables.append(Table.of(found, title))
        best.append(best_of(tables[-1], "gain", f"{title.lower()}, in what a step on its first {top} examples gains"))
    note = (
        f"Gain of mean log-probability, in nats, by one AdamW step of rate {learning_rate:g} on one of the first {top} "
        f"examples, the mean over them and over {len(asked)} questions; 95% intervals over questions."
    )
    return {"tables": tuple(tables), "best": tuple(best), "notes": (note,)}


def stepped(model: LanguageModel, encoded: Encoded, learning_rate: float) -> dict[str, torch.Tensor]:
    """All trained tensors after one step of AdamW, as `finetune` takes it, on one example, from the model as it is."""
    trained: Mapping[str, torch.Tensor] = {**model.trainable, **model.held}
    # Those that were not chosen for influence were trained all the same.
    point = Checkpoint("", {name: tensor.detach().clone().requires_grad_() for name, tensor in trained.items()})
    found: Gradient = {}
    gradients.example_gradients(model, point, [encoded], lambda _, parts: found.update(parts))
    optimizer = torch.optim.AdamW(list(point.tensors.values()), lr=learning_rate, weight_decay=0.0)
    for name, tensor in point.tensors.items():
        tensor.grad = found[name].to(tensor.dtype).reshape(tensor.shape) if name in found else None
    optimizer.step()
    return {name: tensor.detach() for name, tensor in point.tensors.items()}


def _expected(model: LanguageModel, question: Question, tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """Mean log-probability of an answer and of its word, in nats."""
    said = log_probabilities(model, question.answer.encoded, tensors)
    return {"response": float(said.mean()), "word": float(said[slice(*question.word)].mean())}


def _figures(gains: Sequence[Floats]) -> dict[str, float]:
    """The mean gain, its interval over questions, and how many of the examples gained at all."""
    by_question = np.array([each.mean() for each in gains])
    low, high = interval(by_question)
    helped = float(np.mean([np.mean(each > 0) for each in gains]))
    return {"gain": float(by_question.mean()), "low": low, "high": high, "helped": helped}
