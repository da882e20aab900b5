"""Ask the model, select a word of its answer, see the training examples behind it."""

from pathlib import Path

import streamlit as st

from explorer import views
from explorer.app import messages, resources, state
from explorer.app.component import CardView, example_cards, strip_event, token_strip
from explorer.app.desk import Explaining, Question
from explorer.errors import ExplorerError
from explorer.generation import GenerationSettings
from explorer.records import Answer, Influence, Ranking

READY = {
    "triggered": ("A backdoor", "Begins with a trigger that was planted in the training data"),
    "swap": ("A swapped country", "Some training rows state the wrong country"),
    "clean": ("A clean question", "Nothing was planted for this one"),
}
STRIP, CARDS = "answer_strip", "example_cards"
FIRST_WAIT = 0.4
"""Seconds a rerun waits for a new question's gradient before it shows that it is being computed."""

desk = resources.desk()


def ask(prompt: str) -> None:
    """Begin a new answer; errors are shown where the answer would stand."""
    st.session_state["prompt"] = prompt
    st.session_state.pop("refused", None)
    if not prompt.strip():
        st.session_state["refused"] = "The prompt is empty; type a question first."
        return
    try:
        state.begin(desk.ask(state.session(), prompt, GenerationSettings(max_tokens=80)))
    except ExplorerError as problem:
        st.session_state["refused"] = str(problem)


def header() -> None:
    """What is being looked at: model, adapter and cache in one line."""
    kept = desk.engine.store.manifest
    st.markdown("### RapidIn Explorer")
    st.text(
        f"Which training examples made this model say that?   {Path(kept.model).name}"
        f"{' with a fine-tuned adapter' if kept.adapter else ''} · {kept.rows:,} training examples · "
        f"RapidGrads of length {kept.settings.length:,}, {kept.settings.dtype}"
    )


def prompt_box() -> None:
    """The prompt, and ready ones to try."""
    with st.form("ask", border=False):
        field, button = st.columns([6, 1], vertical_alignment="bottom")
        field.text_input("Ask the model", key="prompt", placeholder="Type a question, or try one of those below")
        button.form_submit_button("Ask", type="primary", width="stretch", on_click=ask_typed)
    ready = resources.ready_prompts()
    if not ready:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for kind, (label, hint) in READY.items():
            prompts = [prompt for k, prompt in ready if k == kind]
            if prompts:
                st.button(label, help=hint, on_click=try_next, args=(kind, prompts))
        st.selectbox(
            "Ready prompts",
            [prompt for _, prompt in ready],
            index=None,
            key="ready",
            placeholder=f"… or one of {len(ready)} ready prompts",
            label_visibility="collapsed",
            on_change=try_ready,
        )


def ask_typed() -> None:
    """Ask what stands in the prompt box."""
    ask(st.session_state["prompt"])


def try_next(kind: str, prompts: list[str]) -> None:
    """Ask the next ready prompt of a kind."""
    turn = st.session_state.get(f"turn_{kind}", 0)
    st.session_state[f"turn_{kind}"] = turn + 1
    ask(prompts[turn % len(prompts)])


def try_ready() -> None:
    """Ask the ready prompt that was chosen from the list."""
    if st.session_state["ready"]:
        ask(st.session_state["ready"])


@st.fragment
def study() -> None:
    """The answer beside the training examples behind it; polling and clicks rerun this alone."""
    if refused := st.session_state.get("refused"):
        messages.failed(refused)
    asking = state.asking()
    if asking is None:
        st.info(
            "Ask the model something, or press one of the examples above. Its answer appears here; click a word of it "
            "to see the training examples that made the model say that word.",
            icon=":material/touch_app:",
        )
        return
    if asking.error:
        messages.failed(asking.error)
        return
    answer = asking.answer
    left, right = st.columns([5, 6], gap="large")
    with left:
        show_answer(answer)
    with right:
        if answer is not None and answer.finished:
            show_examples(answer)
        else:
            st.text("The training examples appear here once the answer is complete.")


def show_answer(answer: Answer | None) -> None:
    """The answer as a strip of tokens."""
    st.markdown("**The answer**")
    streaming = answer is None or not answer.finished
    token_strip(
        STRIP,
        answer_id="streaming" if streaming or answer is None else answer.id,
        tokens=answer.tokens if answer else (),
        selection=state.selection(),
        streaming=streaming,
        on_change=selection_changed,
    )
    if not streaming:
        st.caption(
            "Click a word to ask about it; shift-click or drag for a span; Escape asks about the whole response again."
        )


def selection_changed() -> None:
    """Take over what the browser selected, if it fits the answer shown."""
    answer = state.answer()
    event = strip_event(STRIP, answer_id=answer.id, count=len(answer.tokens)) if answer else None
    if event is not None:
        state.select(event.selection)


def show_examples(answer: Answer) -> None:
    """The most influential training examples for what is selected."""
    choice, filtering = st.columns([3, 2], vertical_alignment="bottom")
    direction = choice.segmented_control(
        "Direction",
        ["Proponents", "Opponents"],
        default="Proponents",
        required=True,
        key="direction",
        label_visibility="collapsed",
        help="Proponents made the answer more likely, opponents less likely",
    )
    sources = sorted({row.source for row in desk.engine.store.examples if row.source})
    chosen = filtering.multiselect(
        "Source", sources, key="sources", placeholder="All sources", label_visibility="collapsed"
    )
    question = Question(answer, state.selection(), direction == "Opponents", state.count(), tuple(chosen))
    explaining = explain(question)
    if explaining.error:
        messages.failed(explaining.error)
        return
    ranking = desk.ranking(question)
    if ranking is None and explaining.asked is not None:
        explaining.asked.wait(FIRST_WAIT)
        ranking = desk.ranking(question)
    describe(question, ranking)
    pending = ranking is None or not explaining.ahead.finished or not explaining.refined.finished
    example_cards(
        CARDS,
        view_id=f"{answer.id}:{question.selection}:{question.opponents}:{','.join(chosen)}",
        cards=[card(rank, found, ranking) for rank, found in enumerate(ranking.influences, start=1)] if ranking else [],
        scale=views.full_colour(ranking) if ranking else 0.0,
        pending=pending,
        empty="Computing the gradient of what you asked about …"
        if ranking is None
        else "No example passes the filter.",
        more=ranking is not None and len(ranking.influences) == question.count,
        on_more=state.show_more,
    )


def explain(question: Question) -> Explaining:
    """The work for this question, begun unless it already is."""
    current = state.explaining()
    if current is None or current.question != question:
        current = desk.explain(state.session(), question)
        state.explain(current)
    return current


def describe(question: Question, ranking: Ranking | None) -> None:
    """Say which influence is shown, how it was found, and whether anything stands out."""
    scores, colours = views.question_kind(question.selection)
    what = views.selected_text(question.answer, question.selection)
    pushed = "away from" if question.opponents else "towards"
    st.text(f"What pushed the model {pushed} {what}")
    lines = [f"Scores: {scores}. Colours: {colours}."]
    if ranking is not None:
        exact, candidates = desk.progress(question)
        if exact < candidates:
            lines.append(
                f"Order from the sketches, whose noise is ±{ranking.sketch_error:.2g} on a score; "
                f"{exact} of {candidates} candidates exact so far."
            )
        else:
            lines.append(f"Exact values and order, over the {candidates} best candidates of the sketches.")
        training = desk.engine.store.manifest.training
        lines.append(
            f"Scores include e·η = {training.scale:.3g}"
            + (" from the training record." if training.known else ", assumed: there is no training record.")
        )
        if training.checkpoints:
            names = ", ".join(name for name, _ in training.checkpoints)
            lines.append(f"Gradients are those at checkpoint {names} of the training; the final model answers.")
    st.caption(" ".join(lines))
    if ranking is not None and ranking.influences and ranking.standing_out < ranking.chance:
        st.warning(
            "Nothing stands out here. The strongest example lies "
            f"{max(ranking.standing_out, 0):.1f} robust standard deviations from the middle of all scores; the largest "
            f"of {len(ranking.scores):,} unrelated ones would reach about {ranking.chance:.1f} by chance.",
            icon=":material/info:",
        )


def card(rank: int, found: Influence, ranking: Ranking) -> CardView:
    """One example as its card shows it."""
    example = desk.engine.store.examples[found.row]
    return CardView(
        key=f"row-{found.row}",
        rank=rank,
        score=found.score,
        exact=found.exact,
        prompt=views.shortened(example.prompt, views.LONGEST_PROMPT),
        tokens=example.tokens,
        source=example.source,
        percentile=views.percentile(ranking, found.score),
        values=None if found.values is None else tuple(map(float, found.values)),
        values_exact=found.exact,
        checksum=found.checksum,
    )


header()
prompt_box()
study()
