"""What the command line prints: the same answer a browser shows, as plain values."""

from typing import Any

from explorer import views
from explorer.engine import Engine, check_selection
from explorer.errors import PromptError
from explorer.generation import GenerationSettings
from explorer.records import Answer, Influence, Ranking, Selection
from explorer.store import Store


def question_report(
    engine: Engine,
    prompt: str,
    response: str | None,
    selection: Selection,
    count: int,
    opponents: bool,
    approximate: bool,
    max_tokens: int,
    positions: bool = False,
) -> dict[str, Any]:
    """Answer a prompt (or take `response`), and report the examples behind what is selected.

    Exact unless `approximate`. Exact examples carry their checksum, the relative
    difference between their token values' mean and a backward pass of its own.
    With `positions` they carry the share of every position, too, prompt included.
    """
    answer = _answer(engine, prompt, response, max_tokens)
    check_selection(answer, selection)
    ranking = exact_ranking(engine, answer, selection, count, opponents, approximate)
    if not approximate:
        for found in ranking.influences:
            engine.check(answer, selection, found.row)
        ranking = engine.ranking(answer, selection, count, opponents)
    scores, colours = views.question_kind(selection)
    kept = engine.store.manifest
    return {
        "prompt": prompt,
        "response": answer.text,
        "tokens": [token.text for token in answer.tokens],
        "selection": list(selection) if selection else None,
        "selected": views.selected_text(answer, selection),
        "scores": scores,
        "token_values": colours,
        "direction": "opponents" if opponents else "proponents",
        "exact": ranking.exact,
        "sketch_error": ranking.sketch_error,
        "standing_out": ranking.standing_out,
        "standing_out_by_chance": ranking.chance,
        "epochs_times_learning_rate": kept.training.scale,
        "training_record": kept.training.known,
        "checkpoints": [name for name, _ in kept.training.checkpoints] or ["final"],
        "normalisation": kept.settings.normalisation,
        "model": kept.model,
        "base_sha256": kept.fingerprint.base,
        "adapter_sha256": kept.fingerprint.adapter,
        "data_sha256": kept.data_sha256,
        "examples": [
            _example(engine.store, ranking, rank, found)
            | (_positions(engine, answer, selection, found.row) if positions else {})
            for rank, found in enumerate(ranking.influences, start=1)
        ],
    }


def example_report(
    engine: Engine, prompt: str, response: str | None, row: int, of: Selection, max_tokens: int
) -> dict[str, Any]:
    """The swapped direction: what one training example, or some of its tokens, did to every token of the answer."""
    if not 0 <= row < engine.store.manifest.rows:
        raise PromptError(f"There is no example {row}; the cache has the rows 0 to {engine.store.manifest.rows - 1}.")
    example = engine.store.examples[row]
    if of and not 0 <= of[0] < of[1] <= len(example.tokens):
        raise PromptError(
            f"Row {row} has the response tokens 0 to {len(example.tokens) - 1}, not {of[0]} to {of[1] - 1}."
        )
    answer = _answer(engine, prompt, response, max_tokens)
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


def _answer(engine: Engine, prompt: str, response: str | None, max_tokens: int) -> Answer:
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
    engine: Engine, answer: Answer, selection: Selection, count: int, opponents: bool = False, approximate: bool = False
) -> Ranking:
    """The ranking with all candidates made exact first, unless `approximate`."""
    engine.ask(answer, selection)
    if not approximate:
        for row in engine.candidates(answer, selection, count, opponents):
            engine.refine(answer, selection, row)
    return engine.ranking(answer, selection, count, opponents)


def _example(store: Store, ranking: Ranking, rank: int, found: Influence) -> dict[str, Any]:
    example = store.examples[found.row]
    return {
        "rank": rank,
        "row": found.row,
        "score": found.score,
        "exact": found.exact,
        "sketch_score": float(ranking.scores[found.row]),
        "percentile": views.percentile(ranking, found.score),
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
    lines += [f"({report['scores']}; {'exact' if report['exact'] else 'from the sketches'})", ""]
    for example in report["examples"]:
        source = f" [{example['source']}]" if example["source"] else ""
        lines.append(f"{example['rank']:3}  {example['score']:+.4g}{source}  row {example['row']}")
        lines.append(f"     {views.shortened(example['prompt'], 110)}")
        lines.append(f"     → {views.shortened(example['response'], 110)}")
    if report["standing_out"] < report["standing_out_by_chance"]:
        lines += ["", "Nothing stands out: unrelated examples would reach scores like these by chance."]
    return "\n".join(lines)


def cache_report(store: Store) -> dict[str, Any]:
    """What a cache holds and how it was made."""
    kept = store.manifest
    done = sum(shard.count for shard in store.shards_of("sketches"))
    return {
        "folder": str(store.folder),
        "examples": kept.rows,
        "complete": store.complete,
        "examples_done": done,
        "with_token_sketches": kept.token_rows,
        "token_sketches_done": sum(shard.count for shard in store.shards_of("tokens")),
        "bytes": sum(shard.size for shard in store.shards),
        "model": kept.model,
        "adapter": kept.adapter or "none: all parameters",
        "template": kept.template,
        "data": kept.data,
        "checkpoints": ", ".join(name for name, _ in kept.training.checkpoints) or "final",
        "trainable_parameters": kept.fingerprint.parameters,
        "tensors": len(kept.fingerprint.layout),
        "sketch_length": kept.settings.length,
        "token_sketch_length": kept.settings.token_length,
        "shuffles": kept.settings.rounds,
        "seed": kept.settings.seed,
        "dtype": kept.settings.dtype,
        "normalisation": kept.settings.normalisation,
        "precision": kept.fingerprint.precision,
        "examples_a_backward_pass": kept.settings.batch,
        "epochs_x_learning_rate": kept.training.scale if kept.training.known else "1 (no training record)",
        "base_sha256": kept.fingerprint.base,
        "adapter_sha256": kept.fingerprint.adapter,
        "data_sha256": kept.data_sha256,
        "versions": ", ".join(f"{name} {version}" for name, version in kept.versions.items()),
    }
