"""What taught the model to do this? Some of an audit's answers as one question, or rather than others.

Texts of data and models are untrusted: they are shown as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Auditing, Finding
from explorer.app.saved import view
from explorer.app.session import caches, resources, state
from explorer.app.widgets import messages, places, polling
from explorer.app.widgets.component import verdict_box
from explorer.app.widgets.filter_box import plain
from explorer.app.widgets.rows import Column, clickable_rows
from explorer.auditing import behaviour_report
from explorer.auditing.behaviour import Asked, Behaviour, BehaviourSettings
from explorer.auditing.findings import Audited, Label
from explorer.errors import ExplorerError
from explorer.methods.method import Stage
from explorer.views import signed
from explorer.visible import one_line

OPEN = "behaviour"
"""Session key of the panel, which is drawn when it is open."""
_NOW, _REFUSED, _SUSPECTS = "behaviour_now", "behaviour_refused", 50


@dataclass(frozen=True, eq=False)
class _Going:
    """What is asked of an audit, on its way or done."""

    auditing: Auditing
    finding: Finding[Behaviour]
    stage: Stage


def groups_of(done: Sequence[Audited], kinds: Sequence[str], label: Label) -> dict[str, tuple[int, ...]]:
    """What may be chosen: all answers of a kind, all with a main source, and each answer, as places among the done."""
    answered = [place for place, one in enumerate(done) if one.saved]
    found: dict[str, list[int]] = {}
    for place in answered:
        kind, source = kinds[place] if place < len(kinds) else "", done[place].main_source(label)[0]
        if kind:
            found.setdefault(f"All of kind “{one_line(kind, 40)}”", []).append(place)
        if source:
            found.setdefault(f"All that mostly come from “{one_line(source, 40)}”", []).append(place)
    for place in answered:
        found[f"{place + 1}. {one_line(done[place].asked.question, 60)}"] = [place]
    return {name: tuple(places) for name, places in found.items()}


def show(desk: Desk, auditing: Auditing, kinds: Sequence[str], label: Label) -> None:
    """The panel for an audit that has ended; closed to one line, and nothing where it has no answer."""
    groups = groups_of(auditing.done, kinds, label)
    if not groups:
        return
    panel = st.expander(
        "What taught the model to do this?", icon=":material/groups:", key=OPEN, on_change="rerun", expanded=False
    )
    if not panel.open:
        return
    with panel:
        _show_form(desk, auditing, groups)
        if refused := st.session_state.pop(_REFUSED, ""):
            messages.failed(refused)
        going: _Going | None = st.session_state.get(_NOW)
        if going is not None and going.auditing is auditing:
            _show(going)


def _show_form(desk: Desk, auditing: Auditing, groups: dict[str, tuple[int, ...]]) -> None:
    st.text("Choose answers that show one behaviour. They are asked about as one: which examples pushed towards them?")
    of, against = st.columns(2)
    options, hint = list(groups), "Choose answers or kinds"
    for key in ("behaviour_of", "behaviour_against"):
        # Of another audit, or counted by another column.
        st.session_state[key] = [name for name in st.session_state.get(key, ()) if name in groups]
    of.multiselect("These answers", options, key="behaviour_of", placeholder=hint)
    against.multiselect(
        "Rather than these (optional)",
        options,
        key="behaviour_against",
        placeholder=hint,
        help="What both have in common falls away: choose answers without the behaviour, to similar prompts",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Ask about them", type="primary", key="behaviour_ask", on_click=_begin, args=(desk, auditing, groups))
        st.toggle(
            "Only one word of each",
            key="behaviour_word",
            help="The word of each answer that fine-tuning raised most, in place of the whole answer",
        )
        st.toggle(
            "Look for a trigger",
            key="behaviour_trigger",
            help="Leaves each word that most of the prompts share out, and looks whether the answer stays as likely",
        )


def _begin(desk: Desk, auditing: Auditing, groups: dict[str, tuple[int, ...]]) -> None:
    word = bool(st.session_state.get("behaviour_word"))

    def side(key: str) -> list[Asked]:
        chosen = [place for name in st.session_state.get(key, ()) for place in groups.get(name, ())]
        saved = [one.saved for one in (auditing.done[place] for place in dict.fromkeys(chosen)) if one.saved]
        return [Asked(each.answer, each.questions[0].selection if word else None) for each in saved]

    settings = BehaviourSettings(auditing.settings.method, trigger=bool(st.session_state.get("behaviour_trigger")))
    stage = Stage()
    try:
        finding = desk.behaviour(state.session(), side("behaviour_of"), side("behaviour_against"), settings, stage)
        st.session_state[_NOW] = _Going(auditing, finding, stage)
    except ExplorerError as problem:
        st.session_state[_REFUSED] = str(problem)


def _show(going: _Going) -> None:
    task = going.finding.task
    if not task.finished:
        polling.follow("behaviour", partial(_show_progress, going), lambda: not task.finished)
    elif task.error:
        messages.failed(task.error)
    elif task.cancelled:
        st.text("Cancelled.")
    elif going.finding.found is not None:
        _show_found(going.finding.found)


def _show_progress(going: _Going) -> None:
    stage = going.stage
    bar, button = st.columns([6, 1], vertical_alignment="center")
    told = f"{stage.name}: {stage.done:,} of {stage.total:,}." if stage.total else "About to begin."
    bar.progress(stage.share, plain(f"{told} Interactive questions have priority."))
    button.button("Cancel", icon=":material/stop:", on_click=going.finding.task.cancel, key="behaviour_cancel")


def _show_found(found: Behaviour) -> None:
    """The verdict, the trigger, the cards, and the rows that stand out."""
    headline, said = behaviour_report.evidence(found)
    verdict_box(
        "behaviour_verdict",
        asked=behaviour_report.heading(found),
        state=found.question.verdict.state if found.question.verdict else "",
        headline=headline,
        sentence=said,
        progress="",
        sure=(),
    )
    if found.hunt is not None:
        st.text(behaviour_report.hunted(found.hunt))
    if suspected := behaviour_report.suspected(found):
        st.text(suspected)
    examples, origin = resources.store().examples, resources.origin()
    st.download_button(
        "JSON",
        partial(behaviour_report.to_json, found, origin, examples),
        "rapidin-behaviour.json",
        "application/json",
        key="behaviour_json",
        icon=":material/download:",
        on_click="ignore",
    )
    view.show_cards(found.question, positions=False, examples=len(examples))
    _show_suspects(found)


def _show_suspects(found: Behaviour) -> None:
    if not found.suspects:
        return
    shown = [(each, resources.store().examples[each.row]) for each in found.suspects[:_SUSPECTS]]
    opened = clickable_rows(
        "behaviour_suspects",
        [
            Column("row", [str(each.row) for each, _ in shown], "number"),
            Column("source", [one_line(example.source, 40) for _, example in shown], "chip"),
            Column("prompt", [one_line(example.prompt, 120) for _, example in shown]),
            Column("response", [one_line(example.response, 120) for _, example in shown]),
            Column("score", [signed(each.score, 3) for each, _ in shown], "number"),
        ],
        [str(each.row) for each, _ in shown],
        opens=2,
    )
    if len(found.suspects) > _SUSPECTS:
        st.caption(f"and {len(found.suspects) - _SUSPECTS:,} more, all of them in the JSON file")
    if opened:
        st.switch_page(places.DATA, query_params={"row": opened} | caches.link_parameters())
