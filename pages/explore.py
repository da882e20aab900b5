"""Ask the model, select a word of its answer, see the training examples behind it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import streamlit as st

from explorer import views
from explorer.app import messages, resources, state
from explorer.app.component import CardView, example_cards, strip_event, token_strip
from explorer.app.desk import Asking, Explaining, Question
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
    """Begin a new answer."""
    st.session_state["prompt"] = prompt
    state.first_seed()
    begin(prompt, lambda: desk.ask(state.session(), prompt, generation_settings()))


def begin(prompt: str, start: Callable[[], Asking]) -> None:
    """Look at another answer; errors are shown where it would stand."""
    st.session_state.pop("refused", None)
    if not prompt.strip():
        st.session_state["refused"] = "The prompt is empty; type a question first."
        return
    try:
        state.begin(start())
    except ExplorerError as problem:
        st.session_state["refused"] = str(problem)


def generation_settings() -> GenerationSettings:
    """How the next answer is drawn, as set on the page."""
    usual = GenerationSettings()
    return GenerationSettings(
        max_tokens=int(st.session_state.get("max_tokens", usual.max_tokens)),
        temperature=float(st.session_state.get("temperature", usual.temperature)),
        top_p=float(st.session_state.get("top_p", usual.top_p)),
        seed=int(st.session_state.get("seed", usual.seed)),
    )


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
    generation_box()
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


def generation_box() -> None:
    """How answers are drawn; the next one follows it."""
    usual = GenerationSettings()
    with st.popover("Settings", icon=":material/tune:"):
        st.slider(
            "Temperature",
            0.0,
            2.0,
            usual.temperature,
            0.1,
            key="temperature",
            help="0 takes the most probable token each time; higher values draw more freely",
        )
        st.slider(
            "Top-p",
            0.05,
            1.0,
            usual.top_p,
            0.05,
            key="top_p",
            help="Draws among the most probable tokens that together hold this probability",
        )
        st.number_input(
            "Seed", 0, 2**31 - 1, usual.seed, key="seed", help="The same seed and settings give the same text"
        )
        st.number_input("Longest answer, in tokens", 1, 1000, usual.max_tokens, key="max_tokens")


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
    if streaming:
        st.button("Stop", icon=":material/stop:", on_click=stop)
        return
    drawn = asking.settings if (asking := state.asking()) else None
    st.caption(
        "Click a word to ask about it; shift-click or drag for a span; Escape asks about the whole response again."
        + (f" Drawn with the seed {drawn.seed}." if drawn and drawn.temperature > 0 else "")
    )
    with st.container(horizontal=True):
        st.button(
            "Regenerate",
            icon=":material/refresh:",
            on_click=regenerate,
            help="Asks again with the settings above; at a temperature above 0 with the next seed",
        )
        with st.popover("Edit the answer", icon=":material/edit:"), st.form("edit", border=False):
            st.text_area("Ask about this text as if the model had said it", answer.text, key=f"edited_{answer.id}")
            st.form_submit_button("Attribute this text", on_click=attribute, args=(answer.id,))


def stop() -> None:
    """End the answer where it is."""
    if asking := state.asking():
        asking.stop()


def regenerate() -> None:
    """Ask the same again; another seed gives another text where chance has a say."""
    asking = state.asking()
    if asking is None:
        return
    settings = generation_settings()
    if settings.temperature > 0:
        settings = replace(settings, seed=state.next_seed(settings.seed))
    begin(asking.prompt, lambda: desk.ask(state.session(), asking.prompt, settings))


def attribute(answer_id: str) -> None:
    """Take the edited text for the answer."""
    asking = state.asking()
    if asking is not None:
        text = str(st.session_state[f"edited_{answer_id}"])
        if not text.strip():
            st.session_state["refused"] = "The response is empty; give some text to ask about."
            return
        begin(asking.prompt, lambda: desk.attribute(state.session(), asking.prompt, text))


def selection_changed() -> None:
    """Take over what the browser selected, if it fits the answer shown."""
    answer = state.answer()
    event = strip_event(STRIP, answer_id=answer.id, count=len(answer.tokens)) if answer else None
    if event is not None:
        state.select(event.selection)


def show_examples(answer: Answer) -> None:
    """The most influential training examples for what is selected."""
    controls = st.container(horizontal=True, vertical_alignment="bottom")
    direction = controls.segmented_control(
        "Direction",
        ["Proponents", "Opponents"],
        default="Proponents",
        required=True,
        key="direction",
        label_visibility="collapsed",
        help="Proponents made the answer more likely, opponents less likely",
    )
    colours = controls.segmented_control(
        "Colours",
        ["Own loss", "Position"],
        default="Own loss",
        required=True,
        key="colours",
        label_visibility="collapsed",
        help="What a training token's colour means. Own loss: learning to say this token. Position: what of the "
        "example's influence passes through this place, the prompt's too",
    )
    sources = sorted({row.source for row in desk.engine.store.examples if row.source})
    chosen = controls.multiselect(
        "Source", sources, key="sources", placeholder="All sources", label_visibility="collapsed"
    )
    question = Question(
        answer, state.selection(), direction == "Opponents", state.count(), tuple(chosen), colours == "Position"
    )
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
        view_id=f"{answer.id}:{question.selection}:{question.opponents}:{question.positions}:{','.join(chosen)}",
        cards=[card(rank, found, ranking, question.positions) for rank, found in enumerate(ranking.influences, start=1)]
        if ranking
        else [],
        scale=views.full_colour(ranking, question.positions) if ranking else 0.0,
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
    scores, colours = views.question_kind(question.selection, question.positions)
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


def card(rank: int, found: Influence, ranking: Ranking, positions: bool) -> CardView:
    """One example as its card shows it: the tokens of its response, or of all its positions."""
    example = desk.engine.store.examples[found.row]
    values = views.token_values(found, positions)
    return CardView(
        key=f"row-{found.row}",
        rank=rank,
        score=found.score,
        exact=found.exact,
        prompt="" if positions and values is not None else views.shortened(example.prompt, views.LONGEST_PROMPT),
        tokens=desk.engine.sequence(found.row) if positions and values is not None else example.tokens,
        source=example.source,
        percentile=views.percentile(ranking, found.score),
        values=None if values is None else tuple(map(float, values)),
        values_exact=found.exact,
        checksum=views.token_checksum(found, positions),
        adds_up=positions,
    )


header()
prompt_box()
study()
