"""Every method: what it is, assumes and costs, whether it is ready for this cache, and how well methods did."""

from html import escape
from itertools import groupby

import streamlit as st

from explorer.app.desk.desk import Desk
from explorer.app.saved.results_view import numbers, show_result
from explorer.app.session import resources
from explorer.app.widgets import messages
from explorer.app.widgets.filter_box import plain
from explorer.errors import ExplorerError
from explorer.evaluation import results
from explorer.evaluation.results import Result
from explorer.evaluation.tables import TITLES
from explorer.methods.description import CURVATURE_ROWS, METHODS, SPELLED
from explorer.methods.method import Cost
from explorer.records import Chosen, Description
from explorer.visible import one_line, visible

FAMILIES = {
    "no gradient": "Without gradients",
    "first order": "Of first order: gradients multiplied",
    "second order": "Of second order: the question's gradient, preconditioned by a curvature",
    "whole training": "Of the whole training: back through every step of it",
}
JUDGED = {
    "backdoor": "Answers that a planted backdoor caused: do its rows stand at the top of the ranking, and not at the "
    "bottom? Areas under the curves of precision and recall, and of true and false positives, over the k rows at "
    "either end; 1 is perfect.",
    "error-tracing": "Answers with a swapped word: what share of the first k rows states it, asked about the whole "
    "response and about the word alone?",
    "classes": "Questions of known classes: is the first row of the question's class (accuracy), and what share of the "
    "first rows, as many as the class has (coverage)?",
    "fact-tracing": "Questions about facts that passages of a corpus state, where the model gives the answer: how far "
    "up is the first stating passage (mean reciprocal rank), and what share of them is among the first ten?",
    "ihvp": "Methods that approximate an inverse curvature, against conjugate gradients that have converged: do they "
    "rank alike, and how long does a question take?",
    "fidelity": "Scores by sketches of every length against exact inner products.",
    "cost": "What every method takes: seconds and bytes, once and for each question.",
}
"""What each kind of evaluation asks."""

PRECISION, SECONDS = ("average_precision", "auPRC_"), ("seconds_a_question",)
"""How the columns begin that the first table shows, the better one first."""

store = resources.store()


def show_methods(desk: Desk | None) -> None:
    """All methods by family, each with its state for this cache as far as that is known."""
    st.markdown("#### All methods")
    for family, heading in FAMILIES.items():
        of_family = [each for each in METHODS.values() if each.family == family]
        with st.expander(f"{heading} ({len(of_family)})"):
            st.html(f'<div class="methods">{"".join(card(each, desk) for each in of_family)}</div>')
    st.caption(f"Curvature is that of {CURVATURE_ROWS} training rows, which stand for all of them.")


def card(described: Description, desk: Desk | None) -> str:
    """One method, as HTML of our own words."""
    facts = {"Assumes": described.assumes, "Costs": described.costs}
    if described.value:
        facts |= {f"{described.name}:VALUE": f"sets {described.value}"}
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    shows = "" if described.token_values else " No influence of single tokens."
    ready, told = state(described, desk)
    return (
        f'<section class="method{" ready" if ready else ""}"><h5>{escape(described.name)}</h5>'
        f'<p class="state">{escape(told)}</p><p>{escape(described.what)}.{shows}</p><dl>{lines}</dl></section>'
    )


def state(described: Description, desk: Desk | None) -> tuple[bool, str]:
    """Whether a method can be asked at once, and what is to be known of that."""
    if desk is None:
        return False, "the model isn't there"
    try:
        cost = desk.bench.of(Chosen(described)).cost()
    except ExplorerError as problem:
        return False, f"not with this cache: {one_line(str(problem), 200)}"
    once = "fitted; " if described.fitted else ""
    return {
        Cost.LITTLE: (True, "the explorer's own" if described.unnamed else f"{once}ready"),
        Cost.ONCE: (False, "not fitted yet"),
        Cost.EACH: (True, f"{once}every question takes long"),
    }[cost]


def show_results(found: list[Result], passed_over: list[str]) -> None:
    """The evaluations that were kept with this cache, by kind, and the files that are none."""
    st.markdown("#### Evaluations")
    for line in passed_over:
        st.text(visible(line))
    if not found:
        st.info("No method was evaluated with this cache yet.", icon=":material/science:")
        st.text("Each of these says first what it costs, and its result appears here:")
        commands = (
            f"rapidin-explorer evaluate {kind} --cache {store.folder}" for kind in ("backdoor", "classes", "cost")
        )
        st.code(visible("\n".join(commands)), language="sh", wrap_lines=True)
        return
    order = {kind: place for place, kind in enumerate(TITLES)}
    found.sort(key=lambda each: (order.get(each.kind, len(order)), each.kind))
    for kind, of_kind in groupby(found, lambda each: each.kind):
        show_kind(kind, list(of_kind))


def show_kind(kind: str, found: list[Result]) -> None:
    """All results of one kind."""
    with st.expander(TITLES.get(kind) or plain(one_line(kind, 60))):
        if kind in JUDGED:
            st.text(JUDGED[kind])
        for result in found:
            show_result(result, store)


def show_table(found: list[Result]) -> None:
    """One line a method: what it is, how well it found planted rows, what a question costs; the best first."""
    precision, seconds = figures(found, PRECISION), figures(found, SECONDS)
    order = sorted(METHODS, key=lambda name: (-precision.get(name, -1.0), list(METHODS).index(name)))
    columns: dict[str, list[object]] = {
        "method": [SPELLED[name] for name in order],
        "name": list(order),
        "precision": [precision.get(name) for name in order],
        "seconds a question": [seconds.get(name) for name in order],
        "cost": [METHODS[name].costs for name in order],
    }
    st.dataframe(
        {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)},
        key="methods_table",
        hide_index=True,
        height="content",
        column_config={
            "method": st.column_config.TextColumn(width="medium"),
            "precision": st.column_config.NumberColumn(format="%.2f", width="small"),
            "seconds a question": st.column_config.NumberColumn(format="%.3g", width="small"),
            "cost": st.column_config.TextColumn(width="large"),
        },
    )
    if precision:
        st.caption(
            "Precision: area under the precision-recall curve for finding the rows of a planted backdoor among the "
            "first of a ranking; 1 is perfect. From the evaluation below."
        )


def figures(found: list[Result], begins: tuple[str, ...]) -> dict[str, float]:
    """A figure of the backdoor's evaluations by method: of the first column whose name begins in one of these ways."""
    tables = [table for result in found if result.kind == "backdoor" for table in result.tables]
    for beginning in begins:
        for table in tables:
            for column in table.columns[1:]:
                if column.startswith(beginning):
                    return numbers(table, column)
    return {}


st.markdown("### Methods")
st.text("How well each method finds the rows that are known to be the cause, and what it costs.")
try:
    with st.spinner(resources.LOADING):
        desk = resources.desk()
except ExplorerError as problem:
    desk = None
    messages.failed(str(problem))
passed_over: list[str] = []
kept = results.load(results.folder_of(store), passed_over.append)
show_table(kept)
show_results(kept, passed_over)
show_methods(desk)
