"""The examples column of the Explore page: the training examples behind what is selected."""

from collections.abc import Callable
from functools import partial

import streamlit as st

from explorer import views
from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Explaining, Question
from explorer.app.evidence import absence_panel
from explorer.app.explore import agreement_panel, conclusion, method_box, permalink
from explorer.app.explore.answer import act
from explorer.app.explore.colours import marked
from explorer.app.session import keeping, links, state
from explorer.app.widgets import messages, places
from explorer.app.widgets.choices import BOTH, LOSS, OPPONENTS, POSITION, PROPONENTS, direction_box, token_colours
from explorer.app.widgets.component import CardGroup, CardView, DuplicateView, example_cards
from explorer.app.widgets.filter_box import clear, filter_fields
from explorer.corpus import Filter, Fold
from explorer.corpus.histogram import Histogram, histogram
from explorer.errors import ExplorerError
from explorer.records import Answer, Can, Chosen, Influence, Ranking

CARDS = "example_cards"
OVERVIEW = "all_scores"
"""Session key: whether all scores and the typical words are shown."""
FIRST_WAIT = 0.4
"""Seconds a rerun waits for a new question's gradient before it shows that it is being computed."""
SIDES = {PROPONENTS: (False,), OPPONENTS: (True,), BOTH: (False, True)}
"""What is asked for under each name: whether it is opponents."""
FIRST_OF_BOTH = 5
"""Examples a side shown at first when both are."""


def show_examples(desk: Desk, answer: Answer) -> None:
    """The most influential training examples for what is selected."""
    if state.gave_up():
        st.text("Cancelled: the training examples behind this selection are not being looked for.")
        st.button("Look for them", on_click=state.go_on)
        return
    top = st.container(key="verdict")
    side, positions, wanted, method = controls(desk)
    first = FIRST_OF_BOTH if side == BOTH else state.FIRST_COUNT
    questions = [
        Question(answer, state.selection(), opponents, state.count(opponents, first), wanted, positions, method=method)
        for opponents in SIDES[side]
    ]
    try:
        if not method_box.may_ask(desk, questions[0]):
            wait_for_method(questions[0])
            return
        explaining = explain(desk, *questions)
        agreeing = agreement_panel.begun(desk, questions[0])
    except ExplorerError as problem:
        messages.failed(str(problem))
        return
    if explaining.error:
        messages.failed(explaining.error)
        return
    if desk.ranking(questions[0]) is None and explaining.asked is not None:
        explaining.asked.wait(FIRST_WAIT)
    # Asked before anything is read: what comes while it is drawn is drawn by another poll.
    complete = explaining.finished and desk.corpus.ready and (agreeing is None or agreeing.task.finished)
    method_box.show_work(questions[0], explaining.stage, explaining.finished)
    found = [(question, ranking) for question in questions if (ranking := desk.ranking(question)) is not None]
    asking = state.asking()
    kept = keeping.keep(asking, questions, [ranking for _, ranking in found]) if asking is not None else None
    with top:
        found_nothing = conclusion.show(desk, questions, [ranking for _, ranking in found], explaining)
    if not wanted.empty:
        show_filter(desk, wanted)
    if agreeing is not None and found:
        agreement_panel.show(desk, *found[0], agreeing)
    shown = "both" if side == BOTH else str(side == OPPONENTS)
    link = permalink.parameters(kept.name) if kept is not None and found else {}
    example_cards(
        CARDS,
        view_id=f"{answer.id}:{state.selection()}:{shown}:{positions}:{wanted.where}:{wanted.text}:{method.name}",
        groups=[group(desk, question, ranking) for question, ranking in found],
        scale=max((views.full_colour(ranking, positions) for _, ranking in found), default=0.0),
        pending=not (found and complete),
        histogram=spread(desk, wanted, [ranking for _, ranking in found]),
        empty="No example passes the filter." if found else conclusion.waiting(method, desk.place(explaining.asked)),
        folded="Show the closest anyway" if found_nothing else "",
        marked=marked(),
        on_more=more_of(SIDES[side]),
        on_act=partial(act, CARDS) if method.can(Can.BOTH_WAYS) else None,
        link=links.query(link) if link else "",
        overview=bool(st.session_state.get(OVERVIEW)),
        focus="" if (row := st.session_state.get("card")) is None else f"row-{row}",
    )
    if not found:
        st.button("Cancel", icon=":material/close:", on_click=state.give_up)
    # A place of its own, so that an open "Link" beneath it stays open.
    with st.container():
        if found and side != OPPONENTS:
            absence_panel.show(answer, [influence.row for influence in found[0][1].influences])
    if kept is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            keeping.show(kept)
            if link and not kept.problem:
                permalink.show(link)
                links.link_box(places.EXPLORE, link, "this answer with what is selected and shown of it")


def wait_for_method(question: Question) -> None:
    """No cards; work behind the last ones ends."""
    if (last := state.explaining()) is not None:
        last.cancel()
    no_cards(CARDS, question)


def no_cards(key: str, *questions: Question) -> None:
    """Nothing in the place of cards, and polling while what the method needs is being computed."""
    asked = [(question.answer.id, question.selection, question.method.name) for question in questions]
    example_cards(key, view_id=f"waiting:{asked}", groups=[], scale=0.0, pending=method_box.is_fitting(), empty="")


def controls(desk: Desk) -> tuple[str, bool, Filter, Chosen]:
    """Which side is shown, whether colours are those of positions, which examples are looked at, by which method."""
    with st.container(horizontal=True, vertical_alignment="center"):
        method, side, colours = method_box.chosen(), PROPONENTS, LOSS
        # Least alike isn't opposed.
        if method.by_gradients:
            side = direction_box("direction", list(SIDES))
        named = method_box.label()
        with st.popover(
            f"{named}, filter, more" if named else "Filter, method, more", icon=":material/tune:", key="more_popover"
        ):
            wanted = filter_fields(desk.corpus)
            if method.can(Can.POSITIONS):
                colours = token_colours("colours")
            st.toggle(
                "All scores, typical words",
                key=OVERVIEW,
                help="How the scores of all examples are spread, and which words are typical of those shown",
            )
            agreement_panel.control()
            method_box.picker()
    return side, colours == POSITION, wanted, method


def show_filter(desk: Desk, wanted: Filter) -> None:
    """Say which examples are left, and offer all of them again."""
    with st.container(horizontal=True, vertical_alignment="center"):
        rows = desk.corpus.rows(wanted) or []
        st.text(f"{wanted.description} {len(rows):,} of {desk.engine.store.manifest.rows:,} are left.")
        st.button("Clear", icon=":material/close:", on_click=clear)


def more_of(sides: tuple[bool, ...]) -> Callable[[int], None]:
    """What is to be done when more of the nth side is asked for."""
    return lambda index: state.show_more(sides[index])


def explain(desk: Desk, *questions: Question) -> Explaining:
    """The work for these questions, begun unless it already is. Raises ExplorerError when too much is waiting."""
    desk.attend(state.session())
    current = state.explaining()
    if current is None or current.questions != questions or current.abandoned:
        current = desk.explain(state.session(), *questions)
        state.explain(current)
    return current


def spread(desk: Desk, wanted: Filter, rankings: list[Ranking]) -> Histogram | None:
    """The histogram of all scores that the filter lets through, the shown ones as exact as they are known."""
    if not rankings:
        return None
    shown = {found.row: found.score for ranking in rankings for found in ranking.influences}
    return histogram(rankings[0].scores, desk.corpus.rows(wanted), shown)


def group(desk: Desk, question: Question, ranking: Ranking) -> CardGroup:
    """One side's cards, and the words that set them apart."""
    folds = {fold.row: fold for fold in desk.folds(question)}
    return CardGroup(
        title=views.side(question.opponents, question.method),
        cards=tuple(
            card(desk, rank, found, folds[found.row], ranking, question.positions)
            for rank, found in enumerate(ranking.influences, start=1)
        ),
        words=desk.corpus.distinctive([found.row for found in ranking.influences], question.wanted),
        more=len(ranking.influences) == question.count,
    )


def card(desk: Desk, rank: int, found: Influence, fold: Fold, ranking: Ranking, positions: bool) -> CardView:
    """One example as its card shows it: the tokens of its response, or of all its positions."""
    example = desk.engine.store.examples[found.row]
    values = views.token_values(found, positions)
    return CardView(
        row=found.row,
        rank=rank,
        score=found.score,
        exact=found.exact,
        prompt="" if positions and values is not None else views.shortened(example.prompt, views.LONGEST_PROMPT),
        tokens=desk.engine.sequence(found.row) if positions and values is not None else example.tokens,
        source=example.source,
        passage=views.passage(example),
        place=views.place(views.percentile(ranking, found.score), len(ranking.scores)),
        unusual=views.unusual(found.place, ranking.opponents),
        often=views.often(found.place, ranking.opponents, len(ranking.scores)),
        steadiness=views.steadiness(found),
        values=None if values is None else tuple(map(float, values)),
        values_exact=found.exact,
        checksum=views.token_checksum(found, positions),
        adds_up=positions,
        by_gradients=ranking.method.by_gradients,
        without_values=views.without_values(ranking.method),
        duplicates=tuple(duplicate(desk, row, ranking) for row in fold.others),
    )


def duplicate(desk: Desk, row: int, ranking: Ranking) -> DuplicateView:
    """A near-duplicate as it is listed on the card it was folded into."""
    example = desk.engine.store.examples[row]
    return DuplicateView(
        row,
        float(ranking.scores[row]),
        example.source,
        views.shortened(example.prompt, views.LONGEST_PROMPT),
        views.shortened(example.response, views.LONGEST_PROMPT),
    )
