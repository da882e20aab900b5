"""Every question asked: find it, open it as it was, say what to think of it, take it along. Needs no model."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from explorer import views
from explorer.app.explore import conversation
from explorer.app.saved import view
from explorer.app.saved.annotating import annotation_form
from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.app.widgets.paging import current_page, pager
from explorer.history import SavedAnswer, SavedInfluence, SavedQuestion, Summary, export
from explorer.records import Can, Conversation
from explorer.serving.config import serve_settings
from explorer.visible import one_line, visible

A_PAGE = 20
FILTERS = ("history_words", "history_verdicts", "history_tags", "history_page")
FORMATS = {
    "HTML": (export.to_html, "html", "text/html"),
    "JSON": (export.to_json, "json", "application/json"),
    "CSV": (export.to_csv, "csv", "text/csv"),
}

history = resources.history()


def shown_time(seconds: float) -> str:
    """A moment in the reader's time zone."""
    try:
        zone: ZoneInfo | None = ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = None
    return datetime.fromtimestamp(seconds, zone or UTC).strftime("%Y-%m-%d %H:%M")


def downloads(names: Callable[[], list[str]], count: int, file: str) -> None:
    """Buttons that write these answers in each format; nothing is read before one is pressed."""
    for label, (write, ending, kind) in FORMATS.items():
        st.download_button(
            label,
            partial(written, write, names),
            f"{file}.{ending}",
            kind,
            key=f"export_{ending}",
            icon=":material/download:",
            on_click="ignore",
            help=f"{count:,} saved answer{'s' * (count != 1)} as one {label} file",
        )


def written(write: Callable[[Sequence[SavedAnswer]], bytes], names: Callable[[], list[str]]) -> bytes:
    """The file of these answers."""
    return write([history.answer(name) for name in names()])


# The list


def show_list() -> None:
    """Find saved answers; a click on a row opens it."""
    st.markdown("### History")
    words, verdict, tag = st.columns([2, 1, 1])
    text = words.text_input("Search", key=FILTERS[0], placeholder="Words in prompt, answer, verdict, tags or note")
    verdicts = verdict.multiselect("Verdict", history.verdicts(), key=FILTERS[1], placeholder="Any")
    tags = tag.multiselect("Tags", history.tags(), key=FILTERS[2], placeholder="Any")
    total = history.find(text, verdicts, tags, 0)[1]
    if not total:
        asked = text or verdicts or tags
        st.info(
            "Nothing that is kept passes this search."
            if asked
            else "Nothing is kept yet. Every question asked on the Explore page appears here.",
            icon=":material/history:",
        )
        return
    st.text(f"{total:,} saved answer{'s' * (total != 1)}, newest first. Tick a row to open it.")
    pages = -(-total // A_PAGE)
    page = current_page(FILTERS[3], pages)
    show_table(history.find(text, verdicts, tags, A_PAGE, (page - 1) * A_PAGE)[0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pager(FILTERS[3], pages)
        st.text("Export all that are found:")
        downloads(lambda: [one.id for one in history.find(text, verdicts, tags)[0]], total, "rapidin-history")


def show_table(found: list[Summary]) -> None:
    """One line an answer."""
    st.dataframe(
        {
            "asked": [shown_time(summary.asked) for summary in found],
            "prompt": [one_line(summary.prompt, 120) for summary in found],
            "answer": [one_line(summary.response, 120) for summary in found],
            "said by": [summary.said_by.value for summary in found],
            "verdict": [one_line(summary.annotation.verdict, 40) for summary in found],
            "tags": [one_line(", ".join(summary.annotation.tags), 60) for summary in found],
            "questions": [summary.questions for summary in found],
            "model": [one_line(Path(summary.model).name, 40) for summary in found],
            "cache": [one_line(summary.cache, 40) for summary in found],
        },
        key="history_list",
        hide_index=True,
        on_select=lambda: open_row([summary.id for summary in found]),
        selection_mode="single-row",
        column_config={
            "asked": st.column_config.TextColumn(width=135),
            "prompt": st.column_config.TextColumn(width="medium"),
            "answer": st.column_config.TextColumn(width="large"),
            "said by": st.column_config.TextColumn(width="small"),
            "verdict": st.column_config.TextColumn(width="small"),
        },
    )


def open_row(names: list[str]) -> None:
    """Open the answer whose row was chosen."""
    rows = st.session_state["history_list"]["selection"]["rows"]
    if rows and rows[0] < len(names):
        st.query_params[places.SAVED] = names[rows[0]]


# One answer


def show_answer(kept: SavedAnswer, question: SavedQuestion | None) -> None:
    """A saved answer with the examples behind one question about it."""
    st.button("All saved questions", icon=":material/arrow_back:", on_click=close)
    left, right = st.columns([5, 6], gap="large")
    with left:
        st.markdown("**The prompt**")
        st.text(visible(kept.answer.prompt))
        st.markdown("**The answer**")
        st.text(views.said_by(kept.said_by))
        view.show_strip(kept, question)
        if st.session_state.pop("saved_unasked", False):
            st.caption(
                "Nothing was asked about that selection. Ask again on the Explore page to see what is behind it."
            )
        actions(kept, question)
        st.markdown("**What you think of it**")
        annotation_form(kept.id, kept.annotation, lambda new: history.annotate(kept.id, new))
        with st.expander("How it was made"):
            show_origin(kept)
    with right:
        if question is None:
            st.text("No ranking was kept of this answer: it was left before one was known.")
        else:
            show_question(kept, question)


def show_question(kept: SavedAnswer, question: SavedQuestion) -> None:
    """The cards as they were, and what is to be known about them."""
    if len(kept.questions) > 1:
        names = {one.id: view.question_name(kept, one) for one in kept.questions}
        st.selectbox(
            "What was asked about this answer",
            list(names),
            index=list(names).index(question.id),
            format_func=lambda name: one_line(names[name], 100),
            key=f"question_{question.id}",
            on_change=lambda: view.open_question(st.session_state[f"question_{question.id}"]),
        )
    st.text(visible(view.question_name(kept, question)))
    located = bool(question.shown) and all(shown.influence.positions is not None for shown in question.shown)
    positions = located and (
        st.segmented_control(
            "Colours", ["Own loss", "Position"], default="Own loss", required=True, key="saved_colours"
        )
        == "Position"
    )
    st.caption(" ".join(said_of(kept, question, positions)))
    view.show_cards(question, positions, kept.origin.rows)
    if question.shown:
        with st.expander("Notes on a training example"):
            annotate_example(kept, question.shown)


def said_of(kept: SavedAnswer, question: SavedQuestion, positions: bool) -> list[str]:
    """What the numbers are, in sentences of our own words."""
    lines = [views.scores_kind(question.selection, question.method, positions)]
    lines.append(f"As they were on {shown_time(question.asked)}.")
    lines.append(views.exactness([one.influence for one in question.shown], question.sketch_error, question.method))
    if question.caution:
        lines.append(question.caution)
    if question.method.can(Can.FOUR_INFLUENCES):
        lines.append(f"Scores include e·η = {kept.origin.scale:.3g}.")
    return [line for line in lines if line]


def annotate_example(kept: SavedAnswer, shown: Sequence[SavedInfluence]) -> None:
    """What is noted about one of the shown examples; it holds for every question over the same data."""
    by_row = {one.influence.row: one for one in shown}
    row = st.selectbox(
        "Training example",
        list(by_row),
        format_func=lambda row: f"row {row}: {one_line(by_row[row].example.prompt, 80)}",
        key="annotated_row",
    )
    data = kept.origin.data_sha256
    annotation_form(f"{data[:16]}_{row}", by_row[row].annotation, lambda new: history.annotate_example(data, row, new))


def at_the_model(kept: SavedAnswer, question: SavedQuestion | None) -> None:
    """Look at it with the model, beside another one, or ask the same again."""
    name = question.id if question else kept.id
    st.page_link(
        places.EXPLORE,
        label="Open in Explore",
        icon=":material/travel_explore:",
        query_params={places.SAVED: name},
        help="With the model at hand: other selections and more examples can be asked for",
    )
    st.page_link(
        places.COMPARE, label="Compare", icon=":material/compare_arrows:", query_params={places.SIDES[0]: name}
    )
    # What the base answered, its adapter switched off, is asked for on the Compare page alone, and Explore has no
    # fields for earlier turns.
    asked = kept.answer.asked
    fits = asked == Conversation.of(asked.question).with_system(asked.system)
    if fits and not (kept.drawn or {}).get("base") and st.button("Ask again", icon=":material/replay:"):
        ask_again(kept)


def actions(kept: SavedAnswer, question: SavedQuestion | None) -> None:
    """Take it along, look at it with the model, or forget it."""
    with st.container(horizontal=True):
        downloads(lambda: [kept.id], 1, f"rapidin-{kept.id}")
        if serve_settings().caches:
            at_the_model(kept, question)
        with st.popover("Delete", icon=":material/delete:"):
            st.text("The answer, its questions and your notes on it are forgotten for good.")
            st.button("Delete it", type="primary", on_click=forget, args=(kept.id,))


def ask_again(kept: SavedAnswer) -> None:
    """Take the prompt to the Explore page, with the settings it was asked with."""
    st.session_state["prompt"] = kept.answer.asked.question
    conversation.restore(kept.answer.asked)
    for name, value in (kept.drawn or {}).items():
        st.session_state[name] = value
    st.switch_page(places.EXPLORE)


def forget(name: str) -> None:
    """Delete an answer and go back to the list."""
    history.delete(name)
    close()


def close() -> None:
    """Back to the list."""
    st.query_params.clear()


def show_origin(kept: SavedAnswer) -> None:
    """Model, data, cache and settings behind the answer."""
    drawn = {"response": "given, not generated"} if kept.drawn is None else kept.drawn
    facts = {"saved as": kept.id, "asked": shown_time(kept.asked), **drawn, **kept.origin.facts()}
    st.dataframe(
        {"what": list(facts), "value": [one_line(str(value), 300) for value in facts.values()]}, hide_index=True
    )


for name in FILTERS:
    # Kept while the list isn't drawn: Streamlit forgets the state of fields that aren't shown.
    if name in st.session_state:
        st.session_state[name] = st.session_state[name]
if chosen := st.query_params.get(places.SAVED):
    opened = history.answer(chosen)
    asked = [question for question in opened.questions if question.id == chosen] or list(opened.questions[:1])
    show_answer(opened, asked[0] if asked else None)
else:
    show_list()
