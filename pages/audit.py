"""Many prompts at once: their answers, what influenced each, and what it comes to."""

from functools import partial

import streamlit as st

from explorer.app.audits import behaviour_panel
from explorer.app.desk.work import Auditing
from explorer.app.explore import conversation, method_box
from explorer.app.saved import repairs
from explorer.app.session import caches, resources, state
from explorer.app.widgets import fields, messages, places, polling
from explorer.app.widgets.filter_box import plain
from explorer.app.widgets.paging import current_page, pager
from explorer.app.widgets.rows import Column, Marked, clickable_rows
from explorer.auditing import findings
from explorer.auditing.findings import Audited, Label
from explorer.auditing.run import EXACT_PASSES, AuditSettings
from explorer.errors import CacheError, ExplorerError
from explorer.methods.description import described
from explorer.model.generation import GenerationSettings
from explorer.records import Can, Chosen
from explorer.views import shortened
from explorer.visible import one_line

A_PAGE, PAGE = 50, "audit"
KEPT = (
    *("audit_text", "audit_tokens", "audit_exact", "audit_method", "audit_column", "audit_planted"),
    *("behaviour_of", "behaviour_against", "behaviour_word", "behaviour_trigger"),
)
"""How the keys of fields begin that outlive a visit to another page."""

with st.spinner(resources.LOADING):
    if resources.in_the_making():
        raise CacheError(resources.NEEDS_ALL)
    desk = resources.desk()
store = resources.store()


def show_form() -> None:
    """Where prompts come from and how they are answered."""
    pasted, file = st.columns(2, gap="large")
    with pasted:
        st.text_area(
            "Prompts, one a line",
            key="audit_text",
            height=160,
            placeholder="What is the capital of France?\nWrite a line about the sea.",
        )
    with file:
        st.file_uploader(
            "… or a file of prompts",
            [ending.lstrip(".") for ending in findings.ENDINGS],
            key="audit_file",
            help="A .txt file has one prompt a line; .jsonl and .csv files have a column named prompt, and may have "
            "one named system; in place of prompt, lines of .jsonl may have turns as messages. While a file is chosen, "
            "it is audited in place of the text",
        )
        longest, exact = st.columns(2, vertical_alignment="bottom")
        longest.number_input("Longest answer, in tokens", 1, 1000, key="audit_tokens")
        exact.toggle(
            "Exact scores",
            key="audit_exact",
            disabled=not described(st.session_state.get("audit_method", "")).token_values,
            help=f"Without the error of the random projection: up to {2 * EXACT_PASSES} passes over training examples "
            "for each answer, usually several times as long as the answer itself.",
        )
        method_box.method_field(desk, "audit_method")
        conversation.system_field(PAGE)
    with st.container(horizontal=True):
        st.button(
            "Audit",
            type="primary",
            icon=":material/play_arrow:",
            on_click=begin,
            key="audit_begin",
            help="Ends an audit that is still running; what it has done stays in the history",
        )
        if resources.ready_prompts():
            st.button(
                "Fill in the ready prompts",
                icon=":material/science:",
                on_click=fill_in,
                key="audit_example",
                help="Those that the Explore page offers",
            )


def fill_in() -> None:
    """Paste the ready prompts."""
    prompts = [prompt for _, prompt in resources.ready_prompts() if isinstance(prompt, str)]
    st.session_state["audit_text"] = "\n".join(prompts)


def begin() -> None:
    """Begin an audit of the file, or of the text where there is none."""
    file = st.session_state.get("audit_file")
    settings = AuditSettings(
        GenerationSettings(int(st.session_state["audit_tokens"])),
        bool(st.session_state["audit_exact"]),
        method=described(st.session_state["audit_method"]),
    )
    try:
        if file is not None:
            read = findings.read_prompts(file.name, file.getvalue())
            kinds = findings.read_kinds(file.name, file.getvalue())
        else:
            read, kinds = findings.pasted_prompts(st.session_state["audit_text"]), ()
        prompts = [conversation.asked(prompt, PAGE) for prompt in read]
        state.watch(desk.audit(state.session(), prompts, settings, resources.origin(), resources.history().save))
        st.session_state["audit_page"], st.session_state["audit_kinds"] = 1, kinds
    except ExplorerError as problem:
        st.session_state["audit_refused"] = str(problem)


def running() -> bool:
    """Whether an audit is on its way."""
    auditing = state.auditing()
    return auditing is not None and not auditing.task.finished


def show_audit() -> None:
    """How far the audit at hand is, and what it has found; reruns alone while it runs."""
    fields.remember("audit", KEPT)
    auditing = state.auditing()
    if auditing is None:
        st.info(
            "Give many prompts to see what influenced each answer, and how strong the evidence is. The audit "
            "runs in the background: you can use the other pages meanwhile.",
            icon=":material/fact_check:",
        )
        return
    done = list(auditing.done)
    show_progress(auditing, len(done))
    if done:
        show_found(auditing, done)


def show_progress(auditing: Auditing, done: int) -> None:
    """How far it is, how long it will take, and a way to end it; or what ended it."""
    total = len(auditing.prompts)
    if not auditing.task.finished:
        left = auditing.seconds_left
        said = "" if left is None else f", about {polling.duration(left)} left"
        bar, button = st.columns([6, 1], vertical_alignment="center")
        stage = auditing.stage
        busy = f" {stage.name}: {stage.done:,} of {stage.total:,}." if stage.total else ""
        told = f"{done:,} of {total:,} prompts{said}.{busy} Interactive questions have priority."
        bar.progress(done / total, plain(told))
        button.button("Cancel", icon=":material/stop:", on_click=auditing.task.cancel, key="audit_cancel")
    elif auditing.task.error:
        messages.failed(f"{auditing.task.error} The first {done:,} of {total:,} prompts are done.")
    elif auditing.task.cancelled and done < total:
        st.text(f"Cancelled after {done:,} of {total:,} prompts; what was done is kept.")


def show_found(auditing: Auditing, done: list[Audited]) -> None:
    """What it comes to, the table, and the files."""
    label = choose_label()
    found = findings.summary(done, label, store.examples)
    st.text(" ".join(findings.sentences(found, label)))
    conversation.hint("as System prompt", *(one.asked for one in done))
    st.caption(
        f"{scores_of(auditing.settings)} Answers take the most probable token each time; near-duplicates are counted "
        "one by one. Click a row to open its answer."
    )
    if unsaved := next((one.unsaved for one in done if one.unsaved), ""):
        st.warning("Some answers aren't kept in the history.", icon=":material/history_toggle_off:")
        st.text(unsaved)
    pages = -(-len(done) // A_PAGE)
    page = current_page("audit_page", pages)
    show_table(done[(page - 1) * A_PAGE : page * A_PAGE], label, auditing.settings.method)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pager("audit_page", pages)
        downloads(done, label)
    if found.shares:
        with st.expander("Average over all answers"):
            st.dataframe(
                {
                    one_line(label.column, 60): [one_line(value, 60) or "none" for value in found.shares],
                    f"share of the top {findings.TOP}": [100 * share for share in found.shares.values()],
                },
                key="audit_shares",
                hide_index=True,
                column_config={f"share of the top {findings.TOP}": st.column_config.NumberColumn(format="%.1f%%")},
            )

    repairs.show(store, caches.chosen(), label.column, label.planted)


def scores_of(settings: AuditSettings) -> str:
    """What the scores are, in a sentence or two of our own words."""
    if not settings.method.can(Can.FOUR_INFLUENCES):
        unusual = "How strong the evidence is, isn't known of this method."
        method = settings.method
        return plain(f"Scores of whole responses by {method.name}: {method.description.what}. {unusual}")
    kind = "exact" if settings.exact else "approximate (random projection)"
    return (
        "Asked about the marked word, which fine-tuning made likelier than any other, or else about the whole answer. "
        f"Scores are {kind}."
    )


def choose_label() -> Label:
    """By which column examples are counted, and which of its values are looked for."""
    labels = desk.corpus.labels
    if not labels:
        return Label()
    column, planted = st.columns([1, 3])
    names = list(labels)
    st.session_state.setdefault("audit_column", "source" if "source" in names else names[0])
    chosen = column.selectbox("Count examples by", names, key="audit_column")
    values = planted.multiselect(
        "Rows that count as planted",
        labels[chosen],
        key=f"audit_planted {chosen}",
        placeholder="Choose values to see their share of each answer's top ten",
    )
    return Label(chosen, tuple(values))


def show_table(done: list[Audited], label: Label, method: Chosen) -> None:
    """One line a prompt; a click opens its answer."""
    main = [one.main_source(label) for one in done]
    source = "main source" if method.by_gradients else f"first by {method.name}"
    columns = [
        Column("prompt", [one_line(one.asked.question, 120) for one in done]),
        Column("answer", [_answer(one) for one in done]),
        Column(source, [one_line(value, 60) for value, _, _ in main], "chip"),
        Column(f"of the top {findings.TOP}", [f"{count}/{of}" if of else "" for _, count, of in main], "number"),
    ]
    if label.planted:
        shares = [one.planted(label) for one in done]
        columns.append(Column("planted", ["" if share is None else f"{share:.0%}" for share in shares], "number"))
    if any(one.evidence for one in done):
        columns.append(Column("evidence", [one.evidence or "" for one in done], "state"))
    elif any(one.stands_out is not None for one in done):
        told = {None: "", True: "yes", False: "no"}
        columns.append(Column("stands out", [told[one.stands_out] for one in done], "short"))
    if any(one.error for one in done):
        columns.append(Column("problem", [one_line(one.error, 200) for one in done]))
    opened = clickable_rows("audit_table", columns, [one.saved.id if one.saved else "" for one in done])
    if opened:
        st.switch_page(places.HISTORY, query_params={places.SAVED: opened})


def _answer(one: Audited) -> str | Marked:
    """The answer, what was asked about marked and in sight."""
    before, inside, after = one.selected
    if not inside.strip():
        return one_line(before, 160)
    led, rest = one_line(before, 1000), one_line(after, 1000)
    # The middle is what matters; of what comes before it, the end.
    led = led if len(led) <= 80 else "…" + led[-79:]
    gap = " " if before[-1:].isspace() or inside[:1].isspace() else ""
    close = " " if inside[-1:].isspace() or after[:1].isspace() else ""
    return f"{led}{gap if led else ''}", one_line(inside, 60), f"{close}{shortened(rest, 80)}"


def downloads(done: list[Audited], label: Label) -> None:
    """Buttons that write what is done so far; nothing is written before one is pressed."""
    origin = resources.origin()
    as_csv, as_json = (
        partial(findings.to_csv, done, label, origin),
        partial(findings.to_json, done, label, store.examples, origin),
    )
    icon = ":material/download:"
    st.download_button("CSV", as_csv, "rapidin-audit.csv", "text/csv", key="audit_csv", icon=icon, on_click="ignore")
    st.download_button(
        "JSON", as_json, "rapidin-audit.json", "application/json", key="audit_json", icon=icon, on_click="ignore"
    )


fields.restore("audit")
st.session_state.setdefault("audit_tokens", GenerationSettings().max_tokens)
st.markdown("### Audit")
at_hand = state.auditing()
if at_hand is None:
    show_form()
else:
    # One line, once there is something to look at.
    with st.expander(f"Prompts: {len(at_hand.prompts):,} asked by {plain(at_hand.settings.method.name)}. Change"):
        show_form()
if refused := st.session_state.pop("audit_refused", ""):
    messages.failed(refused)
polling.follow("audit", show_audit, running)
if at_hand is not None and not running():
    label = Label(str(st.session_state.get("audit_column", "source")))
    behaviour_panel.show(desk, at_hand, st.session_state.get("audit_kinds", ()), label)
