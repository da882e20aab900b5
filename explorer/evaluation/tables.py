"""Results as Markdown, for the documents, and as lines, for a terminal. It computes nothing."""

from collections.abc import Sequence
from itertools import groupby

from explorer.evaluation.results import Best, Result, Table, Value

TITLES = {
    "backdoor": "Planted backdoor (`backdoor`)",
    "error-tracing": "Swapped words (`error-tracing`)",
    "verdicts": "What the page says (`verdicts`)",
    "classes": "The question's own class (`classes`)",
    "steps": "One more step on the shown examples (`steps`)",
    "ihvp": "Inverse curvature (`ihvp`)",
    "fidelity": "Sketches beside exact values (`fidelity`)",
    "cost": "Time and disk (`cost`)",
}
"""The kinds, in the order they are shown in."""


def markdown(results: Sequence[Result]) -> str:
    """All results: by kind, with what made each of them, its tables, and the best method of every task."""
    order = {kind: place for place, kind in enumerate(TITLES)}
    found = []
    for kind, of_kind in groupby(sorted(results, key=lambda each: order.get(each.kind, len(order))), lambda r: r.kind):
        found.append(f"## {TITLES.get(kind, kind)}")
        found += [_section(result) for result in of_kind]
    return "\n\n".join(found)


def lines(table: Table) -> list[str]:
    """A table's figures, one a line."""
    return [
        f"{f'{name}.{column}':32} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, *values in table.rows
        for column, value in zip(table.columns[1:], values, strict=True)
        if value is not None
    ]


def _section(result: Result) -> str:
    parts = [f"### {result.data}", f"```sh\n{result.command}\n```"]
    for table in result.tables:
        parts += [f"{table.name}:"] if table.name else []
        parts.append(_table(table))
    if result.best:
        parts.append("\n".join(_best(each) for each in result.best))
    parts += result.notes
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    head = [_cell(column.replace("_", " ")) for column in table.columns]
    rows = [head, ["---", *("--:" for _ in head[1:])]]
    rows += [[_cell(value) for value in row] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows)


def _best(best: Best) -> str:
    methods = ", ".join(f"**{method}**" for method in best.methods)
    return f"- Best, {best.task}: {methods} ({best.figure.replace('_', ' ')} {_cell(best.value)})."


def _cell(value: Value) -> str:
    """A value as a cell; three digits, or all of a whole number."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:.3g}"
