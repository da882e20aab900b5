"""What the command line prints: the same answer a browser shows, as plain values."""

from dataclasses import asdict, dataclass
from typing import Any

from explorer import views
from explorer.corpus import EVERYTHING, Corpus, Filter
from explorer.engine import Engine, check_selection
from explorer.errors import PromptError
from explorer.history import asked_json
from explorer.methods.attributor import Attributor
from explorer.methods.description import in_words
from explorer.records import Answer, Can, Contrast, Influence, Prompt, Ranking, Selection, Span
from explorer.trust import verdict_of, wording

Plain = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A question as it is typed."""

    prompt: Prompt
    response: str | None = None
    """Attributed as if the model had said it; None for the model's own answer."""
    span: Span | None = None
    """The response tokens that are asked about; None for the whole response."""
    instead: str = ""
    """Why the span was said, and not this in its place."""
    count: int = 10
    opponents: bool = False
    approximate: bool = False
    """Whether scores are left as the sketches have them."""
    positions: bool = False
    """Whether the share of every position is told, prompt included."""
    wanted: Filter = EVERYTHING
    """Only examples that pass are ranked."""
    max_tokens: int = 80
    """The longest answer that the model gives."""


def question_report(asked: Asked, attributor: Attributor) -> Plain:
    """The answer and the examples behind it, by any method; what else the method can say of them, too.

    Exact unless `approximate`, where the method has exact values. Where it
    can be checked, exact examples carry their checksum, the relative difference
    between their token values' mean and another computation of their score.
    """
    engine = attributor.engine
    corpus = Corpus(engine.store.examples)
    among = corpus.rows(asked.wanted)
    answer = engine.answered(asked.prompt, asked.response, asked.max_tokens)
    selection: Selection = asked.span
    if asked.instead and asked.span:
        selection = engine.contrast(answer, asked.span, asked.instead)
    check_selection(answer, selection)
    how = (answer, selection, asked.count, asked.opponents)
    ranking = attributor.exact_ranking(*how, asked.approximate, among)
    if attributor.chosen.can(Can.CHECKS) and not asked.approximate:
        for found in ranking.influences:
            attributor.check(answer, selection, found.row)
        ranking = attributor.ranking(*how, among)
    tell = _in_full if attributor.chosen.can(Can.FOUR_INFLUENCES) else _in_short
    return {
        **asked_json(answer.asked),
        "response": answer.text,
        "tokens": [token.text for token in answer.tokens],
        "selected": views.selected_text(answer, selection),
        "direction": "opponents" if asked.opponents else "proponents",
        "exact": ranking.exact,
        **tell(asked, attributor, answer, ranking, corpus),
    }


def _in_short(asked: Asked, attributor: Attributor, answer: Answer, ranking: Ranking, corpus: Corpus) -> Plain:
    """What the method is, assumes and costs, and its examples."""
    description = attributor.chosen.description
    return {
        **{name: value for name, value in in_words(description).items() if name != "name"},
        "method": attributor.chosen.name,
        "curvature_rows": attributor.method.rows if description.family == "second order" else None,
        "examples": [
            _example(attributor.engine, rank, found) for rank, found in enumerate(ranking.influences, start=1)
        ],
    }


def _in_full(asked: Asked, attributor: Attributor, answer: Answer, ranking: Ranking, corpus: Corpus) -> Plain:
    """Which of the four influences it is, what was compared, how sure it is, and its examples."""
    engine, selection = attributor.engine, ranking.selection
    scores, colours = views.question_kind(selection)
    kept = engine.store.manifest
    replaced = selection.instead if isinstance(selection, Contrast) else None
    return {
        "selection": list(asked.span) if asked.span else None,
        "instead": asked.instead or None,
        "instead_tokens": engine.model.tokenizer.convert_ids_to_tokens(replaced) if replaced else None,
        "scores": scores,
        "token_values": colours,
        "filter": {
            "where": {column: list(values) for column, values in asked.wanted.where},
            "text": asked.wanted.text,
        },
        "rows_that_pass": kept.rows if (among := corpus.rows(asked.wanted)) is None else len(among),
        "sketch_error": ranking.sketch_error,
        "standing_out": ranking.standing_out,
        "standing_out_by_chance": ranking.chance,
        "null_test": ranking.test and {**asdict(ranking.test), "chance": ranking.test.chance},
        "caution": views.caution(ranking),
        "verdict": _verdict(ranking, corpus, asked.wanted),
        "epochs_times_learning_rate": kept.training.scale,
        "training_record": kept.training.known,
        "checkpoints": [name for name, _ in kept.training.checkpoints] or ["final"],
        "normalisation": kept.settings.normalisation,
        "model": kept.model,
        "base_sha256": kept.fingerprint.base,
        "adapter_sha256": kept.fingerprint.adapter,
        "data_sha256": ", ".join(part.sha256 for part in kept.parts),
        "examples": [
            _example(engine, rank, found)
            | _sureness(ranking, found)
            | (_positions(attributor, answer, selection, found.row) if asked.positions else {})
            for rank, found in enumerate(ranking.influences, start=1)
        ],
    }


def _verdict(ranking: Ranking, corpus: Corpus, wanted: Filter) -> Plain:
    """How strong the evidence is and what the shown examples share, in plain words, too; as the page says it."""
    found = verdict_of(ranking, corpus, wanted, index=True)
    if found is None:
        return {"state": None, "said": wording.unknown(ranking), "shared": None}
    said = f"{wording.headline(found)}. {wording.sentences(found)}"
    return {"state": found.state, "said": said, "shared": found.shared and asdict(found.shared)}


def _example(engine: Engine, rank: int, found: Influence) -> Plain:
    example = engine.store.examples[found.row]
    return {
        "rank": rank,
        "row": found.row,
        "id": example.id,
        "score": found.score,
        "exact": found.exact,
        "source": example.source,
        **({"passage": passage} if (passage := views.passage(example)) else {}),
        "prompt": example.prompt,
        "response": example.response,
        "tokens": [token.text for token in example.tokens],
        "token_values": None if found.values is None else [float(value) for value in found.values],
    }


def _sureness(ranking: Ranking, found: Influence) -> Plain:
    """How unusual an example's score is, and what it was computed by."""
    return {
        "sketch_score": float(ranking.scores[found.row]),
        "percentile": views.percentile(ranking, found.score),
        "null_prompts": found.place.prompts if found.place else 0,
        "beyond_null_prompts": found.place and found.place.beyond,
        "near_the_end_on_null_prompts": found.place and found.place.near,
        "unusual": views.unusual(found.place, ranking.opponents),
        "checksum": found.checksum,
    }


def _positions(attributor: Attributor, answer: Answer, selection: Selection, row: int) -> Plain:
    positions = attributor.locate(answer, selection, row).positions
    return {
        "position_tokens": [token.text for token in attributor.engine.sequence(row)],
        "position_values": [] if positions is None else [float(value) for value in positions],
    }


def example_report(asked: Asked, attributor: Attributor, row: int) -> Plain:
    """The swapped direction: what one training example, or `asked.span` of its tokens, did to every output token."""
    engine, of = attributor.engine, asked.span
    if not 0 <= row < engine.store.manifest.rows:
        raise PromptError(f"There is no example {row}; the cache has the rows 0 to {engine.store.manifest.rows - 1}.")
    example = engine.store.examples[row]
    if of and not 0 <= of[0] < of[1] <= len(example.tokens):
        raise PromptError(
            f"Row {row} has the response tokens 0 to {len(example.tokens) - 1}, not {of[0]} to {of[1] - 1}."
        )
    answer = engine.answered(asked.prompt, asked.response, asked.max_tokens)
    values = attributor.output_values(answer, row, of)
    return {
        **asked_json(answer.asked),
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


def example_text(report: Plain) -> str:
    """The same for a terminal: one line a token of the answer."""
    lines = [f"row {report['row']}: {views.shortened(report['example_response'], 100)}", ""]
    lines += [
        f"{value:+10.4g}  {token!r}" for token, value in zip(report["tokens"], report["token_values"], strict=True)
    ]
    return "\n".join([*lines, f"{report['score']:+10.4g}  mean: the example's influence on the whole response"])


def question_text(report: Plain) -> str:
    """The report for a terminal."""
    exact = "exact" if report["exact"] else "from the sketches"
    lines = [report["response"], ""]
    if "method" in report:
        lines += [f"{report['direction'].capitalize()} of {report['selected']} by {report['method']}"]
        lines += [f"({report['what']}; {exact})", ""]
    else:
        rather = f" rather than of “{report['instead']}”" if report["instead"] else ""
        lines += [f"What pushed the model: {report['direction']} of {report['selected']}{rather}"]
        lines += [f"({report['scores']}; {exact})", ""]
        lines += [report["verdict"]["said"], ""] if report["verdict"]["said"] else []
    for example in report["examples"]:
        source = f" [{example['source']}]" if example["source"] else ""
        unusual = f", {example['unusual']}" if example.get("unusual") else ""
        lines.append(f"{example['rank']:3}  {example['score']:+.4g}{source}  row {example['row']}{unusual}")
        lines.append(f"     {views.shortened(example['prompt'], 110)}")
        lines.append(f"     → {views.shortened(example['response'], 110)}")
    if not report["examples"]:
        return "\n".join([*lines, "No example passes the filter."])
    return "\n".join(lines)
