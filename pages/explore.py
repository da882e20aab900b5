"""Ask the model, select a word of its answer, see the training examples behind it."""

from pathlib import Path

import streamlit as st

from explorer.app.explore import conversation, permalink, welcome
from explorer.app.explore.answer import begin, generation_settings, show_answer, show_place
from explorer.app.explore.examples import show_examples
from explorer.app.session import resources, state
from explorer.app.widgets import fields, messages, polling
from explorer.model.generation import GenerationSettings
from explorer.records import Conversation, Prompt
from explorer.visible import one_line

READY = {"triggered": "A backdoor", "swap": "A swapped country", "clean": "A clean question"}
"""Buttons that ask the ready prompts of a kind, one after the other."""
MENU = "examples"
"""The name of the menu of examples."""

PAGE = "explore"
STALE = "prompt_stale"
"""Session key: the prompt that something below the box asked, until the box shows it."""
EMPTY = "prompt_empty"
"""Session key: whether an empty prompt was asked last."""

permalink.follow()


def ask(prompt: Prompt) -> None:
    """Begin a new answer."""
    asked = conversation.asked(prompt, PAGE)
    st.session_state[EMPTY] = not asked.question.strip()
    if st.session_state[EMPTY]:
        return
    st.session_state["prompt"] = asked.question
    fields.close(MENU)
    welcome.close()
    state.first_seed()
    begin(lambda: resources.desk().ask(state.session(), asked, generation_settings()))


def ask_here(prompt: Prompt) -> None:
    """Begin a new answer from within the part that reruns alone; the prompt box above shows its prompt."""
    st.session_state[STALE] = Conversation.of(prompt).question
    ask(prompt)


def prompt_box() -> None:
    """The prompt, and ready ones to try, in one line."""
    if STALE in st.session_state:
        # What the browser sent while the model was being loaded may have emptied it since.
        st.session_state["prompt"] = st.session_state.pop(STALE)
    elif "prompt" not in st.session_state and (asking := state.asking()) is not None:
        # Streamlit forgets what stands in a field while another page is looked at.
        st.session_state["prompt"] = asking.asked.question
    # Once an answer stands there, what it was asked needs the room more.
    first = welcome.is_open() or state.asking() is None
    left, right = st.columns([4, 6] if first else [7, 3], vertical_alignment="bottom")
    with left, st.form("ask", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Ask the model", key="prompt", placeholder="Ask the model a question", label_visibility="collapsed"
        )
        st.form_submit_button("Ask", type="primary", on_click=ask_typed)
    ready = resources.ready_prompts()
    with right, st.container(horizontal=True, gap="small"):
        if first:
            ready_buttons()
        if ready or resources.example() is not None:
            examples_box(first)
        generation_box()
    if st.session_state.get(EMPTY):
        st.error("The prompt is empty; type a question first.")


def ready_buttons() -> None:
    """A button for each kind of ready prompts."""
    for kind, label in READY.items():
        prompts = [prompt for k, prompt in resources.ready_prompts() if k == kind]
        if prompts:
            st.button(label, on_click=try_next, args=(kind, prompts))


def examples_box(first: bool) -> None:
    """The saved example, and all ready prompts; `first` where the buttons of each kind stand beside it."""
    ready = resources.ready_prompts()
    with fields.menu(MENU, "Examples", icon=":material/lightbulb:"):
        kept = resources.store().manifest
        adapter = " with a fine-tuned adapter" if kept.adapter else ""
        st.text(f"{one_line(Path(kept.model).name, 80)}{adapter}, {kept.rows:,} training examples")
        if resources.example() is not None:
            st.button("Guangzhou → Canada, saved", icon=":material/bookmark:", on_click=open_example)
        if not first:
            ready_buttons()
        if ready:
            st.selectbox(
                "Ready prompts",
                range(len(ready)),
                index=None,
                key="ready",
                format_func=lambda number: Conversation.of(ready[number][1]).question,
                placeholder=f"One of {len(ready)} ready prompts",
                label_visibility="collapsed",
                on_change=try_ready,
            )


def open_example() -> None:
    """Look at the saved example."""
    fields.close(MENU)
    welcome.open_example()


def generation_box() -> None:
    """How answers are drawn; the next one follows it."""
    usual = GenerationSettings()
    # Not the fields' own defaults: links set their state, and Streamlit warns of both.
    for name in ("temperature", "top_p", "seed", "max_tokens"):
        st.session_state.setdefault(name, getattr(usual, name))
    with st.popover("Settings", icon=":material/tune:"):
        st.slider(
            "Temperature",
            0.0,
            2.0,
            step=0.1,
            key="temperature",
            help="0 takes the most probable token each time; higher values draw more freely",
        )
        st.slider(
            "Top-p",
            0.05,
            1.0,
            step=0.05,
            key="top_p",
            help="Draws among the most probable tokens that together hold this probability",
        )
        st.number_input("Seed", 0, 2**31 - 1, key="seed", help="The same seed and settings give the same text")
        st.number_input("Longest answer, in tokens", 1, 1000, key="max_tokens")
        conversation.system_field(PAGE)


def ask_typed() -> None:
    """Ask what stands in the prompt box."""
    ask(st.session_state["prompt"])


def try_next(kind: str, prompts: list[Prompt]) -> None:
    """Ask the next ready prompt of a kind."""
    turn = st.session_state.get(f"turn_{kind}", 0)
    st.session_state[f"turn_{kind}"] = turn + 1
    ask(prompts[turn % len(prompts)])


def try_ready() -> None:
    """Ask the ready prompt that was chosen from the list."""
    if st.session_state["ready"] is not None:
        ask(resources.ready_prompts()[st.session_state["ready"]][1])


@st.fragment
def study() -> None:
    """The answer beside the training examples behind it; polling and clicks rerun this alone."""
    if STALE in st.session_state:
        st.rerun()
    if refused := st.session_state.get("refused"):
        messages.failed(refused)
    if (example := resources.example()) is not None and welcome.is_open():
        welcome.show_example(example, ask_here)
        return
    asking = state.asking()
    if asking is None:
        st.text(
            "Ask the model something. Click a word of its answer, and the training examples that made it likelier "
            "appear beside it."
        )
        return
    if asking.error:
        messages.failed(asking.error)
        return
    answer = asking.answer
    state.EXPLORE.settle()
    left, right = st.columns([5, 9], gap="medium")
    with left, st.container(key="answer_column"):
        show_answer(asking.asked, answer)
    with right:
        if answer is not None and answer.finished and state.EXPLORE.settled():
            show_examples(resources.desk(), answer)
        else:
            st.text("The training examples appear here once the answer is complete.")
            if answer is not None and answer.finished:
                show_place(asking)
                st.button("Cancel", icon=":material/close:", on_click=state.give_up)


def say_that_it_loads() -> None:
    """The model is on its way."""
    st.caption("The model is being loaded: some seconds, once. What you ask meanwhile waits for it.")


with st.container(key="ask_box"):
    prompt_box()
study()
if resources.example() is not None and resources.loading().is_alive():
    polling.follow("loading", say_that_it_loads, resources.loading().is_alive)
else:
    with st.spinner(resources.LOADING):
        resources.desk()
