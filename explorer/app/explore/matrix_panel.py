"""The token × token matrix of one training example, drawn beneath the answer."""

import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from explorer import views
from explorer.app.desk.work import Finding
from explorer.app.session import resources, state
from explorer.app.widgets import charts, messages
from explorer.app.widgets.choices import POSITION, token_colours
from explorer.app.widgets.component import CHECKSUM_TOLERANCE
from explorer.methods import matrix
from explorer.records import Answer, Contrast, Span, Token, TokenMatrix, span_of

OPEN = "matrix"
"""Session key: (answer's id, span, row) of the matrix that is open."""
KEY = "matrix_columns"
_NAMED = re.compile(r"([0-9]{1,11})(?:-([0-9]{1,6})-([0-9]{1,6}))?")


def open_for(row: int) -> None:
    """Open the matrix of a training example for what is selected now."""
    answer = state.answer()
    if answer is not None:
        st.session_state[OPEN] = (answer.id, span_of(state.selection()), row)


def link() -> str:
    """The open matrix as a link names it: its row, and the span unless it is of the whole answer; empty without one."""
    opened, answer = st.session_state.get(OPEN), state.answer()
    if opened is None or answer is None or opened[0] != answer.id:
        return ""
    _, span, row = opened
    return "-".join(map(str, (row, *(span or ()))))


def follow(answer: Answer, named: str, rows: int) -> None:
    """Open the matrix of an answer that a link names, if there can be one among so many examples. Untrusted."""
    numbers = _NAMED.fullmatch(named)
    if numbers is None:
        return
    row, *span = (int(number) for number in numbers.groups() if number is not None)
    if row < rows and (not span or span[0] < span[1] <= len(answer.tokens)):
        st.session_state[OPEN] = (answer.id, tuple(span) or None, row)


def close() -> None:
    """Close it, and stop its work."""
    kept = st.session_state.pop("work:tabulated", None)
    if kept is not None:
        kept[1].task.cancel()
    st.session_state[OPEN] = None


def begun(answer: Answer) -> Finding[TokenMatrix] | None:
    """The open matrix on its way, unless none is open or it would take too long."""
    opened = st.session_state.get(OPEN)
    if opened is None or opened[0] != answer.id:
        return None
    _, span, row = opened
    positions = st.session_state.get(KEY) == POSITION
    desk = resources.desk()
    if matrix.passes(desk.engine, answer, span, row, positions) > matrix.MOST_PASSES:
        return None
    return state.begun(
        "tabulated",
        (answer.id, span, row, positions),
        lambda: desk.tabulate(state.session(), answer, span, row, positions),
    )


def show(answer: Answer) -> None:
    """The matrix that is open, if one is."""
    opened = st.session_state.get(OPEN)
    if opened is None or opened[0] != answer.id:
        return
    _, span, row = opened
    with st.container(border=True, key="matrix_panel"):
        title, button = st.columns([5, 1], vertical_alignment="center")
        title.markdown("**Token × token**")
        button.button("Close", on_click=close, key="close_matrix")
        example = resources.desk().engine.store.examples[row]
        st.text(f"{views.selected_text(answer, span)} × row {row}: {views.shortened(example.title, 80)}")
        if isinstance(state.selection(), Contrast) and span_of(state.selection()) == span:
            st.caption("This is about what was said alone, without the other word.")
        token_colours(KEY, "What a column is")
        _show_work(answer, span, row)


def _show_work(answer: Answer, span: Span | None, row: int) -> None:
    finding = begun(answer)
    engine = resources.desk().engine
    total = matrix.passes(engine, answer, span, row, st.session_state.get(KEY) == POSITION)
    if finding is None:
        st.text(f"This matrix would take {total} passes. Select at most {matrix.MOST_PASSES} tokens and open it again.")
    elif finding.task.error:
        messages.failed(finding.task.error)
    elif finding.found is None:
        # The last step computes no line but the score that they are checked against.
        done, left = min(finding.done, total), finding.seconds_left(total)
        st.progress(done / total, f"{done} of {total} passes" + (f", about {left:.0f} s left" if left else ""))
    else:
        _show_found(answer, finding.found)


def _show_found(answer: Answer, found: TokenMatrix) -> None:
    engine = resources.desk().engine
    rows = [views.token_label(token) for token in answer.tokens[found.span[0] : found.span[1]]]
    example = engine.store.examples[found.row]
    tokens: tuple[Token, ...] = engine.sequence(found.row) if found.positions else example.tokens
    columns = [views.token_label(token) for token in tokens]
    dark = charts.is_dark()
    drawn = state.begun("figure", (found, dark), lambda: figure(found, rows, columns, dark))
    # No square becomes too narrow to read; where there are many, the chart scrolls within the panel.
    width = 200 + 14 * len(columns)
    with charts.scrolling("matrix_scroll", width):
        st.plotly_chart(drawn, key="matrix_chart", config={"displaylogo": False})
        # Within what scrolls, so that a keyboard gets there and can scroll it.
        with st.expander("As a table"):
            st.dataframe(table(found, rows, columns))
    mean, sure = float(found.by_output.mean()), found.checksum <= CHECKSUM_TOLERANCE
    st.caption(
        f"Rows: tokens of the answer; columns: {'positions' if found.positions else 'response tokens'} of the example; "
        f"beyond the gap, {'sums over positions and means over the answer' if found.positions else 'means'}. "
        f"All of it comes to {mean:+.4g} {'=' if sure else '≠'} {found.score:+.4g}, the example's influence on what "
        f"was selected {'✓' if sure else '⚠'} (relative difference {views.size(found.checksum)}). Exact values."
    )


def figure(found: TokenMatrix, rows: list[str], columns: list[str], dark: bool) -> go.Figure:
    """The matrix as a heatmap, its margins beyond a gap, all in one scale."""
    margin = "sum" if found.positions else "mean"
    lines, places = len(rows), len(columns)
    mean = found.by_output.mean()
    top = views.full_value(np.abs(found.values)) or 1.0
    named_rows, named_columns = [charts.plain(text) for text in rows], [charts.plain(text) for text in columns]

    def part(values: NDArray[Any], x: list[float], y: list[float], beside: list[str], above: list[str]) -> go.Heatmap:
        hover = [[f"{one} × {other}" for other in above] for one in beside]
        return go.Heatmap(
            z=values,
            x=x,
            y=y,
            customdata=hover,
            hovertemplate="%{customdata}<br>%{z:+.4g}<extra></extra>",
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
        )

    across, down = [*map(float, range(places))], [*map(float, range(lines))]
    beyond, below = [places + 0.5], [lines + 0.5]
    traces = [
        part(found.values, across, down, named_rows, named_columns),
        part(found.by_output[:, None], beyond, down, named_rows, [margin]),
        part(found.by_input[None], across, below, ["mean"], named_columns),
        part(np.array([[mean]]), beyond, below, ["mean"], [margin]),
    ]
    font = charts.font(dark)
    drawn = go.Figure(traces)
    drawn.update_layout(
        coloraxis={
            "colorscale": [[0, charts.BLUE[dark]], [0.5, charts.PAPER[dark]], [1, charts.ORANGE[dark]]],
            "cmin": -top,
            "cmax": top,
            "colorbar": {"title": {"text": "influence", "side": "right"}, "thickness": 12, "tickformat": "+.2g"},
        },
        font=font,
        xaxis={"tickvals": across + beyond, "ticktext": [*named_columns, margin], "tickangle": -90, "tickfont": font},
        yaxis={"tickvals": down + below, "ticktext": [*named_rows, "mean"], "autorange": "reversed", "tickfont": font},
        height=210 + 18 * (lines + 2),
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        dragmode="pan",
    )
    drawn.update_xaxes(showgrid=False, zeroline=False, automargin=True)
    drawn.update_yaxes(showgrid=False, zeroline=False, automargin=True)
    return drawn


def table(found: TokenMatrix, rows: list[str], columns: list[str]) -> dict[str, list[Any]]:
    """The matrix and its margins, column by column; numbered, since tokens repeat."""
    margin = "sum" if found.positions else "mean"
    shown: dict[str, list[Any]] = {"token": [*rows, "mean"]}
    for place, label in enumerate(columns):
        shown[f"{place} {label}"] = [*found.values[:, place].tolist(), float(found.by_input[place])]
    shown[margin] = [*found.by_output.tolist(), float(found.by_output.mean())]
    return shown
