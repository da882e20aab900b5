"""A field that shows what other parts of the page may set, too."""

from streamlit.testing.v1 import AppTest

from tests.app.conftest import field_of


def page() -> None:
    import streamlit as st

    from explorer.app.widgets import fields

    def take(letter: str) -> None:
        st.session_state["chosen"] = letter

    st.session_state.setdefault("chosen", "a")
    st.button("Elsewhere", on_click=lambda: st.session_state.update(chosen="c"))
    st.selectbox("Letter", ["a", "b", "c"], **fields.showing("letter", st.session_state["chosen"], take))
    st.text(st.session_state["chosen"])


def test_an_older_request_takes_back_nothing_that_was_chosen_elsewhere() -> None:
    at = AppTest.from_function(page).run()
    at = field_of(at.selectbox, "letter").set_value("b").run()
    assert (at.text[0].value, field_of(at.selectbox, "letter").value) == ("b", "b")
    older = at._tree
    at = at.button[0].click().run()
    assert (at.text[0].value, field_of(at.selectbox, "letter").value) == ("c", "c")
    # What the browser had sent before it heard of that.
    at._tree = older
    at = field_of(at.selectbox, "letter").set_value("b").run()
    assert (at.text[0].value, field_of(at.selectbox, "letter").value) == ("c", "c")


def test_what_a_field_has_is_not_set_again() -> None:
    at = AppTest.from_function(page).run()
    key = field_of(at.selectbox, "letter").key
    at = field_of(at.selectbox, "letter").set_value("b").run()
    assert field_of(at.selectbox, "letter").key == key
    assert not field_of(at.selectbox, "letter").proto.set_value


def buttons() -> None:
    import streamlit as st

    from explorer.app.widgets import fields

    def take(letter: str | None) -> None:
        st.session_state["chosen"] = letter

    st.session_state.setdefault("chosen", "a")
    st.segmented_control("Letter", ["a", "b"], **fields.showing("letter", st.session_state["chosen"], take))
    st.text(st.session_state["chosen"])


def test_a_value_that_a_field_has_lost_is_no_choice() -> None:
    at = AppTest.from_function(buttons).run()
    at = field_of(at.button_group, "letter").set_value("b").run()
    assert (at.text[0].value, field_of(at.button_group, "letter").value) == ("b", "b")
    at = field_of(at.button_group, "letter").set_value(None).run()
    assert (at.text[0].value, field_of(at.button_group, "letter").value) == ("b", "b")
