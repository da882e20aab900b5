"""What the command line prints: the same answer a browser shows, as plain values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from explorer import views
from explorer.cache import Store
from explorer.corpus import EVERYTHING, Corpus, Filter
from explorer.engine import Engine, check_selection
from explorer.errors import PromptError
from explorer.model.generation import GenerationSettings
from explorer.records import Answer, Contrast, Influence, Ranking, Selection, Span


def question_report(
    engine: Engine,
    prompt: str,
    response: str | None,
    span: Span | None,
    count: int,
    opponents: bool,
    approximate: bool,
    max_tokens: int,
    positions: bool = False,
    instead: str = "",
    wanted: Filter = EVERYTHING,
) -> dict[str, Any]:
    """Answer a prompt (or take `response`), and report the examples behind a span of it, or behind the whole.

    With `instead` it is why the span was said and not this word in its place.

    Exact unless `approximate`. Exact examples carry their checksum, the relative
    difference between their token values' mean and a backward pass of its own.
    With `positions` they carry the share of every position, too, prompt included.
    Only examples that pass the filter `wanted` are ranked.
    """
    among = Corpus(engine.store.examples).rows(wanted)
    answer = asked_answer(engine, prompt, response, max_tokens)
    selection: Selection = span
    if instead and span:
        selection = engine.contrast(answer, span, instead)
    check_selection(answer, selection)
    ranking = exact_ranking(engine, answer, selection, count, opponents, approximate, among)
    if not approximate:
        for found in ranking.influences:
            engine.check(answer, selection, found.row)
        ranking = engine.ranking(answer, selection, count, opponents, among)
    scores, colours = views.question_kind(selection)
    kept = engine.store.manifest
    return {
        "prompt": prompt,
        "response": answer.text,
        "tokens": [token.text for token in answer.tokens],
        "selection": list(span) if span else None,
        "instead": instead or None,
        "instead_tokens": engine.model.tokenizer.convert_ids_to_tokens(selection.instead)
        if isinstance(selection, Contrast)
        else None,
        "selected": views.selected_text(answer, selection),
        "scores": scores,
        "token_values": colours,
        "direction": "opponents" if opponents else "proponents",
        "filter": {"where": {column: list(values) for column, values in wanted.where}, "text": wanted.text},
        "rows_that_pass": engine.store.manifest.rows if among is None else len(among),
        "exact": ranking.exact,
        "sketch_error": ranking.sketch_error,
        "standing_out": ranking.standing_out,
        "standing_out_by_chance": ranking.chance,
        "null_test": ranking.test and {**asdict(ranking.test), "chance": ranking.test.chance},
        "caution": views.caution(ranking),
        "epochs_times_learning_rate": kept.training.scale,
        "training_record": kept.training.known,
        "checkpoints": [name for name, _ in kept.training.checkpoints] or ["final"],
        "normalisation": kept.settings.normalisation,
        "model": kept.model,
        "base_sha256": kept.fingerprint.base,
        "adapter_sha256": kept.fingerprint.adapter,
        "data_sha256": ", ".join(part.sha256 for part in kept.parts),
        "examples": [
            _example(engine.store, ranking, rank, found)
            | (_positions(engine, answer, selection, found.row) if positions else {})
            for rank, found in enumerate(ranking.influences, start=1)
        ],
    }


def example_report(
    engine: Engine, prompt: str, response: str | None, row: int, of: Span | None, max_tokens: int
) -> dict[str, Any]:
    """The swapped direction: what one training example, or some of its tokens, did to every token of the answer."""
    if not 0 <= row < engine.store.manifest.rows:
        raise PromptError(f"There is no example {row}; the cache has the rows 0 to {engine.store.manifest.rows - 1}.")
    example = engine.store.examples[row]
    if of and not 0 <= of[0] < of[1] <= len(example.tokens):
        raise PromptError(
            f"Row {row} has the response tokens 0 to {len(example.tokens) - 1}, not {of[0]} to {of[1] - 1}."
        )
    answer = asked_answer(engine, prompt, response, max_tokens)
    values = engine.output_values(answer, row, of)
    return {
        "prompt": prompt,
        "response": answer.text,
        "row": row,
        "source": example.source,
        "example_prompt": example.prompt,
        "example_response": example.response,
        "by": list(of) if of else None,
        "score": float(values.mean(dtype=float)),
        "tokens": [token.text for token in answer.tokens],
        "token_values": [float(value) for value in values],
    }


def example_text(report: dict[str, Any]) -> str:
    """The same for a terminal: one line a token of the answer."""
    lines = [f"row {report['row']}: {views.shortened(report['example_response'], 100)}", ""]
    lines += [
        f"{value:+10.4g}  {token!r}" for token, value in zip(report["tokens"], report["token_values"], strict=True)
    ]
    return "\n".join([*lines, f"{report['score']:+10.4g}  mean: the example's influence on the whole response"])


def asked_answer(engine: Engine, prompt: str, response: str | None, max_tokens: int) -> Answer:
    """The model's answer to a prompt, or `response` as if it had said that."""
    if response is not None:
        return engine.given_answer(prompt, response)
    *_, answer = engine.answer(prompt, GenerationSettings(max_tokens=max_tokens))
    return answer


def _positions(engine: Engine, answer: Answer, selection: Selection, row: int) -> dict[str, Any]:
    positions = engine.locate(answer, selection, row).positions
    return {
        "position_tokens": [token.text for token in engine.sequence(row)],
        "position_values": [] if positions is None else [float(value) for value in positions],
    }


def exact_ranking(
    engine: Engine,
    answer: Answer,
    selection: Selection,
    count: int,
    opponents: bool = False,
    approximate: bool = False,
    among: Sequence[int] | None = None,
) -> Ranking:
    """The ranking with all candidates made exact first, unless `approximate`; of some rows alone with `among`."""
    engine.ask(answer, selection)
    if not approximate:
        for row in engine.candidates(answer, selection, count, opponents, among):
            engine.refine(answer, selection, row)
    return engine.ranking(answer, selection, count, opponents, among)


def _example(store: Store, ranking: Ranking, rank: int, found: Influence) -> dict[str, Any]:
    example = store.examples[found.row]
    return {
        "rank": rank,
        "row": found.row,
        "id": example.id,
        "score": found.score,
        "exact": found.exact,
        "sketch_score": float(ranking.scores[found.row]),
        "percentile": views.percentile(ranking, found.score),
        "null_prompts": found.place.prompts if found.place else 0,
        "beyond_null_prompts": found.place and found.place.beyond,
        "near_the_end_on_null_prompts": found.place and found.place.near,
        "unusual": views.unusual(found.place, ranking.opponents),
        "source": example.source,
        "prompt": example.prompt,
        "response": example.response,
        "tokens": [token.text for token in example.tokens],
        "token_values": None if found.values is None else [float(value) for value in found.values],
        "checksum": found.checksum,
    }


def question_text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [report["response"], "", f"What pushed the model: {report['direction']} of {report['selected']}"]
    if report["instead"]:
        lines[-1] += f" rather than of “{report['instead']}”"
    lines += [f"({report['scores']}; {'exact' if report['exact'] else 'from the sketches'})", ""]
    for example in report["examples"]:
        source = f" [{example['source']}]" if example["source"] else ""
        unusual = f", {example['unusual']}" if example["unusual"] else ""
        lines.append(f"{example['rank']:3}  {example['score']:+.4g}{source}  row {example['row']}{unusual}")
        lines.append(f"     {views.shortened(example['prompt'], 110)}")
        lines.append(f"     → {views.shortened(example['response'], 110)}")
    if not report["examples"]:
        return "\n".join([*lines, "No example passes the filter."])
    if report["caution"]:
        lines += ["", report["caution"]]
    return "\n".join(lines)
