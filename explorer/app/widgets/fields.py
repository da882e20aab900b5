"""Fields that outlive a visit to another page: Streamlit forgets the state of what isn't shown."""

from collections.abc import Sequence

import streamlit as st


def restore(form: str) -> None:
    """Put back what `remember` kept of a form's fields; before they are drawn."""
    for key, value in st.session_state.get(f"fields of {form}", {}).items():
        st.session_state.setdefault(key, value)


def remember(form: str, beginnings: Sequence[str]) -> None:
    """Keep the values of the fields whose keys begin so."""
    fields = {key: value for key, value in st.session_state.items() if str(key).startswith(tuple(beginnings))}
    st.session_state[f"fields of {form}"] = fields
