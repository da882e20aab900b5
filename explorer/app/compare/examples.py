"""The examples of the Compare page: what influenced both answers, and what only one."""

from dataclasses import replace

import streamlit as st

from explorer import views
from explorer.app.compare.form import A, B
from explorer.app.desk import pairing
from explorer.app.desk.desk import Desk
from explorer.app.desk.pairing import FIRST, Comparing
from explorer.app.desk.work import Question
from explorer.app.explore import method_box
from explorer.app.explore.conclusion import ALONE, waiting
from explorer.app.explore.examples import card, no_cards, show_filter
from explorer.app.session import keeping, links, resources, state
from explorer.app.session.state import Study
from explorer.app.widgets import messages, places
from explorer.app.widgets.choices import OPPONENTS, direction
from explorer.app.widgets.component import CardGroup, CardView, example_cards
from explorer.app.widgets.filter_box import filter_box, plain
from explorer.corpus import Filter
from explorer.errors import ExplorerError
from explorer.methods.attributor import SPARE
from explorer.records import Can, Chosen, Ranking
from explorer.trust import Comparison, Pair, Standing

CARDS = "compared_cards"
FIRST_WAIT = 0.4
"""Seconds a rerun waits for new gradients before it shows that they are being computed."""
WORK = "comparing"


def show_comparison() -> None:
    """What influenced both answers, and what only one."""
    desk = resources.desk()
    desk.attend(state.session())
    opponents, exact, by, wanted = _controls(desk)
    questions = _questions(opponents, wanted)
    working: Comparing | None = st.session_state.get(WORK)
    try:
        if not all(method_box.may_ask(desk, question) for question in questions):
            no_cards(CARDS, *questions)
            return
        if working is None or (working.questions, working.exact) != (questions, exact):
            working = st.session_state[WORK] = pairing.begin(desk, state.session(), questions, exact)
    except ExplorerError as problem:
        messages.failed(str(problem))
        return
    if working.error:
        messages.failed(working.error)
        return
    if not working.known:
        working.tasks[0].wait(FIRST_WAIT)
    found = working.comparison()
    method_box.show_work(questions[0], working.stage, working.tasks[0].finished)
    for study, question in zip((A, B), questions, strict=True):
        st.text(f"{study.name}: {views.heading(question.answer, question.selection, opponents, question.method)}")
    if not wanted.empty:
        show_filter(desk, wanted)
    if found is not None and found.examples:
        _describe(found, working)
    example_cards(
        CARDS,
        view_id=":".join(f"{question.answer.id}:{question.selection}" for question in questions)
        + f":{opponents}:{exact}:{by.name}:{wanted.where}:{wanted.text}:{questions[0].method.name}",
        groups=_groups(found, working, by) if found else [],
        scale=_scale(found) if found else 0.0,
        pending=found is None or not working.finished,
        empty="None." if found else waiting(questions[0].method),
    )
    _keep(working)


def _controls(desk: Desk) -> tuple[bool, bool, Study, Filter]:
    """Which end is compared, whether exactly, whose values shared examples show, and which examples are looked at."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        # Least alike isn't opposed.
        opponents = method_box.chosen().by_gradients and direction("compare_direction") == OPPONENTS
        by = st.segmented_control(
            "Shared examples as behind",
            [A.name, B.name],
            default=A.name,
            required=True,
            key="compare_by",
            help="Examples behind both answers show rank, score and colours of this one, and the other's beside them",
        )
        exact = st.toggle(
            "Exact scores",
            key="compare_exact",
            disabled=not method_box.chosen().token_values,
            help="Without sketch noise, for all candidates of both answers: up to "
            f"{2 * (FIRST + SPARE + FIRST)} passes over training examples",
        )
        wanted = filter_box(desk.corpus)
        method_box.method_box()
    return opponents, bool(exact), A if by == A.name else B, wanted


def _questions(opponents: bool, wanted: Filter) -> tuple[Question, Question]:
    left, right = A.answer(), B.answer()
    assert left is not None and right is not None
    sides = ((left, A.selection()), (right, B.selection()))
    one, other = (Question(*side, opponents, FIRST, wanted, method=method_box.chosen()) for side in sides)
    return one, other


def _describe(found: Comparison, working: Comparing) -> None:
    correlation = f"{found.correlation:+.2f}".replace("-", "−")
    st.markdown(
        f"**{len(found.shared)} of the first {found.first} are the same** (by chance it would be "
        f"{found.by_chance:.2g}) · Spearman’s rank correlation **{correlation}** over "
        f"{'all' if working.rows is None else 'these'} {found.examples:,} examples"
    )
    lines, method = [], working.questions[0].method
    if not method.can(Can.FOUR_INFLUENCES):
        lines.append(f"{views.scores_kind(None, method)} {ALONE}")
    elif working.exact:
        done, total = working.progress()
        lines.append(
            f"{done} of {total} exact values are there; until all of a side's candidates are exact, its order is the "
            "sketches'."
            if done < total
            else f"All {total} scores shown or considered are exact, and so is the order of each side's first "
            f"{found.first}."
        )
    else:
        lines.append("Scores and order are the sketches', where a value isn't marked as exact.")
    scores = "the sketches' scores" if method.can(Can.FOUR_INFLUENCES) else "all its scores"
    lines.append(
        f"Ranks beyond the first {found.first}, and the correlation, are those of {scores}. "
        "They count near-duplicates one by one, which share a card here."
    )
    said = " ".join(lines)
    # What a method says of itself isn't Markdown.
    st.caption(said if method.can(Can.FOUR_INFLUENCES) else plain(said))


def _scale(found: Comparison) -> float:
    pairs = (*found.shared, *found.left, *found.right)
    return views.full_colour_of([side.influence for pair in pairs for side in (pair.left, pair.right)])


def _groups(found: Comparison, working: Comparing, by: Study) -> list[CardGroup]:
    left, right = (working.ranking(question) for question in working.questions)

    def cards(pairs: tuple[Pair, ...], shown: Study) -> tuple[CardView, ...]:
        return tuple(_card(pair, shown, left if shown == A else right, working) for pair in pairs)

    shared = found.shared
    if by == B:
        shared = tuple(sorted(shared, key=lambda pair: pair.right.rank))
    return [
        CardGroup(f"Behind both answers ({len(found.shared)})", cards(shared, by)),
        CardGroup(f"Behind {A.name} alone ({len(found.left)})", cards(found.left, A)),
        CardGroup(f"Behind {B.name} alone ({len(found.right)})", cards(found.right, B)),
    ]


def _card(pair: Pair, shown: Study, ranking: Ranking, working: Comparing) -> CardView:
    own, other, name = (pair.left, pair.right, B.name) if shown == A else (pair.right, pair.left, A.name)
    drawn = card(working.desk, own.rank, own.influence, working.fold(pair.row), ranking, positions=False)
    return replace(drawn, beside=beside(name, other, len(working.rows or ranking.scores), ranking.method))


def beside(name: str, other: Standing, examples: int, method: Chosen) -> str:
    """Where the same example stands behind the other answer."""
    kind = "" if not method.by_gradients else " exact" if other.influence.exact else " sketch"
    by = "the sketches" if method.can(Can.FOUR_INFLUENCES) else method.name
    place = f"rank {other.rank:,}" if other.first else f"rank {other.rank:,} of {examples:,} by {by}"
    return f"{name}: {place}, {views.signed(other.influence.score)}{kind}"


def _keep(working: Comparing) -> None:
    """Both questions go into the history, and the link opens them again."""
    names = []
    for column, study, question in zip(st.columns(2), (A, B), working.questions, strict=True):
        asking = study.asking()
        if asking is not None:
            with column:
                rankings = [working.ranking(question)] if working.known else []
                names.append(keeping.keep(asking, [question], rankings, study))
    left, right = names
    if left and right:
        parameters = dict(zip(places.SIDES, (left, right), strict=True))
        links.link_box(places.COMPARE, parameters, "these two answers with what is selected of each")
