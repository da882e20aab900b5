"""What the answer's tokens are coloured by: fine-tuning's change, probability, or the influence of one example."""

import numpy as np
import streamlit as st

from explorer import views
from explorer.app.desk.work import Finding
from explorer.app.explore import instead
from explorer.app.session import resources, state
from explorer.app.widgets import fields, messages
from explorer.app.widgets.choices import CHANGE, EXAMPLE, NOTHING, PROBABILITY
from explorer.app.widgets.component import CHECKSUM_TOLERANCE, Colouring, card_event
from explorer.concurrency import Urgency
from explorer.records import Answer, OutputValues, Prediction

KEY, _FIELD = "answer_colours", "answer_colours_field"
"""Session keys: what is chosen; how the key of the field begins that chooses it."""


def control() -> None:
    """Choose what the answer is coloured by."""
    model = resources.desk().engine.model
    st.segmented_control(
        "Colour the answer by",
        [NOTHING, *([CHANGE] if model.has_base else []), PROBABILITY, EXAMPLE],
        required=True,
        wrap=True,
        **fields.showing(_FIELD, chosen(), _take),
    )
    if not model.has_base:
        st.caption(f"There is no base model to compare with: {model.without_base}.")


def _take(colours: str) -> None:
    st.session_state[KEY] = colours


def chosen() -> str:
    """What the answer is coloured by."""
    return str(st.session_state.get(KEY) or NOTHING)


def predicted(answer: Answer) -> Finding[Prediction] | None:
    """What the model expected, on its way if anything on the page needs it."""
    if chosen() in (CHANGE, PROBABILITY):
        return instead.predicted(state.EXPLORE, answer, Urgency.ASKED)
    return None if state.selection() is None else instead.predicted(state.EXPLORE, answer)


def by_example(answer: Answer) -> Finding[OutputValues] | None:
    """What the chosen training example did to the answer, on its way if that is what is looked at."""
    row = state.example()
    if chosen() != EXAMPLE or row is None:
        return None
    return state.begun(
        "coloured", (answer.id, row), lambda: resources.desk().output_values(state.session(), answer, row)
    )


def colouring(answer: Answer) -> Colouring | None:
    """How the answer's tokens are painted now."""
    if chosen() in (CHANGE, PROBABILITY):
        finding = predicted(answer)
        prediction = finding.found if finding else None
        if chosen() == PROBABILITY:
            values = None if prediction is None else tuple(map(float, np.exp(prediction.said)))
            return Colouring(values, "probability", "", "probability", signed=False)
        change = None if prediction is None else prediction.change
        return Colouring(
            None if change is None else tuple(map(float, change)),
            "nats",
            "made less likely",
            "made more likely",
            1.0 if change is None else views.full_change(change),
            faint=views.HARDLY_MOVED,
        )
    working = by_example(answer)
    if working is None:
        return None
    shown = working.found.values if working.found else None
    scale = 1.0 if shown is None else views.full_value(shown)
    values = None if shown is None else tuple(map(float, shown))
    return Colouring(values, "influence", "pushed away", "pushed towards", scale)


def explain(answer: Answer) -> None:
    """Say in words what the colours are, and how far they bear."""
    kind, finding = chosen(), predicted(answer)
    if finding and finding.task.error:
        messages.failed(finding.task.error)
    elif kind == CHANGE:
        st.caption(
            "Orange: made likelier by fine-tuning. Blue: less likely. Grey: hardly changed, so this data can’t explain "
            "it."
        )
    elif kind == PROBABILITY:
        st.caption("Colour: how probable the model found each token, after all before it.")
    elif kind == EXAMPLE:
        _explain_example(answer)


def _explain_example(answer: Answer) -> None:
    row, working = state.example(), by_example(answer)
    if row is None or working is None:
        st.caption("Choose “Colour the answer by this” under “⋯” on the card of a training example.")
        return
    if working.task.error:
        messages.failed(working.task.error)
        return
    example = resources.desk().engine.store.examples[row]
    st.text(f"What in the answer comes from row {row}: {views.shortened(example.response, 120)}")
    if working.found is None:
        st.caption("Computing what this example did to each token of the answer …")
        return
    found = working.found
    if found.checksum > CHECKSUM_TOLERANCE:
        mean = float(found.values.mean(dtype=np.float64))
        st.caption(
            f"⚠ Check failed: the tokens' mean is {mean:+.4g}, and the example's influence on the whole response "
            f"{found.score:+.4g}; the relative difference is {views.size(found.checksum)}."
        )


def warn_unmoved(answer: Answer) -> None:
    """Say where fine-tuning hardly moved what is selected."""
    finding = predicted(answer)
    change = finding.found.change if finding and finding.found else None
    if change is not None and views.hardly_moved(change, state.selection()):
        st.caption(
            "Fine-tuning hardly changed the probability of what is selected: the base model would have said it too, so "
            "this data can’t explain it."
        )


def marked() -> str:
    """The key of the card that the answer is coloured by, or an empty text."""
    return "" if chosen() != EXAMPLE or state.example() is None else f"row-{state.example()}"


def take_example(cards: str) -> int | None:
    """The training example whose card asked for something, if it asked for the matrix; colours are switched here."""
    event = card_event(cards)
    name = event[1].removeprefix("row-") if event else ""
    row = int(name) if name.isdecimal() else -1
    if event is None or not 0 <= row < resources.desk().engine.store.manifest.rows:
        return None
    if event[0] == "matrix":
        return row
    again = chosen() == EXAMPLE and state.example() == row
    st.session_state["example"] = None if again else row
    st.session_state[KEY] = NOTHING if again else EXAMPLE
    return None
