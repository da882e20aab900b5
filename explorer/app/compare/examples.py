"""The examples of the Compare page: what influenced both answers, and what only one."""

from dataclasses import replace

import streamlit as st

from explorer import views
from explorer.app.compare.conclusion import Side, conclusion, holders
from explorer.app.compare.form import A, B, title
from explorer.app.desk import pairing
from explorer.app.desk.desk import Desk
from explorer.app.desk.pairing import FIRST, Comparing
from explorer.app.desk.work import Question
from explorer.app.explore import method_box
from explorer.app.explore.conclusion import ALONE, waiting
from explorer.app.explore.examples import card, no_cards, show_filter
from explorer.app.session import keeping, links, resources, state
from explorer.app.session.keeping import Kept
from explorer.app.session.state import Study
from explorer.app.widgets import messages, places
from explorer.app.widgets.choices import OPPONENTS, direction, one_of
from explorer.app.widgets.component import CardGroup, CardView, example_cards
from explorer.app.widgets.filter_box import filter_box, plain
from explorer.corpus import Filter
from explorer.errors import ExplorerError
from explorer.methods.attributor import SPARE
from explorer.records import Can, Chosen, Ranking
from explorer.trust import Comparison, Pair, Standing
from explorer.trust.verdict import shared_label, shared_word, shared_words
from explorer.visible import visible

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
    # Before what is found: the rest may become known while it is drawn.
    finished = working.finished
    found = working.comparison()
    kept = [_keep(working, *side) for side in zip((A, B), questions, strict=True)]
    method_box.show_work(questions[0], working.stage, working.tasks[0].finished)
    if found is not None and found.examples:
        _conclude(working, questions, opponents)
    for study, question in zip((A, B), questions, strict=True):
        st.text(f"{title(study)}: {views.heading(question.answer, question.selection, opponents, question.method)}")
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
        pending=found is None or not finished,
        empty="None." if found else waiting(questions[0].method, desk.place(working.tasks[0])),
    )
    _show_kept(kept)


def _controls(desk: Desk) -> tuple[bool, bool, Study, Filter]:
    """Which end is compared, whether exactly, whose values shared examples show, and which examples are looked at."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        # Least alike isn't opposed.
        opponents = method_box.chosen().by_gradients and direction("compare_direction") == OPPONENTS
        by = one_of(
            "Examples of both: show colours for",
            [A.name, B.name],
            "compare_by",
            format_func=lambda name: title(A if name == A.name else B),
            help="Rank, score and token colours of examples behind both answers are those for this answer; the other "
            "answer's rank and score stand beside them",
        )
        exact = st.toggle(
            "Exact scores",
            key="compare_exact",
            disabled=not method_box.chosen().token_values,
            help="Without the error of the random projection, for both answers: up to "
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


def _conclude(working: Comparing, questions: tuple[Question, Question], opponents: bool) -> None:
    """In one sentence, what is behind the one answer and not behind the other."""
    desk, sides, held = working.desk, list[Side](), list[set[int]]()
    for study, question in zip((A, B), questions, strict=True):
        ranking = working.ranking(question)
        rows = [found.row for found in ranking.influences]
        found, words = desk.verdict(question, ranking), shared_words(ranking, desk.corpus, question.wanted)
        common = shared_label(rows, desk.corpus.sources, working.rows) or shared_word(words)
        sides.append(Side(title(study, sentence=True), common, found is None or found.state != "none"))
    for question, beside in zip(questions, sides[::-1], strict=True):
        rows = [found.row for found in working.ranking(question).influences]
        held.append(holders(rows, beside.shared, desk.corpus))
    left, right = sides
    st.text(visible(conclusion(left, right, len(held[0]), len(held[1]), opponents)))


def _describe(found: Comparison, working: Comparing) -> None:
    correlation = f"{found.correlation:+.2f}".replace("-", "−")
    with st.expander("Details"):
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
                f"Approximate ranking; refining {done} of {total}."
                if done < total
                else f"All {total} scores that decide the order are exact."
            )
        else:
            lines.append("Approximate ranking by the sketches, unless a score is marked as exact.")
        scores = "the sketches' scores" if method.can(Can.FOUR_INFLUENCES) else "all its scores"
        lines.append(
            f"Ranks beyond the first {found.first}, and the correlation, are by {scores}; near-duplicates, which "
            "share a card here, count one by one."
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
        CardGroup(f"Behind {title(A)} alone ({len(found.left)})", cards(found.left, A)),
        CardGroup(f"Behind {title(B)} alone ({len(found.right)})", cards(found.right, B)),
    ]


def _card(pair: Pair, shown: Study, ranking: Ranking, working: Comparing) -> CardView:
    own, other, name = (pair.left, pair.right, title(B)) if shown == A else (pair.right, pair.left, title(A))
    drawn = card(working.desk, own.rank, own.influence, working.fold(pair.row), ranking, positions=False)
    return replace(drawn, beside=beside(name, other, len(working.rows or ranking.scores), ranking.method))


def beside(name: str, other: Standing, examples: int, method: Chosen) -> str:
    """Where the same example stands behind the other answer."""
    kind = "" if not method.by_gradients else " exact" if other.influence.exact else " approximate"
    by = "the sketches" if method.can(Can.FOUR_INFLUENCES) else method.name
    place = f"rank {other.rank:,}" if other.first else f"rank {other.rank:,} of {examples:,} by {by}"
    return f"{name}: {place}, {views.signed(other.influence.score)}{kind}"


def _keep(working: Comparing, study: Study, question: Question) -> Kept | None:
    """Put one side's question into the history; None where the side has no answer any more."""
    asking = study.asking()
    rankings = [working.ranking(question)] if working.known else []
    return None if asking is None else keeping.keep(asking, [question], rankings, study)


def _show_kept(kept: list[Kept | None]) -> None:
    """Where both questions are kept, and the link that opens them again."""
    for column, one in zip(st.columns(2), kept, strict=True):
        if one is not None:
            with column:
                keeping.show(one)
    names = [one.name for one in kept if one is not None and not one.problem]
    if len(names) == len(places.SIDES):
        parameters = dict(zip(places.SIDES, names, strict=True))
        links.link_box(places.COMPARE, parameters, "these two answers with what is selected of each")
