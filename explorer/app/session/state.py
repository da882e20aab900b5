"""The keys of one browser session, each read and written here alone."""

import uuid
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar, cast

import streamlit as st

from explorer.app.desk.work import Asking, Auditing, Explaining
from explorer.app.session import caches
from explorer.records import Answer, Selection

Work = TypeVar("Work")

FIRST_COUNT = 10
"""Examples shown before anyone asks for more."""


def session() -> str:
    """This browser session's name."""
    return str(st.session_state.setdefault("session", uuid.uuid4().hex))


@dataclass(frozen=True)
class Study:
    """An answer that the session looks at, and what is selected of it: the Explore page's, or a side of Compare."""

    name: str = ""
    """Stands before its keys; the Explore page's have none."""

    @property
    def owner(self) -> str:
        """In whose name the worker computes for it: newer work of a name replaces older."""
        return f"{session()}/{self.name}" if self.name else session()

    def key(self, key: str) -> str:
        """One of its session keys."""
        return f"{self.name} {key}" if self.name else key

    def asking(self) -> Asking | None:
        """The answer asked for last."""
        return st.session_state.get(self.key("asking"))

    def answer(self) -> Answer | None:
        """The answer as far as it has come."""
        current = self.asking()
        return current.answer if current else None

    def begin(self, new: Asking | None, note: str = "") -> None:
        """Look at a new answer, of which nothing is selected; or at none. `note` is to be known of where it is from."""
        st.session_state[self.key("asking")] = new
        st.session_state[self.key("note")] = note
        for key in ("explaining", "example", "matrix", "given_up"):
            st.session_state[self.key(key)] = None
        for key in [key for key in st.session_state if str(key).startswith(self.key("work:"))]:
            del st.session_state[key]
        self.select(None)
        st.session_state[self.key("chosen")] = False

    def settle(self) -> None:
        """Select the word that fine-tuning raised most, once that is known, unless the person selected meanwhile."""
        current = self.asking()
        if current is not None and current.settled and not self.settled():
            self.select(current.raised)

    def settled(self) -> bool:
        """Whether what is selected stays until the person selects something else."""
        return bool(st.session_state.get(self.key("chosen")))

    def note(self) -> str:
        """What is to be known of where the answer is from; mostly nothing."""
        return str(st.session_state.get(self.key("note"), ""))

    def selection(self) -> Selection:
        """What is selected of the answer."""
        return st.session_state.get(self.key("selection"))

    def select(self, new: Selection) -> None:
        """Ask about something else of the same answer."""
        st.session_state[self.key("selection")] = new
        st.session_state[self.key("chosen")] = True
        st.session_state[self.key("more")] = {}
        st.session_state[self.key("card")] = None

    def begun(
        self, kind: str, subject: Hashable, start: Callable[[], Work], lost: Callable[[Work], bool] = lambda work: False
    ) -> Work:
        """The work of a kind on this subject, begun unless it already is; begun anew where it was `lost`."""
        key = self.key(f"work:{kind}")
        kept = st.session_state.get(key)
        if kept is None or kept[0] != subject or lost(kept[1]):
            kept = (subject, start())
            st.session_state[key] = kept
        return cast(Work, kept[1])


EXPLORE = Study()
asking, begin, answer, selection, select, begun = (
    EXPLORE.asking,
    EXPLORE.begin,
    EXPLORE.answer,
    EXPLORE.selection,
    EXPLORE.select,
    EXPLORE.begun,
)
"""Short for what the Explore page looks at."""


def first_seed() -> None:
    """Draw the next answer with the seed that is set, not one that follows it."""
    st.session_state["regenerated"] = None


def next_seed(seed: int) -> int:
    """The seed of another answer to the same prompt: one on from the last, and from `seed` once that is set anew.

    It can't be written into the field that sets it: a browser sends what it has until the field is drawn again.
    """
    since, times = st.session_state.get("regenerated") or (seed, 0)
    times = times + 1 if since == seed else 1
    st.session_state["regenerated"] = (seed, times)
    return int(seed + times) % 2**31


def example() -> int | None:
    """The training example by which the answer is coloured."""
    return st.session_state.get("example")


def count(opponents: bool, first: int = FIRST_COUNT) -> int:
    """How many proponents or opponents are shown: `first`, and as many again each time more were asked for."""
    return first * (1 + int(st.session_state.get("more", {}).get(opponents, 0)))


def show_more(opponents: bool) -> None:
    """Show more proponents or opponents."""
    more = dict(st.session_state.get("more", {}))
    st.session_state["more"] = more | {opponents: more.get(opponents, 0) + 1}


def explaining() -> Explaining | None:
    """The work behind the shown examples."""
    return st.session_state.get("explaining")


def explain(new: Explaining) -> None:
    """Remember the work behind the shown examples."""
    st.session_state["explaining"] = new


def give_up() -> None:
    """Drop what is on its way for what is selected of the answer; nothing of it is begun again before `go_on`."""
    if (current := asking()) is not None:
        current.give_up()
    if (work := explaining()) is not None:
        work.cancel()
    EXPLORE.settle()
    st.session_state["given_up"] = _looked_at()


def gave_up() -> bool:
    """Whether the person gave up on what is selected now."""
    return st.session_state.get("given_up") == _looked_at()


def go_on() -> None:
    """Begin again what the person gave up on."""
    st.session_state["given_up"] = None


def _looked_at() -> tuple[str, Selection] | None:
    current = answer()
    return (current.id, selection()) if current else None


def auditing() -> Auditing | None:
    """The audit of the chosen cache that was begun last."""
    return st.session_state.get(f"audit_of {caches.chosen()}")


def watch(new: Auditing) -> None:
    """Remember a new audit in the place of the last."""
    st.session_state[f"audit_of {caches.chosen()}"] = new
