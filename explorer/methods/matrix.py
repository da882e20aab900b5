"""What one training example did to each token of an answer, and each of its own tokens to each (paper, Eq. 7 and 8)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from explorer.engine import Engine
from explorer.methods.attributor import Attributor
from explorer.records import Answer, OutputValues, Span, TokenMatrix

MOST_PASSES = 100
"""A matrix that takes more is too much to wait for, and to read."""


def output_values(asked: Attributor, answer: Answer, row: int) -> Iterator[OutputValues | None]:
    """Yield None after the pass over the answer, then its values beside the score from a pass over the example."""
    values = asked.output_values(answer, row)
    yield None
    yield OutputValues(row, values, asked.refine(answer, None, row).score)


def passes(engine: Engine, answer: Answer, span: Span | None, row: int, positions: bool = False) -> int:
    """How many passes the matrix takes: one a line of its shorter side; with positions, one an output token."""
    start, stop = span or (0, len(answer.tokens))
    columns = engine.store.examples[row].encoded.response_length
    return stop - start if positions else min(stop - start, columns)


def token_matrix(
    asked: Attributor, answer: Answer, span: Span | None, row: int, positions: bool = False
) -> Iterator[TokenMatrix | None]:
    """Yield None after each pass, and the matrix, without sketch noise, at the end.

    A pass along an output token's gradient gives a row; one along a training
    token's gradient, over the answer, gives a column. Positions of the example
    are told apart by row alone.
    """
    start, stop = span or (0, len(answer.tokens))
    columns = asked.engine.store.examples[row].encoded.response_length
    lines: list[NDArray[np.float32]] = []
    if positions or stop - start <= columns:
        for j in range(start, stop):
            found = (asked.locate if positions else asked.refine)(answer, (j, j + 1), row)
            line = found.positions if positions else found.values
            assert line is not None
            lines.append(line)
            yield None
        values = np.stack(lines)
    else:
        for i in range(columns):
            lines.append(asked.output_values(answer, row, (i, i + 1))[start:stop])
            yield None
        values = np.stack(lines, axis=1)
    yield TokenMatrix(row, (start, stop), positions, values, asked.refine(answer, span, row).score)
