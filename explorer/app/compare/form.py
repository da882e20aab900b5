"""What is compared: two prompts, two settings, base and fine-tuned, an edited answer, or two saved answers."""

from collections.abc import Callable

import streamlit as st

from explorer.app.desk import pairing
from explorer.app.explore import conversation, method_box
from explorer.app.session import resources, state
from explorer.app.session.reopening import reopen
from explorer.app.session.state import Study
from explorer.app.widgets import filter_box
from explorer.app.widgets.choices import OPPONENTS, PROPONENTS, one_of
from explorer.errors import ExplorerError, PromptError
from explorer.model.generation import GenerationSettings
from explorer.records import Conversation
from explorer.visible import one_line

A, B = Study("A"), Study("B")
PROMPTS, SETTINGS, BASE, EDITED, SAVED = (
    "Two prompts",
    "Two settings",
    "Base and fine-tuned",
    "An edited answer",
    "Saved answers",
)
KIND, PAGE = "compare_kind", "compare"
LISTED = 200
"""So many of the newest saved answers are offered."""


def title(study: Study, sentence: bool = False) -> str:
    """What the page calls one side's answer: whose words it is, where the other one's differ; else A or B.

    Within a `sentence` it is called in full.
    """
    bases = {each.name: bool(asking.settings and asking.settings.base) for each in (A, B) if (asking := each.asking())}
    if len(set(bases.values())) == 2:
        name = "Base model" if bases[study.name] else "Fine-tuned"
        return f"the {'base model' if bases[study.name] else 'fine-tuned model'}’s answer" if sentence else name
    return f"{study.name}’s answer" if sentence else study.name


def show_form() -> None:
    """The fields of what to compare; a single line once there is something to look at."""
    if not any(study.asking() for study in (A, B)):
        _show_fields()
        return
    with st.expander(f"Compared: {filter_box.plain(_compared())}. Change"):
        _show_fields()


def _compared() -> str:
    prompts = list(dict.fromkeys(asking.asked.question for study in (A, B) if (asking := study.asking())))
    return " and ".join(f"“{one_line(prompt, 60)}”" for prompt in prompts)


def _show_fields() -> None:
    model = resources.desk().engine.model
    kinds = [PROMPTS, SETTINGS, *([BASE] if model.has_base else []), EDITED, SAVED]
    kind = one_of("Compare", kinds, KIND, wrap=True)
    if not model.has_base:
        st.caption(f"Base and fine-tuned isn't offered: {model.without_base}.")
    with st.form("compare", border=False):
        _FIELDS[kind]()
        if kind != SAVED:
            conversation.system_field(PAGE)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            if kind != SAVED:
                _longest()
            st.form_submit_button("Compare", type="primary", on_click=begin)


def _prompts() -> None:
    for side, study in zip(st.columns(2, gap="large"), (A, B), strict=True):
        side.text_input(f"Prompt of {study.name}", key=f"compare_prompt {study.name}")


def _settings() -> None:
    _prompt()
    st.session_state.setdefault(f"compare_heat {B.name}", 0.8)
    for side, study in zip(st.columns(2, gap="large"), (A, B), strict=True):
        with side, st.container(horizontal=True):
            st.number_input(f"Temperature of {study.name}", 0.0, 2.0, step=0.1, key=f"compare_heat {study.name}")
            st.number_input(f"Seed of {study.name}", 0, 2**31 - 1, key=f"compare_seed {study.name}")


def _prompt() -> None:
    st.text_input("Prompt", key="compare_prompt")


def _longest() -> None:
    st.session_state.setdefault("compare_longest", GenerationSettings().max_tokens)
    st.number_input("Longest answer, in tokens", 1, 1000, key="compare_longest", width=220)


def _saved() -> None:
    found, total = resources.history().find(limit=LISTED)
    names = {one.id: f"{one_line(one.prompt, 60)} → {one.said_by.value}: {one_line(one.response, 60)}" for one in found}
    for side, study in zip(st.columns(2, gap="large"), (A, B), strict=True):
        key = f"compare_saved {study.name}"
        if st.session_state.get(key) not in names:
            st.session_state.pop(key, None)
        side.selectbox(
            f"Saved answer {study.name}",
            list(names),
            index=None,
            format_func=lambda name: names.get(name, name),
            key=key,
            placeholder="Choose one" if names else "Nothing is saved yet",
        )
    if total > LISTED:
        st.caption(f"The newest {LISTED} of {total:,} saved answers; older ones open from the History page.")


_FIELDS: dict[str, Callable[[], None]] = {
    PROMPTS: _prompts,
    SETTINGS: _settings,
    BASE: _prompt,
    EDITED: _prompt,
    SAVED: _saved,
}


def begin() -> None:
    """Ask for both answers, or open them."""
    st.query_params.clear()
    value = st.session_state.get
    kind = value(KIND) or PROMPTS
    longest = int(value("compare_longest", GenerationSettings().max_tokens))
    prompt = str(value("compare_prompt", ""))
    plain = GenerationSettings(longest)
    if kind == SAVED:
        for study in (A, B):
            open_saved(study, value(f"compare_saved {study.name}"))
    elif kind == PROMPTS:
        for study in (A, B):
            ask(study, str(value(f"compare_prompt {study.name}", "")), plain)
    elif kind == SETTINGS:
        for study in (A, B):
            heat, seed = float(value(f"compare_heat {study.name}", 0)), int(value(f"compare_seed {study.name}", 0))
            ask(study, prompt, GenerationSettings(longest, temperature=heat, seed=seed))
    else:
        ask(A, prompt, plain)
        if kind == BASE:
            ask(B, prompt, GenerationSettings(longest, base=True))
        else:
            attempt(B, lambda: B.begin(None))


def ask(study: Study, prompt: str, settings: GenerationSettings) -> None:
    """Begin one side's answer."""

    def start() -> None:
        if not prompt.strip():
            raise PromptError(f"The prompt of {study.name} is empty; type a question first.")
        study.begin(resources.desk().ask(study.owner, conversation.asked(prompt, PAGE), settings, choose=False))

    attempt(study, start)


def attribute(study: Study, asked: Conversation, text: str) -> None:
    """Take a text as one side's answer to what was asked."""
    st.query_params.clear()
    attempt(study, lambda: study.begin(resources.desk().attribute(study.owner, asked, text, choose=False)))


def open_saved(study: Study, name: str | None) -> None:
    """Look at a saved answer on one side."""

    def start() -> None:
        if not name:
            raise PromptError(f"Choose a saved answer for {study.name}.")
        # Both are compared by the cache of A.
        kept, question = reopen(study, name, choose=study == A)
        st.session_state[f"compare_saved {study.name}"] = kept.id
        if question is not None:
            st.session_state["compare_direction"] = OPPONENTS if question.opponents else PROPONENTS
            method_box.restore(question.method)
            filter_box.fill_in(resources.desk().corpus, question.wanted)

    attempt(study, start)


def attempt(study: Study, start: Callable[[], object]) -> None:
    """Begin something on one side; what refuses it is shown there."""
    pairing.stop(resources.desk(), state.session())
    st.session_state[study.key("refused")] = ""
    try:
        resources.take_up()
        start()
    except ExplorerError as problem:
        study.begin(None)
        st.session_state[study.key("refused")] = str(problem)
