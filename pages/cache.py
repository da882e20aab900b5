"""The cache: what it holds, how it was made, whether it fits the model and is undamaged."""

import math

import psutil
import streamlit as st

from explorer.app.desk.work import Finding
from explorer.app.session import resources, state
from explorer.app.widgets import messages, polling
from explorer.cache import cache_report
from explorer.cache.inventory import compared, disk_use
from explorer.cache.verify import verify
from explorer.errors import ExplorerError
from explorer.evaluation.measuring import EXAMPLES, QUESTIONS, total
from explorer.visible import one_line

CHECKED, MEASURED = "checked_problems", "measured"
"""Session keys: what the last check found; the measurement on its way, or why there is none."""

store = resources.store()


def size(count: float) -> str:
    """Bytes for people."""
    if count < 1000:
        return f"{count:,.0f} bytes"
    steps = min(int(math.log10(count) / 3), 4)
    return f"{count / 1000**steps:,.3g} {('', 'kB', 'MB', 'GB', 'TB')[steps]}"


def listed(facts: dict[str, object]) -> None:
    """Names and values, as text."""
    st.dataframe(
        {
            "what": [name.replace("_", " ") for name in facts],
            "value": [f"{value:,}" if type(value) is int else one_line(str(value), 400) for value in facts.values()],
        },
        hide_index=True,
        height="content",
    )


def show_status() -> bool:
    """Three lines: whether the cache is complete, matches the model, and is undamaged; whether it matches."""
    if store.complete:
        st.success(f"Complete: all {store.total:,} training examples are in it.", icon=":material/check_circle:")
    else:
        st.warning(
            f"Unfinished: the first {store.manifest.rows:,} of {store.total:,} training examples are looked at.",
            icon=":material/hourglass_top:",
        )
    fits = show_fit()
    show_integrity()
    return fits


def show_use() -> None:
    """Disk and memory."""
    used = disk_use(store)
    memory = psutil.Process().memory_info().rss
    listed(
        {name: size(count) for name, count in used.items()}
        | {"together": size(sum(used.values())), "memory of this server's process": size(memory)}
    )
    st.caption("Sketches are memory-mapped: the operating system loads what is read, and may free it again.")


def show_integrity() -> None:
    """Every file against the manifest, when asked."""
    problems = st.session_state.get(CHECKED)
    if problems is None:
        st.info(
            "Undamaged: not checked in this session. File sizes are right, and each file is checked before its first "
            "use.",
            icon=":material/verified:",
        )
    elif problems:
        messages.failed("\n".join(map(str, problems)))
    else:
        st.success("Undamaged: every file has the SHA-256 in its manifest.", icon=":material/check_circle:")
    st.button(
        "Check every file",
        icon=":material/verified:",
        on_click=check,
        help="Reads all of it; large caches take minutes",
    )


def check() -> None:
    """Read every file."""
    with st.spinner("Reading every file …"):
        st.session_state[CHECKED] = verify(store.folder)


def show_fit() -> bool:
    """Whether the fingerprints of cache and model are the same."""
    try:
        with st.spinner(resources.LOADING):
            found = compared(store.manifest.fingerprint, resources.model().fingerprint)
    except ExplorerError as problem:
        messages.failed(str(problem))
        return False
    fits = all(part.same for part in found)
    if fits:
        st.success("Matches the model: it was made with the model that is loaded.", icon=":material/check_circle:")
    else:
        differing = ", ".join(part.what for part in found if not part.same)
        st.error(f"Does not match the model: it was made with another {differing}.", icon=":material/error:")
    with st.expander("Fingerprints of cache and model", expanded=not fits):
        st.dataframe(
            {
                "what": [part.what for part in found],
                "agrees": ["yes" if part.same else "no" for part in found],
                "the cache’s": [one_line(part.cache, 48) for part in found],
                "the model’s": [one_line(part.model, 48) for part in found],
            },
            hide_index=True,
        )
    return fits


def show_measuring() -> None:
    """How true the sketches are and how long questions take, when asked."""
    st.button(
        "Measure",
        icon=":material/speed:",
        on_click=begin_measuring,
        help=f"Answers the prompts of {QUESTIONS} training rows anew and sets the sketches' scores beside exact ones "
        f"of {EXAMPLES} examples each: some seconds with the demo, minutes with large models",
    )
    polling.follow("measured", show_measured, measuring)


def begin_measuring() -> None:
    """Begin, unless the model is busy with too much."""
    try:
        st.session_state[MEASURED] = resources.desk().measure(state.session())
    except ExplorerError as problem:
        st.session_state[MEASURED] = str(problem)


def measuring() -> bool:
    """Whether it is on its way."""
    finding = st.session_state.get(MEASURED)
    return isinstance(finding, Finding) and not finding.task.finished


def show_measured() -> None:
    """What was measured, as far as it has come."""
    finding = st.session_state.get(MEASURED)
    if finding is None:
        st.text("The error of the sketches and the times depend on data, model and machine, so they are measured here.")
        return
    if isinstance(finding, str) or finding.task.error:
        messages.failed(finding if isinstance(finding, str) else str(finding.task.error))
        return
    found, wanted = finding.found, total(store.manifest.rows)
    done = found.compared if found else 0
    if not finding.task.finished:
        bar, button = st.columns([3, 1], vertical_alignment="center")
        bar.progress(done / wanted, f"{done} of {wanted} exact scores")
        button.button("Cancel", icon=":material/stop:", on_click=finding.task.cancel, key="measuring_cancel")
    elif finding.task.cancelled:
        st.text(f"Cancelled after {done} of {wanted} exact scores.")
    elif found is None or not done:
        st.text("None of the training prompts that were tried could be answered.")
    else:
        listed(found.facts())
        st.caption(
            f"Over {done} scores, by the prompts of {len(found.exact)} training rows; times are medians. An error "
            "of 1.0 matches the ± shown on other pages. Other lengths and formats: `python -m benchmarks.fidelity`."
        )


st.markdown("### The cache")
with st.container(key="cache_state"):
    fits = show_status()
    if fits:
        with st.expander("Accuracy and speed on this machine", expanded=MEASURED in st.session_state):
            show_measuring()
    with st.expander("Disk and memory"):
        show_use()
with st.expander("What it holds and how it was made"):
    listed(cache_report(store))
