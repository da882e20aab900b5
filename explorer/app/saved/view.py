"""A saved answer as the page shows it: the strip and the cards of Explore, from records alone."""

import streamlit as st

from explorer import views
from explorer.app.widgets.component import CardGroup, CardView, example_cards, strip_event, token_strip, verdict_box
from explorer.corpus.histogram import Histogram, histogram
from explorer.history import SavedAnswer, SavedInfluence, SavedQuestion
from explorer.records import Selection, span_of
from explorer.trust import wording

STRIP, CARDS = "saved_strip", "saved_cards"


def show_strip(kept: SavedAnswer, question: SavedQuestion | None) -> None:
    """The answer, with what was asked about selected; a click opens what was asked about that token, if it was."""
    token_strip(
        STRIP,
        answer_id=kept.id,
        tokens=kept.answer.tokens,
        selection=span_of(question.selection) if question else None,
        streaming=False,
        on_change=lambda: _follow(kept),
    )


def _follow(kept: SavedAnswer) -> None:
    event = strip_event(STRIP, answer_id=kept.id, count=len(kept.answer.tokens))
    if event is not None:
        asked = [question.id for question in kept.questions if question.selection == event.selection]
        st.session_state["saved_unasked"] = not asked
        if asked:
            open_question(asked[0])


def open_question(name: str) -> None:
    """Look at another question about the same answer."""
    st.query_params["saved"] = name


def question_name(kept: SavedAnswer, question: SavedQuestion) -> str:
    """A question in words, as a list shows it."""
    heading = views.heading(kept.answer, question.selection, question.opponents, question.method)
    among = "" if question.wanted.empty else f" ({question.wanted.description})"
    return f"{heading}{_place(question.selection)}{among}"


def _place(selection: Selection) -> str:
    span = span_of(selection)
    if span is None:
        return ""
    start, stop = span
    return f" (token {start})" if stop == start + 1 else f" (tokens {start} to {stop - 1})"


def show_verdict(kept: SavedAnswer, question: SavedQuestion) -> None:
    """What was asked, how strong the evidence was and what the first examples shared, as far as that is kept."""
    found = question.verdict
    verdict_box(
        "saved_verdict",
        asked=question_name(kept, question),
        state=found.state if found else "",
        headline=wording.headline(found) if found else "",
        sentence=wording.sentences(found) if found else question.caution,
        progress="",
        sure=(),
    )


def show_cards(question: SavedQuestion, positions: bool, examples: int) -> None:
    """The training examples as they were shown, of so many."""
    ranking = [shown.influence for shown in question.shown]
    example_cards(
        CARDS,
        view_id=f"{question.id}:{positions}",
        groups=[
            CardGroup(
                title=views.side(question.opponents, question.method),
                cards=tuple(
                    _card(rank, shown, positions, question, examples)
                    for rank, shown in enumerate(question.shown, start=1)
                ),
            )
        ],
        scale=views.full_colour_of(ranking, positions),
        pending=False,
        histogram=_spread(question),
        empty="No example passed the filter.",
    )


def _spread(question: SavedQuestion) -> Histogram | None:
    """The histogram of all scores, where they were kept and none was left out."""
    if question.scores is None or not question.wanted.empty:
        return None
    return histogram(question.scores, None, {one.influence.row: one.influence.score for one in question.shown})


def _card(rank: int, shown: SavedInfluence, positions: bool, question: SavedQuestion, examples: int) -> CardView:
    found, example = shown.influence, shown.example
    values = views.token_values(found, positions)
    whole = positions and values is not None and shown.sequence is not None
    return CardView(
        row=found.row,
        rank=rank,
        score=found.score,
        exact=found.exact,
        prompt="" if whole else views.shortened(example.prompt, views.LONGEST_PROMPT),
        tokens=shown.sequence if whole and shown.sequence else example.tokens,
        source=example.source,
        passage=views.passage(example),
        place=views.place(shown.percentile, examples),
        unusual=views.unusual(found.place, question.opponents),
        often=views.often(found.place, question.opponents, examples),
        steadiness=views.steadiness(found),
        values=None if values is None else tuple(map(float, values)),
        values_exact=found.exact,
        checksum=views.token_checksum(found, positions),
        adds_up=positions,
        by_gradients=question.method.by_gradients,
        without_values=views.without_values(question.method),
    )
