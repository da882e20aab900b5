"""Fields whose values live outside of them: Streamlit forgets those of what isn't shown, and browsers send old ones."""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st


def restore(form: str) -> None:
    """Put back what `remember` kept of a form's fields; before they are drawn."""
    for key, value in st.session_state.get(f"fields of {form}", {}).items():
        st.session_state.setdefault(key, value)


def remember(form: str, beginnings: Sequence[str]) -> None:
    """Keep the values of the fields whose keys begin so."""
    fields = {key: value for key, value in st.session_state.items() if str(key).startswith(tuple(beginnings))}
    st.session_state[f"fields of {form}"] = fields


def showing(name: str, value: object, take: Callable[[Any], None]) -> dict[str, Any]:
    """The key, and what a change calls, of a field that shows a `value` which other parts of the page may set, too.

    `take` gets what was chosen in the field. A browser that asks for news says what its fields had when it asked. So a
    field whose value was set elsewhere is another field from then on, and what an older request says of the one before
    it is not taken; a value that the field has is not set again. Nor is it taken for a choice that a field has lost
    its value, as one in a menu that is opened while its page is drawn sometimes does.
    """
    if st.session_state.get(_key(name), value) != value:
        st.session_state[_turn(name)] = st.session_state.get(_turn(name), 0) + 1
    key = _key(name)
    if key not in st.session_state:
        st.session_state[key] = value
    return {"key": key, "on_change": _changed, "args": (name, key, take)}


def menu(name: str, label: str, **look: Any) -> Any:
    """A button that opens to what is drawn within, and that closes by itself when `close` is called.

    It stands in a container whose key is the name with `_menu`. Not for parts of a page that ask for news: what was
    drawn before it was opened would close it again.
    """
    with st.container(key=f"{name}_menu", width="content"):
        return st.popover(label, key=_key(name), on_change="rerun", **look)


def close(name: str) -> None:
    """Close a menu. It is another one from then on: an older request would say that it is open."""
    st.session_state[_turn(name)] = st.session_state.get(_turn(name), 0) + 1
    st.session_state[_key(name)] = False


def _turn(name: str) -> str:
    return f"{name} turn"


def _key(name: str) -> str:
    return f"{name} {st.session_state.get(_turn(name), 0)}"


def _changed(name: str, key: str, take: Callable[[Any], None]) -> None:
    chosen = st.session_state[key]
    if key == _key(name) and chosen is not None:
        take(chosen)
