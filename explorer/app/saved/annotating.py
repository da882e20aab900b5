"""The form in which an auditor says what is to be thought of an answer or a training example."""

from collections.abc import Callable

import streamlit as st

from explorer.app.session import resources
from explorer.history import Annotation

VERDICTS = ("planted", "hallucination", "fine", "unclear")


def annotation_form(key: str, now: Annotation, save: Callable[[Annotation], None]) -> None:
    """Verdict, tags and a note, saved at the press of a button.

    Args:
        key: Names the thing that is annotated.
        now: What is noted so far.
        save: Called with what was entered; an ExplorerError is for the page to show.
    """
    history = resources.history()
    verdicts = list(dict.fromkeys([*VERDICTS, *history.verdicts(), *([now.verdict] if now.verdict else [])]))
    tags = sorted({*history.tags(), *now.tags})
    with st.form(f"annotate_{key}", border=False):
        verdict = st.selectbox(
            "Verdict",
            verdicts,
            index=verdicts.index(now.verdict) if now.verdict else None,
            placeholder="None yet; choose or type one",
            accept_new_options=True,
            key=f"verdict_{key}",
        )
        chosen = st.multiselect(
            "Tags", tags, default=now.tags, placeholder="Choose or type", accept_new_options=True, key=f"tags_{key}"
        )
        note = st.text_area("Note", now.note, key=f"note_{key}")
        if st.form_submit_button("Save the notes", key=f"save_{key}"):
            save(Annotation(verdict or "", tuple(chosen), note))
            st.toast("Saved.", icon=":material/check:")
