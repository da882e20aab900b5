"""Opens a method by its name, and ranks the training examples by it."""

from dataclasses import asdict
from typing import Any

from explorer import views
from explorer.corpus import EVERYTHING, Corpus, Filter
from explorer.engine import SPARE, Engine, check_selection
from explorer.methods.description import CURVATURE_ROWS, choose
from explorer.methods.first_order import Centred, RapidIn, TracIn, Trak, WholeSequence
from explorer.methods.lexical import Bm25, Random
from explorer.methods.method import Method, Report
from explorer.methods.second_order.ekfac import Ekfac
from explorer.methods.second_order.influence import Arnoldi, ConjugateGradients, DataInf, Lissa
from explorer.methods.similarity import Cka, Embedding, RepSim
from explorer.records import Answer, Influence, Ranking, Selection
from explorer.retrieval import ranked

CLASSES: dict[str, type[Method]] = {
    "rapidin": RapidIn,
    "rapidin-centred": Centred,
    "random": Random,
    "bm25": Bm25,
    "embedding": Embedding,
    "repsim": RepSim,
    "cka": Cka,
    "graddot": TracIn,
    "gradcos": TracIn,
    "gradlayer": TracIn,
    "tracincp": TracIn,
    "graddot-whole": WholeSequence,
    "gradcos-whole": WholeSequence,
    "trak": Trak,
    "datainf": DataInf,
    "lissa": Lissa,
    "cg": ConjugateGradients,
    "arnoldi": Arnoldi,
    "ekfac": Ekfac,
    "ekfac-mlp": Ekfac,
}


def open_method(
    engine: Engine, name: str, rows: int = CURVATURE_ROWS, report: Report = lambda stage, done, total: None
) -> Method:
    """The method of this name, `NAME` or `NAME:VALUE`, over an engine's cache.

    `rows` training rows stand for all where curvature is needed; `report` is
    told how far slow work has come. Raises MethodError where there is no such method.
    """
    chosen = choose(name)
    return CLASSES[chosen.description.name](engine, chosen, min(rows, engine.store.manifest.rows), report)


def method_ranking(
    method: Method,
    answer: Answer,
    selection: Selection,
    count: int = 10,
    opponents: bool = False,
    approximate: bool = False,
    wanted: Filter = EVERYTHING,
) -> Ranking:
    """The `count` examples that a method scores highest (or lowest), with token values where it has them.

    Where scores come from sketches, some more candidates are made exact, and
    the order becomes theirs, unless `approximate`. Only examples that pass the filter are ranked.
    """
    check_selection(answer, selection)
    among = Corpus(method.engine.store.examples).rows(wanted)
    scores = method.scores(answer, selection)
    refine = method.chosen.description.token_values and not approximate
    rows = ranked(scores, count + SPARE if refine and not method.exact else count, opponents, among)
    influences = []
    for done, row in enumerate(map(int, rows), start=1):
        values = method.values(answer, selection, row) if refine else None
        score = float(scores[row] if values is None else values.mean(dtype=float))
        influences.append(Influence(row, score, method.exact or values is not None, values))
        if refine:
            method.report("exact values", done, len(rows))
    influences.sort(key=lambda influence: influence.score, reverse=not opponents)
    return Ranking(answer.id, selection, opponents, scores, tuple(influences[:count]), 0.0, method=method.chosen.name)


def method_report(method: Method, answer: Answer, ranking: Ranking) -> dict[str, Any]:
    """What a method found as plain values, with what it is, assumes and costs."""
    engine = method.engine
    return {
        "method": method.chosen.name,
        **{name: value for name, value in asdict(method.chosen.description).items() if name != "name"},
        "curvature_rows": method.rows if method.chosen.description.family == "second order" else None,
        "prompt": answer.prompt,
        "response": answer.text,
        "tokens": [token.text for token in answer.tokens],
        "selected": views.selected_text(answer, ranking.selection),
        "direction": "opponents" if ranking.opponents else "proponents",
        "exact": ranking.exact,
        "examples": [_example(engine, ranking, rank) for rank in range(len(ranking.influences))],
    }


def _example(engine: Engine, ranking: Ranking, rank: int) -> dict[str, Any]:
    found = ranking.influences[rank]
    example = engine.store.examples[found.row]
    return {
        "rank": rank + 1,
        "row": found.row,
        "id": example.id,
        "score": found.score,
        "exact": found.exact,
        "source": example.source,
        "prompt": example.prompt,
        "response": example.response,
        "tokens": [token.text for token in example.tokens],
        "token_values": None if found.values is None else [float(value) for value in found.values],
    }


def method_text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [
        report["response"],
        "",
        f"{report['direction'].capitalize()} of {report['selected']} by {report['method']}",
    ]
    lines += [f"({report['what']}; {'exact' if report['exact'] else 'from the sketches'})", ""]
    for example in report["examples"]:
        source = f" [{example['source']}]" if example["source"] else ""
        lines.append(f"{example['rank']:3}  {example['score']:+.4g}{source}  row {example['row']}")
        lines.append(f"     {views.shortened(example['prompt'], 110)}")
        lines.append(f"     → {views.shortened(example['response'], 110)}")
    return "\n".join(lines if report["examples"] else [*lines, "No example passes the filter."])
