"""What methods cost on this machine: time once, time a question, room on disk (paper 000, Tables 1 and 2)."""

import time
from collections.abc import Callable, Sequence

from explorer.engine import Engine
from explorer.evaluation.exact import normalised
from explorer.methods.abilities import Sketched
from explorer.methods.first_order.directions import forget
from explorer.methods.first_order.inner_products import GradientMethod
from explorer.methods.method import Method
from explorer.records import Answer

CACHED_ROWS = 8
"""So many training rows are cached anew, to tell what all of them took."""

Figures = dict[str, dict[str, float | int | None]]
_BYTES = {"float16": 2, "int8": 1}


def judge_costs(
    engine: Engine, questions: Sequence[Answer], methods: Sequence[Method], report: Callable[[int, int], None]
) -> Figures:
    """By method: seconds once and a question, bytes of its own and of the cached sketches that it reads.

    A question is scored over all training examples, without exact values.
    What is fitted is fitted anew. `caching_seconds` is the time of the sketches
    it reads: that of a few rows, one by one, times the number of rows.
    """
    found, sketches = Figures(), sum(shard.size for shard in engine.store.shards_of("sketches"))
    caching = caching_seconds(engine) * engine.store.manifest.rows
    for number, method in enumerate(methods, start=1):
        method.anew = True
        start = time.perf_counter()
        method.fit()
        fitted = time.perf_counter()
        for answer in questions:
            forget(engine.model)
            method.scores(answer, None)
        asked = (time.perf_counter() - fitted) / len(questions)
        cached = isinstance(method, Sketched) or (isinstance(method, GradientMethod) and method.served)
        found[method.chosen.name] = {
            "caching_seconds": caching if cached else None,
            "fit_seconds": fitted - start,
            "seconds_a_question": asked,
            "cached_bytes": sketches if cached else 0,
            "own_bytes": method.held,
        }
        report(number, len(methods))
    return found


def caching_seconds(engine: Engine) -> float:
    """Seconds that gradient and sketch of one training row take, at all of the cache's checkpoints."""
    rows, kind = engine.store.examples[:CACHED_ROWS], engine.store.manifest.settings.normalisation
    start = time.perf_counter()
    for row in rows:
        engine.sketcher(normalised(engine.model, row.encoded, kind))
    return (time.perf_counter() - start) / len(rows)


def sizes(parameters: int, lengths: Sequence[int], dtype: str) -> Figures:
    """Bytes of one example's gradient and of its sketches, and how much smaller these are."""
    whole = parameters * 4
    found: Figures = {"gradient, float32": {"bytes": whole, "smaller": 1.0}}
    for length in lengths:
        size = length * _BYTES[dtype] + 4
        found[f"K = {length:,}, {dtype}"] = {"bytes": size, "smaller": whole / size}
    return found
