"""Every question asked: find it, open it as it was, say what to think of it, take it along. Needs no model."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from explorer import views
from explorer.app.explore import conversation
from explorer.app.saved import sealing, view
from explorer.app.saved.annotating import annotation_form
from explorer.app.session import asker, resources
from explorer.app.widgets import places
from explorer.app.widgets.choices import POSITION, token_colours
from explorer.app.widgets.paging import current_page, pager
from explorer.app.widgets.rows import Column, clickable_rows
from explorer.bundles import sealed
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
    "Bundle": (sealing.to_bundle, sealed.ENDING, "application/json"),
}
SAID = {"Bundle": "sealed file, which `rapidin-explorer bundle` verifies, opens and asks again"}

history = resources.history()


def seen_by() -> str:
    """Who else sees the list, and who may delete from it."""
    if not serve_settings().shared_history:
        return "You alone see this list."
    may = "delete what they or nobody in particular asked" if asker.person() else "delete from it"
    return f"Everyone who uses this server sees this list, and can {may}."


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
            help=f"{count:,} saved answer{'s' * (count != 1)} as one {SAID.get(label, f'{label} file')}",
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
    total, whole = (history.find(text, verdicts, tags, 0, together=each)[1] for each in (True, False))
    if not total:
        asked = text or verdicts or tags
        st.info(
            "No saved answer passes this search."
            if asked
            else "Nothing is saved yet. Every question asked on the Explore page appears here.",
            icon=":material/history:",
        )
        return
    repeated = f" ({whole:,} with repetitions)" if whole > total else ""
    st.text(f"{total:,} saved answer{'s' * (total != 1)}{repeated}, newest first. Click a row to open it.")
    st.caption(seen_by())
    pages = -(-total // A_PAGE)
    page = current_page(FILTERS[3], pages)
    show_table(history.find(text, verdicts, tags, A_PAGE, (page - 1) * A_PAGE, together=True)[0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pager(FILTERS[3], pages)
        st.text("Export all that are found:")
        downloads(lambda: [one.id for one in history.find(text, verdicts, tags)[0]], whole, "rapidin-history")


def show_table(found: list[Summary]) -> None:
    """One line an answer; repetitions share one."""
    shared = serve_settings().shared_history
    opened = clickable_rows(
        "history_list",
        [
            Column("asked", [shown_time(summary.asked) for summary in found], "short"),
            Column("prompt", [one_line(summary.prompt, 120) for summary in found]),
            Column("answer", [one_line(summary.response, 120) for summary in found]),
            Column("from", [summary.said_by.value for summary in found], "chip"),
            *_where_any("times", [str(one.times) if one.times > 1 else "" for one in found], "number"),
            *_where_any("verdict", [one_line(summary.annotation.verdict, 40) for summary in found], "chip"),
            *_where_any("tags", [one_line(", ".join(summary.annotation.tags), 60) for summary in found], "text"),
            Column("questions", [str(summary.questions) for summary in found], "number"),
            Column("model", [one_line(Path(summary.model).name, 40) for summary in found]),
            *_where_any("by", [one_line(summary.person, 40) for summary in found if shared], "text"),
            *_where_any("cache", [one_line(summary.cache, 40) for summary in found], "text"),
        ],
        [summary.id for summary in found],
        opens=1,
    )
    if opened:
        st.query_params[places.SAVED] = opened
        st.rerun()


def _where_any(name: str, cells: list[str], kind: Literal["text", "chip", "number"]) -> list[Column]:
    """The column, unless all its cells are empty."""
    return [Column(name, cells, kind)] if any(cells) else []


# One answer


def show_answer(kept: SavedAnswer, question: SavedQuestion | None) -> None:
    """A saved answer with the examples behind one question about it."""
    st.button("All saved questions", icon=":material/arrow_back:", on_click=close)
    same = history.repetitions(kept.id)
    if len(same) > 1:
        st.caption(f"Asked {len(same):,} times with the same answer, settings and cache; this is one of them.")
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
    if kept.origin.ranked_among:
        st.warning(kept.origin.ranked_among, icon=":material/hourglass_top:")
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
    view.show_verdict(kept, question)
    located = bool(question.shown) and all(shown.influence.positions is not None for shown in question.shown)
    positions = located and token_colours("saved_colours", "Colours") == POSITION
    st.caption(" ".join(said_of(kept, question, positions)))
    view.show_cards(question, positions, kept.origin.rows)
    if question.shown:
        with st.expander("Notes on a training example"):
            annotate_example(kept, question.shown)


def said_of(kept: SavedAnswer, question: SavedQuestion, positions: bool) -> list[str]:
    """What the numbers are, in sentences of our own words."""
    lines = [views.scores_kind(question.selection, question.method, positions)]
    lines.append(f"Saved on {shown_time(question.asked)}.")
    lines.append(views.exactness([one.influence for one in question.shown], question.sketch_error, question.method))
    if question.method.can(Can.FOUR_INFLUENCES):
        lines.append(f"Scores are multiplied by epochs × learning rate ({kept.origin.scale:.3g}).")
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
        if history.may_delete(kept.id):
            deletion(kept)


def deletion(kept: SavedAnswer) -> None:
    """Forget it, once the reader knows what goes with it."""
    with st.popover("Delete", icon=":material/delete:"):
        same = [name for name in history.repetitions(kept.id) if history.may_delete(name)]
        others = f" and its {len(same) - 1:,} repetition{'s' * (len(same) != 2)}" if len(same) > 1 else ""
        whose = " for everyone who uses this server" if serve_settings().shared_history else ""
        st.text(
            f"Delete this answer{others}, with all questions and notes on it? It is deleted{whose}, and can't be "
            "restored."
        )
        st.button("Delete it", type="primary", on_click=forget, args=tuple(same))


def ask_again(kept: SavedAnswer) -> None:
    """Take the prompt to the Explore page, with the settings it was asked with."""
    st.session_state["prompt"] = kept.answer.asked.question
    conversation.restore(kept.answer.asked)
    for name, value in (kept.drawn or {}).items():
        st.session_state[name] = value
    st.switch_page(places.EXPLORE)


def forget(*names: str) -> None:
    """Delete an answer with its repetitions and go back to the list."""
    history.delete(*names)
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
