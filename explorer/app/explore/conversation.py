"""The system prompt that questions are asked with, and the turns of what was asked."""

import streamlit as st

from explorer import views
from explorer.app.session import caches, resources
from explorer.records import Conversation, Prompt, said
from explorer.visible import visible

_KEPT, _AT_FIRST, _RESTORED = "system", "system_at_first", "system_restored"
"""Session keys: the system prompt, which outlives the fields that show it; what the field at hand was made with; how
often it was restored."""


def restore(asked: Conversation) -> None:
    """Take over the system prompt of something that was asked."""
    st.session_state[_KEPT] = asked.system
    st.session_state[_RESTORED] = _restored() + 1


def system_field(page: str) -> None:
    """Show the system prompt of the next question; each page has a field of its own."""
    key = _key(page)
    if key not in st.session_state:
        # The field's own default, not its state: a popover that is opened later shows what the field was made with.
        st.session_state[_AT_FIRST] = _system()
    st.session_state[_KEPT] = st.text_area(
        "System prompt",
        st.session_state[_AT_FIRST],
        key=key,
        height=100,
        placeholder="None",
        help="Stands before the next question. Where all training examples have the same one, it is filled in",
    )


def asked(prompt: Prompt, page: str) -> Conversation:
    """What is asked with a prompt: it comes behind the system prompt in the page's field, unless it has its own."""
    st.session_state[_KEPT] = st.session_state.get(_key(page), _system())
    return Conversation.of(prompt).with_system(_system())


def show(conversation: Conversation) -> None:
    """The turns before an answer, where there are several."""
    if conversation.alone:
        return
    with st.container(gap="small"):
        for turn in conversation.turns:
            st.caption(str(turn["role"]).capitalize())
            st.text(visible(views.shortened(said(turn), views.LONGEST_PROMPT)))


def hint(remedy: str, *asked: Conversation) -> None:
    """Say where nearly all training examples begin with a system prompt, and what was asked doesn't."""
    if line := views.without_system(resources.store().system, asked, remedy):
        st.text(line)


def _system() -> str:
    """What was typed last, or else what all training examples have."""
    return str(st.session_state.get(_KEPT, resources.store().system.shared))


def _key(page: str) -> str:
    # A closed popover isn't drawn, and its field goes on sending what it holds: only a new one shows what was restored.
    return f"system of {page} {caches.chosen()} {_restored()}"


def _restored() -> int:
    return int(st.session_state.get(_RESTORED, 0))
