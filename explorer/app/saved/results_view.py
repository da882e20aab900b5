"""What `evaluate` found, as a chart beside its table. Texts of results come from files: shown as text only."""

import math
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from explorer.app.widgets import charts
from explorer.app.widgets.filter_box import plain
from explorer.cache import Store
from explorer.evaluation.results import Best, Result, Table, Value
from explorer.visible import one_line, visible

LONGEST = 60
"""Characters of a name in charts and tables."""
FEW_TASKS = 3
"""So many tasks are told in sentences."""


def show_result(result: Result, store: Store) -> None:
    """One evaluation: what was found, in words, as a chart and as a table, and the command that finds it again."""
    with st.container(border=True, key=f"result {result.name}"):
        st.markdown(f"**{plain(one_line(result.data, LONGEST))}** · {plain(one_line(result.made[:10], 10))}")
        if not result.fits(store):
            st.caption("Found with another state of this cache, or with another one: compare with care.")
        _show_best(result)
        for number, table in enumerate(result.tables):
            _show_table(table, f"{result.name} {number}", result.best)
        for note in result.notes:
            st.text(visible(note))
        st.code(visible(result.command), language=None, wrap_lines=True)


def _show_best(result: Result) -> None:
    """Which methods did each task best: in sentences, or in a table where there are many tasks."""
    if len(result.best) <= FEW_TASKS:
        for best in result.best:
            st.text(visible(said(best)))
        return
    columns: dict[str, list[Any]] = {
        "task": [one_line(best.task, 2 * LONGEST) for best in result.best],
        "best": [one_line(", ".join(best.methods), LONGEST) for best in result.best],
        "figure": [one_line(best.figure.replace("_", " "), LONGEST) for best in result.best],
        "value": [_cell(best.value) for best in result.best],
    }
    formats = {"value": st.column_config.NumberColumn(format="%.3f"), "task": st.column_config.TextColumn(width=480)}
    st.dataframe(columns, key=f"best {result.name}", hide_index=True, column_config=formats, height="content")


def said(best: Best) -> str:
    """Which methods did a task best, in a sentence."""
    return f"Best at {best.task}: {', '.join(best.methods)} ({best.figure.replace('_', ' ')} {best.value:.3g})."


def _show_table(table: Table, key: str, best: tuple[Best, ...]) -> None:
    if table.name:
        st.text(visible(table.name))
    figures = [column for column in table.columns[1:] if numbers(table, column)]
    left, right = st.columns([5, 6], gap="medium") if figures and len(table.rows) > 1 else (None, st.container())
    if left is not None:
        with left:
            told = [each.figure for each in best if each.figure in figures]
            figure = st.selectbox(
                "Figure in the chart",
                figures,
                index=figures.index(told[0]) if told else 0,
                format_func=lambda column: one_line(column.replace("_", " "), LONGEST),
                key=f"figure {key}",
            )
            drawn = dots(table, figure, charts.is_dark())
            st.plotly_chart(drawn, key=f"chart {key}", config={"displaylogo": False, "displayModeBar": False})
    with right:
        columns: dict[str, list[Any]] = {}
        for number, column in enumerate(table.columns):
            name = one_line(column.replace("_", " "), LONGEST)
            # Two long names may begin alike.
            columns[f"{name} {number}" if name in columns else name] = [_cell(value) for value in table.column(column)]
        formats = {name: st.column_config.NumberColumn(format="%.4g") for name in list(columns)[1:]}
        st.dataframe(columns, key=f"table {key}", hide_index=True, column_config=formats, height="content")


def numbers(table: Table, column: str) -> dict[str, float]:
    """The figures of a column by the rows' names; what isn't a number is left out."""
    rows = zip(table.rows, table.column(column), strict=True)
    return {str(row[0]): float(value) for row, value in rows if isinstance(value, int | float)}


def dots(table: Table, column: str, dark: bool) -> go.Figure:
    """A dot for each row at its figure, the largest first; a dashed line where chance is."""
    found = sorted(numbers(table, column).items(), key=lambda each: each[1])
    values, font = [value for _, value in found], charts.font(dark)
    names = [charts.plain(one_line(name, LONGEST)) for name, _ in found]
    wide = min(values) > 0 and max(values) > 50 * min(values)
    drawn = go.Figure(
        go.Scatter(
            x=values,
            y=list(range(len(names))),
            mode="markers+text",
            marker={"size": 11, "color": charts.ORANGE[dark]},
            text=[f"{value:.3g}" for value in values],
            textposition="middle right",
            textfont=font,
            customdata=names,
            hovertemplate="%{customdata}: %{x:.4g}<extra></extra>",
            cliponaxis=False,
        )
    )
    chance = dict(found).get("random")
    if chance is not None:
        drawn.add_vline(
            x=chance,
            line={"dash": "dash", "color": font["color"], "width": 1},
            annotation={"text": "chance", "font": charts.font(dark, 11), "yanchor": "bottom"},
            annotation_position="top",
        )
    drawn.update_layout(
        font=font,
        height=80 + 28 * len(names),
        margin={"l": 10, "r": 44, "t": 30, "b": 10},
        showlegend=False,
        dragmode=False,
        xaxis={"type": "log" if wide else "linear", "rangemode": "tozero"},
        yaxis={"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.7, len(names) - 0.3]},
    )
    drawn.update_xaxes(tickfont=font, automargin=True, fixedrange=True, zeroline=False)
    drawn.update_yaxes(tickfont=font, automargin=True, fixedrange=True, zeroline=False)
    return drawn


def _cell(value: Value) -> Any:
    if isinstance(value, str):
        return one_line(value, LONGEST)
    return value if value is None or math.isfinite(value) else None
