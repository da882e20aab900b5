"""The training set: find rows, see one in full, and which rows the model is least at home with. Needs no model."""

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from explorer import views
from explorer.app.saved.annotating import annotation_form
from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.app.widgets.component import token_strip
from explorer.app.widgets.paging import current_page, pager
from explorer.app.widgets.rows import Column, clickable_rows
from explorer.corpus import browse
from explorer.errors import HistoryError
from explorer.records import ExampleRow
from explorer.visible import one_line, visible

A_PAGE = 50
ORDERS = ("As in the file", "Largest self-influence", "Largest training loss")

store = resources.store()


def show_rows(current: str) -> None:
    """The rows that pass the search, a page of them at a time; `current` is open."""
    words, source, order = st.columns([2, 1, 1])
    text = words.text_input("Search", key="data_words", placeholder="Words in prompt, response or columns")
    sources = sorted({row.source for row in store.examples if row.source})
    chosen = source.multiselect("Source", sources, key="data_sources", placeholder="All sources")
    by = order.selectbox("Order", ORDERS, key="data_order")
    rows = browse.matching(store, resources.searchable_examples(), text, chosen)
    if not len(rows):
        st.info("No training example passes this search.", icon=":material/search_off:")
        return
    if by == ORDERS[0]:
        rows = browse.ordered(rows, None)
    else:
        rows = browse.ordered(rows, resources.self_influences() if by == ORDERS[1] else store.losses)
        st.caption(EXPLAINED[str(by)])
    pages = -(-len(rows) // A_PAGE)
    page = current_page("data_page", pages)
    shown = rows[(page - 1) * A_PAGE : page * A_PAGE]
    unread = f" that are read so far, of {store.total:,}" if store.awaited else ""
    st.text(f"{len(rows):,} of {store.manifest.rows:,} training examples{unread}. Click a row to see it in full.")
    show_table(shown, current)
    pager("data_page", pages)


EXPLAINED = {
    ORDERS[1]: "Self-influence is what training on an example does to the example itself: e·η·Σ ‖∇L‖² over the named "
    "tensors, without normalisation (with it, all examples would have the same), exact, from the cached norms. "
    "It is large for rows the model has to learn by heart: outliers, rare rows, wrong labels.",
    ORDERS[2]: "The training loss is the mean of −log p over an example's response tokens, at the model the cache was "
    "made with. It is large where the model would have said something else.",
}


def show_table(shown: NDArray[np.int64], current: str) -> None:
    """One line an example; a click opens it beside the table."""
    examples = [store.examples[row] for row in shown]
    columns = [
        Column("row", [str(row) for row in shown], "number"),
        Column("source", [one_line(example.source, 60) for example in examples], "chip"),
        Column("prompt", [one_line(example.prompt, 160) for example in examples]),
        Column("response", [one_line(example.response, 160) for example in examples]),
        Column("tokens", [str(len(example.tokens)) for example in examples], "number"),
        Column("training loss", [f"{loss:.3f}" for loss in store.losses[shown]], "number"),
        Column("self-influence", [f"{own:.4g}" for own in resources.self_influences()[shown]], "number"),
    ]
    opened = clickable_rows("data_rows", columns, [str(row) for row in shown], opens=2, current=current)
    if opened is not None and opened != current:
        st.query_params["row"] = opened
        st.rerun()


def show_example(example: ExampleRow) -> None:
    """One training example in full."""
    st.markdown(f"#### Row {example.row}")
    st.markdown("**Prompt**")
    st.text(visible(example.prompt))
    st.markdown("**Response, token by token**")
    token_strip(
        "data_strip",
        answer_id=f"row-{example.row}",
        tokens=example.tokens,
        selection=None,
        streaming=False,
        on_change=lambda: None,
        label="Tokens of the response",
    )
    show_facts(example)
    try:
        show_history(example.row)
    except HistoryError as problem:
        st.text(str(problem))


def show_facts(example: ExampleRow) -> None:
    """Its numbers, its place by each, and the user's own columns."""
    own, count = resources.self_influences(), store.manifest.rows
    above = int((own > own[example.row]).sum()), int((store.losses > example.loss).sum())
    moments = [name for name, _ in store.manifest.training.checkpoints]
    at = f"; at {views.moments(moments[-1:])}" if moments else ""
    facts = {
        "training loss": f"{example.loss:.4g} ({above[1] + 1:,} of {count:,} by size{at})",
        "self-influence": f"{own[example.row]:.4g} ({above[0] + 1:,} of {count:,} by size)",
        "response tokens": str(len(example.tokens)),
        "prompt tokens": str(example.encoded.response_start),
    }
    facts |= {name: str(value) for name, value in example.columns.items()}
    st.dataframe(
        {"what": [one_line(name, 60) for name in facts], "value": [one_line(text, 300) for text in facts.values()]},
        hide_index=True,
    )


def show_history(row: int) -> None:
    """Which saved questions it influenced, and what is noted about it."""
    data, history = store.manifest.data_sha256, resources.history()
    uses = history.uses(data, row)
    st.markdown("**Saved questions it influenced**")
    if uses:
        st.text(f"It is among the examples of {len(uses):,}. Click one to open it.")
        opened = clickable_rows(
            f"data_uses_{row}",
            [
                Column("prompt", [one_line(use.prompt, 80) for use in uses]),
                Column("from", [use.said_by.value for use in uses], "chip"),
                Column("selected", [one_line(use.selected, 60) for use in uses]),
                Column("rank", [f"{use.rank}{' (lowered it)' if use.opponents else ''}" for use in uses], "number"),
                *(
                    [Column("method", [one_line(use.method, 40) for use in uses])]
                    if len({use.method for use in uses}) > 1
                    else []
                ),
            ],
            [use.question for use in uses],
        )
        if opened:
            st.switch_page(places.HISTORY, query_params={places.SAVED: opened})
    else:
        st.text("No saved question has it among its examples.")
    with st.expander("What you think of it"):
        annotation_form(
            f"{data[:16]}_{row}",
            history.example_annotation(data, row),
            lambda new: history.annotate_example(data, row, new),
        )


def close() -> None:
    """Close the open row."""
    st.query_params.clear()


st.markdown("### Training data")
number = st.query_params.get("row", "")
if number.isdecimal() and int(number) < store.manifest.rows:
    beside, panel = st.columns([3, 2], gap="large")
    with beside:
        show_rows(number)
    with panel, st.container(key="data_panel"):
        st.button("Close", icon=":material/close:", on_click=close, key="data_close")
        show_example(store.examples[int(number)])
else:
    show_rows("")
