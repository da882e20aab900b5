"""How other methods rank the shown examples: a small chart, what it says in words, and the same as a table."""

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from explorer.app.desk import agreeing
from explorer.app.desk.agreeing import Agreeing
from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.app.explore import method_box
from explorer.app.session import state
from explorer.app.widgets import charts
from explorer.app.widgets.filter_box import plain
from explorer.records import Can, Ranking
from explorer.trust import Agreement
from explorer.trust.agreement import BOTH, GRADIENTS, TEXT, TOP

OPEN, ALL = "agreement", "agreement_all"
"""Session keys: whether it is open; the question of which all methods were asked."""


def control() -> None:
    """Choose whether the panel is open."""
    st.toggle(
        "Ranks by other methods",
        key=OPEN,
        help="Where other methods rank the shown examples, and which of these only texts or only gradients find",
    )


def begun(desk: Desk, question: Question) -> Agreeing | None:
    """The work for it, while it is open. Raises ExplorerError when too much is waiting."""
    if not st.session_state.get(OPEN):
        return None
    subject = (question.answer.id, question.selection, question.method)
    everything = st.session_state.get(ALL) == subject
    work = state.begun(
        "agreeing",
        (subject, everything),
        lambda: agreeing.begin(desk, state.session(), question, everything),
        # What costs little ends when nobody looks on, and goes on when its page asks again.
        lost=lambda begun: begun.task.cancelled and not everything,
    )
    if work.task.cancelled and everything:
        st.session_state[ALL] = None
    return work


def show(desk: Desk, question: Question, ranking: Ranking, work: Agreeing) -> None:
    """The panel, as far as methods have answered."""
    rows = [found.row for found in ranking.influences]
    found = agreeing.agreement(desk, question, rows)
    with st.container(border=True, key="agreement_panel"):
        if not rows or not found.methods:
            st.text("No example to rank." if not rows else "Asking the methods that cost little …")
            return
        _chart(found)
        for line in sentences(found):
            st.text(line)
        st.caption(
            f"Ranks among {found.of:,} examples, by each method's scores of all of them: the sketches', where it has "
            "exact ones of some. Examples that score alike all have the last of their ranks."
        )
        _work(question, work)


def _chart(found: Agreement) -> None:
    dark = charts.is_dark()
    with charts.scrolling("agreement_scroll", 190 + 34 * len(found.methods)):
        st.plotly_chart(
            figure(found, dark), key="agreement_chart", config={"displaylogo": False, "displayModeBar": False}
        )
        with st.expander("As a table"):
            st.dataframe(table(found), hide_index=True, key="agreement_table")


def _work(question: Question, work: Agreeing) -> None:
    subject = (question.answer.id, question.selection, question.method)
    if not work.task.finished:
        if st.session_state.get(ALL) == subject:
            method_box.show_progress(f"Asking {work.at}", work.stage, "agreement_cancel", work.task.cancel)
        return
    for method, problem in work.problems.items():
        st.caption(plain(f"{method.name} was not asked: {problem}"))
    if work.dear:
        with st.popover("Ask the others, too", icon=":material/hourglass_top:"):
            st.text("These take long; what they need once is kept. Others' questions go first, and you can cancel.")
            for method in work.dear:
                st.text(f"{method.name}: {method.description.costs}.")
            st.button("Ask them all", type="primary", key="agreement_ask", on_click=_ask_all, args=(subject,))


def _ask_all(subject: tuple[object, ...]) -> None:
    st.session_state[ALL] = subject


def sentences(found: Agreement) -> list[str]:
    """What the chart shows, in words."""
    lines: list[str] = []
    if not found.found_by:
        return lines
    lexical = [method.name for method in found.methods if method.can(Can.TEXTS)]
    texts = " or ".join(lexical)
    for kind, what in (
        (TEXT, f"Only a comparison of texts ({texts}) has them in its first {TOP}, no method of gradients"),
        (GRADIENTS, f"Only methods of gradients have them in their first {TOP}, not {texts}"),
        (BOTH, "Both have them"),
    ):
        rows = [str(row) for row, by in zip(found.rows, found.found_by, strict=True) if by == kind]
        if rows:
            lines.append(f"{what}: row{'s' * (len(rows) > 1)} {', '.join(rows)}.")
    others = [str(row) for row in found.text_only if row not in found.rows]
    if others:
        lines.append(f"Found by texts alone, and not shown here: row{'s' * (len(others) > 1)} {', '.join(others)}.")
    return lines


def figure(found: Agreement, dark: bool) -> go.Figure:
    """A square for each example and method with the rank in it; the more colour, the nearer the top."""
    size, font = np.log10(found.ranks), charts.font(dark)
    named = [f"row {row}" for row in found.rows]
    if found.found_by:
        named = [f"{name} · {by}" for name, by in zip(named, found.found_by, strict=True)]
    methods = [charts.plain(method.name) for method in found.methods]
    drawn = go.Figure(
        go.Heatmap(
            z=size,
            # Numbers, for two examples never have one name, and names of methods repeat in what follows a colon.
            x=list(range(len(methods))),
            y=list(range(len(named))),
            text=[[short(rank) for rank in ranks] for ranks in found.ranks.tolist()],
            customdata=[
                [f"row {row}, {name}: {rank:,}" for name, rank in zip(methods, ranks, strict=True)]
                for row, ranks in zip(found.rows, found.ranks.tolist(), strict=True)
            ],
            texttemplate="%{text}",
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=[[0, charts.VIOLET[dark]], [1, charts.PAPER[dark]]],
            zmin=0,
            zmax=max(float(np.log10(max(found.of, 2))), float(size.max())),
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    drawn.update_layout(
        font=font,
        xaxis={"tickvals": list(range(len(methods))), "ticktext": methods, "tickangle": -45, "side": "top"},
        yaxis={"tickvals": list(range(len(named))), "ticktext": named, "autorange": "reversed"},
        height=110 + 24 * len(named),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        dragmode=False,
    )
    drawn.update_xaxes(showgrid=False, zeroline=False, automargin=True, tickfont=font, fixedrange=True)
    drawn.update_yaxes(showgrid=False, zeroline=False, automargin=True, tickfont=font, fixedrange=True)
    return drawn


def short(rank: int) -> str:
    """A rank in at most four characters."""
    return f"{rank}" if rank < 10_000 else f"{rank // 1000}k"


def table(found: Agreement) -> dict[str, list[object]]:
    """The same numbers, column by column."""
    shown: dict[str, list[object]] = {"row": list(found.rows)}
    if found.found_by:
        shown["found by"] = list(found.found_by)
    return shown | {method.name: found.ranks[:, place].tolist() for place, method in enumerate(found.methods)}
